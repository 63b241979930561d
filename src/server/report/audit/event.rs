//! What is written down: one record for each thing that happened.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::text::Text;
use super::time::Timestamp;
use crate::server::login::grant::{CertificateIdentity, Identity};
use crate::server::report::registry::ConnectionId;
use crate::server::report::registry::forwards::ForwardRecord;
use crate::server::report::registry::tally::Tally;
use crate::server::report::registry::traffic::DirectionTraffic;
use crate::types::{InterfaceName, Mode, UnitRequest};

/// The version of the records; it grows when what is there changes its meaning.
pub const VERSION: u32 = 1;

/// One line of the log.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    version: u32,
    /// When it happened.
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Record {
    /// What happened at `time`.
    pub fn new(event: Event, time: Timestamp) -> Self {
        Self {
            version: VERSION,
            time,
            event,
        }
    }
}

/// What happened. `connection` joins what is about the same one.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The server is there.
    ServerStarted {
        /// Where it listens.
        listen: Vec<SocketAddr>,
        /// Its process.
        pid: u32,
    },
    /// It took other settings.
    ServerReloaded {
        /// Where it listens.
        listen: Vec<SocketAddr>,
    },
    /// It ends.
    ServerStopped {
        /// Why.
        reason: Text,
    },
    /// A connection was closed before a word was said.
    ConnectionRefused {
        /// From where.
        #[serde(flatten)]
        peer: Peer,
        /// By which limit.
        reason: &'static str,
        /// Others that were refused since the last such record, and not written
        /// down, as they were too many.
        suppressed: u64,
    },
    /// A key or certificate was shown and not taken.
    LoginDenied {
        /// Of this connection.
        connection: ConnectionId,
        /// From where.
        #[serde(flatten)]
        peer: Peer,
        /// What was claimed.
        #[serde(flatten)]
        who: Who,
        /// Why not.
        reason: Text,
    },
    /// A connection ended before anybody was logged in.
    LoginFailed {
        /// This one.
        connection: ConnectionId,
        /// From where.
        #[serde(flatten)]
        peer: Peer,
        /// What the client calls itself.
        software: Text,
        /// In which way.
        reason: &'static str,
        /// More of it.
        detail: Text,
    },
    /// Somebody is logged in.
    Login {
        /// Over this connection.
        connection: ConnectionId,
        /// From where.
        #[serde(flatten)]
        peer: Peer,
        /// Who.
        #[serde(flatten)]
        who: Who,
        /// What the client calls itself.
        software: Text,
    },
    /// A client asked for something and has it.
    RequestGranted {
        /// Over this connection.
        connection: ConnectionId,
        /// Who.
        #[serde(flatten)]
        who: Who,
        /// What.
        #[serde(flatten)]
        asked: Asked,
        /// Other requests of this connection that were left out before it, as
        /// they were too many.
        suppressed: u64,
    },
    /// A client asked for something and has it not.
    RequestRefused {
        /// Over this connection.
        connection: ConnectionId,
        /// Who.
        #[serde(flatten)]
        who: Who,
        /// What.
        #[serde(flatten)]
        asked: Asked,
        /// Why not.
        reason: Text,
        /// Other requests of this connection that were left out before it, as
        /// they were too many.
        suppressed: u64,
    },
    /// A client's tunnel is there.
    TunnelUp {
        /// Over this connection.
        connection: ConnectionId,
        /// Whose.
        #[serde(flatten)]
        who: Who,
        /// The tunnel.
        #[serde(flatten)]
        tunnel: TunnelFacts,
        /// Other records of this connection that were left out before it, as
        /// they were too many.
        suppressed: u64,
    },
    /// A reload took away what a client came in by, or what it has: it has to go.
    AccessWithdrawn {
        /// This connection.
        connection: ConnectionId,
        /// From where.
        #[serde(flatten)]
        peer: Peer,
        /// Who.
        #[serde(flatten)]
        who: Who,
        /// Why; the client is not told.
        reason: Text,
    },
    /// A connection that was logged in ended: all of it.
    Session(Box<SessionRecord>),
    /// Records were lost before this one: the disk or the journal was too slow
    /// or full.
    RecordsLost {
        /// How many.
        count: u64,
    },
}

/// Where a connection is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// The address; IPv4 as such, also where it came by an IPv6 socket.
    #[serde(rename = "peer_address")]
    pub address: IpAddr,
    /// The port.
    #[serde(rename = "peer_port")]
    pub port: u16,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self {
            address: address.ip().to_canonical(),
            port: address.port(),
        }
    }
}

/// Who somebody is, or says to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Who {
    /// The user name that was given.
    pub user: Text,
    /// The key, as `ssh-keygen -l` shows it.
    pub fingerprint: Text,
    /// The certificate, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// What its authority calls it.
    pub key_id: Text,
    /// Its number.
    pub serial: u64,
    /// The authority's fingerprint.
    pub authority: Text,
}

impl From<&Identity> for Who {
    fn from(identity: &Identity) -> Self {
        Self {
            user: identity.user.as_str().into(),
            fingerprint: identity.fingerprint.as_str().into(),
            certificate: identity.certificate.as_ref().map(Certificate::from),
        }
    }
}

impl From<&CertificateIdentity> for Certificate {
    fn from(certificate: &CertificateIdentity) -> Self {
        Self {
            key_id: certificate.key_id.as_str().into(),
            serial: certificate.serial,
            authority: certificate.authority.as_str().into(),
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Asked {
    /// A tunnel, by `tun@openssh.com` or the subsystem's messages.
    Tunnel {
        /// What it is to carry.
        mode: Mode,
        /// The unit, or `any`.
        unit: Text,
    },
    /// A connection from here (-L, -D).
    Open {
        /// To this host.
        host: Text,
        /// And port.
        port: u32,
    },
    /// A listener here (-R).
    Listen {
        /// At this address.
        host: Text,
        /// And port.
        port: u32,
    },
    /// A subsystem.
    Subsystem {
        /// Its name.
        name: Text,
    },
    /// Something that nobody gets here: a shell, a command, an agent.
    Other {
        /// Its name in the protocol.
        name: Text,
    },
}

impl Asked {
    /// A tunnel.
    pub fn tunnel(mode: Mode, unit: UnitRequest) -> Self {
        Asked::Tunnel {
            mode,
            unit: unit.to_string().into(),
        }
    }
}

/// A tunnel that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelFacts {
    /// This host's device.
    pub device: InterfaceName,
    /// What it carries.
    pub mode: Mode,
    /// The client's addresses.
    pub addresses: Vec<IpAddr>,
    /// In bytes.
    pub mtu: u32,
}

/// Everything about a connection that was logged in.
#[derive(Debug, Clone, Serialize)]
pub struct SessionRecord {
    /// Which.
    pub connection: ConnectionId,
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// From where.
    #[serde(flatten)]
    pub peer: Peer,
    /// What the client called itself.
    pub software: Text,
    /// When it was logged in.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Between them, in seconds.
    pub duration: f64,
    /// What it asked for, by kind.
    pub requests: BTreeMap<&'static str, Tally>,
    /// The tunnels that it had; the last ones, where they were many.
    pub tunnels: Vec<TunnelFacts>,
    /// What came from the client.
    pub upload: DirectionTraffic,
    /// What went to it.
    pub download: DirectionTraffic,
    /// Its TCP connections, by place.
    pub forwards: Vec<ForwardRecord>,
    /// Why it ended.
    pub reason: Text,
}
