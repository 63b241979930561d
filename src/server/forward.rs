//! TCP forwards: connections from here on a client's behalf (-L, -D), and
//! listeners here whose connections the client gets (-R).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::audit::event::Asked;
use super::grant::{ForwardRule, Grant, Group};
use super::rates::Rates;
use super::reach::Reachability;
use super::registry::ConnectionId;
use super::registry::forwards::{Forward, ForwardKind};
use super::registry::session::Session;
use super::standing::{Held, Standing};
use crate::pump::RateLimit;
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
    standing: Arc<Standing>,
    connection: Arc<ClientConnection>,
    session: Arc<Session>,
    reach: Arc<Reachability>,
    rates: Rates,
    running: JoinSet<()>,
    /// By address and port, as the client knows them.
    listeners: BTreeMap<(String, u16), (Vec<AbortHandle>, Held)>,
}

impl Forwards {
    /// None yet.
    pub(super) fn new(
        standing: Arc<Standing>,
        connection: Arc<ClientConnection>,
        session: Arc<Session>,
        reach: Arc<Reachability>,
        rates: Rates,
    ) -> Self {
        Forwards {
            standing,
            connection,
            session,
            reach,
            rates,
            running: JoinSet::new(),
            listeners: BTreeMap::new(),
        }
    }

    /// Connects the client to `host`, if it may.
    pub(super) async fn open(&mut self, host: String, port: u16, reply: OpenReply) {
        while self.running.try_join_next().is_some() {}
        let asked = asked(&host, port, false);
        let Some(held) = self.standing.hold_open(&host, port) else {
            self.session.refused(asked, "not permitted");
            let text = format!("connections to {host}:{port} are not permitted");
            return reply.refuse(RefusalCode::Prohibited, &text).await;
        };
        let (session, rates) = (Arc::clone(&self.session), self.rates.clone());
        let among = (!held.grant.open.names(&host, port)).then(|| self.among(&held.grant));
        self.running.spawn(async move {
            let _held = held;
            let connecting = connect(&host, port, among.as_ref());
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

    /// Listens for the client, if it may.
    pub(super) async fn listen(&mut self, address: String, port: u16, reply: ListenReply) {
        let asked = asked(&address, port, true);
        let named = Named::of(&address);
        let held = self.standing.hold_listener(&address, port);
        let refusal = if self.listeners.len() >= MOST_LISTENERS {
            Some("too many listeners".to_owned())
        } else if let Some(held) = held {
            match bind(&named.places(&held.grant.listen, port), port).await {
                Ok((port, listeners)) => {
                    self.session.granted(asked);
                    self.accept_at(&address, port, listeners, held);
                    return reply.accept(port);
                }
                Err(error) => Some(error.to_string()),
            }
        } else {
            Some("not permitted".to_owned())
        };
        self.session.refused(asked, &refusal.unwrap_or_default());
        reply.refuse();
    }

    /// Listens no more there.
    pub(super) fn cancel(&mut self, address: String, port: u16, reply: CancelReply) {
        match self.listeners.remove(&(address, port)) {
            Some((tasks, _)) => {
                for task in tasks {
                    task.abort();
                }
                reply.accept();
            }
            None => reply.refuse(),
        }
    }

    fn accept_at(&mut self, address: &str, port: u16, listeners: Vec<TcpListener>, held: Held) {
        let tasks = listeners.into_iter().map(|listener| {
            let carrier = Carrier {
                connection: Arc::clone(&self.connection),
                session: Arc::clone(&self.session),
                rates: self.rates.clone(),
            };
            let address = address.to_owned();
            self.running.spawn(accept(listener, address, port, carrier))
        });
        let tasks = tasks.collect();
        self.listeners
            .insert((address.to_owned(), port), (tasks, held));
    }
}

/// The place of a client among others, where no rule names what it connects to.
struct Among {
    reach: Arc<Reachability>,
    id: ConnectionId,
    groups: BTreeSet<Group>,
}

/// Why there is no connection.
enum NotConnected {
    /// It would lead to another client.
    Client,
    /// It could not be made.
    Failed(io::Error),
}

impl From<io::Error> for NotConnected {
    fn from(error: io::Error) -> Self {
        NotConnected::Failed(error)
    }
}

/// Connects to the first address of `host` that answers and may be reached.
async fn connect(host: &str, port: u16, among: Option<&Among>) -> Result<TcpStream, NotConnected> {
    let mut addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    if let Some(Among { reach, id, groups }) = among {
        let known = addresses.len();
        addresses.retain(|address| reach.lets_connect(*id, groups, address.ip()));
        if addresses.is_empty() && known > 0 {
            return Err(NotConnected::Client);
        }
    }
    Ok(TcpStream::connect(addresses.as_slice()).await?)
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
    fn places(&self, rule: &ForwardRule, port: u16) -> Vec<IpAddr> {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        match (self, rule) {
            (Named::At(address), ForwardRule::Places(places))
                if places.iter().any(|place| {
                    let host = place.host.as_deref().and_then(|host| host.parse().ok());
                    host == Some(*address) && place.port.is_none_or(|wanted| wanted == port)
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

/// What a listener needs to hand its connections on.
#[derive(Clone)]
struct Carrier {
    connection: Arc<ClientConnection>,
    session: Arc<Session>,
    rates: Rates,
}

/// Gives the client each connection that comes in.
async fn accept(listener: TcpListener, address: String, port: u16, carrier: Carrier) {
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
        let (carrier, address) = (carrier.clone(), address.clone());
        running.spawn(async move {
            let Carrier {
                connection,
                session,
                rates,
            } = carrier;
            match connection.open_forwarded(&address, port, originator).await {
                Ok(channel) => {
                    let forward = session.forward(ForwardKind::Listen, &address, port.into());
                    carry(channel, stream, &forward, &rates).await;
                }
                Err(error) => tracing::debug!(%error, "a connection to a client's listener"),
            }
        });
    }
}

/// Carries bytes both ways until both directions have ended, or one failed.
async fn carry<C>(channel: C, stream: TcpStream, forward: &Forward, rates: &Rates)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    // It fails only where the connection is gone, which reading tells.
    let _ = stream.set_nodelay(true);
    let (from_client, to_client) = tokio::io::split(channel);
    let (from_here, to_here) = stream.into_split();
    let Rates { upload, download } = rates;
    let upload = copy(from_client, to_here, upload, |bytes| {
        forward.uploaded(bytes)
    });
    let download = copy(from_here, to_client, download, |bytes| {
        forward.downloaded(bytes)
    });
    if let Err(error) = tokio::try_join!(upload, download) {
        tracing::debug!(%error, "a forwarded connection ended");
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limit: &RateLimit,
    count: impl Fn(usize),
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        limit.opened().await;
        let length = from.read(&mut buffer).await?;
        let Some(data) = buffer.get(..length).filter(|data| !data.is_empty()) else {
            return to.shutdown().await;
        };
        limit.take(length);
        to.write_all(data).await?;
        to.flush().await?;
        count(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pump::Rate;
    use crate::server::grant::Place;
    use crate::server::reach::Terms;

    fn places(address: &str, rule: &ForwardRule) -> Vec<String> {
        let places = Named::of(address).places(rule, 8080);
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
        // Another port of the address is another place, whoever permits the port.
        let other = ["*:8080", "10.1.2.3:22"].map(|text| Place::parse_listen(text).unwrap());
        assert_eq!(
            places("10.1.2.3", &ForwardRule::Places(other.to_vec())),
            loopback
        );
    }

    #[tokio::test]
    async fn who_may_go_anywhere_does_not_go_to_other_clients() {
        let reach = Arc::new(Reachability::default());
        let other = Terms {
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            ..Terms::default()
        };
        let _joined = reach.join(ConnectionId::of_test(1), other);
        let among = Among {
            reach,
            id: ConnectionId::of_test(2),
            groups: BTreeSet::new(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::ffff:127.0.0.1"] {
            let refused = connect(host, port, Some(&among)).await;
            assert!(matches!(refused, Err(NotConnected::Client)), "{host}");
        }
        // A rule that names the place is the owner's word.
        assert!(connect("127.0.0.1", port, None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_forward_keeps_to_the_rate_that_it_shares() {
        let limit = RateLimit::fixed(Rate::new(1_000_000));
        let one = copy(
            tokio::io::repeat(1).take(500_000),
            tokio::io::sink(),
            &limit,
            |_| (),
        );
        let other = copy(
            tokio::io::repeat(2).take(500_000),
            tokio::io::sink(),
            &limit,
            |_| (),
        );
        let start = tokio::time::Instant::now();
        let (one, other) = tokio::join!(one, other);
        one.and(other).unwrap();
        let took = start.elapsed().as_secs_f64();
        assert!((0.9..=1.1).contains(&took), "{took}");
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
        let echo = copy(from, to, &RateLimit::NONE, count);
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
