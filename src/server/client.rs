//! One client connection from accept to close: login, requests, tunnel and forwards.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Server;
use super::access::entitlement::{Dismissal, Entitlement, Entry};
use super::address::lease::LeaseKey;
use super::forward::Forwards;
use super::life::admission::{Place, Startup};
use super::login::denial::Denial;
use super::login::grant::Grant;
use super::login::rules::Rules;
use super::report::audit::event::{Asked, Who};
use super::report::registry::ConnectionId;
use super::report::registry::outcome::LoginFailed;
use super::report::registry::session::{Login, Session};
use super::tunnel::channel::ChannelTunnel;
use super::tunnel::rates::Rates;
use super::tunnel::stream::{SUBSYSTEM, StreamTunnel};
use crate::process::token_bucket::Allowance;
use crate::ssh::server::connection::ClientConnection;
use crate::ssh::server::login::LoginFailure;
use crate::ssh::server::login::accept::accept;
use crate::ssh::server::login::credential::{Attempt, Credential};
use crate::ssh::server::login::gate::{Gate, Tried};
use crate::ssh::server::requests::{RefusalCode, Request, SubsystemReply, TunnelReply};
use crate::types::Mode;

/// How long a tunnel may take to end by itself when the server stops: shorter than
/// the server's own wait for its clients.
const FAREWELL: Duration = Duration::from_secs(5);

/// Tunnels that one connection may open in a burst.
const TUNNELS_AT_ONCE: u32 = 10;
/// The interval after which it may open one more.
const TUNNEL_EACH: Duration = Duration::from_secs(1);
/// The reply to a client that exceeds this rate.
const TOO_OFTEN: &str =
    "this connection opens tunnels too often: at most 10 at once, then 1 a second";

/// Serves a connection from its first byte to its last.
pub(super) async fn attend(
    server: Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    mut startup: Startup,
) {
    let mut changes = server.rules.subscribe();
    let rules = Arc::clone(&changes.borrow_and_update());
    let id = server.registry.connection();
    let door = Arc::new(Door {
        server: Arc::clone(&server),
        id,
        denial: Mutex::default(),
        place: startup.place(),
    });
    let accepted = tokio::select! {
        accepted = accept(stream, peer, &rules.ssh, door) => accepted,
        _ = server.stopping() => {
            let stopping = LoginFailed::ServerStopping;
            return server.registry.failed(id, peer, "", &stopping);
        }
        why = startup.displaced() => {
            return server.registry.refused(peer, why, Instant::now());
        }
    };
    // A connection may last for days; it must not keep large, outdated rules alive.
    drop(rules);
    let login = match accepted {
        Ok(login) => login,
        Err(failure) => return server.turned_away(id, peer, &failure),
    };
    let software = login.connection.identification().to_owned();
    let known = server.registry.add(&Login {
        connection: id,
        identity: &login.grant.identity,
        peer,
        software: &software,
        now: SystemTime::now(),
    });
    startup.logged_in();
    let live = match known {
        Ok(live) => live,
        Err(full) => return login.connection.disconnect(&full.to_string()).await,
    };
    let connection = Arc::new(login.connection);
    let session = live.share();
    let rates = server.rates.of(&login.grant);
    let names = server.lookups.names(LeaseKey::of(&login.grant.identity));
    let entry = Entry {
        user: login.user,
        peer: login.peer,
        credential: login.credential,
        touched: login.touched,
    };
    let entitlement = Entitlement::new(id, entry, login.grant, Arc::clone(&server.reach));
    let dismissal = dismissal(
        Arc::clone(&server),
        Arc::clone(&entitlement),
        Arc::clone(&session),
        changes,
    );
    let mut dismissal = pin!(dismissal);
    let mut client = Client {
        forwards: Forwards::new(
            Arc::clone(&entitlement),
            Arc::clone(&connection),
            Arc::clone(&session),
            Arc::clone(&server.reach),
            rates.clone(),
            names,
        ),
        rates,
        server,
        entitlement,
        session,
        connection,
        tunnel: None,
        openings: Allowance::new(TUNNELS_AT_ONCE, TUNNEL_EACH),
    };
    let mut requests = login.requests;
    let dismissed = loop {
        let request = tokio::select! {
            request = requests.next() => request,
            why = &mut dismissal => break Some(why),
        };
        let Some(request) = request else {
            break None;
        };
        // A client that does not read its replies is disconnected nevertheless.
        tokio::select! {
            () = client.answer(request) => {}
            why = &mut dismissal => break Some(why),
        }
    };
    client.end(dismissed).await;
    drop(live);
}

/// Waits until the client must be disconnected: the server stops, or a reload revokes
/// its login or something that it holds.
async fn dismissal(
    server: Arc<Server>,
    entitlement: Arc<Entitlement>,
    session: Arc<Session>,
    mut changes: watch::Receiver<Arc<Rules>>,
) -> Dismissal {
    let judged = async {
        // The server holds the sender of the rules, so this does not fail.
        while changes.changed().await.is_ok() {
            let rules = Arc::clone(&changes.borrow_and_update());
            if let Err(revocation) = entitlement.judge_again(&rules.policy, SystemTime::now()) {
                return session.withdrawn(&revocation.to_string());
            }
        }
    };
    tokio::select! {
        why = server.stopping() => Dismissal::ServerStopping(why),
        () = judged => Dismissal::AccessWithdrawn,
    }
}

impl Server {
    /// Reports a connection that ended without a login.
    fn turned_away(&self, id: ConnectionId, peer: SocketAddr, failure: &LoginFailure) {
        let why = match failure {
            LoginFailure::Protocol(what) => LoginFailed::Protocol(what.clone()),
            // The client is not at fault if the two have no algorithm in common.
            LoginFailure::Algorithms(_) | LoginFailure::NoAttempt => LoginFailed::NoAttempt,
            LoginFailure::Failed(_) => LoginFailed::Denied,
            LoginFailure::GraceTime(_) => LoginFailed::GraceExceeded,
        };
        tracing::debug!(%peer, "the connection ended without a login: {failure}");
        self.registry.failed(id, peer, "", &why);
        if let Some(offence) = why.offence() {
            self.admission.penalize(peer.ip(), offence, Instant::now());
        }
    }
}

/// Decides about the login attempts of one connection.
struct Door {
    server: Arc<Server>,
    id: ConnectionId,
    /// Why the last attempt was denied.
    denial: Mutex<Option<Denial>>,
    /// The connection's slot among those without a login.
    place: Place,
}

impl Gate for Door {
    type Grant = Grant;

    fn begun(&self) {
        self.place.begun();
    }

    fn judge(&self, attempt: &Attempt<'_>) -> Option<Grant> {
        // The current rules: a key may have been removed since the client connected.
        match self.server.rules().policy.judge(attempt) {
            Ok(grant) => Some(grant),
            Err(denial) => {
                let mut last = self.denial.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some(denial);
                None
            }
        }
    }

    fn failed(&self, peer: SocketAddr, user: &str, tried: Tried<'_>) {
        let (who, reason) = match tried {
            Tried::Refused(credential) => {
                let mut last = self.denial.lock().unwrap_or_else(PoisonError::into_inner);
                let reason = last.take().map(|denial| denial.to_string());
                (who(user, Some(credential)), reason.unwrap_or_default())
            }
            Tried::Unproven(credential, why) => (who(user, Some(credential)), why.to_owned()),
            Tried::Unfit(why) => (who(user, None), why.to_owned()),
            Tried::Method(method) => (who(user, None), format!("tried {method}")),
        };
        self.server.registry.denied(self.id, peer, who, &reason);
    }
}

/// The audit identity of a client that has not logged in.
fn who(user: &str, credential: Option<&Credential>) -> Who {
    let certificate = match credential {
        Some(Credential::Certificate(certificate)) => {
            Some(super::report::audit::event::Certificate {
                key_id: certificate.key_id.as_str().into(),
                serial: certificate.serial,
                authority: certificate.authority.fingerprint().as_str().into(),
            })
        }
        _ => None,
    };
    let key = credential.map(|credential| credential.key().fingerprint());
    Who {
        user: user.into(),
        fingerprint: key.unwrap_or_default().as_str().into(),
        certificate,
    }
}

/// A logged-in client.
struct Client {
    server: Arc<Server>,
    entitlement: Arc<Entitlement>,
    session: Arc<Session>,
    connection: Arc<ClientConnection>,
    forwards: Forwards,
    rates: Rates,
    /// The client's tunnel; at most one.
    tunnel: Option<JoinHandle<()>>,
    /// Limits how often it may open a tunnel, because each one is work for the kernel.
    openings: Allowance,
}

impl Client {
    async fn answer(&mut self, request: Request) {
        match request {
            Request::Tunnel { mode, unit, reply } => self.tunnel(mode, unit, reply).await,
            Request::Subsystem { name, reply } => self.subsystem(&name, reply).await,
            Request::Open {
                host, port, reply, ..
            } => self.forwards.open(host, port, reply).await,
            Request::Listen {
                address,
                port,
                reply,
            } => self.forwards.listen(address, port, reply).await,
            Request::CancelListen {
                address,
                port,
                reply,
            } => self.forwards.cancel(address, port, reply).await,
            Request::Unserved { what, why } => {
                let name = what.as_str().into();
                self.session.refused(Asked::Other { name }, &why);
            }
        }
    }

    async fn tunnel(&mut self, mode: Mode, unit: crate::types::UnitRequest, reply: TunnelReply) {
        if let Some(text) = self.cannot_open().await {
            self.session.refused(Asked::tunnel(mode, unit), text);
            return reply.refuse(RefusalCode::ResourceShortage, text).await;
        }
        let tunnel = ChannelTunnel {
            server: Arc::clone(&self.server),
            entitlement: Arc::clone(&self.entitlement),
            session: Arc::clone(&self.session),
            rates: self.rates.clone(),
            mode,
            unit,
            offload: self.connection.is_sshvpn(),
        };
        self.tunnel = Some(tokio::spawn(tunnel.run(reply)));
    }

    async fn subsystem(&mut self, name: &str, reply: SubsystemReply) {
        let asked = Asked::Subsystem { name: name.into() };
        let refusal = if name != SUBSYSTEM {
            Some("there is no such subsystem")
        } else {
            self.cannot_open().await
        };
        if let Some(text) = refusal {
            self.session.refused(asked, text);
            return reply.refuse().await;
        }
        self.session.granted(asked);
        let tunnel = StreamTunnel {
            server: Arc::clone(&self.server),
            entitlement: Arc::clone(&self.entitlement),
            session: Arc::clone(&self.session),
            rates: self.rates.clone(),
        };
        self.tunnel = Some(tokio::spawn(async move {
            let (output, input) = reply.accept().await;
            tunnel.run(input, output).await;
        }));
    }

    /// Why the client may not open a tunnel now.
    async fn cannot_open(&mut self) -> Option<&'static str> {
        if !self.has_no_tunnel().await {
            return Some("this connection has a tunnel already");
        }
        match self.openings.take(Instant::now()) {
            Some(_) => None,
            None => Some(TOO_OFTEN),
        }
    }

    /// Whether the client has no tunnel, or its tunnel has ended.
    async fn has_no_tunnel(&mut self) -> bool {
        match &mut self.tunnel {
            Some(running) if !running.is_finished() => false,
            Some(running) => {
                // A tunnel task that panicked has ended too.
                let _ = running.await;
                self.tunnel = None;
                true
            }
            None => true,
        }
    }

    /// Ends everything; `dismissed` is the reason if the server disconnects the client.
    async fn end(mut self, dismissed: Option<Dismissal>) {
        let reason = match &dismissed {
            Some(why) => {
                self.entitlement.dismiss(why);
                why.to_string()
            }
            None => self.connection.ended().await,
        };
        self.session.ending(&reason);
        // The listeners close now, however long the tunnel takes.
        drop(self.forwards);
        let mut tunnel = self.tunnel.take();
        // The tunnel ends by itself, with the connection or with the server, unless the
        // client does not read and the tunnel cannot send its last message.
        if let Some(running) = &mut tunnel
            && timeout(FAREWELL, running).await.is_ok()
        {
            tunnel = None;
        }
        if dismissed.is_some() {
            self.connection.disconnect(&reason).await;
        }
        if let Some(running) = tunnel {
            let _ = running.await;
        }
    }
}
