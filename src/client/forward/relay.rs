//! Copies the bytes of one forwarded connection between a local socket and a channel, until both
//! directions have ended or one has failed.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::socket::Readable;
use crate::ssh::channel::process::{Process, ProcessEvent, ProcessEvents, ProcessInput};

/// Bytes read from the socket at a time.
const CHUNK: usize = 64 * 1024;
/// Less than this is copied out of its buffer.
const SHORT: usize = 4 * 1024;

/// One direction failed, or the server has closed the channel.
struct Ended;

/// Relays between `socket` and `channel`. `first` are bytes that the socket's peer has already
/// sent. The channel is closed at the end; the caller drops the socket.
pub(super) async fn relay<R, W>((mut read, mut write): (R, W), channel: Process, first: Bytes)
where
    R: AsyncRead + Readable + Unpin,
    W: AsyncWrite + Unpin,
{
    let Process { events, input } = channel;
    // An error ends the relay: closing both sides tells both peers.
    let _ = both(
        upload(&mut read, &input, first),
        download(events, &mut write),
    )
    .await;
    input.close().await;
}

/// Runs both directions. After the end of one, the other goes on (a half-closed connection).
async fn both(
    upload: impl Future<Output = Result<(), Ended>>,
    download: impl Future<Output = Result<ProcessEvents, Ended>>,
) -> Result<(), Ended> {
    let (mut upload, mut download) = (std::pin::pin!(upload), std::pin::pin!(download));
    tokio::select! {
        sent = &mut upload => {
            sent?;
            download.await.map(drop)
        }
        received = &mut download => {
            let mut events = received?;
            tokio::select! {
                sent = upload => sent,
                // The server closes the channel: its side is gone, and reads no more.
                () = closed(&mut events) => Err(Ended),
            }
        }
    }
}

async fn closed(events: &mut ProcessEvents) {
    while events.next().await.is_some() {}
}

/// Sends what the socket's peer sends, and its end.
async fn upload<R>(read: &mut R, input: &ProcessInput, first: Bytes) -> Result<(), Ended>
where
    R: AsyncRead + Readable + Unpin,
{
    if !first.is_empty() {
        input.write(first).await.map_err(|_| Ended)?;
    }
    loop {
        // An idle connection holds no buffer.
        read.readable().await.map_err(|_: io::Error| Ended)?;
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let length = read.read_buf(&mut buffer).await.map_err(|_| Ended)?;
        let data = match length {
            0 => return input.end().await.map_err(|_| Ended),
            // While it waits to be sent, it holds no more than itself.
            1..SHORT => Bytes::copy_from_slice(&buffer),
            _ => buffer.freeze(),
        };
        input.write(data).await.map_err(|_| Ended)?;
    }
}

/// Passes on what the server's side sends, and its end.
async fn download<W>(mut events: ProcessEvents, write: &mut W) -> Result<ProcessEvents, Ended>
where
    W: AsyncWrite + Unpin,
{
    loop {
        match events.next().await {
            Some(ProcessEvent::Output(data)) => {
                write.write_all(&data).await.map_err(|_| Ended)?;
            }
            Some(ProcessEvent::OutputEnd) => {
                write.shutdown().await.map_err(|_| Ended)?;
                return Ok(events);
            }
            Some(_) => {}
            None => return Err(Ended),
        }
    }
}
