//! Counts the forwarded connections of one SSH connection, and bounds them.

use std::time::Duration;

use tokio::sync::watch;

/// Forwarded connections at a time: sshd ends a connection with more than 16,384 channels.
pub(super) const MAX_CONNECTIONS: usize = 16_000;

/// The number of open connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(watch::Sender<usize>);

/// The place of one connection, until it is dropped.
pub(super) struct Place(watch::Sender<usize>);

impl Room {
    /// A place for one more connection, unless there are too many.
    pub(super) fn enter(&self) -> Option<Place> {
        let entered = self.0.send_if_modified(|open| {
            let fits = *open < MAX_CONNECTIONS;
            *open += usize::from(fits);
            fits
        });
        entered.then(|| Place(self.0.clone()))
    }

    /// Waits until no connection is open. Others may open meanwhile.
    pub(super) async fn empty(&self) {
        // The sender is here.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Waits until no connection has been open for `time`.
    pub(super) async fn empty_for(&self, time: Duration) {
        let mut count = self.0.subscribe();
        loop {
            self.empty().await;
            let opened = count.wait_for(|open| *open > 0);
            if tokio::time::timeout(time, opened).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_last_connection_keeps_none_out() {
        let room = Room::default();
        let first = room.enter().unwrap();
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { room.empty().await }
        });
        tokio::task::yield_now().await;
        let second = room.enter().expect("the wait takes no place");
        drop(first);
        sleep(Duration::from_secs(60)).await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_begins_the_time_anew() {
        const TIME: Duration = Duration::from_secs(60);
        let room = Room::default();
        let start = Instant::now();
        let waiting = room.empty_for(TIME);
        let connection = async {
            sleep(TIME / 2).await;
            let place = room.enter();
            sleep(TIME).await;
            drop(place);
        };
        tokio::join!(waiting, connection);
        assert_eq!(start.elapsed(), TIME / 2 + TIME + TIME);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let room = Room::default();
        let places: Vec<_> = (0..MAX_CONNECTIONS).map(|_| room.enter()).collect();
        assert!(places.iter().all(Option::is_some) && room.enter().is_none());
        drop(places);
        assert!(room.enter().is_some());
    }
}
