//! Rates, against a clock of the test's own.

use std::collections::VecDeque;

use super::*;

/// A channel of messages of one length that never ends and always takes.
struct Endless {
    length: usize,
    sent: Mutex<Vec<(Instant, usize)>>,
}

impl Endless {
    fn new(length: usize) -> Self {
        Endless {
            length,
            sent: Mutex::default(),
        }
    }
}

impl FrameSource for Endless {
    async fn receive(&mut self) -> Option<Bytes> {
        Some(vec![0; self.length].into())
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        Some(vec![0; self.length].into())
    }
}

impl FrameSink for Endless {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        for frame in frames.drain(..) {
            self.sent
                .lock()
                .unwrap()
                .push((Instant::now(), frame.len()));
        }
        Ok(())
    }
}

fn limit(bytes_per_second: u64) -> (watch::Sender<Option<Rate>>, RateLimit) {
    let (sender, receiver) = watch::channel(Rate::new(bytes_per_second));
    (sender, RateLimit::new(receiver))
}

/// How long it takes to receive messages of at least `bytes` in all.
async fn receive(source: &mut Limited<Endless>, bytes: usize) -> Duration {
    let (start, mut received) = (Instant::now(), 0);
    while received < bytes {
        received += source.receive().await.unwrap().len();
        while let Some(more) = source.try_receive() {
            received += more.len();
        }
    }
    start.elapsed()
}

fn about(duration: Duration, seconds: f64) -> bool {
    (duration.as_secs_f64() - seconds).abs() <= 0.02 * seconds + 0.012
}

#[tokio::test(start_paused = true)]
async fn what_is_received_keeps_to_the_rate_whatever_the_messages_are() {
    for length in [1, 100, 1500, 64_000] {
        let (_held, limit) = limit(1_000_000);
        let mut source = Limited::new(Endless::new(length), limit);
        let took = receive(&mut source, 2_000_000).await;
        assert!(
            took.as_secs_f64() >= 1.92 && took.as_secs_f64() <= 2.0,
            "{length}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_keeps_to_the_rate_and_goes_in_small_turns() {
    let (_held, limit) = limit(1_000_000);
    let sink = Limited::new(Endless::new(0), limit);
    assert_eq!(sink.at_once(), 5000);
    let start = Instant::now();
    for _ in 0..400 {
        sink.send_all(&mut vec![vec![0; 1500].into(); 4])
            .await
            .unwrap();
    }
    assert!(about(start.elapsed(), 2.4), "{:?}", start.elapsed());
    let sent = sink.inner.sent.lock().unwrap();
    // No second has more than its share, and a burst.
    for (index, (from, _)) in sent.iter().enumerate() {
        let within = sent[index..].iter();
        let within = within.take_while(|(at, _)| *at < *from + Duration::from_secs(1));
        let bytes: usize = within.map(|(_, length)| length).sum();
        assert!(bytes <= 1_000_000 + 10_000 + 6000, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_share_a_limit_keep_to_it_together() {
    let (_held, limit) = limit(1_000_000);
    let mut one = Limited::new(Endless::new(1500), limit.clone());
    let mut other = Limited::new(Endless::new(32_000), limit);
    let start = Instant::now();
    tokio::join!(receive(&mut one, 500_000), receive(&mut other, 500_000));
    let took = start.elapsed().as_secs_f64();
    assert!((0.9..=1.05).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn one_super_packet_goes_at_any_rate_and_is_paid_for() {
    let (_held, limit) = limit(10_000);
    let sink = Limited::new(Endless::new(0), limit);
    let start = Instant::now();
    sink.send(vec![0; 65_000].into()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    sink.send(vec![0; 100].into()).await.unwrap();
    assert!(about(start.elapsed(), 6.5), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nothing_waits() {
    let (none, unlimited) = watch::channel(None);
    for limit in [RateLimit::NONE, RateLimit::new(unlimited)] {
        let mut source = Limited::new(Endless::new(64_000), limit);
        assert_eq!(source.at_once(), crate::pump::SEND_AT_ONCE);
        let start = Instant::now();
        for _ in 0..10_000 {
            assert!(source.receive().await.is_some() && source.try_receive().is_some());
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    drop(none);
}

#[tokio::test(start_paused = true)]
async fn a_new_limit_holds_at_once_also_for_those_who_wait() {
    let (changing, limit) = limit(1);
    let mut source = Limited::new(Endless::new(64_000), limit);
    assert!(source.receive().await.is_some());
    let start = Instant::now();
    let changed = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        changing.send(Rate::new(64_000)).unwrap();
    };
    let received = async {
        assert!(source.receive().await.is_some());
        start.elapsed()
    };
    let (received, ()) = tokio::join!(received, changed);
    assert!(about(received, 3.0), "{received:?}");
    let took = receive(&mut source, 128_000).await;
    assert!(about(took, 2.0), "{took:?}");
    // The last limit stays when nobody can change it any more.
    drop(changing);
    let took = receive(&mut source, 128_000).await;
    assert!(about(took, 2.0), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_earns_a_burst_and_no_more() {
    let (_held, limit) = limit(1_000_000);
    let mut source = Limited::new(Endless::new(1000), limit);
    receive(&mut source, 50_000).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let mut at_once = 0;
    while source.try_receive().is_some() {
        at_once += 1000;
    }
    assert!((10_000..=11_000).contains(&at_once), "{at_once}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_not_paid_for() {
    struct Refusing(Mutex<VecDeque<SendFailure>>);
    impl FrameSink for Refusing {
        async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
            let refusal = self.0.lock().unwrap().pop_front();
            match refusal {
                Some(failure) => Err(failure),
                None => {
                    frames.clear();
                    Ok(())
                }
            }
        }
    }
    let (_held, limit) = limit(1000);
    let refusing = Refusing(Mutex::new([SendFailure::TooLarge(9); 3].into()));
    let sink = Limited::new(refusing, limit);
    let mut frames = vec![Bytes::from(vec![0; 1000])];
    let start = Instant::now();
    for _ in 0..3 {
        let sent = sink.send_all(&mut frames).await;
        assert_eq!(sent, Err(SendFailure::TooLarge(9)));
    }
    sink.send_all(&mut frames).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[test]
fn impossible_rates_and_lengths_do_no_harm() {
    assert_eq!(Rate::new(0), None);
    let slow = Rate::new(1).unwrap();
    assert!(slow.time(usize::MAX) > Duration::from_secs(1 << 33));
    assert_eq!(slow.bytes_in(AT_ONCE), 1);
    let fast = Rate::new(u64::MAX).unwrap();
    assert_eq!(fast.time(1 << 20), Duration::ZERO);
    assert!(fast.bytes_in(Duration::MAX) == usize::MAX);
}
