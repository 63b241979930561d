//! The socket at which a running server answers with its status.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::PREFIX;
use super::document::Document;
use super::watched::Watched;
use crate::host::journal::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::host::runtime_socket::RuntimeSocket;
use crate::server::report::bounded_listener::{self, AsyncAnswer};

/// The socket; it answers until it is dropped.
#[derive(Debug)]
pub struct StatusSocket {
    task: JoinHandle<Infallible>,
    /// Its file is removed with it.
    _socket: RuntimeSocket,
}

impl StatusSocket {
    /// Creates the socket and answers; it is named by the first `port` at which the server
    /// listens.
    pub fn start(
        directory: &RuntimeDir,
        port: u16,
        watched: Arc<Watched>,
    ) -> Result<Self, RuntimeDirError> {
        let name = format!("{PREFIX}{port}");
        let socket = RuntimeSocket::bind(directory, &name)?;
        let listener =
            listen(&socket).map_err(|error| directory.failed("listen at", socket.name(), error))?;
        let task = tokio::spawn(bounded_listener::serve(listener, Status(watched)));
        Ok(Self {
            task,
            _socket: socket,
        })
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(socket: &RuntimeSocket) -> io::Result<UnixListener> {
    let listener = socket.listener()?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

struct Status(Arc<Watched>);

impl AsyncAnswer<UnixStream> for Status {
    fn answer(&self, mut stream: UnixStream) -> impl Future<Output = ()> + Send + 'static {
        let watched = Arc::clone(&self.0);
        async move {
            let document = Document::of(&watched, Instant::now());
            let told = match serde_json::to_vec(&document) {
                Ok(mut text) => {
                    text.push(b'\n');
                    stream.write_all(&text).await
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = told {
                tracing::debug!(%error, "a status request was not answered");
            }
        }
    }
}
