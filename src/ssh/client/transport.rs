//! The byte stream under an SSH connection: a TCP socket, or the standard
//! streams of a ProxyCommand.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Child;
use tokio::time::timeout;

use super::narrow::PathWatch;
use super::quick_acks::{AckSwitch, QuickAcks};
use crate::config::invoker::Invoker;
use crate::config::ssh::args::AddressFamily;
use crate::config::ssh::options::SshOptions;
use crate::ssh::congestion;
use crate::ssh::error::ConnectError;

/// Bytes that may wait in the kernel beyond those in flight: a more urgent packet cannot
/// overtake what waits there.
const UNSENT: u32 = 128 * 1024;

/// Any byte stream that SSH can run over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream, with its peer's address and its process.
pub struct Transport {
    /// The byte stream.
    pub stream: Box<dyn Stream>,
    /// The address of the peer, if the stream is a socket of this process.
    pub peer: Option<SocketAddr>,
    /// The ProxyCommand; killed when this is dropped.
    pub proxy: Option<Child>,
    /// Ends prompt acknowledgments; does nothing on other streams.
    pub acks: AckSwitch,
    /// Looks at the socket; sees nothing on other streams.
    pub watch: PathWatch,
}

impl Transport {
    /// A stream that has no socket of its own: it runs through a jump host.
    pub fn tunnelled(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            peer: None,
            proxy: None,
            acks: AckSwitch::default(),
            watch: PathWatch::default(),
        }
    }
}

/// The addresses of the host, of the configured address family.
pub async fn resolve(options: &SshOptions) -> Result<Vec<SocketAddr>, ConnectError> {
    let unresolved = |reason: String| ConnectError::Resolve {
        host: options.host.clone(),
        reason,
    };
    let host = options.host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((host, options.port))
        .await
        .map_err(|error| {
            let text = error.to_string();
            let reason = text
                .rsplit_once(": ")
                .map_or(text.as_str(), |(_, reason)| reason);
            unresolved(reason.to_owned())
        })?;
    let addresses: Vec<SocketAddr> = found
        .filter(|address| match options.address_family {
            AddressFamily::Any => true,
            AddressFamily::Inet => address.is_ipv4(),
            AddressFamily::Inet6 => address.is_ipv6(),
        })
        .collect();
    if addresses.is_empty() {
        return Err(unresolved(
            "Address family for hostname not supported".to_owned(),
        ));
    }
    Ok(addresses)
}

/// Connects over TCP: tries every address in turn, `ConnectionAttempts` times.
pub async fn tcp(options: &SshOptions) -> Result<Transport, ConnectError> {
    let addresses = resolve(options).await?;
    let mut reason = String::new();
    for attempt in 0..options.connection_attempts.max(1) {
        if attempt > 0 {
            // Like ssh, pause 1 s between rounds (ssh_config(5), ConnectionAttempts).
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for address in &addresses {
            match tcp_to(*address, options).await {
                Ok(stream) => {
                    let (watch, socket) = PathWatch::of(&stream);
                    let (stream, acks) = QuickAcks::new(stream, socket);
                    return Ok(Transport {
                        stream: Box::new(stream),
                        peer: Some(*address),
                        proxy: None,
                        acks,
                        watch,
                    });
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Next(error)) => {
                    tracing::debug!(%address, "{error}");
                    reason = error;
                }
            }
        }
    }
    Err(ConnectError::Tcp {
        host: options.host.clone(),
        port: options.port,
        reason,
    })
}

enum Failure {
    /// Try the next address.
    Next(String),
    /// No other address can succeed.
    Final(ConnectError),
}

async fn tcp_to(address: SocketAddr, options: &SshOptions) -> Result<TcpStream, Failure> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(|error| Failure::Next(plain(&error)))?;
    bind(&socket, address, options)?;
    if let Some(name) = &options.congestion {
        congestion::set(&socket, name).map_err(|error| Failure::Final(error.into()))?;
    }
    if let Some(bytes) = options.segment_size {
        let _ = SockRef::from(&socket).set_tcp_mss(bytes.into());
    }
    let stream = match options.connect_timeout {
        Some(limit) => timeout(limit, socket.connect(address))
            .await
            .map_err(|_| Failure::Next("Connection timed out".to_owned()))?,
        None => socket.connect(address).await,
    }
    .map_err(|error| Failure::Next(plain(&error)))?;
    tune(&stream, options.tcp_keep_alive);
    tracing::debug!(%address, "connected; congestion control {}", congestion::in_use(&stream));
    Ok(stream)
}

/// Sets the socket options that packets need. Best effort, as in ssh: the connection also
/// works without them.
pub(in crate::ssh) fn tune(stream: &TcpStream, keep_alive: bool) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
    if keep_alive {
        let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    }
}

fn bind(socket: &TcpSocket, to: SocketAddr, options: &SshOptions) -> Result<(), Failure> {
    let refused = |from: &str, source: io::Error| {
        Failure::Final(ConnectError::Bind {
            from: from.to_owned(),
            source,
        })
    };
    if let Some(interface) = &options.bind_interface {
        setsockopt(socket, sockopt::BindToDevice, &interface.into())
            .map_err(|errno| refused(interface, errno.into()))?;
    }
    if let Some(from) = &options.bind_address {
        let address: IpAddr = from.parse().map_err(|_| {
            refused(
                from,
                io::Error::new(io::ErrorKind::InvalidInput, "not an IP address"),
            )
        })?;
        if address.is_ipv4() != to.is_ipv4() {
            return Err(Failure::Next(format!(
                "BindAddress {from} is of another family"
            )));
        }
        socket
            .bind(SocketAddr::new(address, 0))
            .map_err(|error| refused(from, error))?;
    }
    Ok(())
}

/// The kernel's error text without Rust's "(os error N)".
pub(in crate::ssh) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Starts a ProxyCommand as the invoker, with the invoker's shell and `exec`, as ssh does.
/// The command ignores SIGINT, which the terminal's Ctrl-C sends to it as well as to
/// sshvpn: the connection must last until sshvpn has undone its changes.
pub fn proxy_command(command: &str, invoker: &Invoker) -> Result<Transport, ConnectError> {
    let failed = |source| ConnectError::ProxyCommand {
        command: command.to_owned(),
        source,
    };
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let mut child = invoker.command("/bin/sh");
    child.args(["-c", "trap '' INT; exec \"$@\"", "sh"]);
    child.arg(shell.unwrap_or_else(|| "/bin/sh".into()));
    child.arg("-c").arg(format!("exec {command}"));
    child.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = tokio::process::Command::from(child)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    };
    Ok(Transport {
        stream: Box::new(tokio::io::join(output, input)),
        peer: None,
        proxy: Some(child),
        acks: AckSwitch::default(),
        watch: PathWatch::default(),
    })
}
