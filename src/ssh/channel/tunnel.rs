//! The channel `tun@openssh.com` (OpenSSH PROTOCOL, section 2.3): each message carries
//! exactly one frame, in both directions and on both sides. Also opens it for the client.

use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::reader::ChannelReader;
use super::side::{ClientSide, Side};
use crate::frame::window::{WindowCredit, WindowRule};
use crate::ssh::client::connect::{Connection, MAX_PACKET};
use crate::ssh::client::host_key::HostTrust;
use crate::ssh::error::ChannelError;
use crate::ssh::server::place::Place;
use crate::types::{Mode, UnitRequest};

/// How long [`TunnelSender::close`] waits for a place in the connection's queue.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The channel's type on the wire.
pub(in crate::ssh) const CHANNEL_TYPE: &str = "tun@openssh.com";

/// Sends frames. Dropping it does not close the channel; the receiver keeps it.
pub struct TunnelSender<S: Side = ClientSide> {
    channel: ChannelWriteHalf<S>,
    window: WindowRule,
    /// Counts the channel on a server until it is dropped; none on a client.
    _place: Option<Place>,
}

/// Receives frames.
pub struct TunnelReceiver(ChannelReader);

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// Larger than the peer accepts in one message.
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

    /// Sets the rule by which the peer charges its window, if it is not OpenSSH's.
    pub fn counted_by(self, window: WindowRule) -> Self {
        TunnelSender { window, ..self }
    }

    /// Sends one frame as one message; waits until the peer's window has room for the whole
    /// frame.
    pub async fn send(&self, frame: Bytes) -> Result<(), SendError> {
        let charge =
            WindowCredit::of_datagram(frame.len(), self.window).ok_or(SendError::TooLarge)?;
        let sent = self.channel.datagram(frame, charge.get()).await;
        sent.map_err(refused)
    }

    /// Sends frames in order, each as one message. Up to 64 KiB of frames that fit the
    /// peer's window take one place in the connection's queue. Waits while the window has
    /// no room for the next frame. Removes the frames that were sent from `frames`, also
    /// when the future is dropped early. On [`SendError::TooLarge`] the frame that is too
    /// large is the first of `frames`.
    pub async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendError> {
        while !frames.is_empty() {
            self.channel
                .datagrams(frames, self.window.header())
                .await
                .map_err(refused)?;
        }
        Ok(())
    }

    /// Requests a reply from the peer, queued behind the frames that were sent; the
    /// receiver is ready when the reply arrives. sshd replies after it has read those
    /// frames, but before it has written them to its device.
    pub async fn ping(&self) -> Option<oneshot::Receiver<()>> {
        self.channel.ping().await.ok()
    }

    /// Closes the channel; waits at most 1 s.
    pub async fn close(&self) {
        // An error means that the channel is gone already. A connection that hangs is ended
        // as a whole.
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
        // A frame is never split, so the window must have room for a whole one.
        channel.set_window(MAX_PACKET);
        TunnelReceiver(ChannelReader::new(channel))
    }

    /// The next frame; `None` once the peer has sent EOF or closed the channel, or the
    /// connection is gone. OpenSSH sends EOF when its device failed and sends no frame
    /// after it, so the link is down although the channel is still open.
    pub async fn receive(&mut self) -> Option<Bytes> {
        self.0.data().await
    }

    /// The next frame if it has already arrived. `None` also after the last frame;
    /// [`receive`](Self::receive) tells the two apart.
    pub fn try_receive(&mut self) -> Option<Bytes> {
        self.0.try_data()
    }
}

impl Connection {
    /// Opens a tunnel of `mode` to the server's `unit`.
    pub async fn open_tunnel(
        &self,
        mode: Mode,
        unit: UnitRequest,
    ) -> Result<(TunnelSender, TunnelReceiver), ChannelError> {
        self.require_verified()?;
        let mut payload = Vec::with_capacity(8);
        payload.extend_from_slice(&mode.wire().to_be_bytes());
        payload.extend_from_slice(&unit.wire().to_be_bytes());
        // Debug messages that arrived earlier do not belong to this request.
        self.shared.take_debug_messages();
        let opened = async {
            match self.handle.channel_open_custom(CHANNEL_TYPE, payload).await {
                Ok(channel) => {
                    let (read, write) = channel.split();
                    let window = WindowRule::of(self.is_sshvpn());
                    let sender = TunnelSender::new(write, None).counted_by(window);
                    Ok((sender, TunnelReceiver::new(read)))
                }
                Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::UnknownChannelType)) => {
                    Err(ChannelError::TunnelUnknown {
                        host: self.host().to_owned(),
                        software: self.software(),
                    })
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

    /// Fails where the server's key is not the known one and was accepted only because of
    /// the user's `StrictHostKeyChecking no`: no tunnel runs to such a server.
    pub fn require_verified(&self) -> Result<(), ChannelError> {
        match self.trust {
            HostTrust::Verified => Ok(()),
            HostTrust::Unverified => Err(ChannelError::Unverified {
                host: self.host().to_owned(),
            }),
        }
    }

    /// The error for a connection that ended during a request.
    pub(in crate::ssh) fn gone(&self, error: &russh::Error) -> ChannelError {
        let reason = self.end_reason().unwrap_or_else(|| error.to_string());
        ChannelError::Gone {
            host: self.host().to_owned(),
            reason,
        }
    }
}

/// The server's messages, and advice on what to do. sshd gives its reason only in debug
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
             and check that neither DisableForwarding nor the key's 'restrict' forbids it"
        )
    } else if said.contains("Failed to open the tunnel device") {
        match unit {
            UnitRequest::Unit(unit) => format!(
                "it could not open {}: the unit is in use, /dev/net/tun is missing there, or the \
                 login is not root and the device was not created for it beforehand \
                 (ip tuntap add dev {} mode {} user LOGIN)",
                unit.device_name(mode),
                unit.device_name(mode),
                mode.prefix()
            ),
            UnitRequest::Any => "it could not open a new device: the login is not root (name a \
                 unit that was created for it beforehand), or /dev/net/tun is missing there"
                .to_owned(),
        }
    } else if said.is_empty() {
        return "it gives no reason".to_owned();
    } else {
        // Another server, for example sshvpn's, which says itself what to do.
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
        assert_eq!(text, "it gives no reason");
        let other = ["this key is granted only unit 5".to_owned()];
        let text = refusal(&other, Mode::PointToPoint, unit);
        assert_eq!(text, format!("\"{}\"", other[0]));
    }
}
