//! Limits the channels of a connection: each channel that is open or requested takes a
//! place.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a connection.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Semaphore>);

/// The place of one channel; free again when it is dropped.
#[derive(Debug)]
pub struct Place(OwnedSemaphorePermit);

impl Places {
    /// Room for at most `channels` channels at once.
    pub(super) fn new(channels: usize) -> Self {
        Places(Arc::new(Semaphore::new(
            channels.min(Semaphore::MAX_PERMITS),
        )))
    }

    /// A place, if one is free.
    pub(super) fn take(&self) -> Option<Place> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(Place(permit))
    }
}

impl Place {
    /// Gives the place up for good: the client did not reply, and the channel still exists.
    pub(super) fn lose(self) {
        self.0.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_unless_it_is_lost() {
        let places = Places::new(2);
        let first = places.take().unwrap();
        let second = places.take().unwrap();
        assert!(places.take().is_none());
        drop(first);
        let first = places.take().unwrap();
        first.lose();
        drop(second);
        let _second = places.take().unwrap();
        assert!(places.take().is_none());
    }
}
