//! `sshvpn serve`: our own SSH server, whose only trade is tunnels.
//!
//! ```text
//!   TCP ─► life/admission ─► ssh::server ─► client ─┬► tunnel    device ⇄ guard ⇄ pump ⇄ channel
//!                              │ login              └► forward   TCP
//!                              ▼
//!                           access    what this login may do, also after a reload
//!   address   pools, and the leases of addresses from them
//!   bridge    MAC and link-local addresses on a shared link
//!   report    audit log, registry of live clients, status, metrics
//!   life      start, reload, stop
//! ```
//!
//! At the start [`life::own_user`] leaves root, [`life::listen`] opens the sockets (or
//! [`life::activation`] takes those of the service manager), `life::confinement` lists
//! what stays possible and `sandbox` takes away the rest, then the runtime begins;
//! [`life::signals`] and [`life::notify`] join the server to its service manager.

mod accept;
pub(crate) mod access;
pub mod address;
pub(crate) mod bridge;
mod client;
mod forward;
pub mod life;
pub mod login;
pub mod report;
pub mod tunnel;

use std::sync::Arc;

use tokio::sync::watch;

use access::access_rules::Reachability;
use address::lease::Leases;
use bridge::neighbours::Neighbours;
use bridge::stations::Stations;
use forward::Lookups;
use life::admission::Admission;
use login::rules::Rules;
use report::registry::Registry;
use tunnel::client_device::ClientDevices;
use tunnel::rates::KeyRates;

pub use life::run;

/// What all clients of a server share.
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
    /// Why the server ends, once it does.
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

    /// The rules as they are now.
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    /// For logins from now on, and for all clients that are there.
    fn replace_rules(&self, rules: Rules) {
        self.rules.send_replace(Arc::new(rules));
    }

    /// Ends all clients.
    fn stop(&self, reason: &str) {
        self.stop.send_replace(Some(reason.to_owned()));
    }

    /// Waits until the server ends; yields why.
    async fn stopping(&self) -> String {
        let mut watch = self.stop.subscribe();
        let stopped = watch.wait_for(Option::is_some).await;
        // Its sender is here, so it does not go.
        stopped
            .map_or_else(|_| None, |reason| reason.clone())
            .unwrap_or_default()
    }
}
