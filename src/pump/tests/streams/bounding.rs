//! A peer that answers pings, or not yet, or never.

use tokio::sync::oneshot;

use super::*;
use crate::frame::control::Message;
use crate::frame::stream::StreamFrame;

/// A channel that takes everything at once and hands it on. The first ping, which
/// goes in front of everything, is answered at once.
struct Passing {
    on: mpsc::UnboundedSender<Bytes>,
    first: Mutex<Option<u64>>,
    answering: mpsc::Sender<Pong>,
}

fn pong(token: u64) -> Pong {
    let at = std::time::Instant::now();
    Pong { token, at }
}

impl FrameSink for Passing {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        if let Some(token) = self.first.lock().unwrap().take() {
            self.answering.try_send(pong(token)).unwrap();
        }
        for frame in frames.drain(..) {
            self.on.send(frame).map_err(|_| SendFailure::Closed)?;
        }
        Ok(())
    }
}

/// What comes out at the other end.
#[derive(Default)]
struct Arrived {
    packets: Vec<Vec<u8>>,
    tokens: Vec<u64>,
    bytes: usize,
}

impl Arrived {
    fn take(&mut self, reader: &mut StreamReader, chunk: Bytes) {
        self.bytes += chunk.len();
        reader.push(chunk);
        while let Some(frame) = reader.next_frame().unwrap() {
            match frame {
                StreamFrame::Packet(packet) => self.packets.push(packet.pieces.concat()),
                StreamFrame::Control(json) => match Message::from_json(&json) {
                    Ok(Message::Ping { token }) => self.tokens.push(token),
                    other => panic!("{other:?}"),
                },
                StreamFrame::Bad(error) => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn what_no_pong_has_made_room_for_waits_where_a_small_flow_overtakes_it() {
    let bulk = Template::new(IpVersion::V4, true);
    let (header, packet) = bulk.super_packet(&test_packets::payload(60_000), 1400);
    let small = udp(IpVersion::V6, 100);
    let mut reads = vec![Ok((header.to_bytes(), packet)); 200];
    reads.push(Ok((VirtioHeader::PLAIN.to_bytes(), small.clone())));
    let device = FakeDevice::yielding_offload(reads);
    let (answering, pongs) = mpsc::channel(64);
    let (on, mut arriving) = mpsc::unbounded_channel();
    let sink = Passing {
        on,
        first: Mutex::new(Some(1)),
        answering: answering.clone(),
    };
    let counters = Counters::default();
    let framing = Framing::Stream(Offload::ALL);
    let mode = Mode::PointToPoint;
    let (_, nothing) = mpsc::channel(1);
    let sending = outbound(
        mode,
        Framer::new(mode, framing),
        &device,
        &sink,
        nothing,
        Pings::InStream(pongs),
        &counters,
    );
    let other_end = async {
        while !device.reads.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let (mut reader, mut arrived) = (StreamReader::new(mode), Arrived::default());
        while let Ok(chunk) = arriving.try_recv() {
            arrived.take(&mut reader, chunk);
        }
        let (before, bytes) = (arrived.packets.len(), arrived.bytes);
        assert!(!arrived.packets.contains(&small));
        let last = *arrived.tokens.last().unwrap();
        answering.send(pong(last)).await.unwrap();
        while !arrived.packets.contains(&small) {
            arrived.take(&mut reader, arriving.recv().await.unwrap());
        }
        (arrived.packets.len() - before, bytes)
    };
    tokio::select! {
        biased;
        (behind, bytes) = other_end => {
            assert!(behind <= 2, "{behind}");
            assert!(bytes < 512 * 1024, "{bytes}");
        }
        _ = sending => panic!("it ended while something waited"),
    }
}

/// A channel that takes everything at once and keeps what is asked.
#[derive(Default)]
struct Asked {
    bytes: Mutex<usize>,
    packets: Mutex<Vec<Bytes>>,
    answers: Mutex<Vec<oneshot::Sender<()>>>,
    /// The first ping, which goes in front of everything, is answered at once.
    answers_first: bool,
}

impl FrameSink for Asked {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        *self.bytes.lock().unwrap() += frames.iter().map(Bytes::len).sum::<usize>();
        self.packets.lock().unwrap().append(frames);
        // Long enough for the device to be read to its end.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn ping(&self) -> Option<oneshot::Receiver<()>> {
        let (answering, answer) = oneshot::channel();
        let mut answers = self.answers.lock().unwrap();
        if self.answers_first && *self.bytes.lock().unwrap() == 0 {
            answering.send(()).unwrap();
        } else {
            answers.push(answering);
        }
        Some(answer)
    }
}

/// A device with `count` packets of 15 000 bytes, and behind them a small packet of
/// another flow, which is yielded as well.
fn bulk_and_small(count: usize) -> (FakeDevice, Vec<u8>) {
    let small = udp(IpVersion::V6, 100);
    let mut reads = vec![Ok(udp(IpVersion::V4, 15_000)); count];
    reads.push(Ok(small.clone()));
    (FakeDevice::yielding(reads), small)
}

async fn send_datagrams(device: &FakeDevice, sink: &Asked) -> End {
    let (_, nothing) = mpsc::channel(1);
    let (mode, counters) = (Mode::PointToPoint, Counters::default());
    let (framing, pings) = (Framing::Datagrams, Pings::OfChannel);
    outbound(
        mode,
        Framer::new(mode, framing),
        device,
        sink,
        nothing,
        pings,
        &counters,
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_answers_pings_is_bounded_as_well() {
    let (device, small) = bulk_and_small(60);
    let sink = Asked {
        answers_first: true,
        ..Asked::default()
    };
    let came = || {
        let packets = sink.packets.lock().unwrap();
        packets.iter().any(|frame| frame.ends_with(&small))
    };
    let other_end = async {
        while !device.reads.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let bytes = *sink.bytes.lock().unwrap();
        assert!(!came(), "it went in front of what was on its way");
        assert!(bytes < 512 * 1024, "{bytes}");
        while !came() {
            for answering in sink.answers.lock().unwrap().drain(..) {
                let _ = answering.send(());
            }
            tokio::task::yield_now().await;
        }
        *sink.bytes.lock().unwrap() - bytes
    };
    tokio::select! {
        biased;
        behind = other_end => assert!(behind < 256 * 1024, "{behind}"),
        _ = send_datagrams(&device, &sink) => panic!("it ended while something waited"),
    }
}

#[tokio::test]
async fn a_channel_that_answers_nothing_gets_everything_and_few_pings() {
    let (device, small) = bulk_and_small(60);
    let sink = Asked::default();
    let end = send_datagrams(&device, &sink).await;
    assert!(matches!(end, End::Device(_)), "{end:?}");
    let packets = sink.packets.lock().unwrap();
    assert!(packets.iter().any(|frame| frame.ends_with(&small)));
    let unanswered = sink.answers.lock().unwrap().len();
    assert!((1..=65).contains(&unanswered), "{unanswered}");
}
