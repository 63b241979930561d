//! The user's SSH agent (draft-miller-ssh-agent): its keys and its signatures. A failing
//! agent counts as none.

use std::io;
use std::path::Path;
use std::time::Duration;

use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::{self, HashAlg};
use tokio::net::UnixStream;

use crate::config::invoker::Invoker;

/// How long the agent may take to accept the connection and to list its keys. A signature
/// has no limit: the agent may ask the user for permission.
const LISTING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to the agent.
pub struct Agent {
    client: AgentClient<UnixStream>,
}

impl Agent {
    /// Binds the connection to the session with the server (OpenSSH PROTOCOL.agent, section
    /// 1), and lists the agent's keys. `None` if the agent does not answer.
    pub async fn ask(
        stream: UnixStream,
        session: Option<&AgentSessionBinding>,
    ) -> Option<(Self, Vec<AgentIdentity>)> {
        let asking = async {
            let client = AgentClient::connect(stream);
            let mut agent = Self { client };
            if let Some(session) = session {
                agent.bind(session).await;
            }
            let identities = agent.client.request_identities().await?;
            Ok::<_, keys::Error>((agent, identities))
        };
        let failure = match tokio::time::timeout(LISTING_TIMEOUT, asking).await {
            Ok(Ok(listed)) => return Some(listed),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::debug!("agent: {failure}");
        None
    }

    /// Tells the agent which server the signatures are for, so that it can enforce its
    /// keys' destination constraints.
    async fn bind(&mut self, session: &AgentSessionBinding) {
        if let Err(error) = self.client.bind_session(session, false).await {
            tracing::debug!("agent: not bound to the session: {error}");
        }
    }

    /// Appends the agent's signature of `data` to it, as the string that ends a publickey
    /// request (RFC 4252, section 7).
    pub async fn sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, keys::Error> {
        self.client.sign_request(identity, hash, data).await
    }
}

/// Connects to the agent at `socket` as the invoker.
pub async fn connect(socket: &Path, invoker: &Invoker) -> io::Result<UnixStream> {
    let (path, invoker) = (socket.to_owned(), invoker.clone());
    let connecting = tokio::task::spawn_blocking(move || invoker.connect(&path));
    let connected = tokio::time::timeout(LISTING_TIMEOUT, connecting).await;
    let stream = connected.map_err(|_| io::ErrorKind::TimedOut)?;
    let stream = stream.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
