//! The control messages of the agent stream. A control frame is the address family 0 and
//! one JSON object; its field `type` names the message. docs/PROTOCOL.md has the tables.
//!
//! ```text
//!   client                          agent
//!   hello ───────────────────────►
//!         ◄─────────────────────── hello
//!   look ────────────────────────►         any number of times
//!         ◄─────────────────────── agent-facts
//!   claim ───────────────────────►         any number of times
//!         ◄─────────────────────── claimed
//!   set-up ──────────────────────►
//!         ◄─────────────────────── done    one for each change made
//!         ◄─────────────────────── ready   packets may follow, both ways
//!   ping ◄───────────────────────► pong    either end, at any time after hello
//!   close ◄──────────────────────► close   either end; nothing follows it but
//!         ◄─────────────────────── closed  this, once all is undone
//! ```
//!
//! A server ([`FEATURE_SERVE`]) chooses the tunnel's settings; between the hellos and
//! `ready`:
//!
//! ```text
//!   client                          server
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

/// The largest control message, in bytes of JSON; routing tables can be long.
pub const MAX_CONTROL: usize = 1024 * 1024;

/// The newest version of the control protocol that this program speaks.
pub const VERSION: u32 = 1;
/// The oldest version that this program speaks.
pub const OLDEST_VERSION: u32 = 1;

/// The agent prints this before its first frame; output in front of it is from a login
/// shell's startup files.
pub const PREAMBLE: &[u8] = b"sshvpn-agent/1\r\n";
/// Begins a line in which an agent announces a socket, before the preamble: a path
/// follows, a space and a word of [`SOCKET_WORD`] characters. The first connection to
/// send the word gets the stream.
pub const SOCKET_LINE: &str = "sshvpn-socket: ";
/// The longest path of a socket, in bytes (unix(7), without the final zero).
pub const MAX_SOCKET_PATH: usize = 107;
/// The length of the word to send to a socket: 16 bytes in hexadecimal.
pub const SOCKET_WORD: usize = 32;

/// The sender takes packets with an offload header: TCP super-packets and open checksums.
pub const FEATURE_OFFLOAD: &str = "offload";
/// The sender takes UDP super-packets.
pub const FEATURE_UDP_OFFLOAD: &str = "udp-offload";
/// The sender can carry Ethernet frames.
pub const FEATURE_ETHERNET: &str = "ethernet";
/// The sender takes [`Message::Claim`].
pub const FEATURE_CLAIM: &str = "claim";
/// The sender is a server, and chooses the tunnel's settings.
pub const FEATURE_SERVE: &str = "serve";

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Message {
    /// The first message, in both directions.
    Hello(Hello),
    /// The client asks about the agent's host.
    Look(Look),
    /// The answer to [`Message::Look`].
    AgentFacts(AgentFacts),
    /// The client claims its tunnel addresses on the agent's host, in place of earlier claims.
    Claim {
        /// The client's addresses, one for each family.
        addresses: Vec<IpAddr>,
    },
    /// The answer to [`Message::Claim`].
    Claimed {
        /// Those that another tunnel has; none is claimed then.
        taken: Vec<IpAddr>,
    },
    /// The client requests settings on the agent's host.
    SetUp(SetUp),
    /// The client asks a server for a tunnel.
    Ask(Ask),
    /// The server offers a tunnel.
    Offer(Offer),
    /// The client accepts the offer.
    Accept,
    /// The agent has made one change.
    Done {
        /// The change, as text.
        what: String,
        /// Whether it is no change, but a warning to the user.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        warning: bool,
    },
    /// The agent has made all changes.
    Ready(Ready),
    /// Asks for a [`Message::Pong`].
    Ping {
        /// The answer repeats it.
        token: u64,
    },
    /// The answer to a [`Message::Ping`].
    Pong {
        /// The token of the ping.
        token: u64,
    },
    /// The sender ends the tunnel; it reads until [`Message::Closed`] or the end of the
    /// stream.
    Close {
        /// The kind of reason.
        reason: CloseReason,
        /// The reason as text: what failed, and what to do.
        text: String,
    },
    /// The agent has undone its changes.
    Closed {
        /// Changes that could not be undone, or that others have modified since.
        left: Vec<String>,
    },
}

/// The sender's program, versions and features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of this protocol that the sender speaks.
    pub version: u32,
    /// The oldest version of this protocol that the sender speaks.
    pub oldest: u32,
    /// The sender's program and its version, as text.
    pub software: String,
    /// Optional features that the sender supports; unknown ones are ignored.
    #[serde(default)]
    pub features: BTreeSet<String>,
}

impl Hello {
    /// The greeting of this program.
    pub fn ours() -> Self {
        let features = [
            FEATURE_OFFLOAD,
            FEATURE_UDP_OFFLOAD,
            FEATURE_ETHERNET,
            FEATURE_CLAIM,
        ];
        Hello {
            version: VERSION,
            oldest: OLDEST_VERSION,
            software: concat!("sshvpn ", env!("CARGO_PKG_VERSION")).to_owned(),
            features: features.map(str::to_owned).into(),
        }
    }

    /// The greeting of this program as a server.
    pub fn of_server() -> Self {
        let mut hello = Hello::ours();
        hello.features.insert(FEATURE_SERVE.to_owned());
        hello.features.remove(FEATURE_CLAIM);
        hello
    }

    /// Whether the sender is a server, which chooses the tunnel's settings.
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

    /// The offload packets that both ends take.
    pub fn common_offload(&self, other: &Hello) -> Offload {
        Offload {
            tcp: self.common_feature(other, FEATURE_OFFLOAD),
            udp: self.common_feature(other, FEATURE_UDP_OFFLOAD),
        }
    }
}

/// The client's question about the agent's host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Addresses to look up in the routing table of the agent's host.
    pub ways: Vec<IpAddr>,
    /// Whether to list the networks that it could open to the client.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub routed: bool,
}

/// The state of the agent's host, and what the agent may do there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// The name of the account that the agent runs as.
    pub login: String,
    /// Every network that is in use there; a tunnel's addresses must not overlap them.
    pub networks: Vec<IpNetwork>,
    /// Whether IPv6 is enabled.
    pub ipv6: bool,
    /// Routes to the addresses that were asked about; those without a route are left out.
    pub ways: BTreeMap<IpAddr, Way>,
    /// The agent's limits.
    pub permissions: Permissions,
    /// Its connected and routed networks, if they were asked for; an older agent lists none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<Vec<IpNetwork>>,
}

/// The route to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The interface.
    pub interface: InterfaceName,
    /// Whether the address is one of the host's own.
    pub local: bool,
}

/// The limits that an agent's command line and configuration set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Networks that it forwards to; all if `None`.
    pub routes: Option<Vec<IpNetwork>>,
    /// Networks that its tunnel address may be in; all if `None`.
    pub addresses: Option<Vec<IpNetwork>>,
    /// Whether it forwards with NAT.
    pub nat: bool,
    /// The largest MTU.
    pub max_mtu: Option<u32>,
}

impl Permissions {
    /// No limits.
    pub fn all() -> Self {
        Permissions {
            routes: None,
            addresses: None,
            nat: true,
            max_mtu: None,
        }
    }
}

/// The settings that a client requests on the agent's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUp {
    /// The mode of both devices.
    pub mode: Mode,
    /// The MTU of both devices.
    pub mtu: Mtu,
    /// The name of the agent's device; the agent chooses if `None`.
    pub device: Option<InterfaceName>,
    /// The tunnel's addresses, one pair for each family.
    pub addresses: Vec<Addresses>,
    /// What the agent's host forwards; nothing if `None`.
    pub forward: Option<Forward>,
}

/// The addresses of both ends in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The client's.
    pub client: IpAddr,
    /// The agent's.
    pub agent: IpAddr,
    /// The prefix length of the network of both addresses, for Ethernet.
    pub prefix: u8,
}

/// How the agent's host forwards packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The networks to forward to.
    pub networks: Vec<IpNetwork>,
    /// Whether to use NAT: the source becomes an address of the agent's host.
    pub nat: bool,
    /// Whether hosts there may open connections to the client. Without NAT they always
    /// may: they are named, and need a route back.
    #[serde(default)]
    pub inbound: bool,
}

impl Forward {
    /// Networks whose hosts may open connections to the client.
    pub fn inbound(&self) -> &[IpNetwork] {
        match self.inbound || !self.nat {
            true => &self.networks,
            false => &[],
        }
    }
}

/// The tunnel that a client requests of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The mode.
    pub mode: Mode,
    /// The largest MTU; the server chooses if `None`.
    pub mtu: Option<Mtu>,
    /// The addresses that the client would like, at most one for each family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// The tunnel that a server offers. The client applies the parts that its user allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its MTU.
    pub mtu: Mtu,
    /// The tunnel's addresses, one pair for each family; `agent` is the server's.
    pub addresses: Vec<Addresses>,
    /// Networks that the client may reach through it.
    #[serde(default)]
    pub routes: Vec<IpNetwork>,
    /// Name servers for the client.
    #[serde(default)]
    pub dns: Dns,
}

/// Name servers, and the domains that they serve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Their addresses.
    pub servers: Vec<IpAddr>,
    /// Domains to look names up in.
    #[serde(default)]
    pub search: Vec<String>,
}

/// The device that the agent has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The agent's device.
    pub device: InterfaceName,
    /// Its MTU.
    pub mtu: Mtu,
}

/// The kinds of reason for the end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// The sender's user ended it.
    Requested,
    /// The peer sent a message that is not allowed, or not at this time.
    Protocol,
    /// Both ends have no version in common.
    Version,
    /// The agent may not do what the client requested.
    NotPermitted,
    /// The requested change failed.
    Failed,
    /// The peer sent nothing for too long.
    Silence,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// Why a control message is invalid.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ControlError {
    /// Larger than [`MAX_CONTROL`].
    #[error("a control message of {0} bytes; at most {MAX_CONTROL} are allowed")]
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

    /// Parses a message; the peer is not trusted.
    pub fn from_json(json: &[u8]) -> Result<Self, ControlError> {
        if json.len() > MAX_CONTROL {
            return Err(ControlError::TooLong(json.len()));
        }
        serde_json::from_slice(json).map_err(|error| ControlError::Malformed(error.to_string()))
    }

    /// The message's `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "hello",
            Message::Look(_) => "look",
            Message::AgentFacts(_) => "agent-facts",
            Message::Claim { .. } => "claim",
            Message::Claimed { .. } => "claimed",
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
                routed: true,
            }),
            Message::AgentFacts(AgentFacts {
                login: "root".to_owned(),
                networks: Vec::new(),
                ipv6: true,
                ways: BTreeMap::new(),
                permissions: Permissions::all(),
                routed: Some(vec!["10.0.0.0/8".parse().unwrap()]),
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
            Message::Claim {
                addresses: vec!["10.0.0.1".parse().unwrap()],
            },
            Message::Claimed { taken: Vec::new() },
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
        // An agent without the list of networks, and a client that does not ask for it.
        let json = br#"{"type":"look","ways":[]}"#;
        let look = Message::Look(Look::default());
        assert_eq!(Message::from_json(json), Ok(look.clone()));
        assert_eq!(look.to_json(), Ok(json.to_vec()));
        let json = br#"{"type":"agent-facts","login":"a","networks":[],"ipv6":true,"ways":{},"permissions":{"routes":null,"addresses":null,"nat":true,"max_mtu":null}}"#;
        let Ok(Message::AgentFacts(facts)) = Message::from_json(json) else {
            panic!("not read")
        };
        assert_eq!(facts.routed, None);
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
