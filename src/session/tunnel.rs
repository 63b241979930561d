//! `sshvpn -w LOCAL[:REMOTE] host [command]`: what `ssh -w` does. A device here,
//! a device there, a session beside them; addresses are the user's business.

use tokio::task::JoinHandle;

use super::background::Ready;
use super::carrier::Link;
use super::failure::Failure;
use super::remote;
use super::shutdown::Shutdown;
use crate::config::invoker::Invoker;
use crate::config::ssh_args::SshArgs;
use crate::config::ssh_options::{LogLevel, SessionType, SshOptions};
use crate::config::types::{Mode, UnitRequest};
use crate::pump::End;
use crate::ssh::connect::Connection;
use crate::tun::{Device, DeviceRequest};

/// Runs the session to its end; yields the exit code, which is that of the
/// remote command where there is one.
pub async fn run(
    args: &SshArgs,
    options: &SshOptions,
    invoker: &Invoker,
    background: Option<Ready>,
) -> Result<u8, Failure> {
    let mut shutdown = Shutdown::listen().map_err(Failure::local)?;
    let connection = tokio::select! {
        opened = Connection::open(options, args, invoker) => opened.map_err(Failure::ssh)?,
        _ = shutdown.requested() => return Ok(Failure::SSH),
    };
    let link = match options.tunnel {
        Some(mode) => tokio::select! {
            opened = open_link(&connection, options, mode) => opened?,
            _ = shutdown.requested() => {
                connection.close().await;
                return Ok(Failure::SSH);
            }
        },
        None => None,
    };
    let watched = link.map(|link| tokio::spawn(watch(link, options.log_level)));
    if let Some(ready) = background {
        ready.detach().map_err(Failure::local)?;
    }
    let code = session(&connection, options, watched, &mut shutdown).await;
    connection.close().await;
    code
}

/// Opens the device and the channel. Failures are fatal only with
/// ExitOnForwardFailure, as in ssh.
async fn open_link(
    connection: &Connection,
    options: &SshOptions,
    mode: Mode,
) -> Result<Option<Link>, Failure> {
    let request = DeviceRequest::Unit(options.tunnel_device.local);
    let device = match Device::open(&request, mode) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("Tunnel device open failed: {error}");
            return unless_fatal(
                options,
                "Could not request tunnel forwarding.",
                Failure::SSH,
            );
        }
    };
    tracing::debug!("tunnel forwarding using interface {}", device.name());
    let remote: UnitRequest = options.tunnel_device.remote;
    match connection.open_tunnel(mode, remote).await {
        Ok((sender, receiver)) => Ok(Some(Link::start(device, sender, receiver))),
        Err(error) => {
            eprintln!("{error}");
            unless_fatal(options, "Tunnel forwarding failed", Failure::SSH)
        }
    }
}

fn unless_fatal(options: &SshOptions, text: &str, code: u8) -> Result<Option<Link>, Failure> {
    if options.exit_on_forward_failure {
        debug_assert_eq!(code, Failure::SSH);
        return Err(Failure::ssh(anyhow::anyhow!("{text}")));
    }
    eprintln!("{text}");
    Ok(None)
}

/// Waits for the link's end and says what went through.
async fn watch(mut link: Link, level: LogLevel) {
    let end = link.ended().await;
    let counters = link.stop().await;
    if level >= LogLevel::Info {
        match end {
            End::Channel => eprintln!("The far end closed the tunnel."),
            End::Device(error) => eprintln!("The tunnel device failed: {error}"),
        }
    }
    tracing::debug!(
        outbound = %counters.outbound.snapshot(),
        inbound = %counters.inbound.snapshot(),
        "tunnel closed"
    );
}

/// The remote command or shell, then the tunnel: ssh ends when both have, and
/// with the command's exit code.
async fn session(
    connection: &Connection,
    options: &SshOptions,
    tunnel: Option<JoinHandle<()>>,
    shutdown: &mut Shutdown,
) -> Result<u8, Failure> {
    let mut code = 0;
    let work = async {
        if options.session_type != SessionType::None {
            code = remote::run(connection, options).await?;
        }
        match tunnel {
            Some(tunnel) => {
                // A link that panicked has ended too.
                let _ = tunnel.await;
            }
            None if options.session_type == SessionType::None => std::future::pending().await,
            None => {}
        }
        Ok(code)
    };
    tokio::select! {
        done = work => match connection.end_reason() {
            Some(reason) => Err(Failure::ssh(anyhow::anyhow!("{reason}"))),
            None => done,
        },
        reason = connection.ended() => Err(Failure::ssh(anyhow::anyhow!("{reason}"))),
        signal = shutdown.requested() => {
            if options.log_level >= LogLevel::Verbose {
                eprintln!("Killed by signal {signal}.");
            }
            Ok(Failure::SSH)
        }
    }
}
