use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

/// A writer that does not block, and its reader.
fn pair() -> (UnixStream, UnixStream) {
    let (writer, reader) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    (writer, reader)
}

/// Bytes whose holders the strong count of the returned value shows.
fn watched(length: usize, fill: u8) -> (Bytes, Arc<Vec<u8>>) {
    struct Owner(Arc<Vec<u8>>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let memory = Arc::new(vec![fill; length]);
    (Bytes::from_owner(Owner(Arc::clone(&memory))), memory)
}

fn held(memory: &Arc<Vec<u8>>) -> bool {
    Arc::strong_count(memory) > 1
}

/// Writes all of `frames` while `reader` reads; yields what it read.
fn write_all(
    lender: &Lender,
    writer: &UnixStream,
    reader: &mut UnixStream,
    frames: &[Bytes],
) -> Vec<u8> {
    let mut got = Vec::new();
    for frame in frames {
        let mut rest = frame.clone();
        while !rest.is_empty() {
            match lender.write(writer, std::slice::from_ref(&rest)) {
                Ok(count) => drop(rest.split_to(count)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    read_some(reader, &mut got);
                }
            }
        }
    }
    while let Err(error) = lender.pass_on(writer) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        read_some(reader, &mut got);
    }
    got
}

fn read_some(reader: &mut UnixStream, got: &mut Vec<u8>) {
    let mut piece = [0; 10_000];
    let count = reader.read(&mut piece).unwrap();
    got.extend_from_slice(&piece[..count]);
}

#[test]
fn frames_of_all_sizes_arrive_in_order() {
    let (writer, mut reader) = pair();
    let lender = Lender::new().unwrap();
    let sizes = [1, 16_383, 16_384, 65_000, 7, 200_000, 16_384, 300_000, 9, 9];
    let frames: Vec<Bytes> = (0..200_usize)
        .map(|n| {
            (0..sizes[n % sizes.len()])
                .map(|at| (at * 7 + n) as u8)
                .collect()
        })
        .collect();
    let mut got = write_all(&lender, &writer, &mut reader, &frames);
    drop(writer);
    reader.read_to_end(&mut got).unwrap();
    assert!(got == frames.concat());
}

#[test]
fn a_frame_is_kept_until_all_of_it_was_read() {
    let (writer, mut reader) = pair();
    let lender = Lender::new().unwrap();
    let (frame, memory) = watched(50_000, 5);
    assert_eq!(lender.write(&writer, &[frame]).unwrap(), 50_000);
    let small = [Bytes::from_static(b"small")];
    lender.write(&writer, &small).unwrap();
    assert!(held(&memory));
    reader.read_exact(&mut [0; 49_999]).unwrap();
    lender.write(&writer, &small).unwrap();
    assert!(held(&memory));
    reader.read_exact(&mut [0; 11]).unwrap();
    lender.write(&writer, &small).unwrap();
    assert!(!held(&memory));
}

#[test]
fn a_kernel_is_known_by_its_release() {
    for (release, lends) in [
        ("6.18.44-fc", true),
        ("6.13", true),
        ("7.0-rc1", true),
        ("6.12.48+deb13-amd64", false),
        ("6.1.0-40-amd64", false),
        ("5.15.0", false),
        ("six", false),
        ("6.x", false),
    ] {
        assert_eq!(version(release) >= Some(SINCE), lends, "{release}");
    }
    assert!(version(&uname().unwrap().release().to_string_lossy()).is_some());
}

#[test]
fn small_frames_are_not_kept() {
    let (writer, _reader) = pair();
    let lender = Lender::new().unwrap();
    let (frame, memory) = watched(WORTH_IT - 1, 5);
    lender.write(&writer, &[frame]).unwrap();
    assert!(!held(&memory));
}

#[test]
fn what_is_unread_at_the_end_stays_as_it_was() {
    let (writer, mut reader) = pair();
    let lender = Lender::new().unwrap();
    let (frame, memory) = watched(50_000, 5);
    lender.write(&writer, &[frame]).unwrap();
    drop((lender, writer));
    assert!(held(&memory));
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert!(got == *memory);
}

#[test]
fn what_the_pipe_still_holds_comes_first() {
    let (writer, mut reader) = pair();
    let lender = Lender::new().unwrap();
    let large = Bytes::from(vec![1; 60_000]);
    // Fills the socket until a frame stays in the pipe; then the sender is dropped.
    let mut taken = 0;
    loop {
        match lender.write(&writer, std::slice::from_ref(&large)) {
            Ok(count) => taken += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(lender.state().in_pipe > 0);
    let next = [Bytes::from_static(b"next")];
    let mut got = write_all(&lender, &writer, &mut reader, &next);
    drop(writer);
    reader.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), taken + 4);
    assert!(got[..taken].iter().all(|byte| *byte == 1));
    assert!(got.ends_with(b"next"));
}

#[test]
fn where_pages_cannot_be_lent_they_are_copied() {
    let (writer, mut reader) = pair();
    let lender = Lender::new().unwrap();
    // What is no pipe takes no pages.
    lender.state().pipe.1 = File::options()
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into();
    let (frame, memory) = watched(50_000, 5);
    let mut got = write_all(&lender, &writer, &mut reader, &[frame]);
    assert!(!held(&memory));
    drop(writer);
    reader.read_to_end(&mut got).unwrap();
    assert!(got == *memory);
}

#[test]
fn a_reader_that_is_gone_is_told() {
    let (writer, reader) = pair();
    let lender = Lender::new().unwrap();
    drop(reader);
    for frame in [Bytes::from(vec![1; 60_000]), Bytes::from_static(b"small")] {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            // A process that another test is starting may hold it for a moment.
            match lender.write(&writer, std::slice::from_ref(&frame)) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                _ => assert!(Instant::now() < deadline),
            }
        }
    }
}

#[test]
fn nothing_is_lent_where_a_trial_fails() {
    let (writer, mut reader) = pair();
    let state = || State::new().unwrap();
    assert!(state().try_out(&writer, &mut reader).is_ok());

    // Pages can be lent to the pipe, but a descriptor in append mode takes no splice
    // (splice(2)).
    let path = std::env::temp_dir().join(format!("sshvpn-lending-{}", std::process::id()));
    let mut options = File::options();
    let file = options.append(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let refused = state().try_out(&file, &mut reader).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);

    // It arrives, but a pipe has no count of the bytes that were read.
    let (mut end, pipe) = std::io::pipe().unwrap();
    let unknown = state().try_out(&pipe, &mut end).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unsupported);

    // Something else arrives.
    let mut other: &[u8] = &[0; WORTH_IT];
    let wrong = state().try_out(&writer, &mut other).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Unsupported);
}
