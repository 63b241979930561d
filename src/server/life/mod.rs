//! The life of a server: start, clients, reload, stop.

pub mod activation;
pub mod admission;
pub mod check;
pub mod confinement;
pub mod host;
pub mod listen;
pub mod notify;
pub mod open_files;
pub mod own_user;
mod reload;
pub(super) mod serve_error;
pub mod signals;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Server;
use super::access::access_rules::Reachability;
use super::address::lease::Leases;
use super::address::pool::{self, Pool, Pools};
use super::client;
use super::login::rules::Rules;
use super::report::audit::Audit;
use super::report::audit::event::Event;
use super::report::metrics::MetricsListener;
use super::report::registry::Registry;
use super::report::status::StatusSocket;
use super::report::status::watched::Watched;
use crate::config::serve::request::ServeRequest;
use crate::host::change::sysctl;
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::plan::facts::HostFacts;
use crate::host::privilege::require_net_admin;
use crate::process::cleanup;
use crate::process::failure::Failure;
use crate::process::message::{Counted, say};
use crate::sandbox;
use admission::Admission;
use host::ServeHost;
use listen::{Bound, Listeners};
use serve_error::ServeError;
use signals::{Asked, Signals};

/// How long clients may take to disconnect when the server stops.
const GOODBYES: Duration = Duration::from_secs(10);
/// How long the last records of the audit log may take to be written.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// Serves until a signal stops it; returns the exit code.
pub fn run(request: &ServeRequest) -> Result<u8, Failure> {
    let started = prepare(request).map_err(Failure::local)?;
    let (runtime, prepared) = started;
    let served = runtime.block_on(serve(request, prepared));
    runtime.shutdown_background();
    served.map_err(Failure::local)
}

/// What exists before the runtime starts.
struct Prepared {
    rules: Rules,
    bound: Bound,
    directory: RuntimeDir,
}

/// Opens what needs privileges, drops them, and only then creates threads. With `--user`,
/// reads everything as that user, so that a reload can read it too.
fn prepare(request: &ServeRequest) -> Result<(Runtime, Prepared), ServeError> {
    own_user::assume(request)?;
    let (rules, warnings) = Rules::load(request)?;
    warn(&warnings);
    open_files::raise_limit();
    let bound = Bound::open(&rules.settings.listen)?;
    require_net_admin()?;
    let directory = cleanup::open_runtime_dir()?;
    sandbox::user::leave_groups()?;
    let limits = confinement::of(request.config_path(), &rules.settings, &directory);
    say(format_args!("sandbox: {}", sandbox::confine(&limits)?));
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ServeError::start("the runtime"))?;
    let prepared = Prepared {
        rules,
        bound,
        directory,
    };
    Ok((runtime, prepared))
}

fn warn(warnings: &[impl fmt::Display]) {
    for warning in warnings {
        say(format_args!("warning: {warning}"));
    }
}

fn warn_of_no_keys(rules: &Rules) {
    if rules.policy.key_count() > 0 {
        return;
    }
    let files: Vec<String> = rules
        .settings
        .authorized_keys
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    say(format_args!(
        "warning: no client can log in: there is no usable key in {}: add a line such as \
         'tunnel=\"any\" ssh-ed25519 AAAA…', then reload (SIGHUP)",
        files.join(", ")
    ));
}

/// A running server.
struct Life {
    server: Arc<Server>,
    host: ServeHost,
    pools: Pools,
    listeners: Listeners,
    watched: Arc<Watched>,
    audit: Audit,
    status: Option<StatusSocket>,
    metrics: Option<MetricsListener>,
    clients: JoinSet<()>,
}

async fn serve(request: &ServeRequest, prepared: Prepared) -> Result<u8, ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::start("signal handling"))?;
    let mut life = Life::begin(prepared).await?;
    let asked = life.run(request, &mut signals).await;
    life.end(asked, &mut signals).await;
    Ok(0)
}

impl Life {
    async fn begin(prepared: Prepared) -> Result<Self, ServeError> {
        let Prepared {
            rules,
            bound,
            directory,
        } = prepared;
        let settings = &rules.settings;
        let audit = Audit::open(&settings.audit)?;
        let facts = host::prepare().await?;
        let pools = choose_pools(&rules, None, &facts)?;
        warn(&pools.overlaps(&facts, settings.network.bridge.as_ref()));
        let leases = Leases::load(
            &settings.network.leases,
            pools.clone(),
            rules.fixed_addresses(),
        )
        .map_err(ServeError::start("the thread that saves leases"))?;
        let listeners = bound.start().map_err(ServeError::start("listening"))?;
        let host = ServeHost::start(&directory, settings, &pools).await?;
        let now = SystemTime::now();
        let registry = Registry::new(&settings.limits, audit.clone(), now);
        let admission = Admission::new(&open_files::fitting(&settings.login));
        let reach = Arc::new(Reachability::default());
        set_reach(&reach, &pools);
        let server = Arc::new(Server::new(
            rules,
            Arc::clone(&admission),
            Arc::clone(&registry),
            leases,
            host.devices(),
            reach,
        ));
        let listen = listeners.addresses();
        let counted = Arc::clone(&server);
        let in_use = move || counted.leases.in_use();
        let watched = Watched::new(
            registry,
            admission,
            audit.clone(),
            now,
            listen.clone(),
            in_use,
        );
        let mut life = Life {
            server,
            host,
            pools,
            listeners,
            watched,
            audit,
            status: None,
            metrics: None,
            clients: JoinSet::new(),
        };
        match life.open_for_questions(&directory).await {
            Ok(()) => {}
            Err(error) => {
                life.undo().await;
                return Err(error);
            }
        }
        life.audit.record(Event::ServerStarted {
            listen: listen.clone(),
            pid: std::process::id(),
        });
        life.tell_start();
        notify::ready(&life.status_line());
        Ok(life)
    }

    /// Opens the status socket and the metrics listener.
    async fn open_for_questions(&mut self, directory: &RuntimeDir) -> Result<(), ServeError> {
        let first = self.watched.listen().first().map_or(0, SocketAddr::port);
        let watched = Arc::clone(&self.watched);
        self.status = Some(StatusSocket::start(directory, first, watched)?);
        self.metrics = self.start_metrics().await?;
        Ok(())
    }

    async fn start_metrics(&self) -> Result<Option<MetricsListener>, ServeError> {
        let rules = self.server.rules();
        let Some(address) = rules.settings.metrics else {
            return Ok(None);
        };
        let names = &rules.settings.metrics_names;
        let started = MetricsListener::start(address, names, Arc::clone(&self.watched)).await;
        Ok(Some(started?))
    }

    /// Accepts clients until a signal asks to stop.
    async fn run(&mut self, request: &ServeRequest, signals: &mut Signals) -> Asked {
        let watchdog = notify::watchdog();
        tokio::pin!(watchdog);
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Reload => self.reload(request).await,
                    other => return other,
                },
                (stream, peer) = self.listeners.accept() => self.admit(stream, peer),
                Some(_) = self.clients.join_next() => notify::status(&self.status_line()),
                () = &mut watchdog => {}
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let now = Instant::now();
        match self.server.admission.admit(peer.ip(), now) {
            Ok(startup) => {
                let server = Arc::clone(&self.server);
                self.clients
                    .spawn(client::attend(server, stream, peer, startup));
            }
            // Closed without a message, as sshd does.
            Err(why) => self.server.registry.refused(peer, why, now),
        }
    }

    /// Tells the clients the reason, disconnects them, and undoes everything.
    async fn end(mut self, asked: Asked, signals: &mut Signals) {
        let reason = "the server is shutting down";
        notify::stopping(reason);
        // A new client would only wait while the others are disconnected.
        self.listeners.close();
        self.audit.record(Event::ServerStopped {
            reason: reason.into(),
        });
        if asked == Asked::Stop {
            self.server.stop(reason);
            let left = async { while self.clients.join_next().await.is_some() {} };
            tokio::select! {
                waited = timeout(GOODBYES, left) => if waited.is_err() {
                    say("sshvpn: some clients did not disconnect in time; their connections are closed");
                },
                () = at_once(signals) => {}
            }
        }
        self.clients.shutdown().await;
        self.undo().await;
    }

    async fn undo(self) {
        let Life {
            server,
            host,
            status,
            metrics,
            watched,
            audit,
            clients,
            ..
        } = self;
        drop((status, metrics, clients));
        cleanup::print_report(&host.stop().await, false);
        // Tunnels of aborted clients may hold the server longer.
        server.leases.close();
        drop((watched, server));
        cleanup::remove_empty_runtime_dir();
        if !audit.close(LAST_RECORDS) {
            say("sshvpn: the last records of the audit log could not be written and are lost");
        }
    }

    fn status_line(&self) -> String {
        Counted(self.server.registry.live() as u64, "client").to_string()
    }

    fn tell_start(&self) {
        let rules = self.server.rules();
        for fingerprint in rules.ssh.host_keys.fingerprints() {
            say(format_args!("host key {fingerprint}"));
        }
        let networks: Vec<String> = self
            .pools
            .iter()
            .map(|pool| format!("{} (here {})", pool.network(), pool.server()))
            .collect();
        if !networks.is_empty() {
            say(format_args!(
                "clients get addresses of {}",
                networks.join(", ")
            ));
        }
        warn_of_no_keys(&rules);
    }
}

/// Waits for a further stop signal.
async fn at_once(signals: &mut Signals) {
    while signals.next().await != Asked::StopAtOnce {}
}

fn choose_pools(
    rules: &Rules,
    current: Option<&Pools>,
    facts: &HostFacts,
) -> Result<Pools, ServeError> {
    // The choice is stable for this server, and differs for another server on this host.
    let keys = rules.ssh.host_keys.fingerprints();
    let key = keys.first().map_or("", String::as_str);
    let port = rules.settings.listen.first().map_or(0, SocketAddr::port);
    let seed = pool::seed(&format!("{key} {port}"));
    let ipv6 = sysctl::has_ipv6();
    Ok(Pools::choose(&rules.settings, current, facts, ipv6, seed)?)
}

fn set_reach(reach: &Reachability, pools: &Pools) {
    let here: Vec<IpAddr> = pools.iter().map(Pool::server).collect();
    reach.set_networks(here, pools.iter().map(Pool::network));
}
