//! Why there is no agent or server at the remote end, or why it cannot be used.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::frame::control::CloseReason;
use crate::link::control::ConversationError;
use crate::ssh::error::ChannelError;

/// What an sshvpn at the remote end is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is told what to do.
    Agent,
    /// It says what there is.
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

/// What can fail with an agent or a server. The text says on which host, and what to do.
#[derive(Debug, Error)]
pub enum RemoteAgentError {
    /// The connection failed, or the server starts nothing.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The remote end has no sshvpn.
    #[error("no sshvpn at {host} (see 'sshvpn help up', --push)")]
    NotInstalled {
        /// The remote end.
        host: String,
    },
    /// sudo refuses to start it.
    #[error("{host}: sudo does not start sshvpn there: {said}")]
    Sudo {
        /// The remote end.
        host: String,
        /// What was printed.
        said: String,
    },
    /// There is a server, and it does not serve this login.
    #[error(
        "{host}: the sshvpn server there has no tunnel for this login: have its owner grant one (tunnel= \
         in its authorized_keys, or a rule in its configuration)"
    )]
    NotServed {
        /// The remote end.
        host: String,
    },
    /// A server is wanted, and there is none.
    #[error(
        "{host}: no 'sshvpn serve' there (it is {found}): leave out '--via serve' to go by what there is"
    )]
    NoServer {
        /// The remote end.
        host: String,
        /// What there is.
        found: String,
    },
    /// Something else came than an agent.
    #[error("{host}: {how} started no agent: {said}")]
    NotStarted {
        /// The remote end.
        host: String,
        /// What was tried.
        how: String,
        /// What was printed, and how it ended.
        said: String,
    },
    /// Nothing came in time.
    #[error("{host}: cannot {what}: no answer in {:.0} seconds", limit.as_secs_f64())]
    NoAnswer {
        /// The remote end.
        host: String,
        /// What was being done.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The agent does not speak our version of the protocol.
    #[error(
        "{host}: its sshvpn ({theirs}) and this one ({ours}) do not understand each other: {advice}"
    )]
    Version {
        /// The remote end.
        host: String,
        /// Its program and version.
        theirs: String,
        /// Ours.
        ours: String,
        /// Which to update.
        advice: String,
    },
    /// The agent ended the tunnel.
    #[error("{host}: cannot {what}: {text}")]
    Closed {
        /// The remote end.
        host: String,
        /// What was being done.
        what: &'static str,
        /// The kind of its reason.
        reason: CloseReason,
        /// Its words.
        text: String,
    },
    /// The agent is gone.
    #[error("{host}: cannot {what}: the {role} there is gone: {said}")]
    Gone {
        /// The remote end.
        host: String,
        /// What it is.
        role: Role,
        /// What was being done.
        what: &'static str,
        /// Its last words.
        said: String,
    },
    /// What came makes no sense.
    #[error("{host}: cannot {what}: the {role} there does not keep to the protocol: {source}")]
    Nonsense {
        /// The remote end.
        host: String,
        /// What it is.
        role: Role,
        /// What was being done.
        what: &'static str,
        /// What is wrong.
        source: ConversationError,
    },
    /// A message came that has no place there.
    #[error("{host}: cannot {what}: the {role} there does not keep to the protocol: {said}")]
    Unexpected {
        /// The remote end.
        host: String,
        /// What it is.
        role: Role,
        /// What was being done.
        what: &'static str,
        /// What came.
        said: String,
    },
    /// Our own program was not taken there.
    #[error("{host}: cannot send sshvpn there: {reason}")]
    Push {
        /// The remote end.
        host: String,
        /// Why not.
        reason: String,
    },
    /// Our own program cannot be read.
    #[error("cannot send sshvpn: cannot read this program: {0}")]
    OwnProgram(#[from] std::io::Error),
}

impl RemoteAgentError {
    /// Whether no other way of starting an agent can do better.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            RemoteAgentError::Channel(ChannelError::Process { .. }) => false,
            RemoteAgentError::Channel(_) | RemoteAgentError::Version { .. } => true,
            RemoteAgentError::Closed { reason, .. } => *reason == CloseReason::Version,
            _ => false,
        }
    }

    /// Whether the connection itself is to blame, and no other carrier will do.
    pub fn lost_connection(&self) -> bool {
        matches!(self, RemoteAgentError::Channel(ChannelError::Gone { .. }))
    }
}
