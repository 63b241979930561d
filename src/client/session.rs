//! `sshvpn [options] host [command]`: a connection as by ssh, with a tunnel (`-w`), forwards, and
//! a command or shell.
//!
//! For the tunnel it opens a device on each host and joins them; the user sets the addresses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::command::{self, Ended, Output};
use super::control::{Control, Order};
use super::forward::{Forwards, stdio};
use super::socket_name::SocketName;
use crate::config::invoker::Invoker;
use crate::config::ssh::args::SshArgs;
use crate::config::ssh::options::{ControlSocket, LogLevel, SessionType, SshOptions};
use crate::host::change::protection::{self, Ipv6};
use crate::link::datagram::{self, Link, Restrictions};
use crate::packet::guard::GuardRules;
use crate::process::background::Ready;
use crate::process::confinement;
use crate::process::failure::Failure;
use crate::process::message::say;
use crate::process::shutdown::Shutdown;
use crate::pump::End;
use crate::ssh::channel::process::Process;
use crate::ssh::client::attempts::Attempts;
use crate::ssh::client::connect::Connection;
use crate::tun::{Device, DeviceRequest};
use crate::types::{Mode, UnitRequest};

/// Runs the session until it ends; returns the exit code, which is the remote command's if there
/// is one.
pub async fn run(
    args: &SshArgs,
    options: &SshOptions,
    invoker: &Invoker,
    background: Option<Ready>,
) -> Result<u8, Failure> {
    let mut shutdown = Shutdown::listen().map_err(Failure::local)?;
    let once = Attempts::one();
    let connection = tokio::select! {
        opened = Connection::open(options, args, invoker, once) => opened.map_err(Failure::ssh)?,
        _ = shutdown.requested() => return Ok(Failure::SSH),
    };
    let connection = Arc::new(connection);
    let code = tokio::select! {
        done = session(&connection, options, background, invoker) => match connection.end_reason() {
            Some(reason) => Err(Failure::ssh(anyhow::anyhow!("{reason}"))),
            None => done,
        },
        reason = connection.ended() => Err(Failure::ssh(anyhow::anyhow!("{reason}"))),
        signal = shutdown.requested() => {
            if options.log_level >= LogLevel::Verbose {
                say(format_args!("Killed by signal {signal}."));
            }
            Ok(Failure::SSH)
        }
    };
    connection.close().await;
    code
}

/// Runs the tunnel, the forwards, and the remote command or shell. As in ssh, it ends when the
/// tunnel, the command and the forwarded connections have ended, with the command's exit code.
async fn session(
    connection: &Arc<Connection>,
    options: &SshOptions,
    background: Option<Ready>,
    invoker: &Invoker,
) -> Result<u8, Failure> {
    let link = match options.tunnel {
        Some(mode) => open_link(connection, options, mode).await?,
        None => None,
    };
    let tunnel = link.map(|link| tokio::spawn(watch(link, options.log_level)));
    let forwards = Arc::new(Forwards::start(connection, options, invoker).await?);
    let mut control = ControlTask::start(options, invoker, &forwards);
    let stdio = match &options.forwards.stdio {
        Some(target) => Some(stdio::open(connection, target).await?),
        None => None,
    };
    // Only if needed: a reader of this process's streams may wait for their end.
    let output = match options.session_type {
        SessionType::None if stdio.is_none() => None,
        _ => Some(Output::here().map_err(Failure::local)?),
    };
    // The device and the channel are open, and nothing has to be undone at the end. Forwards
    // still resolve names and connect.
    let ends_proxy = invoker.via_sudo && connection.has_proxy();
    if options.forwards.is_empty()
        && options.control.is_none()
        && let Err(error) = confinement::keep_nothing(ends_proxy)
    {
        complain(options, format_args!("warning: {error}"));
    }
    if let Some(ready) = background {
        ready
            .detach(options.log_level >= LogLevel::Debug1)
            .map_err(Failure::local)?;
    }
    let work = work(connection, options, tunnel, stdio, output, &forwards);
    tokio::select! {
        code = work => code,
        () = control.exit_ordered() => Ok(0),
    }
}

/// Runs the command, and waits for the tunnel and the forwarded connections; returns the exit code.
async fn work(
    connection: &Arc<Connection>,
    options: &SshOptions,
    tunnel: Option<JoinHandle<()>>,
    stdio: Option<Process>,
    output: Option<Output>,
    forwards: &Forwards,
) -> Result<u8, Failure> {
    let mut code = 0;
    let stays = output.is_none() && (tunnel.is_none() || !options.forwards.is_empty());
    if let Some(output) = output {
        let ended = match stdio {
            Some(process) => command::relay_stdio(process, options, output).await,
            None => command::run(connection, options, output).await?,
        };
        match ended {
            Ended::Process(exit) => code = exit,
            Ended::ByUser => return Ok(Failure::SSH),
        }
    }
    if let Some(tunnel) = tunnel {
        // A link that panicked has ended too.
        let _ = tunnel.await;
    }
    if stays {
        std::future::pending::<()>().await;
    }
    forwards.idle().await;
    // In the foreground the caller waits for the end: sessions are not shared, so nothing is to
    // be waited for.
    let persist = options.control.as_ref().and_then(|control| control.persist);
    match persist.filter(|_| options.fork_after_authentication) {
        None => {}
        Some(Duration::ZERO) => std::future::pending().await,
        Some(time) => forwards.idle_for(time).await,
    }
    Ok(code)
}

/// The control socket of a session.
struct ControlTask {
    task: JoinSet<()>,
    name: Option<SocketName>,
    orders: mpsc::Receiver<Order>,
}

impl ControlTask {
    /// Listens, if a control socket is wanted and its path is free.
    fn start(options: &SshOptions, invoker: &Invoker, forwards: &Arc<Forwards>) -> Self {
        let (sender, orders) = mpsc::channel(1);
        let mut control = ControlTask {
            task: JoinSet::new(),
            name: None,
            orders,
        };
        let Some(ControlSocket { path, auto, .. }) = &options.control else {
            return control;
        };
        match Control::bind(path, invoker) {
            Ok((socket, name)) => {
                control.name = Some(name);
                let serving = socket.serve(Arc::downgrade(forwards), sender);
                control.task.spawn(serving);
            }
            Err(error) if *auto => tracing::debug!("no control socket: {error}"),
            Err(error) => complain(
                options,
                format_args!("no control socket at {}: {error}", path.display()),
            ),
        }
        control
    }

    /// Waits for the order to exit; an order to stop closes the socket.
    async fn exit_ordered(&mut self) {
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Exit => return,
                Order::Stop => self.name = None,
            }
        }
        std::future::pending().await
    }
}

/// Opens the device and the channel. As in ssh, a failure is fatal only with
/// ExitOnForwardFailure.
async fn open_link(
    connection: &Connection,
    options: &SshOptions,
    mode: Mode,
) -> Result<Option<Link>, Failure> {
    let request = DeviceRequest::Unit(options.tunnel_device.local);
    let device = match Device::open(&request, mode) {
        Ok(device) => device,
        Err(error) => {
            complain(options, format_args!("Tunnel device open failed: {error}"));
            return unless_fatal(options, "Could not request tunnel forwarding.");
        }
    };
    tracing::debug!("tunnel forwarding using interface {}", device.name());
    // A device that existed before keeps its owner's settings.
    if !device.preexisting() {
        protection::set(device.name(), Ipv6::On);
    }
    let remote: UnitRequest = options.tunnel_device.remote;
    match connection.open_tunnel(mode, remote).await {
        Ok((sender, receiver)) => {
            let framing = datagram::framing(connection.is_sshvpn());
            let (held, counters) = (restrictions(mode), Arc::default());
            let link = Link::start(device, framing, sender, receiver, held, counters);
            Ok(Some(link))
        }
        Err(error) => {
            complain(options, error);
            unless_fatal(options, "Tunnel forwarding failed")
        }
    }
}

/// The restrictions on the peer's packets. The user sets the addresses of both hosts, so they are
/// unknown here; an ethernet tunnel may join two networks, so it carries everything.
fn restrictions(mode: Mode) -> Restrictions {
    match mode {
        Mode::PointToPoint => Restrictions::of_addresses(GuardRules::without_addresses()),
        Mode::Ethernet => Restrictions::default(),
    }
}

fn unless_fatal(options: &SshOptions, text: &str) -> Result<Option<Link>, Failure> {
    if options.exit_on_forward_failure {
        return Err(Failure::ssh(anyhow::anyhow!("{text}")));
    }
    complain(options, text);
    Ok(None)
}

/// Prints an error that does not end the session.
fn complain(options: &SshOptions, text: impl std::fmt::Display) {
    if options.log_level >= LogLevel::Error {
        say(text);
    }
}

/// Waits until the link ends, then prints why and which packets were refused.
async fn watch(mut link: Link, level: LogLevel) {
    let end = link.ended().await;
    let counters = link.stop().await;
    if level >= LogLevel::Info {
        match end {
            End::Channel => say("The remote end closed the tunnel."),
            End::Stream(error) => say(format_args!(
                "The remote end does not keep to the protocol: {error}"
            )),
            End::Device(error) => say(format_args!("The tunnel device failed: {error}")),
        }
    }
    if level >= LogLevel::Info
        && let Some(refused) = counters.inbound.snapshot().refused()
    {
        say(format_args!(
            "The guard refused packets of the remote end: {refused}."
        ));
    }
    tracing::debug!(
        outbound = %counters.outbound.snapshot(),
        inbound = %counters.inbound.snapshot(),
        "tunnel closed"
    );
}
