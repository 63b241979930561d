//! Limits the channels of a connection: each channel that is open or requested takes a
//! slot.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of a connection.
#[derive(Debug, Clone)]
pub(super) struct ChannelSlots(Arc<Semaphore>);

/// The slot of one channel; free again when it is dropped.
#[derive(Debug)]
pub struct ChannelSlot(OwnedSemaphorePermit);

impl ChannelSlots {
    /// Room for at most `channels` channels at once.
    pub(super) fn new(channels: usize) -> Self {
        ChannelSlots(Arc::new(Semaphore::new(
            channels.min(Semaphore::MAX_PERMITS),
        )))
    }

    /// A slot, if one is free.
    pub(super) fn take(&self) -> Option<ChannelSlot> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(ChannelSlot(permit))
    }
}

impl ChannelSlot {
    /// Gives the slot up for good: the client did not reply, and the channel still exists.
    pub(super) fn lose(self) {
        self.0.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_unless_it_is_lost() {
        let slots = ChannelSlots::new(2);
        let first = slots.take().unwrap();
        let second = slots.take().unwrap();
        assert!(slots.take().is_none());
        drop(first);
        let first = slots.take().unwrap();
        first.lose();
        drop(second);
        let _second = slots.take().unwrap();
        assert!(slots.take().is_none());
    }
}
