//! The hosts that known_hosts lines match; no line may cause a panic.

use proptest::prelude::*;

use super::*;
use crate::ssh::test_settings::invoker;

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

fn known(text: &str) -> KnownHosts {
    let mut known = KnownHosts::default();
    known.add(Path::new("/kh"), text.as_bytes());
    known
}

/// The numbers of the lines of `text` with a host key of `host`.
fn lines_for(text: &str, host: &str) -> Vec<usize> {
    let known = known(text);
    let found = known.about(host);
    found.keys.iter().map(|line| line.line).collect()
}

#[test]
fn names_patterns_negation_and_ports() {
    let text = format!(
        "# comment\n\
         alpha,192.0.2.1 {ED25519}\n\
         \n\
         *.lab,!secret.lab {ED25519} a comment\n\
         \t[alpha]:2222\t{OTHER}\r\n\
         ALPHA {OTHER}"
    );
    assert_eq!(lines_for(&text, "alpha"), [2, 6]);
    assert_eq!(lines_for(&text, "Alpha"), [2, 6]);
    assert_eq!(lines_for(&text, "192.0.2.1"), [2]);
    assert_eq!(lines_for(&text, "a.lab"), [4]);
    assert_eq!(lines_for(&text, "secret.lab"), [0; 0]);
    assert_eq!(lines_for(&text, "[alpha]:2222"), [5]);
    assert_eq!(lines_for(&text, "[alpha]:22"), [0; 0]);
}

#[test]
fn hashed_names_as_ssh_keygen_makes_them() {
    // The output of `ssh-keygen -H` for "host.example.com" and "[host.example.com]:2222".
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("known_hosts");
    let text = format!("host.example.com {ED25519}\n[host.example.com]:2222 {OTHER}\n");
    std::fs::write(&file, text).unwrap();
    let hashing = std::process::Command::new("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(hashing.status.success());
    let known = KnownHosts::load([&file], &invoker());
    let lines = |host| {
        let found = known.about(host);
        found.keys.iter().map(|line| line.line).collect::<Vec<_>>()
    };
    assert!(matches!(known.lines[0].names, Names::Hashed { .. }));
    assert_eq!(lines("host.example.com"), [1]);
    assert_eq!(lines("HOST.example.com"), [1]);
    assert_eq!(lines("[host.example.com]:2222"), [2]);
    assert_eq!(lines("other.example.com"), [0; 0]);
}

#[test]
fn markers_say_what_a_key_is_for() {
    let text = format!(
        "@cert-authority *.example.com {ED25519}\n\
         @revoked * {OTHER}\n\
         @unknown * {OTHER}\n\
         @revoked @cert-authority * {OTHER}\n"
    );
    let known = known(&text);
    let found = known.about("host.example.com");
    assert!(found.keys.is_empty());
    assert_eq!(found.authorities.len(), 1);
    assert_eq!(found.revoked.len(), 1);
    assert!(found.is_revoked(&known.lines[1].key));
    assert!(!found.is_revoked(&known.lines[0].key));
    assert!(known.about("example.org").authorities.is_empty());
}

#[test]
fn broken_lines_are_skipped_and_counted() {
    let text = format!(
        "alpha\n\
         alpha ssh-ed25519\n\
         alpha ssh-ed25519 !!!!\n\
         alpha 1024 35 159\n\
         |1|short|hash {ED25519}\n\
         |2|x|y {ED25519}\n\
         alpha {ED25519}\n"
    );
    assert_eq!(lines_for(&text, "alpha"), [7]);
    let mut bytes = b"alpha \xff\xfe\n".to_vec();
    bytes.extend_from_slice(format!("alpha {ED25519}\n").as_bytes());
    let mut known = KnownHosts::default();
    known.add(Path::new("/kh"), &bytes);
    assert_eq!(known.about("alpha").keys[0].line, 2);
}

#[test]
fn the_other_names_of_a_key() {
    let text =
        format!("alpha {ED25519}\nbeta {ED25519}\n@revoked gamma {ED25519}\ndelta {OTHER}\n");
    let known = known(&text);
    let key = known.lines[0].key.clone();
    let others: Vec<usize> = known
        .other_hosts_with(&key, "alpha")
        .map(|line| line.line)
        .collect();
    assert_eq!(others, [2]);
}

#[test]
fn a_missing_file_is_an_empty_one() {
    let absent = PathBuf::from("/nonexistent/known_hosts");
    let nothing = PathBuf::from("/dev/null");
    assert!(
        KnownHosts::load([&absent, &nothing], &invoker())
            .lines
            .is_empty()
    );
}

/// Valid and malformed parts of lines.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("@cert-authority".to_owned()),
        Just("@revoked".to_owned()),
        Just("|1|".to_owned()),
        Just("|".to_owned()),
        Just("ssh-ed25519".to_owned()),
        Just("ssh-rsa-cert-v01@openssh.com".to_owned()),
        Just(" ".to_owned()),
        Just("\t".to_owned()),
        Just("*,!?".to_owned()),
        Just(ED25519.to_owned()),
        "[A-Za-z0-9+/=]{0,60}",
        "\\PC{0,8}",
    ]
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut known = KnownHosts::default();
        known.add(Path::new("/kh"), &bytes);
        known.about("alpha");
    }

    #[test]
    fn no_line_panics(pieces in proptest::collection::vec(piece(), 0..8)) {
        let known = known(&pieces.concat());
        known.about("alpha");
    }

    #[test]
    fn no_blob_panics(
        algorithm in "(ssh-(ed25519|rsa|dss)|ecdsa-sha2-nistp(256|521))(-cert-v01@openssh.com)?",
        blob in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        use russh::keys::ssh_encoding::base64::{Base64, Encoding};
        let length = u32::try_from(algorithm.len()).unwrap().to_be_bytes();
        let bytes = [&length, algorithm.as_bytes(), &blob].concat();
        known(&format!("alpha {algorithm} {}", Base64::encode_string(&bytes)));
    }
}
