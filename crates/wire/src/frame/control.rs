//! The control messages of the agent stream: what the two ends say to each
//! other besides packets. A control frame is the address family 0 and one JSON
//! object; its field `type` tells what it is. docs/PROTOCOL.md has the tables.
//!
//! ```text
//!   local end                       agent
//!   hello ───────────────────────►
//!         ◄─────────────────────── hello
//!   look ────────────────────────►         any number of times
//!         ◄─────────────────────── facts
//!   set-up ──────────────────────►
//!         ◄─────────────────────── done    one for each change made
//!         ◄─────────────────────── ready   packets may follow, both ways
//!   ping ◄───────────────────────► pong    either end, at any time after hello
//!   close ◄──────────────────────► close   either end; nothing follows it but
//!         ◄─────────────────────── closed  this, once all is undone
//! ```
//!
//! A server ([`FEATURE_SERVE`]) says itself what the tunnel is like; between the
//! hellos and `ready` it is:
//!
//! ```text
//!   local end                       server
//!   ask ─────────────────────────►
//!         ◄─────────────────────── offer
//!   accept ──────────────────────►
//!         ◄─────────────────────── ready   packets may follow, both ways
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::packet::offload::virtio::Offload;
use crate::types::{InterfaceName, Mode, Mtu};

/// The largest control message, in bytes of JSON: routing tables can be long.
pub const MAX_CONTROL: usize = 1024 * 1024;

/// The newest version of the control protocol that this program speaks.
pub const VERSION: u32 = 1;
/// The oldest one.
pub const OLDEST_VERSION: u32 = 1;

/// What the agent prints before its first frame, so that what a login shell's
/// startup files print in front of it can be told apart.
pub const PREAMBLE: &[u8] = b"sshvpn-agent/1\r\n";
/// How a line begins in which an agent tells of a socket, before the preamble: a
/// path follows, a space and a word of [`SOCKET_WORD`] characters. Who says the word
/// there first talks to the agent.
pub const SOCKET_LINE: &str = "sshvpn-socket: ";
/// The longest path that a socket can have in bytes (unix(7), less the final zero).
pub const MAX_SOCKET_PATH: usize = 107;
/// The length of the word that is to be said at a socket: 16 bytes in hexadecimal.
pub const SOCKET_WORD: usize = 32;

/// Packets may come behind an offload header: TCP super-packets and checksums
/// that are left to whoever needs them.
pub const FEATURE_OFFLOAD: &str = "offload";
/// The same for UDP super-packets.
pub const FEATURE_UDP_OFFLOAD: &str = "udp-offload";
/// Ethernet frames can be carried.
pub const FEATURE_ETHERNET: &str = "ethernet";
/// The sender is a server, and says what the tunnel is like.
pub const FEATURE_SERVE: &str = "serve";

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Message {
    /// The first message of either end.
    Hello(Hello),
    /// The local end asks about the agent's host.
    Look(Look),
    /// The answer.
    AgentFacts(AgentFacts),
    /// The local end says what the agent's host is to look like.
    SetUp(SetUp),
    /// The local end asks a server for a tunnel.
    Ask(Ask),
    /// What the server has for it.
    Offer(Offer),
    /// The local end takes it.
    Accept,
    /// One change was made there.
    Done {
        /// Which, for people.
        what: String,
    },
    /// All changes were made.
    Ready(Ready),
    /// Asks for a [`Message::Pong`].
    Ping {
        /// Comes back in the answer.
        token: u64,
    },
    /// The answer to a [`Message::Ping`].
    Pong {
        /// That of the question.
        token: u64,
    },
    /// The sender ends the tunnel; it reads on until [`Message::Closed`] or the end of the stream.
    Close {
        /// The kind of reason.
        reason: CloseReason,
        /// The same for people: what failed, and what to do about it.
        text: String,
    },
    /// The agent's host is as it was before.
    Closed {
        /// What could not be undone, or was changed by somebody else since.
        left: Vec<String>,
    },
}

/// Who speaks, and what they understand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of this protocol that the sender speaks.
    pub version: u32,
    /// The oldest one.
    pub oldest: u32,
    /// The sender's program and its version, for people.
    pub software: String,
    /// Optional parts that the sender understands; unknown ones are passed over.
    #[serde(default)]
    pub features: BTreeSet<String>,
}

impl Hello {
    /// That of this program.
    pub fn ours() -> Self {
        let features = [FEATURE_OFFLOAD, FEATURE_UDP_OFFLOAD, FEATURE_ETHERNET];
        Hello {
            version: VERSION,
            oldest: OLDEST_VERSION,
            software: concat!("sshvpn ", env!("CARGO_PKG_VERSION")).to_owned(),
            features: features.map(str::to_owned).into(),
        }
    }

    /// That of this program as a server.
    pub fn of_server() -> Self {
        let mut hello = Hello::ours();
        hello.features.insert(FEATURE_SERVE.to_owned());
        hello
    }

    /// Whether the sender is a server, which says itself what the tunnel is like.
    pub fn is_server(&self) -> bool {
        self.features.contains(FEATURE_SERVE)
    }

    /// The newest version that both ends speak.
    pub fn common_version(&self, other: &Hello) -> Option<u32> {
        let newest = self.version.min(other.version);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    /// Whether both ends have a feature.
    pub fn common_feature(&self, other: &Hello, feature: &str) -> bool {
        self.features.contains(feature) && other.features.contains(feature)
    }

    /// Which offload packets both ends take.
    pub fn common_offload(&self, other: &Hello) -> Offload {
        Offload {
            tcp: self.common_feature(other, FEATURE_OFFLOAD),
            udp: self.common_feature(other, FEATURE_UDP_OFFLOAD),
        }
    }
}

/// What the local end wants to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Addresses whose way from the agent's host is wanted.
    pub ways: Vec<IpAddr>,
}

/// The agent's host, and what the agent may do there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// The name of the account that the agent runs as.
    pub login: String,
    /// Every network that is in use there: a tunnel's addresses have to keep clear of them.
    pub networks: Vec<IpNetwork>,
    /// Whether IPv6 is enabled.
    pub ipv6: bool,
    /// By which interface it reaches an address that was asked about; none it has no way to.
    pub ways: BTreeMap<IpAddr, Way>,
    /// What it may do.
    pub permissions: Permissions,
}

/// The way to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The interface.
    pub interface: InterfaceName,
    /// Whether the address is the host's own.
    pub local: bool,
}

/// What an agent's command line and configuration leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Networks that it forwards to; all, where there is no list.
    pub routes: Option<Vec<IpNetwork>>,
    /// Networks that its tunnel address may be in; all, where there is no list.
    pub addresses: Option<Vec<IpNetwork>>,
    /// Whether it puts its own address on what goes on from it.
    pub nat: bool,
    /// The largest MTU.
    pub max_mtu: Option<u32>,
}

impl Permissions {
    /// Everything.
    pub fn all() -> Self {
        Permissions {
            routes: None,
            addresses: None,
            nat: true,
            max_mtu: None,
        }
    }
}

/// What the agent's host is to look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUp {
    /// What the devices carry.
    pub mode: Mode,
    /// Their MTU.
    pub mtu: Mtu,
    /// The name of the agent's device; where there is none, it chooses.
    pub device: Option<InterfaceName>,
    /// The tunnel's addresses, one pair a family.
    pub addresses: Vec<Addresses>,
    /// Where to the agent's host is to forward; nowhere, where it is not given.
    pub forward: Option<Forward>,
}

/// The addresses of both ends in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The client's.
    pub client: IpAddr,
    /// The agent's.
    pub agent: IpAddr,
    /// The prefix length of the network that both are in, for Ethernet.
    pub prefix: u8,
}

/// How packets go on from the agent's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The networks.
    pub networks: Vec<IpNetwork>,
    /// Whether their source becomes the agent's host's own address.
    pub nat: bool,
    /// Whether hosts there may open connections to the local end. Without NAT they
    /// may in any case: they are named, and need a route back.
    #[serde(default)]
    pub inbound: bool,
}

impl Forward {
    /// Networks whose hosts may open connections to the local end.
    pub fn inbound(&self) -> &[IpNetwork] {
        match self.inbound || !self.nat {
            true => &self.networks,
            false => &[],
        }
    }
}

/// The tunnel that a local end wants of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What it is to carry.
    pub mode: Mode,
    /// Its MTU at most; what the server likes, where there is none.
    pub mtu: Option<Mtu>,
    /// The address that the local end would like to have, one a family at most.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// The tunnel that a server has for a local end. The local end applies of it what
/// its user allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its MTU.
    pub mtu: Mtu,
    /// The tunnel's addresses, one pair a family; `agent` is the server's.
    pub addresses: Vec<Addresses>,
    /// Networks that the local end may reach through it.
    #[serde(default)]
    pub routes: Vec<IpNetwork>,
    /// Name servers for it.
    #[serde(default)]
    pub dns: Dns,
}

/// Name servers, and for which names they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Their addresses.
    pub servers: Vec<IpAddr>,
    /// Domains to look names up in.
    #[serde(default)]
    pub search: Vec<String>,
}

/// The agent's part is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The agent's device.
    pub device: InterfaceName,
    /// Its MTU.
    pub mtu: Mtu,
}

/// The kinds of reason for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// The user of the sender wants it.
    Requested,
    /// The peer said what it may not say, or not now.
    Protocol,
    /// There is no version that both speak.
    Version,
    /// The agent may not do what was asked.
    NotPermitted,
    /// It was tried and failed.
    Failed,
    /// The peer is silent.
    Silence,
    /// Any other, of a newer version.
    #[serde(other)]
    Other,
}

/// Why a control message cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ControlError {
    /// Larger than [`MAX_CONTROL`].
    #[error("a control message of {0} bytes; {MAX_CONTROL} are the most")]
    TooLong(usize),
    /// Not a message of this protocol.
    #[error("a control message that cannot be read: {0}")]
    Malformed(String),
}

impl Message {
    /// The message as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, ControlError> {
        let json =
            serde_json::to_vec(self).map_err(|error| ControlError::Malformed(error.to_string()))?;
        if json.len() > MAX_CONTROL {
            return Err(ControlError::TooLong(json.len()));
        }
        Ok(json)
    }

    /// Reads a message; the peer is not trusted.
    pub fn from_json(json: &[u8]) -> Result<Self, ControlError> {
        if json.len() > MAX_CONTROL {
            return Err(ControlError::TooLong(json.len()));
        }
        serde_json::from_slice(json).map_err(|error| ControlError::Malformed(error.to_string()))
    }

    /// What the message is called.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "hello",
            Message::Look(_) => "look",
            Message::AgentFacts(_) => "facts",
            Message::SetUp(_) => "set-up",
            Message::Ask(_) => "ask",
            Message::Offer(_) => "offer",
            Message::Accept => "accept",
            Message::Done { .. } => "done",
            Message::Ready(_) => "ready",
            Message::Ping { .. } => "ping",
            Message::Pong { .. } => "pong",
            Message::Close { .. } => "close",
            Message::Closed { .. } => "closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(oldest: u32, version: u32) -> Hello {
        Hello {
            version,
            oldest,
            ..Hello::ours()
        }
    }

    #[test]
    fn the_newest_version_of_both_is_spoken() {
        assert_eq!(hello(1, 3).common_version(&hello(2, 5)), Some(3));
        assert_eq!(hello(2, 5).common_version(&hello(1, 3)), Some(3));
        assert_eq!(hello(4, 5).common_version(&hello(1, 3)), None);
        assert_eq!(hello(1, 1).common_version(&hello(2, 2)), None);
    }

    #[test]
    fn messages_come_back_as_they_went() {
        let messages = [
            Message::Hello(Hello::ours()),
            Message::Look(Look {
                ways: vec!["10.0.0.1".parse().unwrap()],
            }),
            Message::SetUp(SetUp {
                mode: Mode::Ethernet,
                mtu: Mtu::ETHERNET,
                device: Some("tap0".parse().unwrap()),
                addresses: vec![Addresses {
                    client: "fd00::1".parse().unwrap(),
                    agent: "fd00::2".parse().unwrap(),
                    prefix: 64,
                }],
                forward: Some(Forward {
                    networks: vec!["10.0.0.0/8".parse().unwrap()],
                    nat: true,
                    inbound: true,
                }),
            }),
            Message::Close {
                reason: CloseReason::NotPermitted,
                text: "no".to_owned(),
            },
            Message::Ping { token: u64::MAX },
        ];
        for message in messages {
            let json = message.to_json().unwrap();
            let named = format!("\"type\":\"{}\"", message.name());
            assert!(String::from_utf8_lossy(&json).contains(&named), "{named}");
            assert_eq!(Message::from_json(&json), Ok(message));
        }
    }

    #[test]
    fn what_a_newer_version_adds_is_passed_over() {
        let json = br#"{"type":"hello","version":9,"oldest":1,"software":"x","features":["warp"],"more":[1]}"#;
        let Ok(Message::Hello(hello)) = Message::from_json(json) else {
            panic!("not read")
        };
        assert_eq!(Hello::ours().common_version(&hello), Some(VERSION));
        let json = br#"{"type":"close","reason":"tea-time","text":""}"#;
        let Ok(Message::Close { reason, .. }) = Message::from_json(json) else {
            panic!("not read")
        };
        assert_eq!(reason, CloseReason::Other);
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for json in [
            r#"{"type":"set-up","mode":"point-to-point","mtu":20,"device":null,"addresses":[],"forward":null}"#,
            r#"{"type":"set-up","mode":"point-to-point","mtu":1500,"device":"../x","addresses":[],"forward":null}"#,
            r#"{"type":"set-up","mode":"maybe","mtu":1500,"device":null,"addresses":[],"forward":null}"#,
            r#"{"type":"look","ways":["10.0.0.256"]}"#,
            r#"{"type":"tea"}"#,
            r#"{}"#,
            r#"[]"#,
            "",
        ] {
            let read = Message::from_json(json.as_bytes());
            assert!(matches!(read, Err(ControlError::Malformed(_))), "{json}");
        }
        let long = vec![b' '; MAX_CONTROL + 1];
        assert!(matches!(
            Message::from_json(&long),
            Err(ControlError::TooLong(_))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::from_json(&bytes);
        }
    }
}
