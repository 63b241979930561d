//! `sshvpn up`: a tunnel with addresses and routes on both hosts, undone when it ends, however it
//! ends.
//!
//! ```text
//!   request ─► connect ─► choose ─┬► via_serve ─┬► agree ─► open ─► stay ─► take_down
//!                                 ├► via_agent ─┤
//!                                 └► via_tun ───┘
//! ```

mod acceptance;
mod addresses;
mod attempt;
mod choice;
mod claims;
mod closed;
mod guard;
mod local_host;
pub(crate) mod offer;
mod path;
mod plan;
mod remote_part;
mod running;
mod via_agent;
mod via_serve;
mod via_stream;
mod via_tun;

#[cfg(test)]
mod test_request;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::anyhow;
use ipnetwork::IpNetwork;

use crate::config::invoker::Invoker;
use crate::config::ssh::args::SshArgs;
use crate::config::ssh::options::{LogLevel, SshOptions};
use crate::host::journal::recovery::Recoverer;
use crate::host::privilege::{require_net_admin, require_tun};
use crate::process::background::Ready;
use crate::process::cleanup;
use crate::process::failure::Failure;
use crate::process::message::say;
use crate::process::shutdown::Shutdown;
use crate::ssh::client::attempts::Attempts;
use crate::ssh::client::connect::Connection;
use crate::ssh::client::narrow::SMALL_SEGMENT;
use crate::tun::DeviceRequest;
use crate::types::{Mode, Mtu, Unit};
pub use acceptance::Acceptance;
use attempt::Attempt;
use choice::Chosen;
pub use choice::{Carrier, CarrierRequest};
use plan::auto::Auto;
use remote_part::RemotePart;
use via_agent::ByAgent;
use via_serve::{ByServe, Server};
use via_tun::ByTun;

/// The default of ServerAliveInterval: a tunnel without traffic must notice that it is dead.
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The user's request to `up`.
#[derive(Debug, Clone)]
pub struct UpRequest {
    /// The destination and ssh options.
    pub args: SshArgs,
    /// Whether to go into the background once the tunnel is up.
    pub background: bool,
    /// Networks to reach through the tunnel.
    pub routes: Vec<IpNetwork>,
    /// Whether to reach the networks of the remote host that can be routed (`--route auto`).
    pub auto: bool,
    /// Networks to leave out of the routes.
    pub excludes: Vec<IpNetwork>,
    /// This host's tunnel address.
    pub address: Option<IpAddr>,
    /// The remote host's tunnel address.
    pub peer_address: Option<IpAddr>,
    /// The tunnel's MTU.
    pub mtu: Option<Mtu>,
    /// Whether the remote host replaces the source address of packets that it forwards (NAT). With
    /// `None`: if a route leads beyond that host.
    pub nat: Option<bool>,
    /// Whether the remote host and the routed networks may open connections to this host.
    pub inbound: bool,
    /// Networks behind this host that may use the tunnel.
    pub forward: Vec<IpNetwork>,
    /// What the devices carry.
    pub mode: Mode,
    /// The device on this host.
    pub device: DeviceRequest,
    /// The unit of the device on the remote host.
    pub peer_unit: Option<Unit>,
    /// The requested carrier.
    pub carrier: CarrierRequest,
    /// What the client takes of a server's offer.
    pub acceptance: Acceptance,
    /// The largest TCP segment of the SSH connection, in bytes.
    pub segment_size: Option<u16>,
    /// Whether a fault of the path ends the attempt, rather than being a warning.
    pub strict: bool,
}

impl UpRequest {
    /// The request as a server is asked: `--route auto` is to take what the server offers.
    fn accepting_routes_if_auto(&self) -> Self {
        let mut request = self.clone();
        request.acceptance.routes |= request.auto;
        request
    }

    /// The request with `more` routes.
    fn reaching(&self, more: &[IpNetwork]) -> Self {
        UpRequest {
            routes: [&self.routes, more].concat(),
            ..self.clone()
        }
    }
}

/// Prints one line per step on standard error.
#[derive(Debug, Clone, Copy)]
struct Reporter {
    quiet: bool,
}

impl Reporter {
    fn step(self, text: impl fmt::Display) {
        if !self.quiet {
            say(text);
        }
    }

    /// Says why the tunnel has no IPv6.
    fn without_ipv6(self, problem: Option<addresses::NoIpv6>) {
        if let Some(problem) = problem {
            self.step(format_args!("IPv6 is left out: {problem}"));
        }
    }

    /// Reports what `--route auto` takes of a remote host's networks.
    fn auto(self, host: &str, auto: &Auto) {
        for line in auto.lines() {
            self.step(format_args!("{host}: {line}"));
        }
    }

    fn warning(self, text: impl fmt::Display) {
        say(format_args!("warning: {text}"));
    }
}

/// Brings the tunnel up, waits for a signal or the loss of the connection, and takes everything
/// down. Returns the exit code.
pub async fn run(
    request: &UpRequest,
    options: &SshOptions,
    invoker: &Invoker,
    background: Option<Ready>,
) -> Result<u8, Failure> {
    require_net_admin().map_err(Failure::local)?;
    require_tun().map_err(Failure::local)?;
    let mut shutdown = Shutdown::listen().map_err(Failure::local)?;
    let reporter = Reporter {
        quiet: options.log_level <= LogLevel::Error,
    };
    cleanup::recover(!reporter.quiet, Recoverer::Other).await?;
    let mut options = options.clone();
    options.server_alive_interval.get_or_insert(ALIVE_INTERVAL);
    options.segment_size = request.segment_size;
    let mut background = background;
    loop {
        let run = Run {
            request,
            options: &options,
            reporter,
            background: &mut background,
            other_user: invoker.via_sudo,
        };
        match once(run, invoker, &mut shutdown).await? {
            Outcome::Ended(code) => return Ok(code),
            Outcome::NarrowPath => {
                reporter.warning(format_args!(
                    "large packets of the SSH connection get lost on the way, and no router reports it \
                     (path MTU): connecting again with segments of at most {SMALL_SEGMENT} bytes"
                ));
                options.segment_size = Some(SMALL_SEGMENT);
            }
        }
    }
}

/// How an attempt ended, if not by a failure.
enum Outcome {
    /// The user ended it; the exit code.
    Ended(u8),
    /// Large packets of the SSH connection do not get through.
    NarrowPath,
}

/// Connects and runs the tunnel until it ends.
async fn once(
    run: Run<'_>,
    invoker: &Invoker,
    shutdown: &mut Shutdown,
) -> Result<Outcome, Failure> {
    let (request, reporter) = (run.request, run.reporter);
    let notice = |line| reporter.step(line);
    let attempts = Attempts::several(&notice);
    let connection = tokio::select! {
        opened = Connection::open(run.options, &request.args, invoker, attempts) => opened.map_err(Failure::ssh)?,
        _ = shutdown.requested() => return Err(interrupted()),
    };
    let watch = connection.path_watch();
    let chosen = tokio::select! {
        chosen = choose(&connection, request, reporter) => chosen,
        () = watch.narrow() => {
            watch.abort();
            connection.close().await;
            return Ok(Outcome::NarrowPath);
        }
        _ = shutdown.requested() => Err(interrupted()),
    };
    match chosen {
        Ok(Chosen::Serve(server)) => {
            let remote = ByServe::new(Server, *server);
            run.until_the_end(connection, remote, shutdown).await
        }
        Ok(Chosen::Agent(started)) => {
            let remote = ByAgent::of(*started);
            run.until_the_end(connection, remote, shutdown).await
        }
        Ok(Chosen::Tun) => {
            let remote = ByTun::default();
            run.until_the_end(connection, remote, shutdown).await
        }
        Err(failure) => {
            connection.close().await;
            cleanup::remove_empty_runtime_dir();
            Err(failure)
        }
    }
}

async fn choose(
    connection: &Connection,
    request: &UpRequest,
    reporter: Reporter,
) -> Result<Chosen, Failure> {
    connection.require_verified().map_err(Failure::ssh)?;
    choice::choose(connection, request, reporter).await
}

/// The parameters of one run.
struct Run<'a> {
    request: &'a UpRequest,
    options: &'a SshOptions,
    reporter: Reporter,
    background: &'a mut Option<Ready>,
    /// Whether the user's own programs run as another user than this process.
    other_user: bool,
}

impl Run<'_> {
    /// Runs the tunnel over the chosen carrier until it ends.
    async fn until_the_end(
        self,
        connection: Connection,
        remote: impl RemotePart,
        shutdown: &mut Shutdown,
    ) -> Result<Outcome, Failure> {
        let watch = connection.path_watch();
        let mut attempt = Attempt::new(self.reporter, connection, remote);
        let result = tokio::select! {
            result = attempt.bring_up(self.request, self.options) => result.map(Some),
            () = watch.narrow() => {
                watch.abort();
                Ok(None)
            }
            _ = shutdown.requested() => Err(interrupted()),
        };
        let result = match result {
            Ok(None) => Ok(Outcome::NarrowPath),
            Ok(Some(())) => {
                attempt.confine(self.other_user).await;
                let verbose = self.options.log_level >= LogLevel::Debug1;
                let ready = self.background.take();
                let ended = stay(&mut attempt, ready, verbose, shutdown).await;
                ended.map(Outcome::Ended)
            }
            Err(failure) => Err(failure),
        };
        attempt.take_down().await;
        result
    }
}

fn interrupted() -> Failure {
    Failure::local(anyhow!("interrupted before the tunnel was up"))
}

async fn stay(
    attempt: &mut Attempt<impl RemotePart>,
    background: Option<Ready>,
    verbose: bool,
    shutdown: &mut Shutdown,
) -> Result<u8, Failure> {
    if let Some(ready) = background {
        ready.detach(verbose).map_err(Failure::local)?;
    }
    tokio::select! {
        failure = attempt.lost() => Err(failure),
        _ = shutdown.requested() => Ok(0),
    }
}
