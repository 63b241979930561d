//! The queue between the device and a slower channel: bounded, and fair between flows, so
//! that a bulk transfer delays only itself.
//!
//! Flows take turns by deficit round robin, sparse ones first (RFC 8290); CoDel keeps
//! each short. Packets may be far larger than a quantum: a flow that sent 64 KiB is in
//! debt, and is skipped until its quanta have paid for it.

use std::collections::VecDeque;
use std::time::Instant;

use super::codel::{Codel, Verdict};
use super::fifo::{Fifo, FifoSlab};
use super::settings::QueueSettings;
use crate::frame::waiting::Waiting;
use crate::packet::flow::FlowKey;

/// Buckets; flows whose keys collide share one.
const BUCKETS: u16 = 1024;

/// Packets that were dropped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDrops {
    /// The queue was full.
    pub overflow: u64,
    /// The packets of their flow waited too long (CoDel).
    pub delayed: u64,
}

/// The sizes of a packet, which must not change while it waits.
pub trait Packet {
    /// Its length in bytes, which is charged to its flow.
    fn length(&self) -> usize;
    /// The bytes of memory that it keeps allocated, which the queue bounds.
    fn memory(&self) -> usize;
}

impl Packet for Waiting {
    fn length(&self) -> usize {
        Waiting::length(self)
    }

    fn memory(&self) -> usize {
        Waiting::memory(self)
    }
}

/// A queue of packets `T`.
#[derive(Debug)]
pub struct FairQueue<T> {
    settings: QueueSettings,
    buckets: Box<[Bucket]>,
    packets: FifoSlab<Queued<T>>,
    /// Flows that have not used up their first quantum: served before `old_flows`.
    new_flows: VecDeque<u16>,
    /// Flows that have, and flows in debt without packets.
    old_flows: VecDeque<u16>,
    length: usize,
    bytes: usize,
    memory: usize,
    drops: QueueDrops,
}

#[derive(Debug)]
struct Queued<T> {
    since: Instant,
    item: T,
}

/// The flow, or flows, of one hash value.
#[derive(Debug, Default)]
struct Bucket {
    fifo: Fifo,
    length: usize,
    bytes: usize,
    memory: usize,
    /// Bytes left to send in this turn; negative is debt.
    deficit: i64,
    /// Whether it is in one of the two lists of flows.
    listed: bool,
    codel: Codel,
}

impl Bucket {
    fn unlist(&mut self) {
        self.listed = false;
        self.codel.emptied();
    }
}

impl<T: Packet> FairQueue<T> {
    /// An empty queue. It takes no memory before the first packet.
    pub fn new(settings: QueueSettings) -> Self {
        FairQueue {
            settings: QueueSettings {
                // So that one packet over the limit can be counted.
                max_memory: settings.max_memory.min(usize::MAX / 2),
                ..settings
            },
            buckets: Box::default(),
            packets: FifoSlab::new(),
            new_flows: VecDeque::new(),
            old_flows: VecDeque::new(),
            length: 0,
            bytes: 0,
            memory: 0,
            drops: QueueDrops::default(),
        }
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no packet waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The sum of the packets' lengths.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of memory that the packets keep allocated.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// The drops since the last call; `push` and `pop` may both drop.
    #[must_use = "drops are counted by name"]
    pub fn take_drops(&mut self) -> QueueDrops {
        std::mem::take(&mut self.drops)
    }

    /// Queues a packet that came at `now`. While the queue is too full, the largest flow
    /// loses its oldest packets; a packet that does not fit an empty queue is dropped
    /// itself.
    pub fn push(&mut self, flow: FlowKey, item: T, now: Instant) {
        let (length, memory) = (item.length(), item.memory());
        if memory > self.settings.max_memory {
            self.drops.overflow += 1;
            return;
        }
        if self.buckets.is_empty() {
            self.buckets = (0..BUCKETS).map(|_| Bucket::default()).collect();
        }
        let index = (flow.hash() % u64::from(BUCKETS)) as u16;
        let quantum = self.settings.quantum.get();
        let bucket = &mut self.buckets[usize::from(index)];
        if !bucket.listed {
            bucket.listed = true;
            bucket.deficit = quantum.into();
            // A flow that starts with more than a quantum is not sparse.
            if length <= quantum as usize {
                self.new_flows.push_back(index);
            } else {
                self.old_flows.push_back(index);
            }
        }
        let queued = Queued { since: now, item };
        self.packets.push_back(&mut bucket.fifo, queued);
        bucket.length += 1;
        bucket.bytes += length;
        bucket.memory += memory;
        self.length += 1;
        self.bytes += length;
        self.memory += memory;
        self.shrink();
    }

    /// The packet whose turn it is. `None` only when none waits; then debts are void
    /// too, since no other flow could gain by them.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        if self.is_empty() {
            self.forget_flows();
            return None;
        }
        while let Some(index) = self.next_turn() {
            if let Some(queued) = self.deliver(index, now) {
                let deficit = &mut self.buckets[usize::from(index)].deficit;
                let length = i64::try_from(queued.item.length()).unwrap_or(i64::MAX);
                *deficit = deficit.saturating_sub(length);
                return Some(queued.item);
            }
            self.finish(index);
        }
        None
    }

    /// Frees all memory and forgets the flows, if the queue is empty.
    pub fn rest(&mut self) {
        if self.is_empty() {
            let drops = self.drops;
            *self = FairQueue {
                drops,
                ..FairQueue::new(self.settings)
            };
        }
    }

    /// Drops until both bounds hold. Drops from the flow that is largest by the exceeded
    /// measure: otherwise a flood of tiny packets would displace large ones.
    fn shrink(&mut self) {
        while self.memory > self.settings.max_memory {
            self.drop_from_fattest(|bucket| bucket.memory);
        }
        while self.length > self.settings.max_packets {
            self.drop_from_fattest(|bucket| bucket.length);
        }
    }

    fn drop_from_fattest(&mut self, size: impl Fn(&Bucket) -> usize) {
        let fattest = (self.new_flows.iter().chain(&self.old_flows).copied())
            .max_by_key(|&index| size(&self.buckets[usize::from(index)]));
        if let Some(index) = fattest
            && self.take_front(index).is_some()
        {
            self.drops.overflow += 1;
        }
    }

    /// The first flow of the lists without debt; a flow in debt gets its quantum and goes
    /// to the end. If all are in debt, all get at once the turns that would pass before
    /// the first is served.
    fn next_turn(&mut self) -> Option<u16> {
        let quantum = i64::from(self.settings.quantum.get());
        let mut passed_over = 0;
        loop {
            let list = if self.new_flows.is_empty() {
                &mut self.old_flows
            } else {
                &mut self.new_flows
            };
            let index = *list.front()?;
            let bucket = &mut self.buckets[usize::from(index)];
            if bucket.deficit > 0 {
                return Some(index);
            }
            bucket.deficit += quantum;
            list.pop_front();
            self.old_flows.push_back(index);
            passed_over += 1;
            if passed_over == self.new_flows.len() + self.old_flows.len() {
                self.skip_turns(quantum);
            }
        }
    }

    /// Gives every flow the number of turns that leaves the one with the smallest debt
    /// still in debt.
    fn skip_turns(&mut self, quantum: i64) {
        let deficits = |index: &u16| self.buckets[usize::from(*index)].deficit;
        let richest = self.old_flows.iter().map(deficits).max().unwrap_or(0);
        let credit = richest.min(0).saturating_neg() / quantum * quantum;
        for index in &self.old_flows {
            self.buckets[usize::from(*index)].deficit += credit;
        }
    }

    /// Takes the flow's first packet that CoDel does not drop.
    fn deliver(&mut self, index: u16, now: Instant) -> Option<Queued<T>> {
        loop {
            let bucket = &mut self.buckets[usize::from(index)];
            let head = self.packets.front(&bucket.fifo)?;
            let sojourn = now.saturating_duration_since(head.since);
            let behind = bucket.bytes - head.item.length();
            let spare = behind > self.settings.quantum.get() as usize;
            let verdict = bucket
                .codel
                .judge(&self.settings.codel, now, sojourn, spare);
            let queued = self.take_front(index)?;
            match verdict {
                Verdict::Deliver => return Some(queued),
                Verdict::Drop => self.drops.delayed += 1,
            }
        }
    }

    fn take_front(&mut self, index: u16) -> Option<Queued<T>> {
        let bucket = &mut self.buckets[usize::from(index)];
        let queued = self.packets.pop_front(&mut bucket.fifo)?;
        let (length, memory) = (queued.item.length(), queued.item.memory());
        bucket.length -= 1;
        bucket.bytes -= length;
        bucket.memory -= memory;
        self.length -= 1;
        self.bytes -= length;
        self.memory -= memory;
        Some(queued)
    }

    /// Ends the turn of an empty flow. A new one goes through the old flows once;
    /// otherwise it could be new again with each packet and starve them (RFC 8290,
    /// section 4.2).
    fn finish(&mut self, index: u16) {
        if self.new_flows.front() == Some(&index) {
            self.new_flows.pop_front();
            if !self.old_flows.is_empty() {
                self.old_flows.push_back(index);
                return;
            }
        } else {
            self.old_flows.pop_front();
        }
        self.buckets[usize::from(index)].unlist();
    }

    fn forget_flows(&mut self) {
        for index in self.new_flows.drain(..).chain(self.old_flows.drain(..)) {
            self.buckets[usize::from(index)].unlist();
        }
    }
}

#[cfg(test)]
mod tests;
