//! The control socket: accepts commands of the same user and carries them out.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Uid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::message::{self, MAX_MESSAGE, Reply, Request};
use crate::client::forward::Forwards;
use crate::client::socket_name::{self, SocketName};
use crate::config::invoker::Invoker;
use crate::process::accept::accept;

/// Commands that are carried out at a time.
const MAX_COMMANDS: usize = 16;
/// The file mode bits that the socket lacks: it is the user's alone.
const MASK: u32 = 0o177;
/// The limit for a command to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);

/// A command that concerns the whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// End the connection.
    Exit,
    /// Close the control socket.
    Stop,
}

/// A listening control socket.
pub struct Control {
    listener: UnixListener,
    user: Uid,
}

impl Control {
    /// Listens at `path` as the invoker. A socket that no process listens on is replaced.
    /// Dropping the name removes it.
    pub fn bind(path: &Path, invoker: &Invoker) -> io::Result<(Self, SocketName)> {
        let stale = |path: &Path| {
            let refused = io::ErrorKind::ConnectionRefused;
            StdUnixStream::connect(path).is_err_and(|error| error.kind() == refused)
        };
        let (listener, name) = socket_name::listen(path, MASK, stale, invoker)?;
        let control = Control {
            listener,
            user: invoker.uid,
        };
        Ok((control, name))
    }

    /// Serves commands for `forwards`, while these exist; passes the others to `orders`. Ends with
    /// the order to stop.
    pub async fn serve(mut self, forwards: Weak<Forwards>, orders: mpsc::Sender<Order>) {
        let mut commands = JoinSet::new();
        let (stop, mut stopped) = mpsc::channel(1);
        loop {
            let stream = tokio::select! {
                stream = accept(&mut self.listener) => stream,
                Some(_) = commands.join_next() => continue,
                _ = stopped.recv() => return,
            };
            if commands.len() >= MAX_COMMANDS || !self.is_permitted(&stream) {
                continue;
            }
            let (forwards, orders, stop) = (Weak::clone(&forwards), orders.clone(), stop.clone());
            commands.spawn(async move {
                if let Err(error) = converse(stream, &forwards, &orders, &stop).await {
                    tracing::debug!("control socket: {error}");
                }
            });
        }
    }

    /// Whether the other process belongs to the invoker or to root.
    fn is_permitted(&self, stream: &UnixStream) -> bool {
        let peer = getsockopt(stream, sockopt::PeerCredentials).map(|peer| peer.uid());
        peer.is_ok_and(|uid| uid == 0 || uid == self.user.as_raw())
    }
}

/// Carries out the commands of one process, until it ends.
async fn converse(
    mut stream: UnixStream,
    forwards: &Weak<Forwards>,
    orders: &mpsc::Sender<Order>,
    stop: &mpsc::Sender<()>,
) -> io::Result<()> {
    stream.write_all(&message::hello()).await?;
    message::read_hello(&receive(&mut stream).await?).map_err(io::Error::other)?;
    loop {
        let (id, request) =
            Request::decode(&receive(&mut stream).await?).map_err(io::Error::other)?;
        let Some(forwards) = forwards.upgrade() else {
            return Ok(());
        };
        let reply = carry_out(&request, &forwards).await;
        drop(forwards);
        stream.write_all(&reply.encode(id)).await?;
        // Without a receiver the connection is ending already.
        match request {
            Request::Exit => {
                let _ = orders.send(Order::Exit).await;
            }
            Request::Stop => {
                let _ = orders.send(Order::Stop).await;
                let _ = stop.try_send(());
            }
            _ => {}
        }
    }
}

async fn carry_out(request: &Request, forwards: &Forwards) -> Reply {
    let failed = |error: super::super::forward::ForwardFailure| Reply::Failure(error.to_string());
    match request {
        Request::Check => Reply::Alive(std::process::id()),
        Request::Exit | Request::Stop => Reply::Ok,
        Request::Add(kind, forward) => match forwards.add(*kind, forward).await {
            Ok(None) => Reply::Ok,
            Ok(Some(port)) => Reply::Port(u32::from(port)),
            Err(error) => failed(error),
        },
        Request::Remove(kind, forward) => match forwards.remove(*kind, forward).await {
            Ok(()) => Reply::Ok,
            Err(error) => failed(error),
        },
        Request::Other(_) => {
            Reply::Failure("sshvpn shares no sessions; connect without ControlPath".to_owned())
        }
    }
}

/// The next message without its length. A process that sends nothing for 10 s is disconnected.
async fn receive(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let receiving = async {
        let length = stream.read_u32().await?;
        if length > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; usize::try_from(length).unwrap_or(0)];
        stream.read_exact(&mut message).await?;
        Ok(message)
    };
    timeout(ARRIVAL, receiving)
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}
