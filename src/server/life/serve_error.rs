//! Why a server does not start, or does not take up what was changed.

use std::io;

use thiserror::Error;

use super::host::ServeHostError;
use super::listen::ListenError;
use super::own_user::OwnUserError;
use crate::config::serve::error::ServeConfigError;
use crate::host::journal::runtime_dir::RuntimeDirError;
use crate::host::privilege::PrivilegeError;
use crate::sandbox::SandboxError;
use crate::server::address::lease::LeaseError;
use crate::server::address::pool::PoolError;
use crate::server::login::policy::PolicyError;
use crate::server::report::audit::AuditError;
use crate::server::report::metrics::MetricsError;
use crate::ssh::server::host_keys::HostKeyFileError;

/// The reasons, in the order of a start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ServeConfigError),
    /// The files that say who may come in.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The host keys.
    #[error(transparent)]
    HostKey(#[from] HostKeyFileError),
    /// The sockets.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The user that it should become.
    #[error(transparent)]
    OwnUser(#[from] OwnUserError),
    /// It lacks what it needs.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// It cannot give up what it does not need.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The host.
    #[error(transparent)]
    Host(#[from] ServeHostError),
    /// The place of journals and of the status socket.
    #[error("the undo journal: {0}")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The networks for clients.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The addresses that are lent.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The listener for Prometheus.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// This process.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl ServeError {
    /// For something that a process needs.
    pub(in crate::server) fn start(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| ServeError::Start { what, source }
    }
}
