//! TCP forwards: connections from here on a client's behalf (-L, -D), and
//! listeners here whose connections the client gets (-R).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::audit::event::Asked;
use super::grant::{ForwardRule, Grant};
use super::registry::forwards::{Forward, ForwardKind};
use super::registry::session::Session;
use crate::ssh::server::connection::ClientConnection;
use crate::ssh::server::requests::{CancelReply, ListenReply, OpenReply, RefusalCode};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes moved in one go.
const CHUNK: usize = 32 * 1024;
/// Listeners of one client.
const MOST_LISTENERS: usize = 16;
/// How long to wait for descriptors or memory, of which there are none left.
const PAUSE: Duration = Duration::from_millis(100);

/// The forwards of one client. Dropping it ends them.
pub(super) struct Forwards {
    grant: Arc<Grant>,
    connection: Arc<ClientConnection>,
    session: Arc<Session>,
    running: JoinSet<()>,
    /// By address and port, as the client knows them.
    listeners: BTreeMap<(String, u16), Vec<AbortHandle>>,
}

impl Forwards {
    /// None yet.
    pub(super) fn new(
        grant: Arc<Grant>,
        connection: Arc<ClientConnection>,
        session: Arc<Session>,
    ) -> Self {
        Forwards {
            grant,
            connection,
            session,
            running: JoinSet::new(),
            listeners: BTreeMap::new(),
        }
    }

    /// Connects the client to `host`, if it may.
    pub(super) async fn open(&mut self, host: String, port: u16, reply: OpenReply) {
        while self.running.try_join_next().is_some() {}
        let asked = asked(&host, port, false);
        if !self.grant.open.permits(&host, port) {
            self.session.refused(asked, "not permitted");
            let text = format!("connections to {host}:{port} are not permitted");
            return reply.refuse(RefusalCode::Prohibited, &text).await;
        }
        let session = Arc::clone(&self.session);
        self.running.spawn(async move {
            let connecting = TcpStream::connect((host.as_str(), port));
            let connected = match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            match connected {
                Ok(stream) => {
                    session.granted(asked);
                    let forward = session.forward(ForwardKind::Open, &host, port.into());
                    carry(reply.accept().await, stream, &forward).await;
                }
                Err(error) => {
                    session.refused(asked, &error.to_string());
                    let text = format!("cannot connect to {host}:{port}");
                    reply.refuse(RefusalCode::ConnectFailed, &text).await;
                }
            }
        });
    }

    /// Listens for the client, if it may.
    pub(super) async fn listen(&mut self, address: String, port: u16, reply: ListenReply) {
        let asked = asked(&address, port, true);
        let named = Named::of(&address);
        let refusal = if !self.grant.listen.permits_listener(&address, port) {
            Some("not permitted".to_owned())
        } else if self.listeners.len() >= MOST_LISTENERS {
            Some("too many listeners".to_owned())
        } else {
            match bind(&named.places(&self.grant.listen), port).await {
                Ok((port, listeners)) => {
                    self.session.granted(asked);
                    self.accept_at(&address, port, listeners);
                    return reply.accept(port);
                }
                Err(error) => Some(error.to_string()),
            }
        };
        self.session.refused(asked, &refusal.unwrap_or_default());
        reply.refuse();
    }

    /// Listens no more there.
    pub(super) fn cancel(&mut self, address: String, port: u16, reply: CancelReply) {
        match self.listeners.remove(&(address, port)) {
            Some(tasks) => {
                for task in tasks {
                    task.abort();
                }
                reply.accept();
            }
            None => reply.refuse(),
        }
    }

    fn accept_at(&mut self, address: &str, port: u16, listeners: Vec<TcpListener>) {
        let tasks = listeners.into_iter().map(|listener| {
            let (connection, session) = (Arc::clone(&self.connection), Arc::clone(&self.session));
            let address = address.to_owned();
            self.running
                .spawn(accept(listener, address, port, connection, session))
        });
        let tasks = tasks.collect();
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

/// Where a client wants to listen (RFC 4254, section 7.1).
enum Named {
    /// At one address.
    At(IpAddr),
    /// Anywhere, or at a name.
    Anywhere,
}

impl Named {
    fn of(address: &str) -> Self {
        match address.parse() {
            Ok(address) => Named::At(address),
            Err(_) => Named::Anywhere,
        }
    }

    /// Addresses to listen at: loopback, as sshd without GatewayPorts, unless the
    /// rule has the very address that is asked for.
    fn places(&self, rule: &ForwardRule) -> Vec<IpAddr> {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        match (self, rule) {
            (Named::At(address), ForwardRule::Places(places))
                if places.iter().any(|place| {
                    let host = place.host.as_deref().and_then(|host| host.parse().ok());
                    host == Some(*address)
                }) =>
            {
                vec![*address]
            }
            (Named::At(address), _) if address.is_loopback() => vec![*address],
            _ => loopback.to_vec(),
        }
    }
}

/// Binds all `places` at one port; a place that this host lacks is left out, as
/// long as there is another.
async fn bind(places: &[IpAddr], port: u16) -> io::Result<(u16, Vec<TcpListener>)> {
    let mut port = port;
    let mut listeners = Vec::new();
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for place in places {
        match TcpListener::bind((*place, port)).await {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            // Half a listener would let another program have the other half.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => failed = error,
        }
    }
    match listeners.is_empty() {
        true => Err(failed),
        false => Ok((port, listeners)),
    }
}

/// Gives the client each connection that comes in.
async fn accept(
    listener: TcpListener,
    address: String,
    port: u16,
    connection: Arc<ClientConnection>,
    session: Arc<Session>,
) {
    let mut running = JoinSet::new();
    loop {
        let (stream, originator) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection to a client's listener");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while running.try_join_next().is_some() {}
        let (connection, session) = (Arc::clone(&connection), Arc::clone(&session));
        let address = address.clone();
        running.spawn(async move {
            match connection.open_forwarded(&address, port, originator).await {
                Ok(channel) => {
                    let forward = session.forward(ForwardKind::Listen, &address, port.into());
                    carry(channel, stream, &forward).await;
                }
                Err(error) => tracing::debug!(%error, "a connection to a client's listener"),
            }
        });
    }
}

/// Carries bytes both ways until both directions have ended, or one failed.
async fn carry<C>(channel: C, stream: TcpStream, forward: &Forward)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    // It fails only where the connection is gone, which reading tells.
    let _ = stream.set_nodelay(true);
    let (from_client, to_client) = tokio::io::split(channel);
    let (from_here, to_here) = stream.into_split();
    let upload = copy(from_client, to_here, |bytes| forward.uploaded(bytes));
    let download = copy(from_here, to_client, |bytes| forward.downloaded(bytes));
    if let Err(error) = tokio::try_join!(upload, download) {
        tracing::debug!(%error, "a forwarded connection ended");
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: impl Fn(usize),
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        let Some(data) = buffer.get(..length).filter(|data| !data.is_empty()) else {
            return to.shutdown().await;
        };
        to.write_all(data).await?;
        to.flush().await?;
        count(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::grant::Place;

    fn places(address: &str, rule: &ForwardRule) -> Vec<String> {
        let places = Named::of(address).places(rule);
        places.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn listeners_are_at_loopback_unless_the_rule_has_the_address() {
        let rule = ForwardRule::Places(vec![Place {
            host: Some("10.1.2.3".to_owned()),
            port: None,
        }]);
        let loopback = ["127.0.0.1", "::1"];
        for asked in ["", "*", "localhost", "0.0.0.0", "::", "10.1.2.4", "name"] {
            assert_eq!(places(asked, &rule), loopback, "{asked}");
        }
        assert_eq!(places("10.1.2.3", &rule), ["10.1.2.3"]);
        assert_eq!(places("10.1.2.3", &ForwardRule::Anything), loopback);
        assert_eq!(places("::1", &ForwardRule::Anything), ["::1"]);
    }

    #[tokio::test]
    async fn a_port_is_bound_at_all_places_or_at_none() {
        let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let (port, bound) = bind(&both, 0).await.unwrap();
        assert!(port != 0 && !bound.is_empty());
        let again = bind(&both, port).await.map(|(port, _)| port);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let elsewhere = bind(&["192.0.2.1".parse().unwrap()], 0).await;
        assert!(elsewhere.is_err());
    }

    #[tokio::test]
    async fn the_end_of_one_direction_is_passed_on_and_the_other_goes_on() {
        let (client, server) = tokio::io::duplex(64);
        let (mut read, mut write) = tokio::io::split(client);
        let (from, to) = tokio::io::split(server);
        let counted = std::sync::atomic::AtomicUsize::new(0);
        let count = |bytes| {
            counted.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        };
        let echo = copy(from, to, count);
        let said = async {
            write.write_all(&[7; 1000]).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let heard = async {
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.unwrap();
            all.len()
        };
        let (copied, (), heard) = tokio::join!(echo, said, heard);
        copied.unwrap();
        assert_eq!((heard, counted.into_inner()), (1000, 1000));
    }
}
