//! Reads the greeting of SOCKS or HTTP CONNECT from a connection, and answers it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::socks::{Greeting, Protocol, Step};
use crate::config::ssh::forward::Target;
use crate::ssh::channel::process::{ProcessEvent, ProcessEvents, ProcessInput};

/// The limit for a whole greeting.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection that a greeting comes on.
pub(super) trait Greeted {
    /// The next bytes; none at the end.
    async fn receive(&mut self) -> io::Result<Bytes>;
    /// Sends a reply.
    async fn reply(&mut self, reply: Vec<u8>) -> io::Result<()>;
}

/// A local socket.
pub(super) struct OnSocket<'a, R, W>(pub &'a mut R, pub &'a mut W);

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Greeted for OnSocket<'_, R, W> {
    async fn receive(&mut self) -> io::Result<Bytes> {
        let mut buffer = [0; 1024];
        let length = self.0.read(&mut buffer).await?;
        Ok(Bytes::copy_from_slice(
            buffer.get(..length).unwrap_or_default(),
        ))
    }

    async fn reply(&mut self, reply: Vec<u8>) -> io::Result<()> {
        self.1.write_all(&reply).await
    }
}

/// A channel that the server opened.
pub(super) struct OnChannel<'a>(pub &'a mut ProcessEvents, pub &'a ProcessInput);

impl Greeted for OnChannel<'_> {
    async fn receive(&mut self) -> io::Result<Bytes> {
        loop {
            match self.0.next().await {
                Some(ProcessEvent::Output(data)) => return Ok(data),
                Some(ProcessEvent::OutputEnd) | None => return Ok(Bytes::new()),
                Some(_) => {}
            }
        }
    }

    async fn reply(&mut self, reply: Vec<u8>) -> io::Result<()> {
        let sent = self.1.write(reply).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The place that the connection asks for, and the bytes behind the greeting. `None` where it
/// asks for none within 30 s; it has got its protocol's refusal then.
pub(super) async fn read(connection: &mut impl Greeted) -> Option<(Protocol, Target, Bytes)> {
    match timeout(LIMIT, converse(connection)).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => {
            tracing::debug!("a dynamic forward: {error}");
            None
        }
        Err(_) => {
            tracing::debug!("a dynamic forward: no complete greeting within {LIMIT:?}");
            None
        }
    }
}

async fn converse(connection: &mut impl Greeted) -> io::Result<Option<(Protocol, Target, Bytes)>> {
    let mut greeting = Greeting::default();
    loop {
        let data = connection.receive().await?;
        if data.is_empty() {
            return Ok(None);
        }
        let mut step = greeting.take(&data);
        loop {
            match step {
                Step::More => break,
                Step::Reply(reply) => {
                    connection.reply(reply).await?;
                    step = greeting.again();
                }
                Step::Request(protocol, target) => {
                    return Ok(Some((protocol, target, greeting.rest().into())));
                }
                Step::Refuse { reply, reason } => {
                    tracing::debug!("a dynamic forward: refused: {reason}");
                    connection.reply(reply).await?;
                    return Ok(None);
                }
            }
        }
    }
}
