//! A stream whose other end answers pings, or not yet.

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
        framing,
        &device,
        &sink,
        nothing,
        Some(pongs),
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
