//! Channels of bytes, as the server has them: TCP forwards, and the two halves of
//! a subsystem.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, ChannelStream, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Shared;
use super::place::Place;
use crate::ssh::side::ServerSide;

/// The channel of a TCP forward. Dropping it closes the channel.
pub struct ForwardStream {
    stream: ChannelStream<ServerSide>,
    _place: Place,
}

impl ForwardStream {
    pub(super) fn new(stream: ChannelStream<ServerSide>, place: Place) -> Self {
        ForwardStream {
            stream,
            _place: place,
        }
    }
}

impl AsyncRead for ForwardStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ForwardStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a client sends to a subsystem.
pub struct SubsystemInput {
    channel: ChannelReadHalf,
    ended: bool,
}

/// Where a subsystem answers. Dropping it leaves the channel open.
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
        SubsystemInput {
            channel,
            ended: false,
        }
    }

    /// The next piece; nothing once the client has ended its side.
    pub async fn receive(&mut self) -> Option<Bytes> {
        while !self.ended {
            let message = self.channel.wait().await;
            if let Some(data) = self.data(message?) {
                return Some(data);
            }
        }
        None
    }

    /// The next piece if it has come already. Nothing also at the end:
    /// [`receive`](Self::receive) tells.
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

    /// Sends; waits while the client's window is full. Calls are not to overlap:
    /// the window may divide one, and another would come between its parts.
    pub async fn send(&self, data: impl Into<Bytes>) -> Result<(), SubsystemGone> {
        self.or_gone(self.channel.data_bytes(data)).await
    }

    /// Says that the subsystem is done, with an exit status, and closes the
    /// channel.
    pub async fn close(&self, exit_status: u32) {
        // Gone already is as good.
        let _ = self.or_gone(self.channel.exit_status(exit_status)).await;
        let _ = self.or_gone(self.channel.eof()).await;
        let _ = self.or_gone(self.channel.close()).await;
    }

    /// A message, until the connection ends: russh would wait on for a window
    /// that nobody can grant any more.
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
