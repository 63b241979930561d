//! One client that is logged in: what it asked for, has, and carried.

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

/// Tunnels of one session that its record names; the first ones of more are left out.
const MOST_TUNNELS: usize = 8;

/// Requests of one session that are written down at once,
const REQUESTS: u32 = 200;
/// and after which time one more. All are counted.
const EACH_REQUEST: Duration = Duration::from_millis(50);

/// A login, as the registry takes it.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// Over this connection.
    pub connection: ConnectionId,
    /// Who.
    pub identity: &'a Identity,
    /// From where.
    pub peer: SocketAddr,
    /// What the client calls itself.
    pub software: &'a str,
    /// When.
    pub now: SystemTime,
}

/// What a tunnel has carried so far, from the client and to it.
#[derive(Debug)]
pub struct TunnelTraffic {
    /// From the client: what the server's inbound counters say.
    pub upload: Snapshot,
    /// To the client: what its outbound counters say.
    pub download: Snapshot,
}

/// Reads the counters of a running tunnel, without stopping it.
pub type ReadCounters = Box<dyn Fn() -> TunnelTraffic + Send + Sync>;

/// A client that is logged in. All of its tasks may share it.
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
    /// Requests that may be written down.
    requests: Allowance,
    tunnels: Vec<TunnelFacts>,
    running: Option<LiveTunnel>,
    /// What tunnels carried that are gone.
    past: Traffic,
    /// The largest that was ever told.
    told: Traffic,
    forwards: Forwards,
    ending: Option<Text>,
}

/// A tunnel and its counters.
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
    /// Its connection.
    pub id: ConnectionId,
    /// Who.
    pub who: Who,
    /// From where.
    pub peer: Peer,
    /// What the client calls itself.
    pub software: Text,
    /// When it was logged in.
    pub start: Timestamp,
    /// The tunnel that it has now.
    pub tunnel: Option<TunnelFacts>,
    /// What its tunnels carried.
    pub traffic: Traffic,
    /// Its TCP connections.
    pub forwards: Vec<ForwardRecord>,
    /// What it asked for.
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

    /// Its connection.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Who it is.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// Counts and writes down that the client got what it asked for. Of a flood
    /// of requests some are written down, with the number of the others.
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

    /// Counts and writes down that it did not, and why.
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

    /// Writes down that what it came in by, or what it has, was taken away, and why.
    pub fn withdrawn(&self, reason: &str) {
        self.audit.record(Event::AccessWithdrawn {
            connection: self.id,
            peer: self.peer,
            who: self.who.clone(),
            reason: reason.into(),
        });
    }

    /// The client has a tunnel now, whose counters `read` reads. One that it had
    /// before is over. Written down as requests are.
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

    /// Its tunnel is over: what it carried is kept, its counters are let go.
    pub fn tunnel_down(&self) {
        self.lock().close_tunnel();
    }

    /// Counts a TCP connection until the guard is dropped.
    pub fn forward(&self, kind: ForwardKind, host: &str, port: u32) -> Forward {
        self.lock().forwards.begin(kind, host, port)
    }

    /// Says why it ends; the first reason counts.
    pub fn ending(&self, reason: &str) {
        self.lock().ending.get_or_insert_with(|| reason.into());
    }

    /// What there is to say of it now.
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

    /// The last word on it.
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
    /// A counter of the data path may fall by a packet that was dropped after
    /// all; what is told of it does not, or it would look like a new beginning.
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
