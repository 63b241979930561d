//! The name of a Unix socket that this process listens at: removed with its owner, also where the
//! task that serves the socket ends later.

use std::path::{Path, PathBuf};

use crate::config::invoker::Invoker;

/// A name that is removed when this is dropped, as the invoker.
pub(super) struct SocketName {
    path: PathBuf,
    invoker: Invoker,
}

impl SocketName {
    /// The name of a socket that `invoker` has just made.
    pub(super) fn new(path: &Path, invoker: &Invoker) -> Self {
        SocketName {
            path: path.to_owned(),
            invoker: invoker.clone(),
        }
    }
}

impl Drop for SocketName {
    fn drop(&mut self) {
        // A name that the invoker cannot remove stays.
        let _ = self.invoker.act(|| std::fs::remove_file(&self.path));
    }
}
