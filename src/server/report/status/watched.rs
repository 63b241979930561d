//! What status and metrics look at.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::host::journal::owner::network_namespace;
use crate::server::life::admission::Admission;
use crate::server::report::audit::Audit;
use crate::server::report::registry::Registry;

/// A server's parts, for reading.
pub struct Watched {
    /// Who is logged in.
    pub registry: Arc<Registry>,
    /// Who is at the door.
    pub admission: Arc<Admission>,
    /// What is written down.
    pub audit: Audit,
    /// When the server began.
    pub started: SystemTime,
    /// The network namespace that it serves; 0 where that cannot be told.
    pub network_namespace: u64,
    leases: Box<dyn Fn() -> usize + Send + Sync>,
    listen: Mutex<Vec<SocketAddr>>,
    reloads: AtomicU64,
}

impl Watched {
    /// Of a server that began at `started` in the network namespace of the
    /// calling thread; `leases` counts the addresses that are in use.
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

    /// Reloads so far.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// Where the server listens.
    pub fn listen(&self) -> Vec<SocketAddr> {
        let listen = self.listen.lock();
        listen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Addresses of the pools that are in use.
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
