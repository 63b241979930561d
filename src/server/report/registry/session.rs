//! One logged-in client: its requests, its tunnel, and its traffic.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::ConnectionId;
use super::forwards::{Forward, ForwardKind, ForwardRecord, Forwards};
use super::tally::Tallies;
use super::traffic::Traffic;
use crate::process::token_bucket::Allowance;
use crate::pump::Snapshot;
use crate::server::login::grant::Identity;
use crate::server::report::audit::Audit;
use crate::server::report::audit::event::{Asked, Event, Peer, SessionRecord, TunnelFacts, Who};
use crate::server::report::audit::text::Text;
use crate::server::report::audit::time::Timestamp;

/// Limit of the tunnels in the record of a session; the latest are kept.
const MOST_TUNNELS: usize = 8;

/// Requests of one session that are logged in a burst,
const REQUESTS: u32 = 200;
/// and the interval after which one more is logged. All requests are counted.
const EACH_REQUEST: Duration = Duration::from_millis(50);

/// A login, as the registry takes it.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// The connection.
    pub connection: ConnectionId,
    /// The client's identity.
    pub identity: &'a Identity,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// The software version in the client's banner.
    pub software: &'a str,
    /// The time of the login.
    pub now: SystemTime,
}

/// The traffic of a tunnel so far, in both directions.
#[derive(Debug)]
pub struct TunnelTraffic {
    /// From the client: the server's inbound counters.
    pub upload: Snapshot,
    /// To the client: the server's outbound counters.
    pub download: Snapshot,
}

/// Reads the counters of a running tunnel without stopping it.
pub type ReadCounters = Box<dyn Fn() -> TunnelTraffic + Send + Sync>;

/// A logged-in client, shared by its tasks.
#[derive(Debug)]
pub struct Session {
    id: ConnectionId,
    who: Who,
    peer: Peer,
    software: Text,
    start: Timestamp,
    audit: Audit,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tallies: Tallies,
    /// Limits the logged requests.
    requests: Allowance,
    tunnels: Vec<TunnelFacts>,
    running: Option<LiveTunnel>,
    /// The traffic of ended tunnels.
    past: Traffic,
    /// The largest traffic reported so far.
    told: Traffic,
    forwards: Forwards,
    ending: Option<Text>,
}

/// A live tunnel and its counters.
struct LiveTunnel {
    facts: TunnelFacts,
    read: ReadCounters,
}

impl fmt::Debug for LiveTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.fmt(f)
    }
}

/// A session at one moment.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// The identifier of its connection.
    pub id: ConnectionId,
    /// The client's identity.
    pub who: Who,
    /// The client's address and port.
    pub peer: Peer,
    /// The software version in the client's banner.
    pub software: Text,
    /// The time of the login.
    pub start: Timestamp,
    /// The current tunnel.
    pub tunnel: Option<TunnelFacts>,
    /// The traffic of its tunnels.
    pub traffic: Traffic,
    /// Its TCP connections.
    pub forwards: Vec<ForwardRecord>,
    /// The numbers of its requests.
    pub tallies: Tallies,
}

impl Session {
    pub(super) fn new(login: &Login<'_>, audit: Audit) -> Self {
        Self {
            id: login.connection,
            who: login.identity.into(),
            peer: login.peer.into(),
            software: login.software.into(),
            start: login.now.into(),
            audit,
            state: Mutex::new(State {
                tallies: Tallies::default(),
                requests: Allowance::new(REQUESTS, EACH_REQUEST),
                tunnels: Vec::new(),
                running: None,
                past: Traffic::default(),
                told: Traffic::default(),
                forwards: Forwards::default(),
                ending: None,
            }),
        }
    }

    /// The identifier of its connection.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The client's identity.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// Counts and logs a granted request. In a flood only some are logged, with the number
    /// of those left out.
    pub fn granted(&self, asked: Asked) {
        let mut state = self.lock();
        state.tallies.granted(&asked);
        let suppressed = state.requests.take(Instant::now());
        drop(state);
        if let Some(suppressed) = suppressed {
            self.audit.record(Event::RequestGranted {
                connection: self.id,
                who: self.who.clone(),
                asked,
                suppressed,
            });
        }
    }

    /// Counts and logs a refused request, with the reason.
    pub fn refused(&self, asked: Asked, reason: &str) {
        let mut state = self.lock();
        state.tallies.refused(&asked);
        let suppressed = state.requests.take(Instant::now());
        drop(state);
        if let Some(suppressed) = suppressed {
            self.audit.record(Event::RequestRefused {
                connection: self.id,
                who: self.who.clone(),
                asked,
                reason: reason.into(),
                suppressed,
            });
        }
    }

    /// Logs that the client's login, or something that it holds, was revoked, with the reason.
    pub fn withdrawn(&self, reason: &str) {
        self.audit.record(Event::AccessWithdrawn {
            connection: self.id,
            peer: self.peer,
            who: self.who.clone(),
            reason: reason.into(),
        });
    }

    /// Records the client's new tunnel, whose counters `read` reads, and ends the record of
    /// an earlier one. Logged within the same limit as requests.
    pub fn tunnel_up(&self, facts: TunnelFacts, read: ReadCounters) {
        let mut state = self.lock();
        let suppressed = state.requests.take(Instant::now());
        if let Some(suppressed) = suppressed {
            self.audit.record(Event::TunnelUp {
                connection: self.id,
                who: self.who.clone(),
                tunnel: facts.clone(),
                suppressed,
            });
        }
        state.close_tunnel();
        if state.tunnels.len() >= MOST_TUNNELS {
            state.tunnels.remove(0);
        }
        state.tunnels.push(facts.clone());
        state.running = Some(LiveTunnel { facts, read });
    }

    /// Records the end of its tunnel: keeps its totals and drops its counters.
    pub fn tunnel_down(&self) {
        self.lock().close_tunnel();
    }

    /// Counts a TCP connection until the guard is dropped.
    pub fn forward(&self, kind: ForwardKind, host: &str, port: u32) -> Forward {
        self.lock().forwards.begin(kind, host, port)
    }

    /// Sets the reason why the session ends; the first reason counts.
    pub fn ending(&self, reason: &str) {
        self.lock().ending.get_or_insert_with(|| reason.into());
    }

    /// The session at this moment.
    pub fn view(&self) -> SessionView {
        let mut state = self.lock();
        SessionView {
            id: self.id,
            who: self.who.clone(),
            peer: self.peer,
            software: self.software.clone(),
            start: self.start,
            tunnel: state.running.as_ref().map(|running| running.facts.clone()),
            traffic: state.traffic(),
            forwards: state.forwards.records(),
            tallies: state.tallies.clone(),
        }
    }

    /// The final record of the session.
    pub(super) fn record(&self, now: SystemTime) -> SessionRecord {
        let view = self.view();
        let state = self.lock();
        let end = Timestamp::from(now);
        SessionRecord {
            connection: self.id,
            who: view.who,
            peer: view.peer,
            software: view.software,
            start: self.start,
            end,
            duration: end.since(self.start).as_millis() as f64 / 1000.0,
            requests: view.tallies.by_kind(),
            tunnels: state.tunnels.clone(),
            upload: view.traffic.upload,
            download: view.traffic.download,
            forwards: view.forwards,
            reason: state
                .ending
                .clone()
                .unwrap_or_else(|| "the connection ended".into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A counter of the data path may fall when a counted packet is dropped after all. The
    /// reported value must not fall, since a fall would look like a restart.
    fn traffic(&mut self) -> Traffic {
        let mut now = self.past.clone();
        if let Some(running) = &self.running {
            let TunnelTraffic { upload, download } = (running.read)();
            now.add(&Traffic {
                upload: upload.into(),
                download: download.into(),
            });
        }
        self.told.raise(&now);
        self.told.clone()
    }

    fn close_tunnel(&mut self) {
        self.past = self.traffic();
        self.running = None;
    }
}
