//! The status document of a running server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process;
use std::time::Instant;

use serde::Serialize;

use super::watched::Watched;
use crate::server::report::audit::event::{Peer, TunnelFacts, Who};
use crate::server::report::audit::text::Text;
use crate::server::report::audit::time::Timestamp;
use crate::server::report::registry::forwards::ForwardRecord;
use crate::server::report::registry::session::SessionView;
use crate::server::report::registry::tally::Tally;
use crate::server::report::registry::traffic::Traffic;
use crate::server::report::registry::{ConnectionId, Forwarded};

/// The version of the document; it is raised when an existing field changes its meaning.
pub const VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Serialize)]
pub struct Document {
    version: u32,
    server: Server,
    sessions: Vec<Session>,
    totals: Totals,
}

#[derive(Debug, Serialize)]
struct Server {
    software: &'static str,
    pid: u32,
    network_namespace: u64,
    listen: Vec<SocketAddr>,
    started: Timestamp,
    reloads: u64,
}

#[derive(Debug, Serialize)]
struct Session {
    connection: ConnectionId,
    #[serde(flatten)]
    who: Who,
    #[serde(flatten)]
    peer: Peer,
    software: Text,
    since: Timestamp,
    tunnel: Option<TunnelFacts>,
    #[serde(flatten)]
    traffic: Traffic,
    forwards: Vec<ForwardRecord>,
    requests: BTreeMap<&'static str, Tally>,
}

#[derive(Debug, Serialize)]
struct Totals {
    logins: u64,
    /// Connections that have not logged in yet.
    startups: usize,
    /// Sources with a penalty.
    penalised_sources: usize,
    refused: BTreeMap<&'static str, u64>,
    failed: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    traffic: Traffic,
    forwarded: Forwarded,
    requests: BTreeMap<&'static str, Tally>,
    leases: usize,
    audit_records_lost: u64,
}

impl Document {
    /// The document for the time `now`.
    pub fn of(watched: &Watched, now: Instant) -> Self {
        let view = watched.registry.view();
        Self {
            version: VERSION,
            server: Server {
                software: concat!("sshvpn ", env!("CARGO_PKG_VERSION")),
                pid: process::id(),
                network_namespace: watched.network_namespace,
                listen: watched.listen(),
                started: watched.started.into(),
                reloads: watched.reloads(),
            },
            sessions: view.sessions.into_iter().map(Session::from).collect(),
            totals: Totals {
                logins: view.logins,
                startups: watched.admission.startups(),
                penalised_sources: watched.admission.penalised_sources(now),
                refused: view.refused,
                failed: view.failed,
                traffic: view.traffic,
                forwarded: view.forwarded,
                requests: view.tallies.by_kind(),
                leases: watched.leases(),
                audit_records_lost: watched.audit.lost(),
            },
        }
    }
}

impl From<SessionView> for Session {
    fn from(view: SessionView) -> Self {
        Self {
            connection: view.id,
            who: view.who,
            peer: view.peer,
            software: view.software,
            since: view.start,
            tunnel: view.tunnel,
            traffic: view.traffic,
            forwards: view.forwards,
            requests: view.tallies.by_kind(),
        }
    }
}
