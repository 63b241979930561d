//! Handles what the server sends outside of channel data: its key, banners, debug messages,
//! the disconnect. russh calls the handlers; [`Shared`] keeps the results for others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Names};
use tokio::sync::{mpsc, oneshot, watch};

use super::host_key::{HostKeyCheck, HostKeyError};
use super::prompt::terminal_text;
use super::transport;
use crate::process::message::{say, show};
use crate::ssh::channel::forward::{Incoming, RemoteListener};

/// Debug messages kept, newest only, so that a server cannot fill the client's memory.
const KEPT_MESSAGES: usize = 8;
/// At most this many characters of each are kept.
const KEPT_CHARACTERS: usize = 256;
/// At most this many debug messages are shown, so that a server cannot flood the user's
/// terminal.
const SHOWN_LINES: usize = 64;
/// At most this many bytes of banners are shown, for the same reason.
const SHOWN_BANNER: usize = 256 * 1024;
/// Channels that a server may try to open before the client disconnects. The client
/// requests none, so a correct server opens none.
const REFUSED_CHANNELS: u32 = 1000;

/// An error that ends the connection's task.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The host key was refused.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// The server keeps opening channels.
    #[error("the server keeps opening channels that the client did not request")]
    ChannelFlood,
    /// The protocol failed.
    #[error(transparent)]
    Russh(#[from] russh::Error),
}

/// The state of a connection, shared between its task and its users.
#[derive(Debug)]
pub struct Shared {
    host: String,
    log: Mutex<Log>,
    incoming: Mutex<Option<mpsc::Sender<Incoming>>>,
    ended: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Log {
    /// The server's identification string.
    identification: String,
    debug_messages: VecDeque<String>,
    open_failure: Option<String>,
}

impl Shared {
    /// For a connection to `host`, the name shown to the user.
    pub fn new(host: String) -> Arc<Self> {
        Arc::new(Self {
            host,
            log: Mutex::default(),
            incoming: Mutex::default(),
            ended: watch::Sender::new(None),
        })
    }

    /// Passes the connections of the server's listeners to `sender`.
    pub fn pass_incoming(&self, sender: mpsc::Sender<Incoming>) {
        *self.incoming.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server's identification string (RFC 4253, section 4.2), safe to show.
    pub fn identification(&self) -> String {
        self.log().identification.clone()
    }

    /// Takes the debug messages that arrived since the last call, oldest first.
    pub fn take_debug_messages(&self) -> Vec<String> {
        self.log().debug_messages.drain(..).collect()
    }

    /// Takes the description of the last channel that the server refused to open.
    pub fn take_open_failure(&self) -> Option<String> {
        self.log().open_failure.take()
    }

    /// Why the connection ended; `None` while it is up.
    pub fn end_reason(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Waits until the connection has ended; yields the reason.
    pub async fn ended(&self) -> String {
        let mut watch = self.ended.subscribe();
        match watch.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "connection closed".to_owned(),
        }
    }

    fn end(&self, reason: String) {
        self.ended.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(reason);
            }
            first
        });
    }
}

/// The handler that russh calls.
pub struct Events {
    shared: Arc<Shared>,
    host_key: HostKeyCheck,
    /// Debug messages that may still be shown.
    to_show: usize,
    /// Bytes of banners that may still be shown.
    banner_left: usize,
    refused_channels: u32,
    reached: Option<oneshot::Sender<()>>,
}

impl Events {
    /// Signals `reached` when the server's key has arrived: from then on the user may be
    /// prompted and `ConnectTimeout` no longer applies. `quiet` hides banners.
    pub fn new(
        shared: Arc<Shared>,
        host_key: HostKeyCheck,
        quiet: bool,
        reached: oneshot::Sender<()>,
    ) -> Self {
        Self {
            shared,
            host_key,
            to_show: if quiet { 0 } else { SHOWN_LINES },
            banner_left: if quiet { 0 } else { SHOWN_BANNER },
            refused_channels: 0,
            reached: Some(reached),
        }
    }

    /// Whether one more line from the server may be shown; counts it.
    fn may_show(&mut self) -> bool {
        let may = self.to_show > 0;
        self.to_show = self.to_show.saturating_sub(1);
        may
    }

    /// Refuses a channel that the server opens. Ends the connection after too many, because
    /// every refusal takes memory until it is sent.
    fn refuse(&mut self, reply: ChannelOpenHandle) -> Result<(), EventError> {
        // Dropping the reply refuses (SSH_OPEN_ADMINISTRATIVELY_PROHIBITED).
        drop(reply);
        self.refused_channels += 1;
        if self.refused_channels > REFUSED_CHANNELS {
            return Err(EventError::ChannelFlood);
        }
        Ok(())
    }
}

impl Events {
    /// Passes a connection of a listener on, if the client listens; refuses it while too many wait.
    fn pass(
        &mut self,
        listener: RemoteListener,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
    ) -> Result<(), EventError> {
        let passed = self.shared.incoming.lock();
        let sender = passed.unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sender) = sender.filter(|sender| !sender.is_closed()) else {
            return self.refuse(reply);
        };
        let shared = Arc::clone(&self.shared);
        match sender.try_reserve() {
            Ok(place) => {
                place.send(Incoming::new(listener, channel, reply, shared));
                Ok(())
            }
            Err(_) => self.refuse(reply),
        }
    }
}

impl Handler for Events {
    type Error = EventError;

    async fn check_server_key(
        &mut self,
        key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, EventError> {
        if let Some(reached) = self.reached.take() {
            // Without a receiver no timeout is configured.
            let _ = reached.send(());
        }
        self.host_key.check(key).await?;
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        _: &Names,
        session: &mut Session,
    ) -> Result<(), EventError> {
        let identification = kept(&String::from_utf8_lossy(session.remote_sshid()));
        self.shared.log().identification = identification;
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), EventError> {
        for line in terminal_text::paragraph(banner).lines() {
            let Some(left) = self.banner_left.checked_sub(line.len() + 1) else {
                self.banner_left = 0;
                break;
            };
            self.banner_left = left;
            show(line);
        }
        Ok(())
    }

    async fn debug_message(
        &mut self,
        always_display: bool,
        message: &str,
        _: &mut Session,
    ) -> Result<(), EventError> {
        let message = kept(message);
        if always_display && self.may_show() {
            say(format_args!("{}: {message}", self.shared.host));
        }
        tracing::debug!(host = self.shared.host, "remote: {message}");
        let mut log = self.shared.log();
        if log.debug_messages.len() == KEPT_MESSAGES {
            log.debug_messages.pop_front();
        }
        log.debug_messages.push_back(message);
        Ok(())
    }

    async fn channel_open_failure(
        &mut self,
        _: ChannelId,
        reason: ChannelOpenFailure,
        description: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), EventError> {
        let mut description = kept(description);
        tracing::debug!(
            host = self.shared.host,
            ?reason,
            "channel refused: {description}"
        );
        // Dropbear sends the code alone.
        if description.is_empty() {
            meaning(&reason).clone_into(&mut description);
        }
        self.shared.log().open_failure = Some(description);
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), EventError> {
        self.refuse(reply)
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), EventError> {
        self.refuse(reply)
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), EventError> {
        self.refuse(reply)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), EventError> {
        match u16::try_from(port) {
            Ok(port) => self.pass(
                RemoteListener::Port(address.to_owned(), port),
                channel,
                reply,
            ),
            Err(_) => self.refuse(reply),
        }
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), EventError> {
        self.pass(RemoteListener::Socket(path.to_owned()), channel, reply)
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), EventError> {
        self.refuse(reply)
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), EventError> {
        self.refuse(reply)
    }

    async fn should_accept_unknown_server_channel(&mut self, _: ChannelId, _: &str) -> bool {
        // Accept it here, so that it is refused and counted like the other types.
        true
    }

    async fn server_channel_open_unknown(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), EventError> {
        self.refuse(reply)
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<EventError>,
    ) -> Result<(), EventError> {
        let host = &self.shared.host;
        let reason = match reason {
            DisconnectReason::ReceivedDisconnect(info) => format!(
                "Received disconnect from {host}: {}: {}",
                info.reason_code as u32,
                kept(&info.message)
            ),
            DisconnectReason::Error(EventError::Russh(russh::Error::KeepaliveTimeout)) => {
                format!("Timeout, server {host} not responding.")
            }
            DisconnectReason::Error(EventError::Russh(russh::Error::IO(error)))
                if error.kind() == std::io::ErrorKind::TimedOut =>
            {
                format!("Timeout, server {host} not responding.")
            }
            // The end came in the middle of a packet, or where one was awaited.
            DisconnectReason::Error(EventError::Russh(russh::Error::IO(error)))
                if error.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                format!("Connection to {host} closed by remote host.")
            }
            DisconnectReason::Error(EventError::Russh(russh::Error::IO(error))) => {
                format!("Connection to {host} lost: {}", transport::plain(&error))
            }
            DisconnectReason::Error(EventError::Russh(
                russh::Error::Disconnect | russh::Error::HUP,
            )) => format!("Connection to {host} closed by remote host."),
            DisconnectReason::Error(EventError::Russh(
                russh::Error::PacketAuth | russh::Error::DecryptionError,
            )) => format!(
                "Connection to {host}: message authentication code incorrect: its data was changed \
                 on the way"
            ),
            DisconnectReason::Error(error) => format!("Connection to {host} failed: {error}"),
        };
        tracing::debug!("{reason}");
        self.shared.end(reason);
        Ok(())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared
            .end(format!("Connection to {} closed.", self.shared.host));
    }
}

/// The meaning of a code of SSH_MSG_CHANNEL_OPEN_FAILURE, in OpenSSH's words (RFC 4254, section
/// 5.1).
fn meaning(reason: &ChannelOpenFailure) -> &'static str {
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited => "administratively prohibited",
        ChannelOpenFailure::ConnectFailed => "connect failed",
        ChannelOpenFailure::UnknownChannelType => "unknown channel type",
        ChannelOpenFailure::ResourceShortage => "resource shortage",
        _ => "unknown reason",
    }
}

/// The server's text, safe to show and cut to the length that is kept.
fn kept(text: &str) -> String {
    terminal_text::line(text.trim())
        .chars()
        .take(KEPT_CHARACTERS)
        .collect()
}
