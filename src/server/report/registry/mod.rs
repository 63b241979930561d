//! The registry of logged-in clients, and totals over all clients since the start. Every
//! event counted here is also written to the audit log.
//!
//! ```text
//!   refused, denied, failed       connections without a login
//!   add ─► LiveSession            a logged-in client, until it is dropped
//!            └► session           its requests, tunnel, forwards
//!   view                          everything at one moment, for status and metrics
//! ```

pub mod clients;
pub mod forwards;
pub mod outcome;
pub mod session;
pub mod tally;
pub mod traffic;

#[cfg(test)]
pub(in crate::server) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use super::audit::Audit;
use super::audit::event::{Event, Who};
use crate::config::serve::settings::ClientLimits;
use crate::process::token_bucket::Allowance;
use crate::server::admission::Refused;
use clients::{ClientView, Clients};
use outcome::{Full, LoginFailed};
use session::{Login, Session, SessionView};
use tally::Tallies;
use traffic::Traffic;

/// Refused connections that are logged in a burst,
const REFUSALS: u32 = 100;
/// and the interval after which one more is logged.
const EACH_REFUSAL: Duration = Duration::from_millis(100);

/// The identifier of a connection in logs: the server's start time and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    server: Duration,
    number: u64,
}

#[cfg(test)]
impl ConnectionId {
    /// An arbitrary identifier for a test.
    pub(crate) fn of_test(number: u64) -> Self {
        ConnectionId {
            server: Duration::ZERO,
            number,
        }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.server.as_millis(), self.number)
    }
}

impl Serialize for ConnectionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// All logged-in clients, and the totals.
#[derive(Debug)]
pub struct Registry {
    audit: Audit,
    began: Duration,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: ClientLimits,
    live: BTreeMap<ConnectionId, Arc<Session>>,
    refused: BTreeMap<&'static str, u64>,
    /// Limits the logged refusals.
    refusals: Allowance,
    failed: BTreeMap<&'static str, u64>,
    logins: u64,
    /// Totals of ended sessions.
    past: Traffic,
    past_forwarded: Forwarded,
    past_tallies: Tallies,
    clients: Clients,
}

/// Bytes of TCP connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Forwarded {
    /// From clients.
    pub upload: u64,
    /// To clients.
    pub download: u64,
}

/// Everything at one moment. No total in it ever falls.
#[derive(Debug)]
pub struct View {
    /// The logged-in clients.
    pub sessions: Vec<SessionView>,
    /// The number of logins so far.
    pub logins: u64,
    /// Connections that were refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Connections without a login, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Requests of all clients.
    pub tallies: Tallies,
    /// The traffic of all tunnels.
    pub traffic: Traffic,
    /// The traffic of all TCP connections.
    pub forwarded: Forwarded,
    /// Both per client: the live ones, and those that left most recently.
    pub clients: Vec<ClientView>,
}

impl Registry {
    /// The registry of a server that starts at `now`.
    pub fn new(limits: &ClientLimits, audit: Audit, now: SystemTime) -> Arc<Self> {
        Arc::new(Self {
            audit,
            began: now
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
            next: AtomicU64::new(1),
            state: Mutex::new(State {
                limits: *limits,
                live: BTreeMap::new(),
                refused: BTreeMap::new(),
                refusals: Allowance::new(REFUSALS, EACH_REFUSAL),
                failed: BTreeMap::new(),
                logins: 0,
                past: Traffic::default(),
                past_forwarded: Forwarded::default(),
                past_tallies: Tallies::default(),
                clients: Clients::default(),
            }),
        })
    }

    /// The identifier of a new connection.
    pub fn connection(&self) -> ConnectionId {
        ConnectionId {
            server: self.began,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Changes the limits; logged-in clients stay.
    pub fn set_limits(&self, limits: &ClientLimits) {
        self.lock().limits = *limits;
    }

    /// Records a refused connection. In a flood only some are logged, with the number of
    /// those left out.
    pub fn refused(&self, peer: SocketAddr, why: Refused, now: Instant) {
        let mut state = self.lock();
        *state.refused.entry(why.name()).or_default() += 1;
        let suppressed = state.refusals.take(now);
        drop(state);
        if let Some(suppressed) = suppressed {
            self.audit.record(Event::ConnectionRefused {
                peer: peer.into(),
                reason: why.name(),
                suppressed,
            });
        }
    }

    /// Records a key or certificate that was denied; the client may try another.
    pub fn denied(&self, connection: ConnectionId, peer: SocketAddr, who: Who, reason: &str) {
        self.audit.record(Event::LoginDenied {
            connection,
            peer: peer.into(),
            who,
            reason: reason.into(),
        });
    }

    /// Records a connection that ends without a login.
    pub fn failed(
        &self,
        connection: ConnectionId,
        peer: SocketAddr,
        software: &str,
        why: &LoginFailed,
    ) {
        *self.lock().failed.entry(why.name()).or_default() += 1;
        self.audit.record(Event::LoginFailed {
            connection,
            peer: peer.into(),
            software: software.into(),
            reason: why.name(),
            detail: why.detail().into(),
        });
    }

    /// Adds a logged-in client. If a limit is reached, counts and logs a failed login
    /// instead.
    pub fn add(self: &Arc<Self>, login: &Login<'_>) -> Result<LiveSession, Full> {
        let session = Arc::new(Session::new(login, self.audit.clone()));
        let mut state = self.lock();
        if let Err(full) = state.room(session.who()) {
            drop(state);
            let failed = LoginFailed::Full(full);
            self.failed(login.connection, login.peer, login.software, &failed);
            return Err(full);
        }
        state.logins += 1;
        state.live.insert(session.id(), Arc::clone(&session));
        drop(state);
        self.audit.record(Event::Login {
            connection: login.connection,
            peer: login.peer.into(),
            who: session.who().clone(),
            software: login.software.into(),
        });
        Ok(LiveSession {
            registry: Arc::clone(self),
            session,
        })
    }

    /// The number of logged-in clients.
    pub fn live(&self) -> usize {
        self.lock().live.len()
    }

    /// Everything at this moment; traffic does not stop for it.
    pub fn view(&self) -> View {
        let state = self.lock();
        let mut view = View {
            sessions: state.live.values().map(|session| session.view()).collect(),
            logins: state.logins,
            refused: state.refused.clone(),
            failed: state.failed.clone(),
            tallies: state.past_tallies.clone(),
            traffic: state.past.clone(),
            forwarded: state.past_forwarded,
            clients: Vec::new(),
        };
        for session in &view.sessions {
            view.tallies.add(&session.tallies);
            view.traffic.add(&session.traffic);
            view.forwarded.add(session);
        }
        view.clients = state.clients.with_live(&view.sessions);
        view
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn room(&self, who: &Who) -> Result<(), Full> {
        if self.live.len() >= self.limits.clients {
            return Err(Full::Clients);
        }
        let same = |session: &&Arc<Session>| session.who().fingerprint == who.fingerprint;
        if self.live.values().filter(same).count() >= self.limits.per_key {
            return Err(Full::Key);
        }
        Ok(())
    }

    fn remove(&mut self, id: ConnectionId) {
        if let Some(session) = self.live.remove(&id) {
            let view = session.view();
            self.past.add(&view.traffic);
            self.past_forwarded.add(&view);
            self.past_tallies.add(&view.tallies);
            self.clients.keep(&view);
        }
    }
}

impl Forwarded {
    fn add(&mut self, session: &SessionView) {
        for forward in &session.forwards {
            self.upload = self.upload.saturating_add(forward.upload);
            self.download = self.download.saturating_add(forward.download);
        }
    }
}

/// A session in the registry; dropping it removes it and writes its record.
#[derive(Debug)]
pub struct LiveSession {
    registry: Arc<Registry>,
    session: Arc<Session>,
}

impl LiveSession {
    /// A handle for another task.
    pub fn share(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }
}

impl Deref for LiveSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for LiveSession {
    fn drop(&mut self) {
        self.session.tunnel_down();
        self.registry.lock().remove(self.session.id());
        let record = self.session.record(SystemTime::now());
        self.registry.audit.record(Event::Session(Box::new(record)));
    }
}
