//! Forwarded connections, which run concurrently until their owner ends.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// Connections that end when the last clone is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenConnections(Arc<Mutex<JoinSet<()>>>);

impl OpenConnections {
    /// Runs one more connection. It must not hold a clone of this, which would then never
    /// be dropped.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(connection);
    }
}
