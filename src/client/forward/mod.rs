//! Forwards of connections as by `ssh -L`, `-R`, `-D` and `-W`.
//!
//! ```text
//!   local listener  ─► (greeting ◄► socks) ─► channel to the target ─► relay     -L, -D
//!   remote listener ─► channel ─► (greeting ◄► socks) ─► local target ─► relay   -R
//! ```

mod greeting;
mod listen;
mod local;
mod relay;
mod remote;
mod room;
mod socket;
mod socks;
pub(super) mod stdio;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;

use crate::config::invoker::Invoker;
use crate::config::ssh::forward::{Forward, Kind};
use crate::config::ssh::options::{LogLevel, SshOptions};
use crate::process::failure::Failure;
use crate::process::message::say;
use crate::process::open_connections::OpenConnections;
use crate::ssh::client::connect::Connection;
use room::{MAX_CONNECTIONS, Room};

/// The forwards of one connection. Dropping it ends them.
pub(super) struct Forwards {
    context: Context,
    /// Listeners here, until they are removed.
    local: Mutex<Vec<(Kind, Forward, local::Listener)>>,
    remote: remote::Listeners,
}

/// The parts that each forwarded connection needs.
#[derive(Clone)]
struct Parts {
    connection: Arc<Connection>,
    options: Arc<SshOptions>,
    invoker: Arc<Invoker>,
}

/// The parts that each listener needs.
#[derive(Clone)]
struct Context {
    parts: Parts,
    room: Room,
    running: OpenConnections,
}

/// Why a forward was not added or removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardFailure {
    /// The listener here failed.
    #[error("{0}")]
    Local(String),
    /// The server does not listen.
    #[error("remote port forwarding failed for {0}")]
    Remote(String),
    /// The connection is gone.
    #[error("{0}")]
    Gone(String),
    /// There is no such forward.
    #[error("there is no such forward")]
    Unknown,
}

impl Forwards {
    /// Sets up the forwards of `options`. A forward that fails is reported, and is an error with
    /// ExitOnForwardFailure.
    pub(super) async fn start(
        connection: &Arc<Connection>,
        options: &SshOptions,
        invoker: &Invoker,
    ) -> Result<Self, Failure> {
        let context = Context {
            parts: Parts {
                connection: Arc::clone(connection),
                options: Arc::new(options.clone()),
                invoker: Arc::new(invoker.clone()),
            },
            room: Room::default(),
            running: OpenConnections::default(),
        };
        let forwards = Forwards {
            remote: remote::Listeners::default(),
            local: Mutex::default(),
            context,
        };
        let settings = &options.forwards;
        for (kind, all) in [
            (Kind::Local, &settings.local),
            (Kind::Dynamic, &settings.dynamic),
            (Kind::Remote, &settings.remote),
        ] {
            for forward in all {
                forwards.start_one(kind, forward).await?;
            }
        }
        Ok(forwards)
    }

    async fn start_one(&self, kind: Kind, forward: &Forward) -> Result<(), Failure> {
        let port = match self.add(kind, forward).await {
            Ok(port) => port,
            Err(error @ ForwardFailure::Gone(_)) => return Err(Failure::ssh(anyhow!("{error}"))),
            Err(error) if self.context.options.exit_on_forward_failure => {
                return Err(Failure::ssh(anyhow!("Error: {error}")));
            }
            Err(error) => {
                self.context.complain(format_args!("Warning: {error}"));
                return Ok(());
            }
        };
        if let Some(port) = port {
            say(allocated(kind, port, forward));
        }
        Ok(())
    }

    /// Adds a forward; returns the port if it was for any that is free.
    pub(super) async fn add(
        &self,
        kind: Kind,
        forward: &Forward,
    ) -> Result<Option<u16>, ForwardFailure> {
        let context = &self.context;
        if let Err(error) = context.connection.require_verified() {
            return Err(ForwardFailure::Gone(error.to_string()));
        }
        let port = match kind {
            Kind::Remote => self.remote.add(forward, context).await?,
            Kind::Local | Kind::Dynamic => {
                let listener = local::start(forward, context).map_err(ForwardFailure::Local)?;
                let port = listener.port;
                let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
                local.push((kind, forward.clone(), listener));
                port
            }
        };
        tracing::debug!("forward {}", route(forward));
        Ok(port)
    }

    /// Removes a forward; its open connections go on.
    pub(super) async fn remove(&self, kind: Kind, forward: &Forward) -> Result<(), ForwardFailure> {
        if kind == Kind::Remote {
            return self.remote.remove(forward, &self.context).await;
        }
        let removed = {
            let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
            let found = local
                .iter()
                .position(|(of, known, _)| *of == kind && known.listen == forward.listen);
            found.map(|index| local.swap_remove(index))
        };
        removed.map(drop).ok_or(ForwardFailure::Unknown)
    }

    /// Waits until no forwarded connection is open.
    pub(super) async fn idle(&self) {
        self.context.room.empty().await;
    }

    /// Waits until no forwarded connection has been open for `time`.
    pub(super) async fn idle_for(&self, time: Duration) {
        self.context.room.empty_for(time).await;
    }
}

impl Parts {
    /// Prints an error that does not end the session by itself.
    fn complain(&self, text: impl std::fmt::Display) {
        if self.options.log_level >= LogLevel::Error {
            say(text);
        }
    }
}

impl std::ops::Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Context {
    /// The parts for a connection, which must not keep the others alive.
    fn for_connection(&self) -> Parts {
        self.parts.clone()
    }

    /// Runs a forwarded connection if there is room for it.
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        match self.room.enter() {
            Some(place) => self.running.spawn(async move {
                connection.await;
                drop(place);
            }),
            None => tracing::warn!("refused a forwarded connection: {MAX_CONNECTIONS} are open"),
        }
    }
}

/// The message about a port that was allocated.
pub(super) fn allocated(kind: Kind, port: u16, forward: &Forward) -> String {
    let kind = match kind {
        Kind::Local => "local",
        Kind::Remote => "remote",
        Kind::Dynamic => "dynamic",
    };
    match &forward.target {
        Some(target) => format!("Allocated port {port} for {kind} forward to {target}"),
        None => format!("Allocated port {port} for {kind} forward to SOCKS"),
    }
}

/// A forward in the log.
fn route(forward: &Forward) -> String {
    match &forward.target {
        Some(target) => format!("{} -> {target}", forward.listen),
        None => format!("{} -> SOCKS", forward.listen),
    }
}
