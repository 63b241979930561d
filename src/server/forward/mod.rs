//! TCP forwards: connections that the server makes for a client (-L, -D), and listeners
//! whose connections it passes to the client (-R).
//!
//! ```text
//!   Forwards ─┬► names ► open  connects to permitted places      ─┬► carry
//!             └► listen  accepts, opens a channel to the client  ─┘
//! ```

mod carry;
pub(super) mod listen;
mod names;
mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::access::access_rules::Reachability;
use super::access::entitlement::{Entitlement, Held};
use super::login::grant::Grant;
use super::report::audit::event::Asked;
use super::report::registry::forwards::ForwardKind;
use super::report::registry::session::Session;
use super::tunnel::rates::Rates;
use crate::process::open_connections::OpenConnections;
use crate::ssh::server::connection::ClientConnection;
use crate::ssh::server::requests::{CancelReply, ListenReply, OpenReply, RefusalCode};
use carry::carry;
use listen::{Carrier, Named, accept, listen_at};
use names::Names;
use open::{Among, NotConnected, connect};

pub(super) use names::Lookups;

/// Time limit to make a connection, the name lookup included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Limit of the listeners of one client.
const MOST_LISTENERS: usize = 16;

/// The forwards of one client. Dropping it ends them.
pub(super) struct Forwards {
    entitlement: Arc<Entitlement>,
    connection: Arc<ClientConnection>,
    session: Arc<Session>,
    reach: Arc<Reachability>,
    rates: Rates,
    names: Names,
    running: OpenConnections,
    /// By address and port, as the client names them.
    listeners: BTreeMap<(String, u16), JoinSet<()>>,
}

impl Forwards {
    /// Starts without forwards.
    pub(super) fn new(
        entitlement: Arc<Entitlement>,
        connection: Arc<ClientConnection>,
        session: Arc<Session>,
        reach: Arc<Reachability>,
        rates: Rates,
        names: Names,
    ) -> Self {
        Forwards {
            entitlement,
            connection,
            session,
            reach,
            rates,
            names,
            running: OpenConnections::default(),
            listeners: BTreeMap::new(),
        }
    }

    /// Connects to `host` for the client, if that is permitted.
    pub(super) async fn open(&mut self, host: String, port: u16, reply: OpenReply) {
        let asked = asked(&host, port, false);
        let Some(held) = self.entitlement.hold_open(&host, port) else {
            self.session.refused(asked, "not permitted");
            let text = format!("connections to {host}:{port} are not permitted");
            return reply.refuse(RefusalCode::Prohibited, &text).await;
        };
        let (session, rates) = (Arc::clone(&self.session), self.rates.clone());
        let names = self.names.clone();
        let among = (!held.grant.open.names(&host, port)).then(|| self.among(&held.grant));
        self.running.spawn(async move {
            let _held = held;
            let connecting = connect(&names, &host, port, among.as_ref());
            let connected = match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            };
            match connected {
                Ok(stream) => {
                    session.granted(asked);
                    let forward = session.forward(ForwardKind::Open, &host, port.into());
                    carry(reply.accept().await, stream, &forward, &rates).await;
                }
                Err(NotConnected::Client) => {
                    session.refused(asked, "to another client, with no group in common");
                    let text = format!("connections to {host}:{port} are not permitted");
                    reply.refuse(RefusalCode::Prohibited, &text).await;
                }
                Err(NotConnected::Busy) => {
                    session.refused(asked, "too many name lookups are in progress");
                    let text = "too many name lookups are in progress, try again later";
                    reply.refuse(RefusalCode::ResourceShortage, text).await;
                }
                Err(NotConnected::Failed(error)) => {
                    session.refused(asked, &error.to_string());
                    let text = format!("cannot connect to {host}:{port}");
                    reply.refuse(RefusalCode::ConnectFailed, &text).await;
                }
            }
        });
    }

    fn among(&self, grant: &Grant) -> Among {
        let tunnel = grant.tunnel.as_ref();
        Among {
            reach: Arc::clone(&self.reach),
            id: self.session.id(),
            groups: tunnel.map_or_else(BTreeSet::new, |tunnel| tunnel.groups.clone()),
        }
    }

    /// Listens for the client, if that is permitted.
    pub(super) async fn listen(&mut self, address: String, port: u16, reply: ListenReply) {
        let asked = asked(&address, port, true);
        let held = self.entitlement.hold_listener(&address, port);
        let refusal = if self.listeners.len() >= MOST_LISTENERS {
            "too many listeners".to_owned()
        } else if let Some(held) = held {
            let places = Named::of(&address).places(&held.grant.listen, port);
            match listen_at(&places, port, reply).await {
                Ok((port, listeners)) => {
                    self.session.granted(asked);
                    self.accept_at(&address, port, listeners, held);
                }
                Err(error) => self.session.refused(asked, &error.to_string()),
            }
            return;
        } else {
            "not permitted".to_owned()
        };
        self.session.refused(asked, &refusal);
        reply.refuse();
    }

    /// Closes the listener before it returns; accepted connections continue.
    pub(super) async fn cancel(&mut self, address: String, port: u16, reply: CancelReply) {
        match self.listeners.remove(&(address, port)) {
            Some(mut tasks) => {
                tasks.shutdown().await;
                reply.accept();
            }
            None => reply.refuse(),
        }
    }

    fn accept_at(&mut self, address: &str, port: u16, listeners: Vec<TcpListener>, held: Held) {
        let carrier = Carrier {
            connection: Arc::clone(&self.connection),
            session: Arc::clone(&self.session),
            rates: self.rates.clone(),
            address: address.to_owned(),
            port,
            _held: Arc::new(held),
        };
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let carrier = carrier.clone();
            tasks.spawn(accept(
                listener,
                self.running.clone(),
                move |stream, originator| carrier.clone().carry(stream, originator),
            ));
        }
        self.listeners.insert((address.to_owned(), port), tasks);
    }
}

fn asked(host: &str, port: u16, listen: bool) -> Asked {
    let (host, port) = (host.into(), port.into());
    match listen {
        true => Asked::Listen { host, port },
        false => Asked::Open { host, port },
    }
}
