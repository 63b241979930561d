//! From an accepted TCP connection to a client that is logged in.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use russh::server;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::attempts::{Admission, Attempts, Progress};
use super::gate::Gate;
use super::{Login, LoginFailure};
use crate::ssh::client::prompt::terminal_text;
use crate::ssh::client::stalled::StallLimit;
use crate::ssh::client::transport;
use crate::ssh::server::asking::Asking;
use crate::ssh::server::connection::{ClientConnection, GOODBYE, Shared};
use crate::ssh::server::events::{Events, ServeError};
use crate::ssh::server::place::Places;
use crate::ssh::server::requests::{QUEUE, Requests, Unqueued};
use crate::ssh::server::settings::ServerSettings;

/// Runs identification, key exchange and login, all within the grace time. Dropping the
/// future closes the connection. `peer` is passed to the gate as an IPv4 address if a
/// dual-stack socket mapped it.
pub async fn accept<G: Gate>(
    stream: TcpStream,
    peer: SocketAddr,
    settings: &ServerSettings,
    gate: Arc<G>,
) -> Result<Login<G::Grant>, LoginFailure> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let progress = Arc::<Progress>::default();
    let login = log_in(stream, peer, settings, gate, &progress);
    match settings.grace_time {
        Some(grace) => timeout(grace, login)
            .await
            .unwrap_or_else(|_| Err(LoginFailure::GraceTime(progress.failed()))),
        None => login.await,
    }
}

async fn log_in<G: Gate>(
    stream: TcpStream,
    peer: SocketAddr,
    settings: &ServerSettings,
    gate: Arc<G>,
    progress: &Arc<Progress>,
) -> Result<Login<G::Grant>, LoginFailure> {
    transport::tune(&stream, true);
    let stream = StallLimit::new(stream, settings.stall_limit());
    let shared = Arc::<Shared>::default();
    let places = Places::new(settings.channels);
    let (admit, admitted) = oneshot::channel();
    let (asks, requests) = mpsc::channel(QUEUE);
    let unqueued = Unqueued::default();
    let events = Events {
        attempts: Attempts::new(gate, peer, Arc::clone(progress), admit),
        asking: Asking::new(Arc::clone(&shared), places.clone(), asks, unqueued.clone()),
        shared: Arc::clone(&shared),
    };
    let configuration = Arc::new(settings.configuration());
    let failed = |error: Option<ServeError>| failure(error, progress);
    let (_, session) = server::start_stream(configuration, stream, events)
        .await
        .map_err(|error| failed(Some(error)))?;
    let (alive, watched) = watch::channel(());
    let task = spawn(session, Arc::clone(&shared), watched);
    let Ok(admission) = admitted.await else {
        // A task that was aborted or panicked has no result.
        return Err(failed(task.await.ok().flatten()));
    };
    let Admission {
        judged,
        handle,
        identification,
    } = admission;
    Ok(Login {
        grant: Arc::new(judged.grant),
        user: judged.user,
        peer,
        credential: judged.credential,
        touched: judged.touched,
        connection: ClientConnection {
            handle,
            shared,
            places,
            identification,
            _alive: alive,
        },
        requests: Requests::new(requests, unqueued),
    })
}

/// Runs a session until it ends, its [`ClientConnection`] is dropped, or a disconnect has
/// taken too long; yields the error that ended it.
fn spawn(
    session: impl Future<Output = Result<(), ServeError>> + Send + 'static,
    shared: Arc<Shared>,
    mut watched: watch::Receiver<()>,
) -> JoinHandle<Option<ServeError>> {
    tokio::spawn(async move {
        let ending = Ending(Arc::clone(&shared));
        let mut session = pin!(session);
        let goodbye = async {
            shared.leaving().await;
            sleep(GOODBYE).await;
        };
        let error = tokio::select! {
            result = &mut session => result.err(),
            _ = watched.changed() => None,
            () = goodbye => None,
        };
        shared.end(end_reason(error.as_ref()));
        drop(ending);
        error
    })
}

/// Marks the connection as ended also if the session panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end("the connection failed".to_owned());
    }
}

fn end_reason(error: Option<&ServeError>) -> String {
    match error {
        None => "the connection was closed".to_owned(),
        Some(ServeError::Russh(russh::Error::KeepaliveTimeout)) => {
            "the client does not respond".to_owned()
        }
        Some(ServeError::Russh(russh::Error::IO(error))) => match error.kind() {
            io::ErrorKind::TimedOut => "the client does not respond".to_owned(),
            io::ErrorKind::UnexpectedEof => "the client closed the connection".to_owned(),
            _ => format!("the connection was lost: {}", transport::plain(error)),
        },
        Some(error) => format!("the connection failed: {error}"),
    }
}

/// The kind of failure when a session ended before a login.
fn failure(error: Option<ServeError>, progress: &Progress) -> LoginFailure {
    let left = || match progress.tried() {
        true => LoginFailure::Failed(progress.failed()),
        false => LoginFailure::NoAttempt,
    };
    match error {
        None => left(),
        Some(ServeError::Russh(error)) => match error {
            russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP => left(),
            russh::Error::NoCommonAlgo { kind, theirs, .. } => LoginFailure::Algorithms(format!(
                "{kind:?}; the client offers {}",
                terminal_text::line(&theirs.join(","))
            )),
            error => LoginFailure::Protocol(terminal_text::line(&error.to_string())),
        },
        Some(error @ ServeError::Flood) => LoginFailure::Protocol(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
