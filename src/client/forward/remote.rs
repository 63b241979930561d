//! Remote forwards: connections to a listener of the server that this host carries on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinSet;

use super::greeting::{self, Greeted, OnChannel};
use super::relay::relay;
use super::socket::Local;
use super::socks::Refusal;
use super::{Context, ForwardFailure, Parts};
use crate::config::ssh::forward::{Forward, Listen, Target};
use crate::ssh::channel::forward::{Incoming, RemoteListener};
use crate::ssh::channel::process::Process;
use crate::ssh::error::ChannelError;

/// The targets by listener.
type Targets = Arc<AsyncMutex<HashMap<RemoteListener, Option<Target>>>>;

/// The listeners of the server.
#[derive(Default)]
pub(super) struct Listeners {
    /// Locked while the server is asked, so that a connection that comes at once finds its target.
    targets: Targets,
    /// The task that takes the connections.
    taking: Mutex<JoinSet<()>>,
}

impl Listeners {
    /// Asks the server to listen; returns the port if it was for any that is free.
    pub(super) async fn add(
        &self,
        forward: &Forward,
        context: &Context,
    ) -> Result<Option<u16>, ForwardFailure> {
        let mut targets = self.targets.lock().await;
        self.take(context);
        let asked = listen(forward, context).await;
        let listener = asked.map_err(|error| match error {
            ChannelError::Gone { .. } => ForwardFailure::Gone(error.to_string()),
            error => {
                tracing::debug!("{error}");
                ForwardFailure::Remote(match &forward.listen {
                    Listen::Port { port, .. } => format!("listen port {port}"),
                    Listen::Socket(path) => format!("listen path {}", path.display()),
                })
            }
        })?;
        let port = match (&forward.listen, &listener) {
            (Listen::Port { port: 0, .. }, RemoteListener::Port(_, port)) => Some(*port),
            _ => None,
        };
        targets.insert(listener, forward.target.clone());
        Ok(port)
    }

    /// Ends a listener; its open connections go on.
    pub(super) async fn remove(
        &self,
        forward: &Forward,
        context: &Context,
    ) -> Result<(), ForwardFailure> {
        let mut targets = self.targets.lock().await;
        let listener = match &forward.listen {
            Listen::Port { bind, port } => {
                RemoteListener::Port(address(bind.as_deref()).to_owned(), *port)
            }
            Listen::Socket(path) => RemoteListener::Socket(path.to_string_lossy().into_owned()),
        };
        if targets.remove(&listener).is_none() {
            return Err(ForwardFailure::Unknown);
        }
        let cancelled = context.connection.cancel_listener(&listener).await;
        cancelled.map_err(|error| ForwardFailure::Remote(error.to_string()))
    }

    /// Takes the connections of the server's listeners, from the first one on.
    fn take(&self, context: &Context) {
        let mut taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        if taking.is_empty() {
            let incoming = context.connection.incoming();
            taking.spawn(serve(incoming, Arc::clone(&self.targets), context.clone()));
        }
    }
}

/// The address to ask for, as ssh names it (RFC 4254, section 7.1): empty for all.
fn address(bind: Option<&str>) -> &str {
    match bind {
        None => "localhost",
        Some("*") => "",
        Some(address) => address,
    }
}

async fn listen(forward: &Forward, context: &Context) -> Result<RemoteListener, ChannelError> {
    match &forward.listen {
        Listen::Port { bind, port } => {
            let address = address(bind.as_deref());
            let port = context.connection.listen_port(address, *port).await?;
            Ok(RemoteListener::Port(address.to_owned(), port))
        }
        Listen::Socket(path) => {
            context.connection.listen_socket(path).await?;
            Ok(RemoteListener::Socket(path.to_string_lossy().into_owned()))
        }
    }
}

/// Connections to unknown listeners, of a listener that was just removed or of a server that lies,
/// after which no connection is taken any more: the next ones count as channels that were not
/// requested.
const MOST_UNKNOWN: u32 = 100;

async fn serve(mut incoming: mpsc::Receiver<Incoming>, targets: Targets, context: Context) {
    let mut unknown = 0;
    while let Some(connection) = incoming.recv().await {
        let target = targets.lock().await.get(&connection.listener).cloned();
        // A connection that is dropped is refused.
        let Some(target) = target else {
            tracing::warn!("refused a connection to a listener that was not asked for");
            unknown += 1;
            if unknown > MOST_UNKNOWN {
                return;
            }
            continue;
        };
        let parts = context.for_connection();
        context.spawn(async move {
            match target {
                Some(target) => carry(connection, &target, &parts).await,
                None => carry_dynamic(connection, &parts).await,
            }
        });
    }
}

/// Connects to `target`, and only then accepts the channel.
async fn carry(connection: Incoming, target: &Target, context: &Parts) {
    match connect(target, context).await {
        Ok(Connected::Host(stream)) => {
            relay(stream.split(), connection.accept().await, Bytes::new()).await;
        }
        Ok(Connected::Socket(stream)) => {
            relay(stream.split(), connection.accept().await, Bytes::new()).await;
        }
        Err(error) => {
            context.complain(format_args!("connect_to {target}: {error}"));
            connection.refuse().await;
        }
    }
}

/// Asks the connection itself for the target.
async fn carry_dynamic(connection: Incoming, context: &Parts) {
    let Process { mut events, input } = connection.accept().await;
    let asked = greeting::read(&mut OnChannel(&mut events, &input)).await;
    let Some((protocol, target, first)) = asked else {
        return input.close().await;
    };
    let connected = match context.options.forwards.permit_remote_open.permits(&target) {
        true => connect(&target, context)
            .await
            .map_err(|error| (Refusal::Failed, error.to_string())),
        false => Err((
            Refusal::Prohibited,
            "PermitRemoteOpen forbids it".to_owned(),
        )),
    };
    let result = connected
        .as_ref()
        .map(|_| ())
        .map_err(|(refusal, _)| *refusal);
    let reply = protocol.reply(result);
    let replied = OnChannel(&mut events, &input).reply(reply).await;
    match (connected, replied) {
        (Ok(Connected::Host(stream)), Ok(())) => {
            let (read, mut write) = stream.split();
            match write.write_all(&first).await {
                Ok(()) => relay((read, write), Process { events, input }, Bytes::new()).await,
                Err(_) => input.close().await,
            }
        }
        (Err((_, error)), _) => {
            context.complain(format_args!("connect_to {target}: {error}"));
            input.close().await;
        }
        _ => input.close().await,
    }
}

enum Connected {
    Host(TcpStream),
    Socket(UnixStream),
}

async fn connect(target: &Target, context: &Parts) -> std::io::Result<Connected> {
    match target {
        Target::Host { host, port } => {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), *port))
                .await?
                .collect();
            let stream = TcpStream::connect(addresses.as_slice()).await?;
            Ok(Connected::Host(stream))
        }
        Target::Socket(path) => {
            let (invoker, path) = (Arc::clone(&context.invoker), path.clone());
            let connecting = tokio::task::spawn_blocking(move || {
                invoker.act(|| std::os::unix::net::UnixStream::connect(&path))
            });
            let stream = connecting.await.map_err(std::io::Error::other)??;
            stream.set_nonblocking(true)?;
            Ok(Connected::Socket(UnixStream::from_std(stream)?))
        }
    }
}
