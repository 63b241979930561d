//! Parses an authorized_keys file: each line is a key, a refusal with a reason, or nothing, and
//! parses alone to the same result as in the file.

use sshvpn::config::keys::authorized_keys::{KeyOptions, parse, parse_line};
use sshvpn_fuzz::target;

target!(authorized_keys, run);

fn run(input: &[u8]) {
    for line in parse(input) {
        let text = input.split(|&byte| byte == b'\n').nth(line.number - 1);
        let text = String::from_utf8_lossy(text.expect("the line exists"));
        match line.read {
            Ok(read) => {
                assert_eq!(parse_line(&text), Ok(Some(read.clone())));
                assert!(read.key.kind().is_some_and(|kind| text.contains(kind)));
                assert!(read.key.fingerprint().starts_with("SHA256:"));
                let options = &read.options;
                assert!(options.principals.is_none() || options.cert_authority);
                if !text.contains('"') && !text.contains("restrict") {
                    let quoted = KeyOptions {
                        cert_authority: options.cert_authority,
                        port_forwarding: options.port_forwarding,
                        ..KeyOptions::default()
                    };
                    assert_eq!(options, &quoted);
                }
            }
            Err(refused) => {
                assert!(!refused.problem.to_string().is_empty());
                assert_eq!(parse_line(&text), Err(refused));
            }
        }
    }
}
