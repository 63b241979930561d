//! `sshvpn up`: a tunnel with addresses and routes at both ends, step by step,
//! and all of it undone at the end, however it ends.
//!
//! ```text
//!   request ─► connect ─► choose ─┬► by_serve ─┬► agree ─► open ─► stay ─► take_down
//!                                 ├► by_agent ─┤
//!                                 └► by_tun ───┘
//! ```

mod acceptance;
mod addresses;
mod attempt;
mod choice;
mod closed;
mod guard;
mod local_host;
pub(crate) mod offer;
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
use crate::ssh::client::connect::Connection;
use crate::tun::DeviceRequest;
use crate::types::{Mode, Mtu, Unit};
pub use acceptance::Acceptance;
use attempt::Attempt;
use choice::Chosen;
pub use choice::{Carrier, CarrierRequest};
use remote_part::RemotePart;
use via_agent::ByAgent;
use via_serve::{ByServe, Server};
use via_tun::ByTun;

/// How often a server is asked whether it is there, where the user did not
/// say: a tunnel without traffic must notice that it is dead.
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// What the user asked of `up`.
#[derive(Debug, Clone)]
pub struct UpRequest {
    /// The way to the remote end, in ssh's terms.
    pub args: SshArgs,
    /// Whether to go into the background once the tunnel is up.
    pub background: bool,
    /// Networks to reach through it.
    pub routes: Vec<IpNetwork>,
    /// Networks to leave out of them.
    pub excludes: Vec<IpNetwork>,
    /// The local end's tunnel address.
    pub address: Option<IpAddr>,
    /// The remote end's tunnel address.
    pub peer_address: Option<IpAddr>,
    /// The tunnel's MTU.
    pub mtu: Option<Mtu>,
    /// Whether the remote end puts its own address on what goes on from it;
    /// where not said: if a route leads beyond it.
    pub nat: Option<bool>,
    /// Whether the remote end and the routed networks may open connections to this host.
    pub inbound: bool,
    /// Networks behind this host that may use the tunnel.
    pub forward: Vec<IpNetwork>,
    /// What the devices carry.
    pub mode: Mode,
    /// The device here.
    pub device: DeviceRequest,
    /// The unit of the device there.
    pub peer_unit: Option<Unit>,
    /// How it travels.
    pub carrier: CarrierRequest,
    /// What a server may push.
    pub acceptance: Acceptance,
}

/// Says what is done, a line a step, on standard error.
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

    fn warning(self, text: impl fmt::Display) {
        say(format_args!("warning: {text}"));
    }
}

/// Brings the tunnel up, stays until a signal or the end of the connection, and
/// takes everything down again. Yields the exit code.
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
    let connection = tokio::select! {
        opened = Connection::open(&options, &request.args, invoker) => opened.map_err(Failure::ssh)?,
        _ = shutdown.requested() => return Err(interrupted()),
    };
    let chosen = tokio::select! {
        chosen = choose(&connection, request, reporter) => chosen,
        _ = shutdown.requested() => Err(interrupted()),
    };
    let run = Run {
        request,
        options: &options,
        reporter,
        background,
        other_user: invoker.via_sudo,
    };
    match chosen {
        Ok(Chosen::Serve(server)) => {
            let remote = ByServe::new(Server, *server);
            run.until_the_end(connection, remote, &mut shutdown).await
        }
        Ok(Chosen::Agent(started)) => {
            let remote = ByAgent::of(*started);
            run.until_the_end(connection, remote, &mut shutdown).await
        }
        Ok(Chosen::Tun) => {
            let remote = ByTun::default();
            run.until_the_end(connection, remote, &mut shutdown).await
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

/// What one run is about.
struct Run<'a> {
    request: &'a UpRequest,
    options: &'a SshOptions,
    reporter: Reporter,
    background: Option<Ready>,
    /// Whether the user's own programs run as another user than this process.
    other_user: bool,
}

impl Run<'_> {
    /// From the chosen carrier on; yields the exit code.
    async fn until_the_end(
        self,
        connection: Connection,
        remote: impl RemotePart,
        shutdown: &mut Shutdown,
    ) -> Result<u8, Failure> {
        let mut attempt = Attempt::new(self.reporter, connection, remote);
        let result = tokio::select! {
            result = attempt.bring_up(self.request, self.options) => result,
            _ = shutdown.requested() => Err(interrupted()),
        };
        let result = match result {
            Ok(()) => {
                attempt.confine(self.other_user).await;
                let verbose = self.options.log_level >= LogLevel::Debug1;
                stay(&mut attempt, self.background, verbose, shutdown).await
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
