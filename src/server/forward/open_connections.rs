//! The forwarded connections of one client, which run concurrently until the client's
//! forwards end.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// Connections that end when the last clone is dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenConnections(Arc<Mutex<JoinSet<()>>>);

impl OpenConnections {
    /// Runs one more connection. It must not hold a clone of this, which would then never
    /// be dropped.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(connection);
    }
}
