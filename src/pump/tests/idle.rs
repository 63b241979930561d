//! What a link holds while nothing comes.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::*;
use crate::pump::filter::rate::{Limited, Rate, RateLimit};

/// A device that yields what it is given, and says how it is waited for.
#[derive(Default)]
struct Idle {
    packets: Mutex<VecDeque<Vec<u8>>>,
    given: Notify,
    /// Whether the one who waits holds a buffer.
    buffer_held: AtomicBool,
    declined: AtomicBool,
}

impl Idle {
    fn give(&self, packet: Vec<u8>) {
        let header = VirtioHeader::PLAIN.to_bytes();
        let read = [&header, &packet[..]].concat();
        self.packets.lock().unwrap().push_back(read);
        self.given.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.packets.lock().unwrap().is_empty()
    }
}

impl PacketSource for Idle {
    async fn read(&self, packet: &mut Waiting) -> io::Result<()> {
        loop {
            if self.try_read(packet)? {
                return Ok(());
            }
            self.buffer_held.store(true, Ordering::Relaxed);
            self.given.notified().await;
        }
    }

    fn try_read(&self, packet: &mut Waiting) -> io::Result<bool> {
        let next = self.packets.lock().unwrap().pop_front();
        if let Some(read) = &next {
            packet.space().extend_from_slice(read);
        }
        Ok(next.is_some())
    }

    async fn readable(&self) -> io::Result<()> {
        self.buffer_held.store(false, Ordering::Relaxed);
        while self.is_empty() {
            self.given.notified().await;
        }
        Ok(())
    }

    fn decline_offload(&self) {
        self.declined.store(true, Ordering::Relaxed);
    }
}

async fn run<C: FrameSink>(device: &Idle, sink: &C, script: impl Future<Output = ()>) {
    let (_open, nothing) = mpsc::channel(1);
    let counters = Counters::default();
    let mode = Mode::PointToPoint;
    tokio::select! {
        end = outbound(mode, Framer::new(mode, Framing::Datagrams), device, sink, nothing, Pings::None, &counters) => {
            panic!("{end:?}")
        }
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_link_waits_without_a_buffer() {
    let (device, sink) = (Idle::default(), sink());
    let packets = [10, 1400, 20, 30].map(|size| udp(IpVersion::V4, size));
    let held = || device.buffer_held.load(Ordering::Relaxed);
    run(&device, &sink, async {
        sleep(Duration::from_secs(1)).await;
        assert!(!held(), "before the first packet");
        device.give(packets[0].clone());
        device.give(packets[1].clone());
        sleep(Duration::from_secs(1)).await;
        assert!(held(), "others may follow soon");
        sleep(Duration::from_secs(5)).await;
        assert!(!held(), "after a quiet time");
        device.give(packets[2].clone());
        sleep(Duration::from_millis(1)).await;
        // Packets that keep coming keep the buffer.
        for _ in 0..20 {
            assert!(held());
            device.give(packets[3].clone());
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let sent = sink.sent.lock().unwrap();
    assert_eq!(sent.len(), 23);
    assert_eq!(
        sent[..3],
        [
            framed(&packets[0]),
            framed(&packets[1]),
            framed(&packets[2])
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_takes_no_super_packets_and_sends_little_at_once() {
    for (rate, slow) in [(125_000, true), (1_000_000_000, false)] {
        let (_held, rate) = watch::channel(Rate::new(rate));
        let (device, sink) = (Idle::default(), Limited::new(sink(), RateLimit::new(rate)));
        let start = Instant::now();
        run(&device, &sink, async {
            for _ in 0..100 {
                device.give(udp(IpVersion::V4, 1222));
            }
            while !device.is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
            // Behind what was queued, but ahead of it in its own flow's turn.
            device.give(udp(IpVersion::V6, 10));
            while !device.is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_secs(2)).await;
        })
        .await;
        assert_eq!(device.declined.load(Ordering::Relaxed), slow);
        assert!(start.elapsed() >= Duration::from_secs(2));
        let sent = sink.inner().sent.lock().unwrap();
        assert_eq!(sent.len(), 101);
        let place = sent.iter().position(|frame| frame[3] == 24).unwrap();
        assert!(place < 60 || !slow, "{place}");
    }
}
