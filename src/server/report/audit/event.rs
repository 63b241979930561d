//! The records of the audit log, one per event.

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

/// The version of the records; it is raised when an existing field changes its meaning.
pub const VERSION: u32 = 1;

/// One line of the log.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    version: u32,
    /// The time of the event.
    pub time: Timestamp,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl Record {
    /// The record of an event at `time`.
    pub fn new(event: Event, time: Timestamp) -> Self {
        Self {
            version: VERSION,
            time,
            event,
        }
    }
}

/// An event. Events with the same `connection` belong to one connection.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The server has started.
    ServerStarted {
        /// The addresses at which it listens.
        listen: Vec<SocketAddr>,
        /// Its process id.
        pid: u32,
    },
    /// A reload has changed the settings.
    ServerReloaded {
        /// The addresses at which it listens.
        listen: Vec<SocketAddr>,
    },
    /// The server stops.
    ServerStopped {
        /// The reason.
        reason: Text,
    },
    /// A connection was closed before the banner, or displaced before its login.
    ConnectionRefused {
        /// The client's address and port.
        #[serde(flatten)]
        peer: Peer,
        /// The name of the limit.
        reason: &'static str,
        /// The number of refusals left out since the last such record, because of the rate
        /// limit.
        suppressed: u64,
    },
    /// A key or certificate was denied.
    LoginDenied {
        /// The connection.
        connection: ConnectionId,
        /// The client's address and port.
        #[serde(flatten)]
        peer: Peer,
        /// The identity that the client claimed.
        #[serde(flatten)]
        who: Who,
        /// The reason.
        reason: Text,
    },
    /// A connection ended without a login.
    LoginFailed {
        /// The connection.
        connection: ConnectionId,
        /// The client's address and port.
        #[serde(flatten)]
        peer: Peer,
        /// The software version in the client's banner.
        software: Text,
        /// The kind of failure.
        reason: &'static str,
        /// Further details.
        detail: Text,
    },
    /// A client logged in.
    Login {
        /// The connection.
        connection: ConnectionId,
        /// The client's address and port.
        #[serde(flatten)]
        peer: Peer,
        /// The client's identity.
        #[serde(flatten)]
        who: Who,
        /// The software version in the client's banner.
        software: Text,
    },
    /// A client's request was granted.
    RequestGranted {
        /// The connection.
        connection: ConnectionId,
        /// The client's identity.
        #[serde(flatten)]
        who: Who,
        /// The request.
        #[serde(flatten)]
        asked: Asked,
        /// The number of records of this connection left out before this one, because of the
        /// rate limit.
        suppressed: u64,
    },
    /// A client's request was refused.
    RequestRefused {
        /// The connection.
        connection: ConnectionId,
        /// The client's identity.
        #[serde(flatten)]
        who: Who,
        /// The request.
        #[serde(flatten)]
        asked: Asked,
        /// The reason.
        reason: Text,
        /// The number of records of this connection left out before this one, because of the
        /// rate limit.
        suppressed: u64,
    },
    /// A client's tunnel is up.
    TunnelUp {
        /// The connection.
        connection: ConnectionId,
        /// The client's identity.
        #[serde(flatten)]
        who: Who,
        /// The tunnel.
        #[serde(flatten)]
        tunnel: TunnelFacts,
        /// The number of records of this connection left out before this one, because of the
        /// rate limit.
        suppressed: u64,
    },
    /// A reload revoked a client's login or something that it holds; it is disconnected.
    AccessWithdrawn {
        /// The connection.
        connection: ConnectionId,
        /// The client's address and port.
        #[serde(flatten)]
        peer: Peer,
        /// The client's identity.
        #[serde(flatten)]
        who: Who,
        /// The reason; the client does not learn it.
        reason: Text,
    },
    /// A session ended; this is its complete record.
    Session(Box<SessionRecord>),
    /// Records were lost before this one: the disk or the journal was too slow or full.
    RecordsLost {
        /// The number of lost records.
        count: u64,
    },
}

/// The source of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// The address; an IPv4 client of an IPv6 socket counts as IPv4.
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

/// An identity, verified or claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Who {
    /// The user name that the client gave.
    pub user: Text,
    /// The key's fingerprint, as `ssh-keygen -l` shows it.
    pub fingerprint: Text,
    /// The certificate, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The key id that the authority gave it.
    pub key_id: Text,
    /// Its serial number.
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

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Asked {
    /// A tunnel, over `tun@openssh.com` or the subsystem's messages.
    Tunnel {
        /// The requested mode.
        mode: Mode,
        /// The unit, or `any`.
        unit: Text,
    },
    /// A connection from the server (-L, -D).
    Open {
        /// The destination host.
        host: Text,
        /// The destination port.
        port: u32,
    },
    /// A listener on the server (-R).
    Listen {
        /// The address to listen at.
        host: Text,
        /// The port to listen at.
        port: u32,
    },
    /// A subsystem.
    Subsystem {
        /// Its name.
        name: Text,
    },
    /// A request that the server always refuses: a shell, a command, an agent.
    Other {
        /// Its name in the protocol.
        name: Text,
    },
}

impl Asked {
    /// A request for a tunnel.
    pub fn tunnel(mode: Mode, unit: UnitRequest) -> Self {
        Asked::Tunnel {
            mode,
            unit: unit.to_string().into(),
        }
    }
}

/// A tunnel that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelFacts {
    /// The device on this host.
    pub device: InterfaceName,
    /// What the tunnel carries.
    pub mode: Mode,
    /// The client's addresses.
    pub addresses: Vec<IpAddr>,
    /// The MTU in bytes.
    pub mtu: u32,
}

/// The complete record of a session.
#[derive(Debug, Clone, Serialize)]
pub struct SessionRecord {
    /// The connection.
    pub connection: ConnectionId,
    /// The client's identity.
    #[serde(flatten)]
    pub who: Who,
    /// The client's address and port.
    #[serde(flatten)]
    pub peer: Peer,
    /// The software version in the client's banner.
    pub software: Text,
    /// The time of the login.
    pub start: Timestamp,
    /// The time of the end.
    pub end: Timestamp,
    /// The difference of the two, in seconds.
    pub duration: f64,
    /// The numbers of its requests, by kind.
    pub requests: BTreeMap<&'static str, Tally>,
    /// Its tunnels; only the latest if there were many.
    pub tunnels: Vec<TunnelFacts>,
    /// The traffic from the client.
    pub upload: DirectionTraffic,
    /// The traffic to the client.
    pub download: DirectionTraffic,
    /// Its TCP connections, by place.
    pub forwards: Vec<ForwardRecord>,
    /// Why it ended.
    pub reason: Text,
}
