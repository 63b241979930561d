//! Greetings whole and in pieces, and what is none.

use proptest::prelude::*;

use super::*;

fn host(host: &str, port: u16) -> Target {
    Target::Host {
        host: host.to_owned(),
        port,
    }
}

/// The steps of `bytes` that arrive in pieces of `size`, and the rest.
fn steps(bytes: &[u8], size: usize) -> (Vec<Step>, Vec<u8>) {
    let mut greeting = Greeting::default();
    let mut steps = Vec::new();
    let mut pieces = bytes.chunks(size);
    for piece in pieces.by_ref() {
        let mut step = greeting.take(piece);
        while let Step::Reply(_) = step {
            steps.push(step);
            step = greeting.again();
        }
        if step != Step::More {
            steps.push(step);
            break;
        }
    }
    let mut rest = greeting.rest();
    rest.extend(pieces.flatten());
    (steps, rest)
}

#[track_caller]
fn asks(bytes: &[u8], replies: usize, protocol: Protocol, target: &Target) {
    let whole = [bytes, b"more"].concat();
    for size in 1..=whole.len() {
        let (mut steps, rest) = steps(&whole, size);
        assert_eq!(steps.pop(), Some(Step::Request(protocol, target.clone())));
        assert_eq!((steps.len(), rest.as_slice()), (replies, &b"more"[..]));
    }
}

#[track_caller]
fn refuses(bytes: &[u8], reply: &[u8]) {
    for size in [1, bytes.len()] {
        match steps(bytes, size).0.pop() {
            Some(Step::Refuse { reply: said, .. }) => assert_eq!(said, reply),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_protocol_names_its_place() {
    asks(
        b"\x04\x01\x00\x50\x0a\x00\x00\x01me\0",
        0,
        Protocol::Socks4,
        &host("10.0.0.1", 80),
    );
    asks(
        b"\x04\x01\x00\x50\x00\x00\x00\x01\0db.lab\0",
        0,
        Protocol::Socks4,
        &host("db.lab", 80),
    );
    let socks5 = |rest: &[u8]| [b"\x05\x02\x00\x02\x05\x01\x00", rest].concat();
    asks(
        &socks5(b"\x01\x7f\0\0\x01\x00\x16"),
        1,
        Protocol::Socks5,
        &host("127.0.0.1", 22),
    );
    asks(
        &socks5(b"\x03\x06db.lab\x15\x38"),
        1,
        Protocol::Socks5,
        &host("db.lab", 5432),
    );
    let six = [
        b"\x04".as_slice(),
        &Ipv6Addr::LOCALHOST.octets(),
        b"\x00\x16",
    ]
    .concat();
    asks(&socks5(&six), 1, Protocol::Socks5, &host("::1", 22));
    asks(
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        0,
        Protocol::Http,
        &host("::1", 443),
    );
}

#[test]
fn other_requests_get_the_refusal_of_their_protocol() {
    refuses(
        b"\x04\x02\x00\x50\x0a\x00\x00\x01\0",
        &[0, 91, 0, 0, 0, 0, 0, 0],
    );
    refuses(b"\x05\x01\x02", &[5, 0xff]);
    let udp = b"\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0";
    refuses(udp, &socks5_reply(7));
    refuses(b"\x05\x01\x00\x05\x01\x00\x09", &socks5_reply(8));
    refuses(
        b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50",
        &socks5_reply(1),
    );
    refuses(
        b"GET / HTTP/1.1\r\n\r\n",
        &http_reply("405 Method Not Allowed\r\nAllow: CONNECT"),
    );
    refuses(
        b"CONNECT db HTTP/1.1\r\n\r\n",
        &http_reply("400 Bad Request"),
    );
    refuses(
        b"SSH-2.0-x\r\n\r\n",
        &http_reply("405 Method Not Allowed\r\nAllow: CONNECT"),
    );
    refuses(b"\x16\x03\x01", &[]);
}

#[test]
fn a_greeting_without_end_is_refused() {
    let mut greeting = Greeting::default();
    assert_eq!(greeting.take(b"CONNECT "), Step::More);
    assert_eq!(greeting.take(&[b'a'; MAX_GREETING - 8]), Step::More);
    assert!(matches!(greeting.take(b"a"), Step::Refuse { .. }));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_pieces_change_nothing(
        start in prop_oneof![Just(vec![4u8, 1]), Just(vec![5, 1, 0, 5, 1, 0]), Just(b"CONNECT ".to_vec()), Just(vec![])],
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        size in 1usize..9,
    ) {
        let all = [start, bytes].concat();
        prop_assume!(!all.is_empty());
        let whole = steps(&all, all.len());
        prop_assert_eq!(steps(&all, size).0, whole.0);
    }
}
