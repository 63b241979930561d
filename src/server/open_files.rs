//! How many files the server may have open: each client takes several (its
//! connection, its device, its forwards), and the usual limit is made for
//! programs that use select(2).

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to what the process may raise it to by itself.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::debug!("the limit of open files stays: {errno}");
    }
}
