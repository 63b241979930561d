//! Frames come out of a stream unchanged, however it was cut.

use proptest::prelude::*;

use super::*;
use crate::packet::test_packets::udp;

fn framed(mode: Mode, header: [u8; VIRTIO_HEADER_LEN], packet: &[u8]) -> Bytes {
    encode(mode, Waiting::new(&header, [packet]))
        .unwrap()
        .freeze()
}

fn joined(pieces: &[Bytes]) -> Vec<u8> {
    pieces.iter().flatten().copied().collect()
}

fn read_all(mode: Mode, chunks: impl IntoIterator<Item = Bytes>) -> Vec<StreamFrame> {
    let mut reader = StreamReader::new(mode);
    let mut frames = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        while let Some(frame) = reader.next_frame().unwrap() {
            frames.push(frame);
        }
    }
    assert_eq!(reader.held(), 0);
    frames
}

const PLAIN: [u8; VIRTIO_HEADER_LEN] = [0; VIRTIO_HEADER_LEN];
const OPEN: [u8; VIRTIO_HEADER_LEN] = [1, 0, 0, 0, 0, 0, 20, 0, 6, 0];

#[test]
fn a_plain_packet_has_eight_bytes_in_front() {
    let packet = udp(IpVersion::V4, 10);
    let frame = framed(Mode::PointToPoint, PLAIN, &packet);
    let length = u8::try_from(packet.len() + 4).unwrap();
    assert_eq!(frame[..8], [0, 0, 0, length, 0, 0, 0, 2]);
    assert_eq!(frame[8..], packet);
}

#[test]
fn an_offload_header_is_told_by_the_family() {
    let packet = udp(IpVersion::V6, 10);
    let frame = framed(Mode::PointToPoint, OPEN, &packet);
    assert_eq!(frame[4..8], [0x80, 0, 0, 24]);
    assert_eq!(frame[8..18], OPEN);
    let frames = read_all(Mode::PointToPoint, [frame]);
    let [StreamFrame::Packet(read)] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(read.offload, Some(OPEN));
    assert_eq!(joined(&read.pieces), packet);
}

#[test]
fn ethernet_frames_and_packets_do_not_mix() {
    let frame = framed(Mode::Ethernet, PLAIN, &[7; 60]);
    let read = read_all(Mode::PointToPoint, [frame.clone()]);
    assert_eq!(read, [StreamFrame::Bad(FrameError::WrongFamily)]);
    let read = read_all(Mode::Ethernet, [frame]);
    assert!(matches!(&read[..], [StreamFrame::Packet(_)]));
}

#[test]
fn what_is_no_packet_is_not_encoded() {
    let encode = |mode, packet: &[u8]| encode(mode, Waiting::new(&PLAIN, [packet]));
    assert_eq!(
        encode(Mode::PointToPoint, &[]),
        Err(FrameError::WrongFamily)
    );
    assert_eq!(encode(Mode::Ethernet, &[0; 13]), Err(FrameError::TooShort));
    assert_eq!(
        encode(Mode::PointToPoint, &vec![0x45; MAX_PACKET + 1]),
        Err(FrameError::TooLong)
    );
}

#[test]
fn bad_frames_cost_themselves_alone() {
    let good = framed(Mode::PointToPoint, PLAIN, &udp(IpVersion::V4, 1));
    let mut stream = Vec::new();
    for bad in [
        &[0, 0, 0, 0][..],
        &[0, 0, 0, 3, 1, 2, 3],
        &[0, 0, 0, 4, 0, 0, 0, 9],
        // A truncated offload header.
        &[0, 0, 0, 5, 0x80, 0, 0, 2, 1],
    ] {
        stream.extend_from_slice(bad);
        stream.extend_from_slice(&good);
    }
    let mut long = vec![0; 4 + MAX_PACKET + 1];
    long[3] = 2;
    stream.extend_from_slice(&u32::try_from(long.len()).unwrap().to_be_bytes());
    stream.extend_from_slice(&long);
    stream.extend_from_slice(&good);
    let frames = read_all(Mode::PointToPoint, [Bytes::from(stream)]);
    let bad: Vec<_> = frames.iter().step_by(2).cloned().collect();
    use FrameError::{TooLong, TooShort, WrongFamily};
    let expected = [TooShort, TooShort, WrongFamily, TooShort, TooLong];
    assert_eq!(bad, expected.map(StreamFrame::Bad));
    let good = frames.iter().skip(1).step_by(2);
    assert_eq!(
        good.filter(|f| matches!(f, StreamFrame::Packet(_))).count(),
        5
    );
}

#[test]
fn a_length_beyond_reason_ends_the_stream() {
    let mut reader = StreamReader::new(Mode::PointToPoint);
    reader.push(Bytes::from_static(b"Welcome to bastion\n"));
    let length = u32::from_be_bytes(*b"Welc");
    assert_eq!(reader.next_frame(), Err(StreamError { length }));
}

#[test]
fn a_packet_in_many_pieces_is_joined() {
    let packet = udp(IpVersion::V4, 5000);
    assert!(packet.len() > MAX_CHUNKS);
    let frame = framed(Mode::PointToPoint, OPEN, &packet);
    let bytes = frame.iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
    let frames = read_all(Mode::PointToPoint, bytes);
    let [StreamFrame::Packet(read)] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert!(read.pieces.len() <= MAX_PIECES);
    assert!(read.pieces[0].len() >= CONTIGUOUS);
    assert_eq!(joined(&read.pieces), packet);
}

proptest! {
    #[test]
    fn frames_come_back_however_the_stream_is_cut(
        lengths in proptest::collection::vec((0_usize..3000, any::<bool>()), 1..20),
        cuts in proptest::collection::vec(1_usize..2000, 1..100),
    ) {
        let mut stream = Vec::new();
        let mut packets = Vec::new();
        for (length, open) in lengths {
            let offload = if open { OPEN } else { PLAIN };
            let packet = udp(IpVersion::V6, length);
            stream.extend_from_slice(&framed(Mode::PointToPoint, offload, &packet));
            stream.extend_from_slice(&encode_control(&packet).unwrap());
            packets.push((open.then_some(OPEN), packet));
        }
        let mut whole = Bytes::from(stream);
        let mut chunks = Vec::new();
        for cut in cuts.iter().cycle() {
            if whole.is_empty() {
                break;
            }
            chunks.push(whole.split_to((*cut).min(whole.len())));
        }
        let frames = read_all(Mode::PointToPoint, chunks);
        prop_assert_eq!(frames.len(), 2 * packets.len());
        for ((offload, packet), pair) in packets.iter().zip(frames.chunks(2)) {
            let [StreamFrame::Packet(read), StreamFrame::Control(json)] = pair else {
                panic!("{pair:?}")
            };
            prop_assert_eq!(&read.offload, offload);
            prop_assert_eq!(&joined(&read.pieces), packet);
            prop_assert!(read.pieces[0].len() >= packet.len().min(CONTIGUOUS));
            prop_assert_eq!(json, packet);
        }
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 1_usize..50,
    ) {
        let mut reader = StreamReader::new(Mode::PointToPoint);
        'stream: for chunk in bytes.chunks(cut) {
            reader.push(Bytes::copy_from_slice(chunk));
            loop {
                match reader.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
    }
}
