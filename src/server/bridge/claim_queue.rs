//! The claims of one client on the bridge that wait to be looked into.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::packet::guard::link::LinkAddress;

/// Claims that wait in the channel, and as many that were taken out of it.
const WAITING: usize = 4;

/// Claims in the order in which they were made.
#[derive(Debug)]
pub(in crate::server) struct ClaimQueue {
    asked: mpsc::Receiver<LinkAddress>,
    /// Older than all that is in the channel.
    waiting: VecDeque<LinkAddress>,
}

impl ClaimQueue {
    /// An empty one, and where claims are made.
    pub(in crate::server) fn new() -> (mpsc::Sender<LinkAddress>, Self) {
        let (wanted, asked) = mpsc::channel(WAITING);
        let waiting = VecDeque::with_capacity(WAITING);
        (wanted, ClaimQueue { asked, waiting })
    }

    /// The next claim; nothing once nobody can make any. None is lost if the
    /// future is dropped.
    pub(in crate::server) async fn next(&mut self) -> Option<LinkAddress> {
        match self.waiting.pop_front() {
            Some(address) => Some(address),
            None => self.asked.recv().await,
        }
    }

    /// Drops further claims to an address that is refused: frame by frame a client
    /// asks again for what it has no answer about yet.
    pub(in crate::server) fn drop_claims_to(&mut self, refused: LinkAddress) {
        self.waiting.retain(|waiting| *waiting != refused);
        for _ in self.waiting.len()..WAITING {
            let Ok(next) = self.asked.try_recv() else {
                return;
            };
            if next != refused {
                self.waiting.push_back(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::guard::link::MacAddress;

    fn station(last: u8) -> LinkAddress {
        LinkAddress::Station(MacAddress([2, 0, 0, 0, 0, last]))
    }

    #[tokio::test]
    async fn claims_to_what_is_refused_are_dropped_and_others_keep_their_order() {
        let (wanted, mut queue) = ClaimQueue::new();
        for last in [1, 2, 1, 3] {
            wanted.try_send(station(last)).unwrap();
        }
        assert_eq!(queue.next().await, Some(station(1)));
        queue.drop_claims_to(station(1));
        // There is room again, and what is asked for after that counts.
        for last in [1, 2, 1, 4] {
            wanted.try_send(station(last)).unwrap();
        }
        assert_eq!(queue.next().await, Some(station(2)));
        queue.drop_claims_to(station(2));
        drop(wanted);
        for last in [3, 1, 1, 4] {
            assert_eq!(queue.next().await, Some(station(last)));
        }
        assert_eq!(queue.next().await, None);
    }

    #[tokio::test]
    async fn no_more_is_taken_out_than_the_channel_holds() {
        let (wanted, mut queue) = ClaimQueue::new();
        for round in 0..3 {
            for last in 0..WAITING as u8 {
                // There is none left for the last ones.
                let _ = wanted.try_send(station(10 * round + last));
            }
            queue.drop_claims_to(station(99));
        }
        drop(wanted);
        for last in [0, 1, 2, 3, 10, 11, 12, 13] {
            assert_eq!(queue.next().await, Some(station(last)));
        }
        assert_eq!(queue.next().await, None);
    }
}
