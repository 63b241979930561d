//! Fairness, order, bounds and drops of the queue, with a simulated clock.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const LARGEST: usize = 65_536;
const QUANTUM: usize = 1514;

/// Flows with different numbers below the number of buckets share none.
fn flow(number: u64) -> FlowKey {
    FlowKey::from_hash(number)
}

/// Settings with bounds that the test does not reach.
fn roomy() -> QueueSettings {
    QueueSettings {
        max_memory: usize::MAX,
        max_packets: usize::MAX,
        ..QueueSettings::default()
    }
}

/// A packet is its length and a value.
impl<T> Packet for (usize, T) {
    fn length(&self) -> usize {
        self.0
    }

    fn memory(&self) -> usize {
        self.0
    }
}

/// A queue whose items are (flow, number within the flow), at one moment.
struct Fixture {
    queue: FairQueue<(usize, (u64, u32))>,
    now: Instant,
    sent: std::collections::HashMap<u64, u32>,
}

impl Fixture {
    fn new(settings: QueueSettings) -> Self {
        Fixture {
            queue: FairQueue::new(settings),
            now: Instant::now(),
            sent: Default::default(),
        }
    }

    fn push(&mut self, number: u64, length: usize) {
        let next = self.sent.entry(number).or_default();
        self.queue
            .push(flow(number), (length, (number, *next)), self.now);
        *next += 1;
    }

    /// The flow and the length of the next packet.
    fn pop(&mut self) -> Option<(u64, usize)> {
        let (length, (number, _)) = self.queue.pop(self.now)?;
        Some((number, length))
    }

    /// The remaining packets, as (flow, number within the flow).
    fn drain(&mut self) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| self.queue.pop(self.now))
            .map(|(_, item)| item)
            .collect()
    }
}

#[test]
fn a_sparse_flow_waits_for_no_bulk() {
    let mut fixture = Fixture::new(roomy());
    for _ in 0..100 {
        fixture.push(1, LARGEST);
    }
    for round in 0..90 {
        assert_eq!(fixture.pop(), Some((1, LARGEST)), "round {round}");
        fixture.push(2, 100);
        assert_eq!(fixture.pop(), Some((2, 100)), "round {round}");
    }
}

#[test]
fn a_flow_that_starts_large_is_not_sparse() {
    let mut fixture = Fixture::new(roomy());
    fixture.push(1, LARGEST);
    fixture.push(2, QUANTUM + 1);
    fixture.push(3, QUANTUM);
    assert_eq!(fixture.pop(), Some((3, QUANTUM)));
    assert_eq!(fixture.pop(), Some((1, LARGEST)));
    assert_eq!(fixture.pop(), Some((2, QUANTUM + 1)));
}

#[test]
fn backlogged_flows_share_by_bytes_whatever_the_size_of_their_packets() {
    let sizes = [LARGEST, 1500, 40, 9000, 30_000];
    let mut fixture = Fixture::new(roomy());
    for (number, size) in (0..).zip(sizes) {
        for _ in 0..4_000_000 / size {
            fixture.push(number, size);
        }
    }
    let mut sent = [0_usize; 5];
    while sent.iter().sum::<usize>() < 15_000_000 {
        let (number, length) = fixture.pop().unwrap();
        sent[number as usize] += length;
        let spread = sent.iter().max().unwrap() - sent.iter().min().unwrap();
        assert!(spread <= LARGEST + 2 * QUANTUM, "{sent:?}");
    }
}

#[test]
fn many_flows_share_alike() {
    let flows = u64::from(BUCKETS);
    let mut fixture = Fixture::new(roomy());
    for _ in 0..20 {
        for number in 0..flows {
            fixture.push(number, 1000);
        }
    }
    let mut sent = vec![0_usize; usize::from(BUCKETS)];
    for _ in 0..10 * flows {
        sent[fixture.pop().unwrap().0 as usize] += 1;
    }
    assert!(sent.iter().all(|sent| (9..=11).contains(sent)), "{sent:?}");
}

/// A flow of small packets that is empty before each one.
#[test]
fn sparse_flows_without_end_do_not_starve_the_others() {
    let mut fixture = Fixture::new(roomy());
    for _ in 0..100 {
        fixture.push(1000, 1500);
    }
    let mut bulk = 0;
    for number in (0..500).cycle().take(5000) {
        fixture.push(number, 100);
        if fixture.pop().unwrap().1 == 1500 {
            bulk += 1;
        }
    }
    assert!(bulk >= 5, "{bulk}");
}

#[test]
fn debt_outlives_an_empty_flow_while_others_wait() {
    let mut fixture = Fixture::new(roomy());
    for _ in 0..200 {
        fixture.push(2, QUANTUM);
    }
    fixture.push(1, LARGEST);
    while fixture.pop() != Some((1, LARGEST)) {}
    fixture.push(1, 100);
    let mut before = 0;
    while fixture.pop() != Some((1, 100)) {
        before += QUANTUM;
    }
    assert!(
        (LARGEST - QUANTUM..LARGEST + 2 * QUANTUM).contains(&before),
        "{before}"
    );
}

#[test]
fn debt_is_void_once_nobody_waits() {
    let mut fixture = Fixture::new(roomy());
    fixture.push(1, LARGEST);
    assert_eq!(fixture.pop(), Some((1, LARGEST)));
    assert_eq!(fixture.pop(), None);
    fixture.push(1, 100);
    fixture.push(2, 100);
    assert_eq!(fixture.pop(), Some((1, 100)));
    assert_eq!(fixture.pop(), Some((2, 100)));
}

#[test]
fn the_fattest_flow_pays_with_its_oldest_packets() {
    let mut fixture = Fixture::new(QueueSettings {
        max_memory: 10_100,
        ..roomy()
    });
    for _ in 0..3 {
        fixture.push(1, 3000);
    }
    fixture.push(2, 900);
    assert_eq!(fixture.queue.take_drops(), QueueDrops::default());
    fixture.push(2, 3200);
    let drops = QueueDrops {
        overflow: 1,
        delayed: 0,
    };
    assert_eq!(fixture.queue.take_drops(), drops);
    assert_eq!(fixture.queue.take_drops(), QueueDrops::default());
    assert_eq!(fixture.queue.bytes(), 10_100);
    assert_eq!(fixture.queue.len(), 4);
    let mut left = fixture.drain();
    left.sort_unstable();
    assert_eq!(left, [(1, 1), (1, 2), (2, 0), (2, 1)]);
}

#[test]
fn a_packet_larger_than_the_queue_costs_nobody_else() {
    let mut fixture = Fixture::new(QueueSettings {
        max_memory: 1000,
        ..roomy()
    });
    fixture.push(1, 600);
    fixture.push(2, 1001);
    assert_eq!(fixture.queue.take_drops().overflow, 1);
    assert_eq!(fixture.drain(), [(1, 0)]);
}

#[test]
fn a_flood_of_tiny_packets_drives_out_itself() {
    let mut fixture = Fixture::new(QueueSettings {
        max_packets: 100,
        ..roomy()
    });
    for _ in 0..10 {
        fixture.push(1, LARGEST);
    }
    for _ in 0..1000 {
        fixture.push(2, 0);
    }
    assert_eq!(fixture.queue.take_drops().overflow, 910);
    assert_eq!(fixture.queue.bytes(), 10 * LARGEST);
    let left = fixture.drain();
    assert_eq!(left.iter().filter(|(number, _)| *number == 1).count(), 10);
    assert!(left.contains(&(2, 999)) && !left.contains(&(2, 909)));
}

#[test]
fn a_queue_without_room_takes_nothing() {
    let mut fixture = Fixture::new(QueueSettings {
        max_packets: 0,
        ..roomy()
    });
    fixture.push(1, 10);
    assert_eq!(fixture.queue.take_drops().overflow, 1);
    assert_eq!((fixture.queue.len(), fixture.queue.bytes()), (0, 0));
    assert_eq!(fixture.pop(), None);
}

#[test]
fn lengths_beyond_all_measure_are_counted_right() {
    let mut fixture = Fixture::new(roomy());
    let length = usize::MAX / 2;
    fixture.push(1, length);
    fixture.push(1, length);
    assert_eq!(fixture.queue.take_drops().overflow, 1);
    fixture.push(2, usize::MAX);
    assert_eq!(fixture.queue.take_drops().overflow, 1);
    assert_eq!(fixture.pop(), Some((1, length)));
    fixture.push(1, length);
    assert_eq!(fixture.pop(), Some((1, length)));
    assert_eq!(fixture.queue.bytes(), 0);
}

/// Two flows into a channel that takes 1500 bytes each ms: one sends four
/// times as much, one 200 bytes each 20 ms.
#[test]
fn codel_shortens_the_flow_that_is_too_fast_and_no_other() {
    let mut fixture = Fixture::new(roomy());
    for turn in 0..3000 {
        fixture.now += MS;
        for _ in 0..4 {
            fixture.push(1, 1500);
        }
        if turn % 20 == 10 {
            fixture.push(2, 200);
            assert_eq!(fixture.pop(), Some((2, 200)));
        }
        assert_eq!(fixture.pop(), Some((1, 1500)));
    }
    let drops = fixture.queue.take_drops();
    assert_eq!(drops.overflow, 0);
    // The control law alone: 100 ms, then closer by the square root.
    let expected = (2.9_f64 / 0.2).powi(2);
    assert!(
        (drops.delayed as f64 - expected).abs() < 0.2 * expected,
        "{drops:?}"
    );
    assert_eq!(fixture.queue.len() as u64, 3000 * 3 - drops.delayed);
}

#[test]
fn codel_leaves_the_last_packet_of_a_flow_however_late() {
    let mut fixture = Fixture::new(roomy());
    for number in 0..50 {
        for _ in 0..20 {
            fixture.push(number, LARGEST);
        }
    }
    let mut last = std::collections::HashMap::new();
    let mut delivered = 0;
    loop {
        fixture.now += MS * 500;
        let Some((_, (number, item))) = fixture.queue.pop(fixture.now) else {
            break;
        };
        last.insert(number, item);
        delivered += 1;
    }
    assert!(
        last.len() == 50 && last.values().all(|item| *item == 19),
        "{last:?}"
    );
    let drops = fixture.queue.take_drops();
    assert!(drops.delayed > 500, "{drops:?}");
    assert_eq!(delivered + drops.delayed, 1000);
}

/// Waits before a pause do not count after it.
#[test]
fn codel_starts_anew_after_a_flow_was_emptied_by_overflow() {
    let mut fixture = Fixture::new(QueueSettings {
        max_packets: 2,
        ..roomy()
    });
    fixture.push(1, 9000);
    fixture.push(1, 9000);
    fixture.now += MS * 30;
    assert_eq!(fixture.pop(), Some((1, 9000)), "late, for the first time");
    fixture.push(2, 100);
    fixture.push(3, 100);
    assert_eq!(fixture.queue.take_drops().overflow, 1);
    assert_eq!(fixture.drain(), [(2, 0), (3, 0)]);
    fixture.now += MS * 1000;
    fixture.push(1, 9000);
    fixture.push(1, 9000);
    fixture.now += MS * 30;
    assert_eq!(fixture.pop(), Some((1, 9000)));
    assert_eq!(fixture.queue.take_drops(), QueueDrops::default());
}

/// Deficit round robin by RFC 8290 section 4.2, turn by turn and without CoDel: the model
/// that the queue must equal.
#[derive(Default)]
struct Plain {
    flows: std::collections::HashMap<u64, (i64, VecDeque<(usize, u32)>)>,
    new: VecDeque<u64>,
    old: VecDeque<u64>,
}

impl Plain {
    fn push(&mut self, number: u64, length: usize, item: u32, quantum: i64) {
        let (deficit, fifo) = self.flows.entry(number).or_default();
        fifo.push_back((length, item));
        if !self.new.contains(&number) && !self.old.contains(&number) {
            *deficit = quantum;
            let list = if length as i64 > quantum {
                &mut self.old
            } else {
                &mut self.new
            };
            list.push_back(number);
        }
    }

    fn pop(&mut self, quantum: i64) -> Option<(usize, (u64, u32))> {
        if self.flows.values().all(|(_, fifo)| fifo.is_empty()) {
            self.new.clear();
            self.old.clear();
        }
        loop {
            let from_new = !self.new.is_empty();
            let list = if from_new {
                &mut self.new
            } else {
                &mut self.old
            };
            let number = list.pop_front()?;
            let (deficit, fifo) = self.flows.get_mut(&number).unwrap();
            if *deficit <= 0 {
                *deficit += quantum;
                self.old.push_back(number);
            } else if let Some((length, item)) = fifo.pop_front() {
                *deficit -= length as i64;
                let list = if from_new {
                    &mut self.new
                } else {
                    &mut self.old
                };
                list.push_front(number);
                return Some((length, (number, item)));
            } else if from_new && !self.old.is_empty() {
                self.old.push_back(number);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u64, usize),
    Pop,
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![0..200_usize, 1400..1600_usize, 0..=LARGEST];
    let step = prop_oneof![
        6 => (0..6_u64, length).prop_map(|(number, length)| Step::Push(number, length)),
        4 => Just(Step::Pop),
        1 => (0..150_u32).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn turns_are_those_of_plain_deficit_round_robin(
        steps in steps(),
        quantum in prop_oneof![Just(1514_u32), 1..3000_u32],
    ) {
        let settings = QueueSettings {
            quantum: NonZeroU32::new(quantum).unwrap(),
            ..roomy()
        };
        let mut fixture = Fixture::new(settings);
        let mut plain = Plain::default();
        for step in steps {
            match step {
                Step::Push(number, length) => {
                    let item = fixture.sent.get(&number).copied().unwrap_or_default();
                    plain.push(number, length, item, quantum.into());
                    fixture.push(number, length);
                }
                _ => prop_assert_eq!(
                    fixture.queue.pop(fixture.now),
                    plain.pop(quantum.into())
                ),
            }
        }
    }

    #[test]
    fn what_goes_in_comes_out_once_in_order_or_is_counted(
        steps in steps(),
        max_memory in prop_oneof![1..5000_usize, 100_000..2_000_000_usize],
        max_packets in 1..200_usize,
    ) {
        let settings = QueueSettings { max_memory, max_packets, ..QueueSettings::default() };
        let mut fixture = Fixture::new(settings);
        let mut lengths = std::collections::HashMap::new();
        let mut next = std::collections::HashMap::<u64, u32>::new();
        let (mut pushed, mut popped, mut dropped, mut most) = (0_u64, 0_u64, 0_u64, 0);
        let ends = std::iter::repeat_n(Step::Pop, 500);
        for step in steps.into_iter().chain(ends) {
            let before = fixture.queue.len();
            let delivered = matches!(step, Step::Pop);
            match step {
                Step::Push(number, length) => {
                    let item = fixture.sent.get(&number).copied().unwrap_or_default();
                    lengths.insert((number, item), length);
                    fixture.push(number, length);
                    pushed += 1;
                }
                Step::Pop => {
                    let got = fixture.queue.pop(fixture.now);
                    prop_assert_eq!(got.is_some(), before > 0, "a pop of what waits never fails");
                    if let Some((length, (number, item))) = got {
                        prop_assert_eq!(lengths.remove(&(number, item)), Some(length));
                        let next = next.entry(number).or_default();
                        prop_assert!(item >= *next, "order within the flow");
                        *next = item + 1;
                        popped += 1;
                    }
                }
                Step::Wait(time) => fixture.now += MS * time,
            }
            let drops = fixture.queue.take_drops();
            prop_assert!(drops.overflow == 0 || !delivered);
            prop_assert!(drops.delayed == 0 || delivered);
            dropped += drops.overflow + drops.delayed;
            prop_assert_eq!(pushed, popped + dropped + fixture.queue.len() as u64);
            prop_assert!(fixture.queue.bytes() <= max_memory);
            prop_assert!(fixture.queue.len() <= max_packets);
            most = most.max(before + 1);
            prop_assert!(fixture.queue.packets.capacity() <= most.min(max_packets + 1));
            let waiting: usize = fixture.queue.buckets.iter().map(|bucket| bucket.bytes).sum();
            prop_assert_eq!(waiting, fixture.queue.bytes());
        }
        prop_assert!(fixture.queue.is_empty());
        prop_assert_eq!(fixture.queue.bytes(), 0);
        prop_assert_eq!(lengths.len() as u64, dropped);
    }
}
