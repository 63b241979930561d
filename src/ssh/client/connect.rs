//! From settings to an authenticated connection: over TCP, a ProxyCommand, or jump hosts,
//! each of which is a connection of its own.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::{Disconnect, Limits, SshId};
use tokio::process::Child;
use tokio::sync::oneshot;

use super::attempts::Attempts;
use super::auth;
use super::events::{EventError, Events, Shared};
use super::greeting::{Greeted, Greeting};
use super::host_key::{HostKeyCheck, HostTrust};
use super::narrow::{PathWatch, SMALL_SEGMENT};
use super::prompt::Prompter;
use super::quick_acks::AckSwitch;
use super::stalled::StallLimit;
use super::transport::{self, Stream, Transport};
use crate::config::invoker::Invoker;
use crate::config::resolve_route;
use crate::config::ssh::args::SshArgs;
use crate::config::ssh::options::{LogLevel, Proxy, SshOptions};
use crate::frame::offload;
use crate::process::message::say;
use crate::ssh::algorithms;
use crate::ssh::error::{ChannelError, ConnectError};

/// sshvpn's identification string as client and server (RFC 4253, section 4.2).
pub(in crate::ssh) const IDENTIFICATION: &str =
    concat!("SSH-2.0-sshvpn_", env!("CARGO_PKG_VERSION"));

/// The window that the client grants on each channel, in bytes: at most 800 Mbit/s over
/// 40 ms.
const WINDOW: u32 = 4 * 1024 * 1024;

/// The window of a channel that carries an agent stream, in bytes: at most 1.6
/// Gbit/s over 40 ms. The stream's sender limits its data in flight itself; sshd and ssh fill any
/// window.
pub(in crate::ssh) const STREAM_WINDOW: u32 = 8 * 1024 * 1024;

/// The limit of unread data on all channels of one connection, in bytes. The granted
/// windows add up to no more than this, plus a small window for each channel, so a channel
/// beside many others gets a smaller share but never none.
pub(in crate::ssh) const UNREAD_LIMIT: usize = 16 * 1024 * 1024;

/// The largest message that sshvpn accepts, in bytes: russh's maximum.
pub(in crate::ssh) const MAX_PACKET: u32 = 65535;

/// The number of messages that may wait between a channel and its reader. The channel's
/// window limits their bytes; with this many messages the window fills first, so that a
/// reader that stops blocks only its own channel.
pub(in crate::ssh) const QUEUE: usize = 8192;

/// The number of messages that may wait between all channels and the connection's task:
/// few, because no message can overtake another and each has up to 64 KiB. When the socket
/// accepts no more, these messages and 128 KiB that are being written (plus the message
/// that exceeds the 128 KiB) lie between a sender and the kernel.
pub(in crate::ssh) const SEND_QUEUE: usize = 4;

/// How long a server may take to reply to a request on the connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long [`Connection::close`] waits for the disconnect.
const GOODBYE: Duration = Duration::from_secs(1);

/// An authenticated SSH connection.
pub struct Connection {
    pub(in crate::ssh) handle: Handle<Events>,
    pub(in crate::ssh) shared: Arc<Shared>,
    host: String,
    first_hop: Vec<IpAddr>,
    pub(in crate::ssh) trust: HostTrust,
    /// The connection to the jump host, kept open.
    through: Option<Box<Connection>>,
    /// Stops prompt acknowledgments when a session opens, because sshd then disables
    /// Nagle's algorithm.
    pub(in crate::ssh) acks: AckSwitch,
    /// The ProxyCommand; killed with the connection.
    proxy: Option<Child>,
    /// Looks at the path of the first hop.
    watch: PathWatch,
}

impl Connection {
    /// Whether the connection runs through a ProxyCommand.
    pub fn has_proxy(&self) -> bool {
        let through = self.through.as_deref();
        self.proxy.is_some() || through.is_some_and(Connection::has_proxy)
    }

    /// Connects and authenticates according to `options`. `args` also apply to jump hosts,
    /// as in ssh. Where large packets get lost on the way, it connects again with small ones.
    pub async fn open(
        options: &SshOptions,
        args: &SshArgs,
        invoker: &Invoker,
        attempts: Attempts<'_>,
    ) -> Result<Self, ConnectError> {
        match Self::open_once(options, args, invoker, attempts).await {
            Err(ConnectError::NarrowPath { .. }) if options.segment_size.is_none() => {
                say(format_args!(
                    "warning: large packets to {} get lost on the way, and no router reports it (path \
                     MTU): connecting again with segments of at most {SMALL_SEGMENT} bytes",
                    options.host
                ));
                let small = SshOptions {
                    segment_size: Some(SMALL_SEGMENT),
                    ..options.clone()
                };
                Self::open_once(&small, args, invoker, attempts).await
            }
            opened => opened,
        }
    }

    /// Looks at the path of the connection's TCP.
    pub fn path_watch(&self) -> PathWatch {
        self.watch.clone()
    }

    /// [`open`](Self::open) without another attempt.
    async fn open_once(
        options: &SshOptions,
        args: &SshArgs,
        invoker: &Invoker,
        attempts: Attempts<'_>,
    ) -> Result<Self, ConnectError> {
        let mut through = None;
        if let Some(Proxy::Jump(hops)) = &options.proxy {
            // Each host of the route is connected to through the one before it.
            for mut hop in resolve_route(args, hops, invoker)? {
                hop.segment_size = options.segment_size;
                through = Some(reach(&hop, invoker, through, attempts).await?);
            }
        }
        reach(options, invoker, through, attempts).await
    }

    /// The server's name as the user gave it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The addresses of the first host on the route, which must not be routed into the
    /// tunnel. With a ProxyCommand these are the addresses of the server's name, if it
    /// resolves here.
    pub fn first_hop(&self) -> &[IpAddr] {
        &self.first_hop
    }

    /// The server's software version, without the protocol version.
    pub fn software(&self) -> String {
        let identification = self.shared.identification();
        let software = identification.strip_prefix("SSH-2.0-");
        software.unwrap_or(&identification).to_owned()
    }

    /// Whether the server's identification is that of sshvpn.
    pub fn is_sshvpn(&self) -> bool {
        offload::spoken_by(self.shared.identification().as_bytes())
    }

    /// Why the connection ended; `None` while it is up.
    pub fn end_reason(&self) -> Option<String> {
        self.shared.end_reason()
    }

    /// Waits until the connection has ended; yields the reason.
    pub async fn ended(&self) -> String {
        self.shared.ended().await
    }

    /// Waits at most 60 s for the server's reply to the request for `what`.
    pub(in crate::ssh) async fn answered<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, ChannelError>>,
    ) -> Result<T, ChannelError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
            Ok(answer) => answer,
            Err(_) => Err(ChannelError::NoAnswer {
                host: self.host.clone(),
                what: what.to_owned(),
            }),
        }
    }

    /// Disconnects and closes, jump hosts included.
    pub async fn close(&self) {
        let goodbye = async {
            let sent =
                self.handle
                    .disconnect(Disconnect::ByApplication, "disconnected by user", "");
            // A connection that is gone already needs no disconnect.
            if sent.await.is_ok() {
                self.shared.ended().await;
            }
        };
        // A connection that hangs does not even send it.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        if let Some(through) = &self.through {
            Box::pin(through.close()).await;
        }
    }
}

/// The stream to the first host on the route, and that host's addresses.
async fn start(
    options: &SshOptions,
    invoker: &Invoker,
) -> Result<(Transport, Vec<IpAddr>), ConnectError> {
    let Some(Proxy::Command(command)) = &options.proxy else {
        let transport = transport::tcp(options).await?;
        let first_hop = transport.peer.map(|peer| peer.ip()).into_iter().collect();
        return Ok((transport, first_hop));
    };
    if let Some(name) = &options.congestion
        && options.log_level > LogLevel::Error
    {
        say(format_args!(
            "warning: --congestion {name} has no effect: the connection is the ProxyCommand's"
        ));
    }
    let first_hop = match transport::resolve(options).await {
        Ok(addresses) => addresses.iter().map(SocketAddr::ip).collect(),
        // Only the command knows the host that it connects to.
        Err(_) => Vec::new(),
    };
    Ok((transport::proxy_command(command, invoker)?, first_hop))
}

/// Connects to the host of `options`, `through` a jump host if there is one.
async fn reach(
    options: &SshOptions,
    invoker: &Invoker,
    through: Option<Connection>,
    attempts: Attempts<'_>,
) -> Result<Connection, ConnectError> {
    let mut failed = 0;
    let (established, first_hop) = loop {
        let (transport, first_hop) = match &through {
            Some(jump) => (via(jump, options).await?, jump.first_hop.clone()),
            None => start(options, invoker).await?,
        };
        match establish(transport, options, invoker).await {
            Ok(established) => break (established, first_hop),
            Err(error) => attempts.next(failed, error).await?,
        }
        failed += 1;
    };
    let Established {
        handle,
        shared,
        trust,
        acks,
        proxy,
        watch,
    } = established;
    Ok(Connection {
        handle,
        shared,
        host: options.destination.clone(),
        first_hop,
        trust,
        through: through.map(Box::new),
        acks,
        proxy,
        watch,
    })
}

/// A stream to the host of `options` through `jump`.
async fn via(jump: &Connection, options: &SshOptions) -> Result<Transport, ConnectError> {
    let channel = jump
        .handle
        .channel_open_direct_tcpip(&options.host, u32::from(options.port), "127.0.0.1", 65535)
        .await
        .map_err(|error| ConnectError::Jump {
            jump: jump.host.clone(),
            host: options.host.clone(),
            port: options.port,
            reason: jump
                .shared
                .take_open_failure()
                .unwrap_or_else(|| error.to_string()),
        })?;
    let mut transport = Transport::tunnelled(channel.into_stream());
    // What a jump host forwards takes the path to it first.
    transport.watch = jump.watch.clone();
    Ok(transport)
}

/// The parts of an authenticated connection.
struct Established {
    handle: Handle<Events>,
    shared: Arc<Shared>,
    trust: HostTrust,
    acks: AckSwitch,
    proxy: Option<Child>,
    watch: PathWatch,
}

async fn establish(
    transport: Transport,
    options: &SshOptions,
    invoker: &Invoker,
) -> Result<Established, ConnectError> {
    let prompter = Prompter::new(options, invoker);
    let host_key = HostKeyCheck::new(options, invoker, prompter.clone(), transport.peer);
    let configuration = Arc::new(configuration(options, &host_key)?);
    let shared = Shared::new(options.destination.clone());
    let (reached, key_arrived) = oneshot::channel();
    let quiet = options.log_level <= LogLevel::Error;
    let events = Events::new(Arc::clone(&shared), host_key.clone(), quiet, reached);
    let (stream, greeted) = Greeting::new(transport.stream);
    let stream: Box<dyn Stream> = match alive_limit(options) {
        Some(limit) => Box::new(StallLimit::new(stream, limit)),
        None => Box::new(stream),
    };
    let handshake = client::connect_stream(configuration, stream, events);
    let watch = transport.watch;
    let by_proxy = transport.proxy.is_some();
    let opening = async {
        let handshake = within(options, key_arrived, handshake, &watch).await?;
        let mut handle =
            handshake.map_err(|error| handshake_error(error, options, &greeted, by_proxy))?;
        let trust = host_key.trust().unwrap_or(HostTrust::Unverified);
        auth::authenticate(&mut handle, trust, options, invoker, &prompter).await?;
        Ok((handle, trust))
    };
    let opened = tokio::select! {
        opened = opening => opened,
        () = watch.narrow() => Err(narrow_path(options)),
    };
    if matches!(opened, Err(ConnectError::NarrowPath { .. })) {
        watch.abort();
    }
    let (handle, trust) = opened?;
    Ok(Established {
        handle,
        shared,
        trust,
        acks: transport.acks,
        proxy: transport.proxy,
        watch,
    })
}

/// How long a server may stay silent; `None` (no limit) if the interval is unset or the
/// count is zero.
fn alive_limit(options: &SshOptions) -> Option<Duration> {
    let interval = options.server_alive_interval?;
    let limit = interval.saturating_mul(options.server_alive_count_max);
    (!limit.is_zero()).then_some(limit)
}

/// Runs the handshake; `ConnectTimeout` applies until the server's key has arrived.
async fn within(
    options: &SshOptions,
    key_arrived: oneshot::Receiver<()>,
    handshake: impl Future<Output = Result<Handle<Events>, EventError>>,
    watch: &PathWatch,
) -> Result<Result<Handle<Events>, EventError>, ConnectError> {
    tokio::pin!(handshake);
    let limit = async {
        match options.connect_timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = &mut handshake => return Ok(done),
        _ = key_arrived => {}
        () = limit => {
            return Err(ConnectError::HandshakeTimeout {
                host: options.host.clone(),
                port: options.port,
            });
        }
        () = watch.silent() => {
            return Err(narrow_path(options));
        }
    }
    Ok(handshake.await)
}

fn handshake_error(
    error: EventError,
    options: &SshOptions,
    greeted: &Greeted,
    by_proxy: bool,
) -> ConnectError {
    let (host, port) = (options.host.clone(), options.port);
    let reason = match error {
        EventError::HostKey(error) => return ConnectError::HostKey(error),
        EventError::Russh(error) if is_end(&error) && !greeted.is_identified() => {
            let said = greeted.last_line().map(|line| format!("it said '{line}'"));
            let likely = || "MaxStartups or PerSourcePenalties?".to_owned();
            return match by_proxy {
                true => ConnectError::ProxyClosed { host },
                false => ConnectError::ClosedEarly {
                    host,
                    port,
                    reason: said.unwrap_or_else(likely),
                },
            };
        }
        EventError::Russh(error) => handshake_reason(&error),
        error @ EventError::ChannelFlood => error.to_string(),
    };
    ConnectError::Handshake { host, port, reason }
}

/// Whether the peer closed the connection.
fn is_end(error: &russh::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error {
        russh::Error::Disconnect | russh::Error::HUP => true,
        russh::Error::IO(error) => {
            matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
        }
        _ => false,
    }
}

fn narrow_path(options: &SshOptions) -> ConnectError {
    ConnectError::NarrowPath {
        host: options.host.clone(),
        port: options.port,
    }
}

fn handshake_reason(error: &russh::Error) -> String {
    match error {
        error if is_end(error) => "the server closed the connection".to_owned(),
        russh::Error::Version => {
            "the server sent no identification of SSH version 2; check host and port".to_owned()
        }
        russh::Error::NoCommonAlgo { kind, ours, theirs } => format!(
            "no common {kind:?} algorithm; sshvpn offers {}, the server {}",
            ours.join(","),
            super::prompt::terminal_text::line(&theirs.join(","))
        ),
        // The text may contain algorithm names from the server.
        other => super::prompt::terminal_text::line(&other.to_string()),
    }
}

fn configuration(
    options: &SshOptions,
    host_key: &HostKeyCheck,
) -> Result<client::Config, ConnectError> {
    let mut preferred = algorithms::preferred(options)?;
    let host_keys = host_key.algorithms();
    preferred.key = host_keys.plain.into();
    preferred.host_key_certificates = host_keys.certificates.into();
    Ok(client::Config {
        client_id: SshId::Standard(IDENTIFICATION.into()),
        limits: limits(options),
        window_size: WINDOW,
        unread_limit: UNREAD_LIMIT,
        maximum_packet_size: MAX_PACKET,
        channel_buffer_size: QUEUE,
        requests_to_readers: false,
        handle_queue_size: SEND_QUEUE,
        preferred,
        keepalive_interval: options.server_alive_interval,
        keepalive_max: usize::try_from(options.server_alive_count_max).unwrap_or(usize::MAX),
        nodelay: true,
        ..client::Config::default()
    })
}

/// `RekeyLimit`, but at most what is safe for every cipher: 1 GiB or 1 hour (RFC 4253,
/// section 9).
fn limits(options: &SshOptions) -> Limits {
    let safe = Limits::default();
    let most = safe.rekey_write_limit;
    let bytes = options.rekey_limit.bytes.map_or(most, |bytes| {
        usize::try_from(bytes).unwrap_or(most).min(most)
    });
    let time = options
        .rekey_limit
        .time
        .map_or(safe.rekey_time_limit, |time| {
            time.min(safe.rekey_time_limit)
        });
    Limits::new(bytes, bytes, time)
}

#[cfg(test)]
mod tests {
    use crate::ssh::client::wire_server::WireServer;

    #[tokio::test]
    async fn what_the_server_calls_itself_is_known() {
        for (identification, software, ours) in [
            (
                "SSH-2.0-OpenSSH_9.2p1 Debian",
                "OpenSSH_9.2p1 Debian",
                false,
            ),
            ("SSH-2.0-sshvpn_9.9.9", "sshvpn_9.9.9", true),
            ("SSH-2.0-notsshvpn_1", "notsshvpn_1", false),
            ("SSH-2.0-sshvpn_\u{1b}[2J1", "sshvpn_[2J1", true),
        ] {
            let server = WireServer::bind_as(identification).await;
            let (connection, _wire) = server.connect().await;
            assert_eq!(connection.software(), software);
            assert_eq!(connection.is_sshvpn(), ours, "{identification}");
        }
    }
}
