//! Parses control messages of the agent stream: a parsed message can be encoded, and parses again
//! to the same message.

use sshvpn_fuzz::target;
use sshvpn_wire::frame::control::{Hello, Message};

target!(control_messages, run);

fn run(input: &[u8]) {
    let Ok(message) = Message::from_json(input) else {
        return;
    };
    let again = message.to_json().expect("a parsed message can be encoded");
    assert_eq!(Message::from_json(&again), Ok(message.clone()));
    if let Message::Hello(hello) = message {
        let ours = Hello::ours();
        assert_eq!(ours.common_version(&hello), hello.common_version(&ours));
    }
}
