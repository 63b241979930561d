//! Listeners of the server for a client (-R): their addresses, and the connections that
//! they accept.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use super::carry::carry;
use crate::process::accept;
use crate::process::listen;
use crate::process::open_connections::OpenConnections;
use crate::server::access::entitlement::Held;
use crate::server::login::grant::ForwardRule;
use crate::server::report::registry::forwards::ForwardKind;
use crate::server::report::registry::session::Session;
use crate::server::tunnel::rates::Rates;
use crate::ssh::server::connection::ClientConnection;
use crate::ssh::server::requests::ListenReply;

/// Where a client wants to listen (RFC 4254, section 7.1).
pub(in crate::server) enum Named {
    /// One address.
    At(IpAddr),
    /// All addresses, or a name.
    Anywhere,
}

impl Named {
    /// Parses the address as the client names it.
    pub(in crate::server) fn of(address: &str) -> Self {
        match address.parse() {
            Ok(address) => Named::At(address),
            Err(_) => Named::Anywhere,
        }
    }

    /// Addresses to listen at: loopback only, like sshd without GatewayPorts, unless the
    /// rule names exactly the requested address.
    pub(in crate::server) fn places(&self, rule: &ForwardRule, port: u16) -> Vec<IpAddr> {
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

/// Listens at all of `places` and tells the client the port. If the client was told
/// meanwhile that there is no listener, it closes them, since the client would not.
pub(super) async fn listen_at(
    places: &[IpAddr],
    port: u16,
    reply: ListenReply,
) -> io::Result<(u16, Vec<TcpListener>)> {
    // Dropping `reply` refuses the request.
    let (port, listeners) = listen::at_each(places, port)?;
    match reply.accept(port) {
        true => Ok((port, listeners)),
        false => Err(io::Error::other("nobody waits for it any more")),
    }
}

/// Hands the connections of a listener over to the client.
#[derive(Clone)]
pub(super) struct Carrier {
    pub(super) connection: Arc<ClientConnection>,
    pub(super) session: Arc<Session>,
    pub(super) rates: Rates,
    /// The listener's address as the client names it.
    pub(super) address: String,
    pub(super) port: u16,
    /// Keeps the listener in the client's entitlement as long as its connections live.
    pub(super) _held: Arc<Held>,
}

impl Carrier {
    /// Opens a channel to the client for a connection from `originator`, and copies its data.
    pub(super) async fn carry(self, stream: TcpStream, originator: SocketAddr) {
        let (address, port) = (self.address.as_str(), self.port);
        let opened = self.connection.open_forwarded(address, port, originator);
        match opened.await {
            Ok(channel) => {
                let forward = self
                    .session
                    .forward(ForwardKind::Listen, address, port.into());
                carry(channel, stream, &forward, &self.rates).await;
            }
            Err(error) => tracing::debug!(%error, "a connection to a client's listener"),
        }
    }
}

/// Accepts connections and runs `carried` for each in `running`, which outlives this.
pub(super) async fn accept<F>(
    mut listener: TcpListener,
    running: OpenConnections,
    carried: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, originator) = accept::accept(&mut listener).await;
        running.spawn(carried(stream, originator));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::server::login::grant::Place;

    /// Far longer than anything here takes; what reaches it hangs.
    const HANGS: Duration = Duration::from_secs(30);

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
        // Another port of the address is another place, even if a rule permits that port.
        let other = ["*:8080", "10.1.2.3:22"].map(|text| Place::parse_listen(text).unwrap());
        assert_eq!(
            places("10.1.2.3", &ForwardRule::Places(other.to_vec())),
            loopback
        );
    }

    #[tokio::test]
    async fn nobody_listens_for_a_client_that_was_told_so() {
        let here: [IpAddr; 1] = [Ipv4Addr::LOCALHOST.into()];
        let (reply, answer) = ListenReply::of_test();
        let (port, listeners) = listen_at(&here, 0, reply).await.unwrap();
        assert_eq!((answer.await, listeners.len()), (Ok(port), 1));
        drop(listeners);
        let (reply, answer) = ListenReply::of_test();
        drop(answer);
        assert!(listen_at(&here, port, reply).await.is_err());
        let free = listen::at_each(&here, port);
        assert!(free.is_ok(), "the listener stays: {free:?}");
        let (reply, answer) = ListenReply::of_test();
        assert!(listen_at(&here, port, reply).await.is_err(), "it is taken");
        assert!(answer.await.is_err(), "it is told of none");
    }

    #[tokio::test]
    async fn a_port_is_bound_at_all_places_or_at_none() {
        let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let (port, bound) = listen::at_each(&both, 0).unwrap();
        assert!(port != 0 && !bound.is_empty());
        let again = listen::at_each(&both, port).map(|(port, _)| port);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let elsewhere = listen::at_each(&["192.0.2.1".parse().unwrap()], 0);
        assert!(elsewhere.is_err());
    }

    #[tokio::test]
    async fn what_came_in_outlives_its_listener() {
        let (_, mut listeners) = listen::at_each(&[Ipv4Addr::LOCALHOST.into()], 0).unwrap();
        let listener = listeners.remove(0);
        let place = listener.local_addr().unwrap();
        let echo = |mut stream: TcpStream, _: SocketAddr| async move {
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        };
        let running = OpenConnections::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, running.clone(), echo));
        let mut client = TcpStream::connect(place).await.unwrap();
        let said = async {
            let mut answer = [0];
            for number in 1..=2 {
                client.write_all(&[number]).await.unwrap();
                client.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, [number]);
                // Nothing, the second time.
                tasks.shutdown().await;
                let late = TcpStream::connect(place).await;
                assert!(late.is_err(), "it listens");
            }
            drop(running);
            client.read(&mut answer).await.unwrap()
        };
        assert_eq!(timeout(HANGS, said).await.expect("it hangs"), 0);
    }
}
