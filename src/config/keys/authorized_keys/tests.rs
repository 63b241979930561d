//! Tests the parsing of authorized_keys lines and the reasons of refused lines.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::types::{Unit, UnitRequest};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

fn read(line: &str) -> AuthorizedKey {
    parse_line(line).unwrap().unwrap()
}

fn options(text: &str) -> KeyOptions {
    read(&format!("{text} {KEY}")).options
}

fn problem(text: &str) -> String {
    let refused = parse_line(&format!("{text} {KEY} me")).unwrap_err();
    assert_eq!(refused.key.as_ref(), Some(&read(KEY).key), "{text}");
    refused.problem.to_string()
}

#[test]
fn a_line_is_options_a_key_and_a_comment() {
    let plain = read(&format!("  {KEY}\t alice at home \r"));
    assert_eq!(plain.comment, "alice at home");
    assert_eq!(plain.options, KeyOptions::default());
    let with = read(&format!("restrict,tunnel=\"3\"\t  {KEY}"));
    assert_eq!((&with.key, with.comment.as_str()), (&plain.key, ""));
    assert!(with.options.restrict);
    for nothing in ["", "  \t", "# comment", " \t# comment", "\r"] {
        assert_eq!(parse_line(nothing), Ok(None), "{nothing}");
    }
}

#[test]
fn names_of_options_have_no_case_and_values_have_quotes() {
    let read = options(
        "Restrict,CERT-authority,Tunnel=\"ANY\",Port-Forwarding,FROM=\"10.0.0.0/8,!10.1.2.3\",\
         principals=\"alice,bob\",expiry-time=\"20300102Z\",expiry-time=\"20310102Z\",\
         permitOpen=\"db:5432\",permitopen=\"[::1]:*\",permitlisten=\"8080\"",
    );
    assert!(read.restrict && read.cert_authority);
    assert_eq!(read.tunnel, Some(UnitRequest::Any));
    assert_eq!(read.port_forwarding, Some(true));
    assert_eq!(read.principals.unwrap(), ["alice", "bob"]);
    let first = UNIX_EPOCH + Duration::from_secs(1_893_542_400);
    assert_eq!(read.expiry, Some(first));
    assert_eq!(read.permit_open.len(), 2);
    assert_eq!(read.permit_listen.len(), 1);
    let from = read.from.unwrap();
    assert!(from.permit("10.1.2.4".parse().unwrap()));
    assert!(!from.permit("10.1.2.3".parse().unwrap()));
    let five = Unit::new(5).unwrap();
    assert_eq!(
        options("tunnel=\"5\"").tunnel,
        Some(UnitRequest::Unit(five))
    );
}

#[test]
fn a_quoted_value_may_have_spaces_commas_and_quotes() {
    let read = options("cert-authority,principals=\"alice at home,b\\\"b\"");
    assert_eq!(read.principals.unwrap(), ["alice at home", "b\"b"]);
}

#[test]
fn the_last_word_on_forwards_counts() {
    assert_eq!(options("restrict").port_forwarding, Some(false));
    assert_eq!(
        options("restrict,port-forwarding").port_forwarding,
        Some(true)
    );
    assert_eq!(
        options("port-forwarding,restrict").port_forwarding,
        Some(false)
    );
    assert_eq!(options("no-port-forwarding").port_forwarding, Some(false));
    assert_eq!(options("no-pty").port_forwarding, None);
}

#[test]
fn what_has_no_meaning_here_is_read_over() {
    for text in [
        "no-pty",
        "pty",
        "no-X11-forwarding",
        "X11-forwarding",
        "no-agent-forwarding",
        "agent-forwarding",
        "no-user-rc",
        "user-rc",
        "touch-required",
        "no-touch-required,touch-required",
        "no-verify-required",
        ",no-pty,,pty,",
    ] {
        assert_eq!(options(text), KeyOptions::default(), "{text}");
    }
}

#[test]
fn a_touch_is_required_unless_the_last_word_is_that_it_is_not() {
    for text in [
        "no-touch-required",
        "touch-required,NO-TOUCH-REQUIRED",
        "no-touch-required,restrict",
    ] {
        assert!(options(text).no_touch, "{text}");
    }
    assert!(!options("restrict").no_touch);
}

#[test]
fn what_cannot_be_kept_to_refuses_the_line_and_names_the_key() {
    for (text, said) in [
        ("command=\"id\"", "no command is ever run"),
        ("environment=\"A=b\"", "no command is ever run"),
        ("verify-required", "PIN"),
        ("no-verify-required,verify-required", "PIN"),
        ("no-tunnels", "unknown option 'no-tunnels'"),
        ("no-restrict", "unknown option"),
        ("restricted", "unknown option"),
        ("tunnel=0", "double quotes"),
        ("tunnel", "double quotes"),
        ("tunnel=\"x\"", "neither a number"),
        ("tunnel=\"2147483647\"", "neither a number"),
        ("tunnel=\"1\",tunnel=\"2\"", "twice"),
        ("tunnel=\"1\"restrict", "followed by a comma"),
        ("restrict=\"yes\"", "unknown option"),
        ("from=\"10.1.2.3/8\"", "did you mean 10.0.0.0/8"),
        ("from=\"\"", "empty"),
        ("from=\"!evil.example,*\"", "not looked up"),
        ("from=\"*\",from=\"10.0.0.1\"", "twice"),
        ("expiry-time=\"tomorrow\"", "YYYYMMDD"),
        ("expiry-time=\"20300230\"", "YYYYMMDD"),
        ("permitopen=\"5432\"", "HOST:PORT"),
        ("permitlisten=\"host:http\"", "[HOST:]PORT"),
        ("principals=\"alice\"", "needs cert-authority"),
        ("cert-authority,principals=\"\"", "list of names"),
        ("=\"x\"", "unknown option"),
    ] {
        let told = problem(text);
        assert!(told.contains(said), "{text}: {told}");
    }
}

#[test]
fn a_line_without_a_key_says_so() {
    let rsa = crate::ssh::test_settings::RSA_KEY;
    for (line, said) in [
        ("garbage".to_owned(), "there is no key"),
        ("restrict".to_owned(), "there is no key"),
        ("ssh-ed25519".to_owned(), "there is no key"),
        ("restrict ssh-ed25519".to_owned(), "there is no key"),
        (format!("command=\"id {KEY}"), "not closed"),
        (KEY.replace("ssh-ed25519", "ssh-ed448"), "there is no key"),
        (
            KEY.replace("ssh-ed25519", "ssh-rsa"),
            "not a key of that type",
        ),
        (KEY.replace("AAAAC3", "AAAAC4"), "not a key of that type"),
        (rsa.to_owned(), "2048"),
    ] {
        let refused = parse_line(&line).unwrap_err();
        assert_eq!(refused.key, None, "{line}");
        let told = refused.problem.to_string();
        assert!(told.contains(said), "{line}: {told}");
    }
}

#[test]
fn one_bad_line_does_not_hide_the_others() {
    let mut file = format!("# keys\r\n{KEY} one\r\n\ngarbage\n").into_bytes();
    file.extend(format!("tunnel=\"\u{e9}\" {OTHER} ").into_bytes());
    file.extend(b"caf\xe9\nre\xffstrict ");
    file.extend(format!("{OTHER}\n{OTHER} last").into_bytes());
    let lines = parse(&file);
    let summary: Vec<(usize, bool)> = lines
        .iter()
        .map(|line| (line.number, line.read.is_ok()))
        .collect();
    assert_eq!(
        summary,
        [(2, true), (4, false), (5, false), (6, false), (7, true)]
    );
}

proptest! {
    #[test]
    fn no_line_panics_and_no_line_without_the_key_yields_it(
        before in "[a-z=\"\\\\, \t#-]{0,40}",
        after in "\\PC{0,20}",
    ) {
        if let Ok(Some(read)) = parse_line(&format!("{before}{KEY}{after}")) {
            prop_assert!(read.key == self::read(KEY).key || !after.is_empty());
        }
        let _ = parse_line(&before);
        let _ = parse_line(&after);
    }

    #[test]
    fn a_file_of_any_bytes_is_read(content: Vec<u8>) {
        let lines = parse(&content);
        prop_assert!(lines.len() <= content.len() + 1);
    }
}
