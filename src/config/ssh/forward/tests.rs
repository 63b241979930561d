//! Each form of ssh(1) and ssh_config(5) is read as OpenSSH reads it.

use proptest::prelude::*;

use super::*;

fn port(bind: Option<&str>, port: u16) -> Listen {
    Listen::Port {
        bind: bind.map(str::to_owned),
        port,
    }
}

fn host(host: &str, port: u16) -> Option<Target> {
    Some(Target::Host {
        host: host.to_owned(),
        port,
    })
}

fn socket(path: &str) -> Option<Target> {
    Some(Target::Socket(path.into()))
}

#[track_caller]
fn reads(kind: Kind, text: &str, listen: Listen, target: Option<Target>) {
    let read = kind.parse(text).unwrap();
    assert_eq!(read, Forward { listen, target }, "{text}");
}

#[test]
fn local_forms() {
    let kind = Kind::Local;
    reads(kind, "8080:db:5432", port(None, 8080), host("db", 5432));
    reads(kind, "0:db:5432", port(None, 0), host("db", 5432));
    reads(kind, ":80:db:5432", port(Some(""), 80), host("db", 5432));
    reads(kind, "*:80:[::1]:22", port(Some("*"), 80), host("::1", 22));
    reads(
        kind,
        "[fe80::1%eth0]:1:h:2",
        port(Some("fe80::1%eth0"), 1),
        host("h", 2),
    );
    reads(kind, "80:/run/x", port(None, 80), socket("/run/x"));
    reads(
        kind,
        "10.0.0.1:80:/run/x",
        port(Some("10.0.0.1"), 80),
        socket("/run/x"),
    );
    reads(kind, "/a:h:2", Listen::Socket("/a".into()), host("h", 2));
    reads(kind, "/a:/b", Listen::Socket("/a".into()), socket("/b"));
    reads(
        kind,
        "[/a:1]:[/b]",
        Listen::Socket("/a:1".into()),
        socket("/b"),
    );
    reads(
        kind,
        "/a\\:1:/b",
        Listen::Socket("/a:1".into()),
        socket("/b"),
    );
}

#[test]
fn remote_and_dynamic_forms() {
    reads(Kind::Remote, "1080", port(None, 1080), None);
    reads(Kind::Remote, "0:h:1", port(None, 0), host("h", 1));
    reads(Kind::Remote, "[::]:1080", port(Some("::"), 1080), None);
    reads(
        Kind::Remote,
        "/run/socks",
        Listen::Socket("/run/socks".into()),
        None,
    );
    reads(Kind::Dynamic, "1080", port(None, 1080), None);
    reads(
        Kind::Dynamic,
        "localhost:1080",
        port(Some("localhost"), 1080),
        None,
    );
    reads(Kind::Dynamic, "[::1]:1080", port(Some("::1"), 1080), None);
}

#[test]
fn what_is_no_forward_is_refused() {
    let everywhere = [
        "",
        ":",
        "x",
        "80:",
        "80:h:",
        "80:h:0",
        "65536:h:1",
        "+1:h:1",
        "-1:h:1",
        "80:h:http",
        "a:80:h:1:2",
        "[::1:80:h:1",
        "[::1]x:80:h:1",
        "[80]:h:1",
        "80::1",
        "a b:1:h:1",
        "80:h/:1:2",
    ];
    for text in everywhere {
        assert!(Kind::Local.parse(text).is_err(), "{text}");
        assert!(Kind::Remote.parse(text).is_err(), "{text}");
        assert!(Kind::Dynamic.parse(text).is_err(), "{text}");
    }
    for text in ["8080", "localhost:8080", "/run/a"] {
        assert!(Kind::Local.parse(text).is_err(), "{text}");
    }
    for text in ["8080:h:1", "/run/socks", "1:/run/a"] {
        assert!(Kind::Dynamic.parse(text).is_err(), "{text}");
    }
    let long = format!("/{}:h:1", "a".repeat(MAX_PATH));
    assert!(Kind::Local.parse(&long).is_err());
}

#[test]
fn values_of_the_configuration() {
    let read = |kind: Kind, text: &str| kind.parse_value(text).unwrap();
    let local = Forward {
        listen: port(Some("127.0.0.1"), 80),
        target: host("db", 5432),
    };
    assert_eq!(read(Kind::Local, "127.0.0.1:80 db:5432"), local);
    // As `ssh -G` prints it.
    assert_eq!(read(Kind::Local, "[127.0.0.1]:80 [db]:5432"), local);
    let socks = Forward {
        listen: port(None, 1080),
        target: None,
    };
    for text in ["1080", "1080 0", "1080 [socks]:0"] {
        assert_eq!(read(Kind::Remote, text), socks, "{text}");
    }
    assert_eq!(read(Kind::Dynamic, "1080"), socks);
    assert!(Kind::Dynamic.parse_value("1080 h:1").is_err());
    assert!(Kind::Local.parse_value("80 h:1 more").is_err());
}

#[test]
fn places_of_a_single_connection() {
    let read = |text: &str| text.parse::<Target>().ok();
    assert_eq!(read("db:5432"), host("db", 5432));
    assert_eq!(read("[::1]:22"), host("::1", 22));
    assert_eq!(read("db"), None);
    assert_eq!(read("db:0"), None);
}

proptest! {
    #[test]
    fn no_text_panics_and_each_forward_reads_back(text in "[\\[\\]:/\\\\a-c0-9*. ]{0,24}") {
        for kind in [Kind::Local, Kind::Remote, Kind::Dynamic] {
            if let Ok(Forward { listen, target: Some(target) }) = kind.parse(&text)
                && !text.contains(['\\', '['])
            {
                let again = kind.parse(&format!("{listen}:{target}")).unwrap();
                prop_assert_eq!(again, Forward { listen, target: Some(target) });
            }
        }
    }
}
