//! The channel `tun@openssh.com` (OpenSSH PROTOCOL, section 2.3): exactly one frame
//! a message in both directions, from either side; and the client's part of
//! opening it.

use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::side::{ClientSide, Side};
use crate::frame::window::{WindowCredit, WindowRule};
use crate::ssh::client::connect::{Connection, MAX_PACKET};
use crate::ssh::client::host_key::HostTrust;
use crate::ssh::error::ChannelError;
use crate::ssh::server::place::Place;
use crate::types::{Mode, UnitRequest};

/// How long closing the channel may wait for its turn.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The channel's type on the wire.
pub(in crate::ssh) const CHANNEL_TYPE: &str = "tun@openssh.com";

/// Sends frames. Dropping it leaves the channel to its receiver.
pub struct TunnelSender<S: Side = ClientSide> {
    channel: ChannelWriteHalf<S>,
    window: WindowRule,
    /// Kept as long as the channel counts; a client does not count.
    _place: Option<Place>,
}

/// Receives frames.
pub struct TunnelReceiver {
    channel: ChannelReadHalf,
    /// The remote end will send no more.
    ended: bool,
}

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// Larger than the remote end takes in one message.
    TooLarge,
    /// The channel or the connection is gone.
    Closed,
}

impl<S: Side> TunnelSender<S> {
    pub(in crate::ssh) fn new(channel: ChannelWriteHalf<S>, place: Option<Place>) -> Self {
        TunnelSender {
            channel,
            window: WindowRule::OpenSsh,
            _place: place,
        }
    }

    /// Has the peer counted by its own rule, if that is not OpenSSH's.
    pub fn counted_by(self, window: WindowRule) -> Self {
        TunnelSender { window, ..self }
    }

    /// Sends one frame as one message; waits while the remote end's window has no
    /// room for the whole of it.
    pub async fn send(&self, frame: Bytes) -> Result<(), SendError> {
        let charge =
            WindowCredit::of_datagram(frame.len(), self.window).ok_or(SendError::TooLarge)?;
        let sent = self.channel.datagram(frame, charge.get()).await;
        sent.map_err(refused)
    }

    /// Sends frames, each as one message and in their order; up to 64 KiB of them
    /// that fit the remote end's window take one place in the connection's queue.
    /// Waits while the window has no room for the next. What was sent is taken
    /// out of `frames`, also when this is dropped before it is done. A frame that
    /// is too large is then the first of them.
    pub async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendError> {
        while !frames.is_empty() {
            self.channel
                .datagrams(frames, self.window.header())
                .await
                .map_err(refused)?;
        }
        Ok(())
    }

    /// Asks the remote end for an answer, behind the frames that were sent; ready
    /// once it came. sshd answers when it has read those, which is before it has
    /// written them to its device.
    pub async fn ping(&self) -> Option<oneshot::Receiver<()>> {
        self.channel.ping().await.ok()
    }

    /// Closes the channel, as far as the connection takes it.
    pub async fn close(&self) {
        // Gone already is as good; a connection that hangs is ended as a whole.
        let _ = timeout(CLOSE_TIMEOUT, self.channel.close()).await;
    }
}

fn refused(error: russh::Error) -> SendError {
    match error {
        russh::Error::PacketSize(_) => SendError::TooLarge,
        _ => SendError::Closed,
    }
}

impl TunnelReceiver {
    pub(in crate::ssh) fn new(channel: ChannelReadHalf) -> Self {
        // A frame is not divided, so the window has to have room for one.
        channel.set_window(MAX_PACKET);
        TunnelReceiver {
            channel,
            ended: false,
        }
    }

    /// The next frame; nothing once the remote end has sent EOF or closed, or the
    /// connection is gone. OpenSSH sends EOF when its device failed, and no
    /// frame follows: the link is down then, also while the channel is open.
    pub async fn receive(&mut self) -> Option<Bytes> {
        while !self.ended {
            let message = self.channel.wait().await;
            if let Some(frame) = self.frame(message?) {
                return Some(frame);
            }
        }
        None
    }

    /// The next frame if it has come already. Nothing also when there will be
    /// no other: [`receive`](Self::receive) tells.
    pub fn try_receive(&mut self) -> Option<Bytes> {
        while !self.ended {
            let message = self.channel.try_wait();
            if let Some(frame) = self.frame(message?) {
                return Some(frame);
            }
        }
        None
    }

    fn frame(&mut self, message: ChannelMsg) -> Option<Bytes> {
        match message {
            ChannelMsg::Data { data } => return Some(data),
            ChannelMsg::Eof | ChannelMsg::Close => self.ended = true,
            _ => {}
        }
        None
    }
}

impl Connection {
    /// Opens a tunnel of `mode` to the remote end's `unit`.
    pub async fn open_tunnel(
        &self,
        mode: Mode,
        unit: UnitRequest,
    ) -> Result<(TunnelSender, TunnelReceiver), ChannelError> {
        self.require_verified()?;
        let mut payload = Vec::with_capacity(8);
        payload.extend_from_slice(&mode.wire().to_be_bytes());
        payload.extend_from_slice(&unit.wire().to_be_bytes());
        // Older messages say nothing about this request.
        self.shared.take_debug_messages();
        let opened = async {
            match self.handle.channel_open_custom(CHANNEL_TYPE, payload).await {
                Ok(channel) => {
                    let (read, write) = channel.split();
                    let window = WindowRule::of(self.is_sshvpn());
                    let sender = TunnelSender::new(write, None).counted_by(window);
                    Ok((sender, TunnelReceiver::new(read)))
                }
                Err(russh::Error::ChannelOpenFailure(_)) => Err(ChannelError::TunnelRefused {
                    host: self.host().to_owned(),
                    reason: refusal(&self.shared.take_debug_messages(), mode, unit),
                }),
                Err(error) => Err(self.gone(&error)),
            }
        };
        self.answered("a tunnel", opened).await
    }

    /// An error where the server's key is not the known one and the user's
    /// `StrictHostKeyChecking no` let it pass: no tunnel runs to it.
    pub fn require_verified(&self) -> Result<(), ChannelError> {
        match self.trust {
            HostTrust::Verified => Ok(()),
            HostTrust::Unverified => Err(ChannelError::Unverified {
                host: self.host().to_owned(),
            }),
        }
    }

    /// The error for a connection that failed under a request.
    pub(in crate::ssh) fn gone(&self, error: &russh::Error) -> ChannelError {
        let reason = self.end_reason().unwrap_or_else(|| error.to_string());
        ChannelError::Gone {
            host: self.host().to_owned(),
            reason,
        }
    }
}

/// The server's own words, and what they ask for. sshd says why only in debug
/// messages (serverloop.c, `server_request_tun`).
fn refusal(messages: &[String], mode: Mode, unit: UnitRequest) -> String {
    let tunnel = match mode {
        Mode::PointToPoint => "point-to-point",
        Mode::Ethernet => "ethernet",
    };
    let said = messages.join("; ");
    let advice = if said.contains("rejected tunnel device forwarding") {
        format!(
            "its sshd does not permit it: set 'PermitTunnel {tunnel}' (or yes) in its sshd_config \
             and see that DisableForwarding and the key's 'restrict' do not forbid it"
        )
    } else if said.contains("Failed to open the tunnel device") {
        match unit {
            UnitRequest::Unit(unit) => format!(
                "it could not open {}: the unit is in use, /dev/net/tun is missing there, or the \
                 login is not root and the device was not made for it beforehand \
                 (ip tuntap add dev {} mode {} user LOGIN)",
                unit.device_name(mode),
                unit.device_name(mode),
                mode.prefix()
            ),
            UnitRequest::Any => "it could not open a new device: the login is not root (name a \
                 unit that was made for it beforehand), or /dev/net/tun is missing there"
                .to_owned(),
        }
    } else if said.is_empty() {
        return "it does not support tun@openssh.com, or forbids it without a reason".to_owned();
    } else {
        // Of another server, ours for one: it says itself what to do.
        return format!("\"{said}\"");
    };
    format!("\"{said}\"; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_quotes_the_server_and_says_what_to_do() {
        let off = ["Server has rejected tunnel device forwarding".to_owned()];
        let text = refusal(&off, Mode::Ethernet, UnitRequest::Any);
        assert!(
            text.contains(&off[0]) && text.contains("PermitTunnel ethernet"),
            "{text}"
        );
        let busy = ["Failed to open the tunnel device.".to_owned()];
        let unit: UnitRequest = "7".parse().unwrap();
        let text = refusal(&busy, Mode::PointToPoint, unit);
        assert!(text.contains("tun7") && text.contains("in use"), "{text}");
        let text = refusal(&[], Mode::PointToPoint, unit);
        assert!(text.contains("does not support"), "{text}");
        let other = ["this key is granted only unit 5".to_owned()];
        let text = refusal(&other, Mode::PointToPoint, unit);
        assert_eq!(text, format!("\"{}\"", other[0]));
    }
}
