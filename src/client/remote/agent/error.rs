//! Why no agent or server runs on the remote host, or why it cannot be used.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::client::remote::login::{NoCommands, SudoRefusal};
use crate::frame::control::CloseReason;
use crate::link::control::ConversationError;
use crate::ssh::error::ChannelError;

/// The role of the remote sshvpn, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An agent, which the client instructs.
    Agent,
    /// A server, which offers a tunnel.
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Agent => "agent",
            Role::Server => "server",
        })
    }
}

/// Errors of an agent or a server. The text names the host, and says what to do.
#[derive(Debug, Error)]
pub enum RemoteAgentError {
    /// The connection failed, or the server did not start the process.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The remote host has no sshvpn.
    #[error("no sshvpn at {host} (install it there, or use --push)")]
    NotInstalled {
        /// The remote end.
        host: String,
    },
    /// sudo refused to start it.
    #[error("{host}: sudo did not start sshvpn: {said}")]
    Sudo {
        /// The remote end.
        host: String,
        /// Its output.
        said: String,
    },
    /// The server has no tunnel for this login.
    #[error(
        "{host}: the sshvpn server has no tunnel for this login: ask its administrator for one \
         (tunnel= in authorized_keys, or a rule in its configuration)"
    )]
    NotServed {
        /// The remote end.
        host: String,
    },
    /// The user requires a server, and the host runs none.
    #[error(
        "{host}: no 'sshvpn serve' there, but {found}: leave out '--via serve' to use another carrier"
    )]
    NoServer {
        /// The remote end.
        host: String,
        /// The software that runs there.
        found: String,
    },
    /// The login's shell did not run the line that starts an agent.
    #[error(transparent)]
    NoCommands(#[from] NoCommands),
    /// The agent has no rights, and the login cannot become root.
    #[error(
        "{host}: the agent there may not change the network: the login is not root, and {sudo}; log in as \
         root, allow 'sudo -n' (NOPASSWD), or give sshvpn there CAP_NET_ADMIN (sshvpn(1), SUDO AND \
         CAPABILITIES)"
    )]
    NoPrivilege {
        /// The remote end.
        host: String,
        /// Why sudo does not work.
        sudo: SudoRefusal,
    },
    /// The process that was started is no agent.
    #[error("{host}: {how} started no agent: {said}")]
    NotStarted {
        /// The remote end.
        host: String,
        /// The way of starting.
        how: String,
        /// Its output, and how it ended.
        said: String,
    },
    /// The time limit expired.
    #[error("{host}: cannot {what}: no answer in {:.0} seconds", limit.as_secs_f64())]
    NoAnswer {
        /// The remote end.
        host: String,
        /// The action that failed.
        what: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The two programs have no common version of the protocol.
    #[error(
        "{host}: its sshvpn ({theirs}) and this one ({ours}) have no common protocol version: {advice}"
    )]
    Version {
        /// The remote end.
        host: String,
        /// The remote program and version.
        theirs: String,
        /// The local program and version.
        ours: String,
        /// Which one to update.
        advice: String,
    },
    /// The agent ended the tunnel.
    #[error("{host}: cannot {what}: {text}")]
    Closed {
        /// The remote end.
        host: String,
        /// The action that failed.
        what: &'static str,
        /// The reason's code.
        reason: CloseReason,
        /// The reason's text.
        text: String,
    },
    /// The agent or server ended.
    #[error("{host}: cannot {what}: the {role} there is gone: {said}")]
    Gone {
        /// The remote end.
        host: String,
        /// Its role.
        role: Role,
        /// The action that failed.
        what: &'static str,
        /// Its last output.
        said: String,
    },
    /// A message or frame was invalid.
    #[error("{host}: cannot {what}: the {role} there does not keep to the protocol: {source}")]
    Nonsense {
        /// The remote end.
        host: String,
        /// Its role.
        role: Role,
        /// The action that failed.
        what: &'static str,
        /// The fault.
        source: ConversationError,
    },
    /// A valid message came in the wrong state.
    #[error("{host}: cannot {what}: the {role} there does not keep to the protocol: {said}")]
    Unexpected {
        /// The remote end.
        host: String,
        /// Its role.
        role: Role,
        /// The action that failed.
        what: &'static str,
        /// The message.
        said: String,
    },
    /// The remote host did not take the pushed program.
    #[error("{host}: cannot push sshvpn: {reason}")]
    Push {
        /// The remote end.
        host: String,
        /// The cause.
        reason: String,
    },
    /// This program's file cannot be read.
    #[error("cannot push sshvpn: cannot read this program: {0}")]
    OwnProgram(#[from] std::io::Error),
}

impl RemoteAgentError {
    /// Whether trying another way of starting an agent is useless.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            RemoteAgentError::Channel(ChannelError::Process { .. }) => false,
            RemoteAgentError::Channel(_) | RemoteAgentError::Version { .. } => true,
            RemoteAgentError::Closed { reason, .. } => *reason == CloseReason::Version,
            _ => false,
        }
    }

    /// Whether the connection is lost, so that no other carrier can work.
    pub fn lost_connection(&self) -> bool {
        matches!(self, RemoteAgentError::Channel(ChannelError::Gone { .. }))
    }
}
