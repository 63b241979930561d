//! The server's byte channels: the two halves of a TCP forward and of a subsystem.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use russh::{Channel, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;

use super::channel_slots::ChannelSlot;
use super::connection::Shared;
use crate::ssh::channel::reader::ChannelReader;
use crate::ssh::channel::side::ServerSide;
use crate::ssh::client::connect::STREAM_WINDOW;

/// The client's data on a TCP forward. Dropping it closes the channel.
pub struct ForwardInput {
    reader: ChannelReader,
    /// Gone only while this is dropped.
    channel: Option<ChannelWriteHalf<ServerSide>>,
    /// Received data that is not read yet.
    unread: Bytes,
    _slot: ChannelSlot,
}

/// The data to the client on a TCP forward.
pub struct ForwardOutput(Box<dyn AsyncWrite + Send + Unpin>);

/// The directions of a TCP forward.
pub(super) fn forward(
    channel: Channel<ServerSide>,
    slot: ChannelSlot,
) -> (ForwardInput, ForwardOutput) {
    let (messages, channel) = channel.split();
    let output = ForwardOutput(Box::new(channel.make_writer()));
    let input = ForwardInput {
        reader: ChannelReader::new(messages),
        channel: Some(channel),
        unread: Bytes::new(),
        _slot: slot,
    };
    (input, output)
}

impl ForwardInput {
    /// Waits until the client has closed the channel or the connection is gone. Discards
    /// data that arrives until then, so call it only after the end of the input.
    pub async fn closed(&mut self) {
        self.reader.closed().await;
    }
}

impl AsyncRead for ForwardInput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let input = &mut *self;
        while input.unread.is_empty() {
            // The queue keeps the waker, and loses nothing with the future.
            match ready!(pin!(input.reader.data()).poll(cx)) {
                Some(data) => input.unread = data,
                None => break,
            }
        }
        let length = buffer.remaining().min(input.unread.len());
        buffer.put_slice(&input.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl Drop for ForwardInput {
    fn drop(&mut self) {
        // Without a runtime there is no connection either.
        if let (Some(channel), Ok(runtime)) = (self.channel.take(), Handle::try_current()) {
            runtime.spawn(async move { channel.close().await });
        }
    }
}

impl AsyncWrite for ForwardOutput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What a client sends to a subsystem.
pub struct SubsystemInput(ChannelReader);

/// The subsystem's data to the client. Dropping it leaves the channel open.
pub struct SubsystemOutput {
    channel: ChannelWriteHalf<ServerSide>,
    connection: Arc<Shared>,
    _slot: ChannelSlot,
}

/// The channel, or the connection under it, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the subsystem's channel or the connection is gone")]
pub struct SubsystemGone;

impl SubsystemInput {
    pub(super) fn new(channel: ChannelReadHalf) -> Self {
        channel.set_window(STREAM_WINDOW);
        SubsystemInput(ChannelReader::new(channel))
    }

    /// The next data; `None` once the client has sent EOF or closed the channel.
    pub async fn receive(&mut self) -> Option<Bytes> {
        self.0.data().await
    }

    /// The next data if it has already arrived. `None` also at the end;
    /// [`receive`](Self::receive) tells the two apart.
    pub fn try_receive(&mut self) -> Option<Bytes> {
        self.0.try_data()
    }
}

impl SubsystemOutput {
    pub(super) fn new(
        channel: ChannelWriteHalf<ServerSide>,
        connection: Arc<Shared>,
        slot: ChannelSlot,
    ) -> Self {
        SubsystemOutput {
            channel,
            connection,
            _slot: slot,
        }
    }

    /// Sends data; waits while the client's window is full. Calls must not overlap: the
    /// window may split one call's data, and another call's would come between the parts.
    pub async fn send(&self, data: impl Into<Bytes>) -> Result<(), SubsystemGone> {
        self.or_gone(self.channel.data_bytes(data)).await
    }

    /// Ends the subsystem with an exit status, and closes the channel.
    pub async fn close(&self, exit_status: u32) {
        // An error means that the channel is gone already.
        let _ = self.or_gone(self.channel.exit_status(exit_status)).await;
        let _ = self.or_gone(self.channel.eof()).await;
        let _ = self.or_gone(self.channel.close()).await;
    }

    /// Sends a message unless the connection ends first: russh would go on waiting for
    /// window space that can no longer be granted.
    async fn or_gone(
        &self,
        sent: impl Future<Output = Result<(), russh::Error>>,
    ) -> Result<(), SubsystemGone> {
        tokio::select! {
            sent = sent => sent.map_err(|_| SubsystemGone),
            _ = self.connection.ended() => Err(SubsystemGone),
        }
    }
}
