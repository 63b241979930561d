//! The parts of a server that status and metrics read.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::host::journal::owner::network_namespace;
use crate::server::admission::Admission;
use crate::server::report::audit::Audit;
use crate::server::report::registry::Registry;

/// References to a server's parts, for reading.
pub struct Watched {
    /// The logged-in clients.
    pub registry: Arc<Registry>,
    /// The connections without a login.
    pub admission: Arc<Admission>,
    /// The audit log.
    pub audit: Audit,
    /// When the server started.
    pub started: SystemTime,
    /// The network namespace of the server; 0 if it is unknown.
    pub network_namespace: u64,
    leases: Box<dyn Fn() -> usize + Send + Sync>,
    listen: Mutex<Vec<SocketAddr>>,
    reloads: AtomicU64,
}

impl Watched {
    /// The parts of a server that started at `started` in the network namespace of the
    /// calling thread; `leases` counts the leased addresses.
    pub fn new(
        registry: Arc<Registry>,
        admission: Arc<Admission>,
        audit: Audit,
        started: SystemTime,
        listen: Vec<SocketAddr>,
        leases: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            admission,
            audit,
            started,
            network_namespace: network_namespace().unwrap_or_default(),
            leases: Box::new(leases),
            listen: Mutex::new(listen),
            reloads: AtomicU64::new(0),
        })
    }

    /// Counts a reload, after which the server listens at these addresses.
    pub fn reloaded(&self, listen: Vec<SocketAddr>) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        *self.listen.lock().unwrap_or_else(PoisonError::into_inner) = listen;
    }

    /// The number of reloads so far.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// The addresses at which the server listens.
    pub fn listen(&self) -> Vec<SocketAddr> {
        let listen = self.listen.lock();
        listen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of leased pool addresses.
    pub fn leases(&self) -> usize {
        (self.leases)()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}
