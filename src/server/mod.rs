//! `sshvpn serve`: our own SSH server, whose only trade is tunnels.
//!
//! ```text
//!   TCP ─► admission ─► ssh::server ─► client ─┬► tunnel    device ⇄ guard ⇄ pump ⇄ channel
//!                          │ policy            └► forwards  TCP
//!                          ▼
//!                      standing       what this login may do, also after a reload
//!   pool, lease, host  addresses from a pool; forwarding and NAT in a table of our own
//!   registry, audit, status, metrics   who carried how much where
//! ```
//!
//! Its life: [`own_user`] leaves root, [`listen`] opens the sockets (or [`activation`]
//! takes those of the service manager), `confinement` says what stays possible and
//! `sandbox` takes away the rest, then comes the runtime; [`signals`] and [`notify`]
//! join it to the process that runs it.

pub mod activation;
pub mod admission;
pub mod audit;
mod certificate;
mod channel;
pub mod check;
mod claim_queue;
mod client;
pub mod client_device;
pub mod confinement;
pub mod denial;
mod few_at_once;
mod forward;
pub mod grant;
pub mod host;
mod key_files;
pub mod lease;
mod lease_book;
mod lease_file;
mod lease_key;
mod life;
pub mod listen;
pub mod metrics;
mod neighbours;
pub mod notify;
pub mod open_files;
pub mod own_user;
pub mod policy;
pub mod pool;
mod rates;
mod reach;
pub mod registry;
mod rules;
mod serve_error;
pub mod signals;
mod standing;
mod station_claims;
mod stations;
pub mod status;
mod stream;
mod tunnel;
mod withdrawal;

use std::sync::Arc;

use tokio::sync::watch;

use admission::Admission;
use client_device::ClientDevices;
use forward::Lookups;
use lease::Leases;
use neighbours::Neighbours;
use rates::KeyRates;
use reach::Reachability;
use registry::Registry;
use rules::Rules;
use stations::Stations;

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
