//! The queue of one client's address claims on the bridge that wait for a check.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::packet::guard::link::LinkAddress;

/// Limit of the claims in the channel, and again of those taken out of it.
const WAITING: usize = 4;

/// Claims in the order of arrival.
#[derive(Debug)]
pub(in crate::server) struct ClaimQueue {
    asked: mpsc::Receiver<LinkAddress>,
    /// Older than all claims in the channel.
    waiting: VecDeque<LinkAddress>,
}

impl ClaimQueue {
    /// An empty queue, and the sender for new claims.
    pub(in crate::server) fn new() -> (mpsc::Sender<LinkAddress>, Self) {
        let (wanted, asked) = mpsc::channel(WAITING);
        let waiting = VecDeque::with_capacity(WAITING);
        (wanted, ClaimQueue { asked, waiting })
    }

    /// The next claim; `None` when all senders are gone. Dropping the future loses no claim.
    pub(in crate::server) async fn next(&mut self) -> Option<LinkAddress> {
        match self.waiting.pop_front() {
            Some(address) => Some(address),
            None => self.asked.recv().await,
        }
    }

    /// Drops queued claims to a refused address: a client repeats its claim with each frame
    /// until the answer arrives.
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
        // There is room again, and later claims count.
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
                // The queue has no room for the last ones.
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
