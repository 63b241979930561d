//! Forwards of the client: connections that the server makes for it (RFC 4254, section 7.2;
//! OpenSSH PROTOCOL, section 2.4, `direct-streamlocal@openssh.com`), and listeners of the server
//! whose connections come back (RFC 4254, section 7.1; `streamlocal-forward@openssh.com`).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use russh::ChannelOpenFailure;
use russh::client::{ChannelOpenHandle, Msg};
use tokio::sync::mpsc;

use super::process::Process;
use crate::config::ssh::forward::Target;
use crate::ssh::client::connect::Connection;
use crate::ssh::client::events::Shared;
use crate::ssh::error::ChannelError;

/// Connections of the server's listeners that may wait; others are refused meanwhile.
const INCOMING: usize = 256;

/// The listener of the server that a connection came to, as the client named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RemoteListener {
    /// The address and port.
    Port(String, u16),
    /// The path of a Unix socket.
    Socket(String),
}

/// A connection to a listener of the server. Dropping it refuses the channel.
pub struct Incoming {
    /// The listener.
    pub listener: RemoteListener,
    channel: russh::Channel<Msg>,
    reply: ChannelOpenHandle,
    connection: Arc<Shared>,
}

impl Incoming {
    pub(in crate::ssh) fn new(
        listener: RemoteListener,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        connection: Arc<Shared>,
    ) -> Self {
        Incoming {
            listener,
            channel,
            reply,
            connection,
        }
    }

    /// Accepts the connection; its data comes as a process without standard error.
    pub async fn accept(self) -> Process {
        self.reply.accept().await;
        let (read, write) = self.channel.split();
        Process::over(read, write, &self.connection)
    }

    /// Refuses the connection, because its target could not be connected to.
    pub async fn refuse(self) {
        self.reply.reject(ChannelOpenFailure::ConnectFailed).await;
    }
}

/// Why the server did not connect to a target.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server does not permit it.
    #[error("the server does not permit it: {0}")]
    Prohibited(String),
    /// The connection failed there.
    #[error("{0}")]
    Failed(String),
    /// The SSH connection failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl Connection {
    /// Lets the server connect to `target`, for a connection from `originator`. The result is a
    /// process without standard error and without an exit code.
    pub async fn open_target(
        &self,
        target: &Target,
        originator: Option<SocketAddr>,
    ) -> Result<Process, OpenError> {
        self.require_verified()?;
        let opened = match target {
            Target::Host { host, port } => {
                let (address, from) = match originator {
                    Some(originator) => (originator.ip().to_string(), originator.port()),
                    None => ("127.0.0.1".to_owned(), 65535),
                };
                let open = self.handle.channel_open_direct_tcpip(
                    host,
                    u32::from(*port),
                    address,
                    u32::from(from),
                );
                open.await
            }
            Target::Socket(path) => {
                let path = path.to_string_lossy();
                self.handle.channel_open_direct_streamlocal(path).await
            }
        };
        match opened {
            Ok(channel) => {
                let (read, write) = channel.split();
                Ok(Process::over(read, write, &self.shared))
            }
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                let text = self.shared.take_open_failure().unwrap_or_default();
                Err(match reason {
                    ChannelOpenFailure::AdministrativelyProhibited => OpenError::Prohibited(text),
                    _ => OpenError::Failed(text),
                })
            }
            Err(error) => Err(self.gone(&error).into()),
        }
    }

    /// Connects to the listener at `path`. Fails with [`ChannelError::Process`] where nothing
    /// listens there or sshd forbids forwarding.
    pub async fn remote_socket(&self, path: &str) -> Result<Process, ChannelError> {
        let target = Target::Socket(path.into());
        self.open_target(&target, None)
            .await
            .map_err(|error| match error {
                OpenError::Channel(error) => error,
                OpenError::Prohibited(reason) | OpenError::Failed(reason) => {
                    ChannelError::Process {
                        host: self.host().to_owned(),
                        what: format!("a connection to {path}"),
                        reason,
                    }
                }
            })
    }

    /// From now on, the connections of the server's listeners come to the result; without a call,
    /// and once the result is dropped, they are refused.
    pub fn incoming(&self) -> mpsc::Receiver<Incoming> {
        let (sender, receiver) = mpsc::channel(INCOMING);
        self.shared.pass_incoming(sender);
        receiver
    }

    /// Asks the server to listen at `address` and `port`, 0 for any; returns the port.
    pub async fn listen_port(&self, address: &str, port: u16) -> Result<u16, ChannelError> {
        self.require_verified()?;
        let what = format!("remote port {port}");
        let listening = async {
            let asked = self.handle.tcpip_forward(address, u32::from(port)).await;
            let allocated = asked.map_err(|error| self.refused_or_gone(&what, &error))?;
            Ok(match port {
                0 => u16::try_from(allocated).unwrap_or(0),
                port => port,
            })
        };
        self.answered(&what, listening).await
    }

    /// Asks the server to listen at the Unix socket `path`.
    pub async fn listen_socket(&self, path: &Path) -> Result<(), ChannelError> {
        self.require_verified()?;
        let what = format!("remote socket {}", path.display());
        let listening = async {
            let asked = self.handle.streamlocal_forward(path.to_string_lossy());
            asked
                .await
                .map_err(|error| self.refused_or_gone(&what, &error))
        };
        self.answered(&what, listening).await
    }

    /// Asks the server to end a listener.
    pub async fn cancel_listener(&self, listener: &RemoteListener) -> Result<(), ChannelError> {
        let what = "the end of a listener";
        let cancelling = async {
            let asked = match listener {
                RemoteListener::Port(address, port) => {
                    let port = u32::from(*port);
                    self.handle.cancel_tcpip_forward(address, port).await
                }
                RemoteListener::Socket(path) => self.handle.cancel_streamlocal_forward(path).await,
            };
            asked.map_err(|error| self.refused_or_gone(what, &error))
        };
        self.answered(what, cancelling).await
    }

    fn refused_or_gone(&self, what: &str, error: &russh::Error) -> ChannelError {
        match error {
            russh::Error::RequestDenied => ChannelError::ListenRefused {
                host: self.host().to_owned(),
                what: what.to_owned(),
            },
            other => self.gone(other),
        }
    }
}
