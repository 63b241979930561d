//! Tests that added entries are removed again and the other text stays unchanged.

use super::*;
use proptest::prelude::*;

fn name_servers(servers: &[&str], domains: &[&str]) -> NameServers {
    NameServers {
        servers: servers
            .iter()
            .map(|server| server.parse().unwrap())
            .collect(),
        domains: domains
            .iter()
            .map(|domain| domain.parse().unwrap())
            .collect(),
    }
}

fn holder(interface: &str, name_servers: NameServers) -> Holder {
    Holder {
        interface: interface.to_owned(),
        namespace: 7,
        boot: "a".to_owned(),
        name_servers,
    }
}

fn marked(rest: &[u8], holders: Vec<Holder>) -> Marked {
    Marked {
        before: Before::File,
        holders,
        rest: rest.to_vec(),
    }
}

/// The lines that a resolver reads.
fn read_lines(marked: &Marked) -> Vec<String> {
    let text = String::from_utf8(marked.render().unwrap()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_last_tunnel_is_asked_first_and_all_domains_are_searched() {
    let before =
        b"domain old.lan\nsearch home.lan corp.example\nnameserver 192.0.2.53\noptions edns0";
    let one = holder(
        "sshvpn0",
        name_servers(&["10.1.0.1", "10.3.0.1"], &["corp.example"]),
    );
    let two = holder(
        "sshvpn1",
        name_servers(&["10.2.0.1", "10.3.0.1"], &["lab.example"]),
    );
    let lines = read_lines(&marked(before, vec![one, two]));
    assert_eq!(
        lines,
        [
            "nameserver 10.2.0.1",
            "nameserver 10.3.0.1",
            "nameserver 10.1.0.1",
            "domain old.lan",
            "search home.lan corp.example",
            "nameserver 192.0.2.53",
            "options edns0",
            "search lab.example corp.example home.lan",
        ]
    );
}

#[test]
fn without_domains_the_search_stays_as_it_was() {
    let one = holder("sshvpn0", name_servers(&["fd00::1"], &[]));
    let lines = read_lines(&marked(b"search home.lan\n", vec![one]));
    assert_eq!(lines, ["nameserver fd00::1", "search home.lan"]);
}

#[test]
fn a_text_that_is_not_ours_any_more_is_told_apart() {
    let whole = marked(b"nameserver 192.0.2.1\n", vec![]).render().unwrap();
    assert!(parse(&whole).is_some());
    assert_eq!(parse(b"nameserver 192.0.2.1\n"), None);
    assert_eq!(parse(b""), None);
    let text = String::from_utf8(whole).unwrap();
    for broken in [
        text.replace(ENDS, ""),
        text.replace(BEFORE, "# "),
        text.replace("\"file\"", "\"fire\""),
    ] {
        assert_eq!(parse(broken.as_bytes()), None, "{broken}");
    }
    // Lines around and between the marks belong to others.
    let changed = format!("# by hand\n{text}options rotate\n");
    let rest = parse(changed.as_bytes()).unwrap().rest;
    assert_eq!(rest, b"# by hand\nnameserver 192.0.2.1\noptions rotate\n");
}

#[test]
fn a_link_of_any_name_comes_back() {
    let before = Before::Link {
        target: "../run/a b\nnameserver 6.6.6.6/resolv.conf".into(),
        digest: "00".to_owned(),
    };
    let linked = Marked {
        before,
        ..marked(b"x", vec![])
    };
    assert!(
        !read_lines(&linked)
            .iter()
            .any(|line| line.contains("6.6.6.6"))
    );
    assert_eq!(parse(&linked.render().unwrap()).unwrap(), linked);
}

proptest! {
    #[test]
    fn whatever_was_there_stays_as_it_was(
        rest in proptest::collection::vec(any::<u8>(), 0..200),
        lines in proptest::collection::vec("(search|nameserver|#|) ?[a-z.]{0,9}\n?", 0..6),
        domains in proptest::collection::vec("[a-z]{1,5}", 0..3),
        count in 0usize..4,
    ) {
        let rest = [rest, lines.concat().into_bytes()].concat();
        prop_assume!(!String::from_utf8_lossy(&rest).contains("# sshvpn"));
        let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
        let holders = (0..count)
            .map(|n| holder(&format!("sshvpn{n}"), name_servers(&["10.0.0.1"], &domains)))
            .collect();
        let whole = marked(&rest, holders);
        prop_assert_eq!(parse(&whole.render().unwrap()), Some(whole));
    }

    #[test]
    fn no_text_panics(text in proptest::collection::vec("(# sshvpn (begins|ends|before: .{0,9}|tunnel: .{0,9})|.{0,9})\n?", 0..12)) {
        let _ = parse(text.concat().as_bytes());
    }
}
