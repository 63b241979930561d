//! `sshvpn serve`: our own SSH server, which offers only tunnels and TCP forwards.
//!
//! ```text
//!   TCP ─► listen ─► admission ─► ssh::server ─► client ─┬► tunnel    device ⇄ guard ⇄ pump ⇄ channel
//!                                   │ login              └► forward   TCP
//!                                   ▼
//!                                access    what this login may do, also after a reload
//!   address   pools, and the leases of addresses from them
//!   bridge    MAC and link-local addresses on a shared link
//!   report    audit log, registry of live clients, status, metrics
//!   start     own user, confinement, changes on the host, --check
//!   run       clients, reload, stop; signals and the service manager
//! ```
//!
//! At startup [`start::own_user`] drops root, and [`listen`] opens the sockets or takes over those
//! of the service manager. [`start::confinement`] lists what the server still needs, `sandbox` takes
//! away the rest, and then the runtime starts.

pub(crate) mod access;
pub mod address;
pub mod admission;
pub(crate) mod bridge;
mod client;
mod forward;
pub mod listen;
pub mod login;
pub mod report;
pub mod run;
pub mod start;
pub mod tunnel;

use std::sync::Arc;

use tokio::sync::watch;

use access::access_rules::Reachability;
use address::lease::Leases;
use admission::Admission;
use bridge::neighbours::Neighbours;
use bridge::stations::Stations;
use forward::Lookups;
use login::rules::Rules;
use report::registry::Registry;
use tunnel::client_device::ClientDevices;
use tunnel::rates::KeyRates;

pub use run::run;

/// State shared by all clients of a server.
struct Server {
    rules: watch::Sender<Arc<Rules>>,
    admission: Arc<Admission>,
    registry: Arc<Registry>,
    leases: Leases,
    devices: Arc<ClientDevices>,
    reach: Arc<Reachability>,
    lookups: Lookups,
    stations: Arc<Stations>,
    neighbours: Arc<Neighbours>,
    rates: KeyRates,
    /// The reason for which the server stops, once it does.
    stop: watch::Sender<Option<String>>,
}

impl Server {
    fn new(
        rules: Rules,
        admission: Arc<Admission>,
        registry: Arc<Registry>,
        leases: Leases,
        devices: Arc<ClientDevices>,
        reach: Arc<Reachability>,
    ) -> Self {
        Server {
            rules: watch::Sender::new(Arc::new(rules)),
            admission,
            registry,
            leases,
            devices,
            reach,
            lookups: Lookups::default(),
            stations: Arc::default(),
            neighbours: Arc::default(),
            rates: KeyRates::default(),
            stop: watch::Sender::new(None),
        }
    }

    /// The current rules.
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    /// Puts new rules in force, for later logins and for all live clients.
    fn replace_rules(&self, rules: Rules) {
        self.rules.send_replace(Arc::new(rules));
    }

    /// Makes the server disconnect all clients and stop.
    fn stop(&self, reason: &str) {
        self.stop.send_replace(Some(reason.to_owned()));
    }

    /// Waits until the server stops; returns the reason.
    async fn stopping(&self) -> String {
        let mut watch = self.stop.subscribe();
        let stopped = watch.wait_for(Option::is_some).await;
        // `self` holds the sender, so this does not fail.
        stopped
            .map_or_else(|_| None, |reason| reason.clone())
            .unwrap_or_default()
    }
}
