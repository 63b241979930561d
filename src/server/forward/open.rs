//! Connections that the server makes for a client (-L, -D), and where they may lead.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::names::{LookupError, Names};
use crate::server::access::access_rules::Reachability;
use crate::server::login::grant::Group;
use crate::server::report::registry::ConnectionId;

/// The client's groups, which apply if no rule names the destination.
pub(super) struct Among {
    pub(super) reach: Arc<Reachability>,
    pub(super) id: ConnectionId,
    pub(super) groups: BTreeSet<Group>,
}

/// Why there is no connection.
pub(super) enum NotConnected {
    /// The destination is another client, with no group in common.
    Client,
    /// Too many lookups are in progress.
    Busy,
    /// The connection failed.
    Failed(io::Error),
}

impl From<io::Error> for NotConnected {
    fn from(error: io::Error) -> Self {
        NotConnected::Failed(error)
    }
}

impl From<LookupError> for NotConnected {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Busy => NotConnected::Busy,
            LookupError::Failed(error) => NotConnected::Failed(error),
        }
    }
}

/// Connects to the first address of `host` that answers and is permitted.
pub(super) async fn connect(
    names: &Names,
    host: &str,
    port: u16,
    among: Option<&Among>,
) -> Result<TcpStream, NotConnected> {
    let mut addresses = names.addresses(host, port).await?;
    if let Some(Among { reach, id, groups }) = among {
        let known = addresses.len();
        addresses.retain(|address| reach.lets_connect(*id, groups, address.ip()));
        if addresses.is_empty() && known > 0 {
            return Err(NotConnected::Client);
        }
    }
    Ok(TcpStream::connect(addresses.as_slice()).await?)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::server::access::access_rules::Terms;
    use crate::server::address::lease::LeaseKey;
    use crate::server::forward::names::Lookups;

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
        let names = Lookups::default().names(LeaseKey::from_text("a"));
        for host in ["127.0.0.1", "::ffff:127.0.0.1"] {
            let refused = connect(&names, host, port, Some(&among)).await;
            assert!(matches!(refused, Err(NotConnected::Client)), "{host}");
        }
        // A rule that names the place is an explicit permission.
        assert!(connect(&names, "127.0.0.1", port, None).await.is_ok());
    }
}
