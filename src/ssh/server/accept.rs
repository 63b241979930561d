//! From an accepted TCP connection to a client that is logged in.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::gate::Gate;
use super::login::{Login, LoginFailure};
use super::settings::ServerSettings;

/// Takes a connection through identification, key exchange and login, all within
/// the grace time. Dropping the future closes the connection.
pub async fn accept<G: Gate>(
    stream: TcpStream,
    peer: SocketAddr,
    settings: &ServerSettings,
    gate: Arc<G>,
) -> Result<Login<G::Grant>, LoginFailure> {
    drop((stream, peer, settings, gate));
    Err(LoginFailure::NoAttempt)
}
