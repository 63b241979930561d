//! Local and dynamic forwards: connections to a local listener that the server carries on.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::greeting::{self, Greeted, OnSocket};
use super::relay::relay;
use super::socket::Local;
use super::socks::Refusal;
use super::{Context, Parts, listen};
use crate::client::socket_name::{self, SocketName};
use crate::config::ssh::forward::{Forward, Listen};
use crate::process::accept::{Accept, accept};
use crate::ssh::channel::forward::OpenError;

/// A listener; dropping it closes it, and its connections go on.
pub(super) struct Listener {
    /// The port, if it was for any that is free.
    pub(super) port: Option<u16>,
    _name: Option<SocketName>,
    _tasks: JoinSet<()>,
}

/// Listens.
pub(super) fn start(forward: &Forward, context: &Context) -> Result<Listener, String> {
    let settings = &context.options.forwards;
    let forward = Arc::new(forward.clone());
    let mut tasks = JoinSet::new();
    let failed = |error: io::Error| format!("cannot listen at {}: {error}", forward.listen);
    let (port, name) = match &forward.listen {
        Listen::Port { bind, port } => {
            let (bound, listeners) =
                listen::ports(bind.as_deref(), *port, settings).map_err(failed)?;
            for listener in listeners {
                let forward = Arc::clone(&forward);
                tasks.spawn(serve(
                    listener,
                    |(stream, _)| stream,
                    forward,
                    context.clone(),
                ));
            }
            ((*port == 0).then_some(bound), None)
        }
        Listen::Socket(path) => {
            let replace = |_: &Path| settings.unlink_socket;
            let (listener, name) =
                socket_name::listen(path, settings.socket_mask, replace, &context.invoker)
                    .map_err(failed)?;
            let forward = Arc::clone(&forward);
            tasks.spawn(serve(listener, |stream| stream, forward, context.clone()));
            (None, Some(name))
        }
    };
    Ok(Listener {
        port,
        _name: name,
        _tasks: tasks,
    })
}

/// Hands each connection of `listener` on.
async fn serve<L, S>(
    mut listener: L,
    socket: impl Fn(L::Connection) -> S,
    forward: Arc<Forward>,
    context: Context,
) where
    L: Accept,
    S: Local,
{
    loop {
        let stream = socket(accept(&mut listener).await);
        let forward = Arc::clone(&forward);
        let parts = context.for_connection();
        context.spawn(async move { carry(stream, &forward, &parts).await });
    }
}

async fn carry<S: Local>(stream: S, forward: &Forward, context: &Parts) {
    let originator = stream.originator();
    let (mut read, mut write) = stream.split();
    let (protocol, target, first) = match &forward.target {
        Some(target) => (None, target.clone(), Bytes::new()),
        None => match greeting::read(&mut OnSocket(&mut read, &mut write)).await {
            Some((protocol, target, first)) => (Some(protocol), target, first),
            None => return,
        },
    };
    let opened = context.connection.open_target(&target, originator).await;
    let result = match &opened {
        Ok(_) => Ok(()),
        Err(error) => {
            context.complain(format_args!(
                "{}: {target}: open failed: {error}",
                forward.listen
            ));
            Err(match error {
                OpenError::Prohibited(_) => Refusal::Prohibited,
                _ => Refusal::Failed,
            })
        }
    };
    if let Some(protocol) = protocol {
        let reply = protocol.reply(result);
        if OnSocket(&mut read, &mut write).reply(reply).await.is_err() {
            if let Ok(channel) = opened {
                channel.input.close().await;
            }
            return;
        }
    }
    if let Ok(channel) = opened {
        relay((read, write), channel, first).await;
    }
}
