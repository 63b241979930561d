//! The user's SSH agent (draft-miller-ssh-agent): what it holds, and its
//! signatures. An agent that fails is as good as none.

use std::path::Path;
use std::time::Duration;

use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::{self, HashAlg};
use tokio::net::UnixStream;

/// How long the agent may take to say what it holds. A signature may take any
/// time: the agent can ask the user for permission.
const LISTING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to the agent.
pub struct Agent {
    client: AgentClient<UnixStream>,
}

impl Agent {
    /// Connects to the agent at `socket`, binds the connection to the session
    /// with the server (OpenSSH PROTOCOL.agent, section 1), and lists what the
    /// agent holds. `None` when there is no agent that answers.
    pub async fn connect(
        socket: &Path,
        session: Option<&AgentSessionBinding>,
    ) -> Option<(Self, Vec<AgentIdentity>)> {
        let connecting = async {
            let client = AgentClient::connect_uds(socket).await?;
            let mut agent = Self { client };
            if let Some(session) = session {
                agent.bind(session).await;
            }
            let identities = agent.client.request_identities().await?;
            Ok::<_, keys::Error>((agent, identities))
        };
        let failure = match tokio::time::timeout(LISTING_TIMEOUT, connecting).await {
            Ok(Ok(connected)) => return Some(connected),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::debug!("agent at {}: {failure}", socket.display());
        None
    }

    /// Tells the agent which server the signatures are for, so that it can
    /// keep to the destinations that its keys are restricted to.
    async fn bind(&mut self, session: &AgentSessionBinding) {
        if let Err(error) = self.client.bind_session(session, false).await {
            tracing::debug!("agent: not bound to the session: {error}");
        }
    }

    /// Appends to `data` the agent's signature of it, as the string that
    /// closes a publickey request (RFC 4252, section 7).
    pub async fn sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, keys::Error> {
        self.client.sign_request(identity, hash, data).await
    }
}
