//! Tests the forms of destinations and jump lists that ssh accepts, and those that it refuses.

use proptest::prelude::*;

use super::*;

fn parts(text: &str) -> Option<(Option<String>, String, Option<u16>)> {
    let parsed: Destination = text.parse().ok()?;
    Some((parsed.user, parsed.host, parsed.port))
}

fn expect(user: Option<&str>, host: &str, port: Option<u16>) -> Option<ExpectedParts> {
    Some((user.map(str::to_owned), host.to_owned(), port))
}
type ExpectedParts = (Option<String>, String, Option<u16>);

#[test]
fn destinations() {
    assert_eq!(parts("host"), expect(None, "host", None));
    assert_eq!(parts("u@host"), expect(Some("u"), "host", None));
    assert_eq!(parts("u@corp@host"), expect(Some("u@corp"), "host", None));
    assert_eq!(parts("::1"), expect(None, "::1", None));
    assert_eq!(
        parts("u@[fe80::1%eth0]"),
        expect(Some("u"), "fe80::1%eth0", None)
    );
    assert_eq!(parts("ssh://host"), expect(None, "host", None));
    assert_eq!(
        parts("ssh://u@host:2222/"),
        expect(Some("u"), "host", Some(2222))
    );
    assert_eq!(
        parts("ssh://u%40x;c=1@[::1]:22"),
        expect(Some("u@x"), "::1", Some(22))
    );
    for wrong in [
        "",
        "@host",
        "u@",
        "-oProxyCommand=x",
        "u@-x",
        "a b",
        "a;b",
        "$(x)",
        "-l@host",
        "ssh://",
        "ssh://@h",
        "ssh://h:0",
        "ssh://h:65536",
        "ssh://h/path",
        "ssh://h:x",
        "[::1",
        "u`x`@h",
        "ssh://u%@h",
        "ssh://%zz@h",
    ] {
        assert_eq!(parts(wrong), None, "{wrong}");
    }
}

#[test]
fn jump_lists() {
    let hops = parse_jump_list("a,u@b:22,ssh://v@[::1]:23,[10.0.0.1]").unwrap();
    let shown: Vec<String> = hops.iter().map(JumpHop::to_string).collect();
    assert_eq!(shown, ["a", "u@b:22", "v@[::1]:23", "10.0.0.1"]);
    assert_eq!(hops[2].host, "::1");
    assert!(parse_jump_list("none").unwrap().is_empty());
    for wrong in ["", ",", "a,", "a:x", "a:0", "u@", "a,$(x)", "[::1]x", "-x"] {
        assert!(parse_jump_list(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn whatever_is_taken_reads_back_the_same(text in "(ssh://)?[a-z0-9@:;%/\\[\\].-]{0,24}") {
        if let Ok(destination) = text.parse::<Destination>() {
            let plain = Destination { port: None, ..destination };
            prop_assert_eq!(plain.to_string().parse::<Destination>().unwrap(), plain);
        }
        if let Ok(hops) = parse_jump_list(&text) && !hops.is_empty() {
            prop_assert_eq!(parse_jump_list(&format_jump_list(&hops)).unwrap(), hops);
        }
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = text.parse::<Destination>();
        let _ = parse_jump_list(&text);
        let _ = format!("ssh://{text}").parse::<Destination>();
    }
}
