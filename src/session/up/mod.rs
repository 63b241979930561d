//! `sshvpn up`: a tunnel with addresses and routes at both ends, step by step,
//! and all of it undone at the end, however it ends.
//!
//! ```text
//!   request ─► connect ─► probe ─► plan ─► bring_up ─► stay ─► take_down
//! ```

mod attempt;
mod near;
mod plan;
mod plan_error;

use std::fmt;
use std::net::IpAddr;

use anyhow::anyhow;
use ipnetwork::IpNetwork;

use super::background::Ready;
use super::cleanup;
use super::failure::Failure;
use super::shutdown::Shutdown;
use crate::config::invoker::Invoker;
use crate::config::ssh_args::SshArgs;
use crate::config::ssh_options::{LogLevel, SshOptions};
use crate::config::types::{Mode, Mtu, Unit};
use crate::message::say;
use crate::net::privilege::{require_net_admin, require_tun};
use crate::tun::DeviceRequest;
use attempt::Attempt;

/// What the user asked of `up`.
#[derive(Debug, Clone)]
pub struct UpRequest {
    /// The way to the far end, in ssh's terms.
    pub args: SshArgs,
    /// Whether to go into the background once the tunnel is up.
    pub background: bool,
    /// Networks to reach through it.
    pub routes: Vec<IpNetwork>,
    /// Networks to leave out of them.
    pub excludes: Vec<IpNetwork>,
    /// The near end's tunnel address.
    pub address: Option<IpAddr>,
    /// The far end's tunnel address.
    pub peer_address: Option<IpAddr>,
    /// The tunnel's MTU.
    pub mtu: Option<Mtu>,
    /// Whether the far end puts its own address on what goes on from it;
    /// where not said: if a route leads beyond it.
    pub nat: Option<bool>,
    /// What the devices carry.
    pub mode: Mode,
    /// The device here.
    pub device: DeviceRequest,
    /// The unit of the device there.
    pub peer_unit: Option<Unit>,
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
    cleanup::recover(!reporter.quiet).await?;
    let mut attempt = Attempt::new(reporter);
    let result = tokio::select! {
        result = attempt.bring_up(request, options, invoker) => result,
        _ = shutdown.requested() => Err(Failure::local(anyhow!("interrupted before the tunnel was up"))),
    };
    let result = match result {
        Ok(()) => {
            let verbose = options.log_level >= LogLevel::Debug1;
            stay(&mut attempt, background, verbose, &mut shutdown).await
        }
        Err(failure) => Err(failure),
    };
    attempt.take_down().await;
    result
}

async fn stay(
    attempt: &mut Attempt,
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
