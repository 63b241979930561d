//! Reads control messages of the agent stream: one that is understood can be said
//! again, and is understood as the same.

use sshvpn_fuzz::target;
use sshvpn_wire::frame::control::{Hello, Message};

target!(control_messages, run);

fn run(input: &[u8]) {
    let Ok(message) = Message::from_json(input) else {
        return;
    };
    let again = message.to_json().expect("what was read can be said");
    assert_eq!(Message::from_json(&again), Ok(message.clone()));
    if let Message::Hello(hello) = message {
        let ours = Hello::ours();
        assert_eq!(ours.common_version(&hello), hello.common_version(&ours));
    }
}
