//! The server's byte channels: the two halves of a TCP forward and of a subsystem.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;

use super::connection::Shared;
use super::place::Place;
use crate::ssh::channel::side::ServerSide;
use crate::ssh::client::connect::STREAM_WINDOW;

/// The client's data on a TCP forward. Dropping it closes the channel.
pub struct ForwardInput {
    messages: ChannelReadHalf,
    /// `None` only while this is dropped.
    channel: Option<ChannelWriteHalf<ServerSide>>,
    /// Received data that is not read yet.
    unread: Bytes,
    phase: Phase,
    _place: Place,
}

/// The data to the client on a TCP forward.
pub struct ForwardOutput(Box<dyn AsyncWrite + Send + Unpin>);

/// The state of the client's side of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client may send more.
    Open,
    /// The client sends no more (RFC 4254, section 5.3), but still accepts data.
    Ended,
    /// The client has closed the channel, or the connection is gone.
    Closed,
}

/// The two directions of a TCP forward.
pub(super) fn forward(channel: Channel<ServerSide>, place: Place) -> (ForwardInput, ForwardOutput) {
    let (messages, channel) = channel.split();
    let output = ForwardOutput(Box::new(channel.make_writer()));
    let input = ForwardInput {
        messages,
        channel: Some(channel),
        unread: Bytes::new(),
        phase: Phase::Open,
        _place: place,
    };
    (input, output)
}

impl ForwardInput {
    /// Waits until the client has closed the channel or the connection is gone. Discards
    /// data that arrives until then, so call it only after the end of the input.
    pub async fn closed(&mut self) {
        while self.phase != Phase::Closed {
            let message = self.messages.wait().await;
            self.heed(message);
        }
    }

    fn heed(&mut self, message: Option<ChannelMsg>) {
        match message {
            Some(ChannelMsg::Data { data }) => self.unread = data,
            Some(ChannelMsg::Eof) => self.phase = Phase::Ended,
            Some(ChannelMsg::Close) | None => self.phase = Phase::Closed,
            Some(_) => {}
        }
    }
}

impl AsyncRead for ForwardInput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let input = &mut *self;
        while input.unread.is_empty() && input.phase == Phase::Open {
            // The queue keeps the waker, and dropping the future loses nothing.
            let message = ready!(pin!(input.messages.wait()).poll(cx));
            input.heed(message);
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

/// The client's data to a subsystem.
pub struct SubsystemInput {
    channel: ChannelReadHalf,
    ended: bool,
}

/// The subsystem's data to the client. Dropping it leaves the channel open.
pub struct SubsystemOutput {
    channel: ChannelWriteHalf<ServerSide>,
    connection: Arc<Shared>,
    _place: Place,
}

/// The channel, or the connection under it, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the subsystem's channel or the connection is gone")]
pub struct SubsystemGone;

impl SubsystemInput {
    pub(super) fn new(channel: ChannelReadHalf) -> Self {
        channel.set_window(STREAM_WINDOW);
        SubsystemInput {
            channel,
            ended: false,
        }
    }

    /// The next data; `None` once the client has sent EOF or closed the channel.
    pub async fn receive(&mut self) -> Option<Bytes> {
        while !self.ended {
            let message = self.channel.wait().await;
            if let Some(data) = self.data(message?) {
                return Some(data);
            }
        }
        None
    }

    /// The next data if it has already arrived. `None` also at the end;
    /// [`receive`](Self::receive) tells the two apart.
    pub fn try_receive(&mut self) -> Option<Bytes> {
        while !self.ended {
            let message = self.channel.try_wait();
            if let Some(data) = self.data(message?) {
                return Some(data);
            }
        }
        None
    }

    fn data(&mut self, message: ChannelMsg) -> Option<Bytes> {
        match message {
            ChannelMsg::Data { data } => return Some(data),
            ChannelMsg::Eof | ChannelMsg::Close => self.ended = true,
            _ => {}
        }
        None
    }
}

impl SubsystemOutput {
    pub(super) fn new(
        channel: ChannelWriteHalf<ServerSide>,
        connection: Arc<Shared>,
        place: Place,
    ) -> Self {
        SubsystemOutput {
            channel,
            connection,
            _place: place,
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
