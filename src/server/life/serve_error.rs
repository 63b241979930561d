//! Why a server does not start or does not reload.

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
use crate::server::address::pool::{PoolError, PoolOverlap};
use crate::server::login::policy::PolicyError;
use crate::server::report::audit::AuditError;
use crate::server::report::metrics::MetricsError;
use crate::ssh::server::host_keys::HostKeyFileError;

/// The errors, in the order of a start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ServeConfigError),
    /// A file of keys cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A host key cannot be used.
    #[error(transparent)]
    HostKey(#[from] HostKeyFileError),
    /// The server cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The server cannot become its user.
    #[error(transparent)]
    OwnUser(#[from] OwnUserError),
    /// The server lacks a privilege.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The server cannot drop its privileges.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The host cannot be prepared.
    #[error(transparent)]
    Host(#[from] ServeHostError),
    /// The directory of the journals and of the status socket cannot be used.
    #[error("the undo journal: {0}")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The networks for clients cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A pool overlaps a network of this host; a start only warns of it.
    #[error(transparent)]
    Overlap(#[from] PoolOverlap),
    /// The leases cannot be used.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The metrics listener cannot start.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A part of this process cannot start.
    #[error("cannot start {what}: {source}")]
    Start {
        /// The part.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl ServeError {
    /// The error for a part of this process that cannot start.
    pub(in crate::server) fn start(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| ServeError::Start { what, source }
    }
}
