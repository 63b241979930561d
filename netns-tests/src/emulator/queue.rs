//! A delay queue: each frame leaves a fixed time after it entered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Empty buffers kept for reuse, at most.
const SPARE: usize = 1024;

/// Frames in order of arrival, each with its due time.
pub struct DelayQueue {
    delay: Duration,
    room: usize,
    held: usize,
    frames: VecDeque<(Instant, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

impl DelayQueue {
    /// An empty queue with this delay, of at most `room` bytes.
    pub fn new(delay: Duration, room: usize) -> Self {
        Self {
            delay,
            room,
            held: 0,
            frames: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Adds a frame that arrived at `now`; false if it does not fit.
    pub fn push(&mut self, now: Instant, frame: &[u8]) -> bool {
        if frame.len() > self.room.saturating_sub(self.held) {
            return false;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(frame);
        self.held += buffer.len();
        self.frames.push_back((now + self.delay, buffer));
        true
    }

    /// The due time of the first frame.
    pub fn next(&self) -> Option<Instant> {
        self.frames.front().map(|(due, _)| *due)
    }

    /// The frames due at `now`, in order of arrival.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = &[u8]> {
        let due = self.frames.iter().take_while(move |(due, _)| *due <= now);
        due.map(|(_, frame)| frame.as_slice())
    }

    /// Removes the first `count` frames.
    pub fn remove(&mut self, count: usize) {
        for (_, frame) in self.frames.drain(..count.min(self.frames.len())) {
            self.held -= frame.len();
            if self.spare.len() < SPARE {
                self.spare.push(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(20);

    #[test]
    fn a_frame_is_due_after_the_delay_and_in_order() {
        let start = Instant::now();
        let mut queue = DelayQueue::new(DELAY, 1000);
        assert_eq!(queue.next(), None);
        assert!(queue.push(start, b"one"));
        assert!(queue.push(start + DELAY / 2, b"two"));
        assert_eq!(queue.next(), Some(start + DELAY));
        let early = start + DELAY - Duration::from_nanos(1);
        assert_eq!(queue.due(early).count(), 0);
        assert!(queue.due(start + DELAY).eq([b"one"]));
        assert!(queue.due(start + 2 * DELAY).eq([b"one", b"two"]));
        queue.remove(1);
        assert!(queue.due(start + 2 * DELAY).eq([b"two"]));
    }

    #[test]
    fn what_has_no_room_is_refused_until_there_is() {
        let start = Instant::now();
        let mut queue = DelayQueue::new(DELAY, 10);
        assert!(queue.push(start, &[1; 6]));
        assert!(!queue.push(start, &[2; 5]));
        assert!(queue.push(start, &[3; 4]));
        assert!(!queue.push(start, &[4; 1]));
        queue.remove(1);
        assert!(queue.push(start, &[5; 6]));
        assert!(queue.due(start + DELAY).eq([&[3; 4][..], &[5; 6]]));
        queue.remove(99);
        assert_eq!(queue.next(), None);
        assert!(queue.push(start, &[6; 10]));
    }
}
