//! Reads a channel: its messages, or its data alone, until the peer has ended or
//! closed it.

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf};

/// The one reader of a channel. What waits in it takes memory, up to the window.
pub(in crate::ssh) struct ChannelReader {
    channel: ChannelReadHalf,
    phase: Phase,
}

/// How far the peer has come with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It may send more.
    Open,
    /// It sends no more data (RFC 4254, section 5.3), and may be sent to.
    Ended,
    /// It has closed the channel, or the connection is gone.
    Closed,
}

impl ChannelReader {
    /// Of which nothing, or only the answer to a request, has been read.
    pub fn new(channel: ChannelReadHalf) -> Self {
        let phase = Phase::Open;
        ChannelReader { channel, phase }
    }

    /// Lets the peer send `window` bytes before they are read.
    pub fn set_window(&self, window: u32) {
        self.channel.set_window(window);
    }

    /// The next message; nothing once the channel is closed or the connection gone.
    /// May be dropped without losing one.
    pub async fn message(&mut self) -> Option<ChannelMsg> {
        if self.phase == Phase::Closed {
            return None;
        }
        let message = self.channel.wait().await.unwrap_or(ChannelMsg::Close);
        self.heed(message)
    }

    /// The next message if it has come already. Nothing also when there will be no
    /// other: [`message`](Self::message) tells.
    pub fn try_message(&mut self) -> Option<ChannelMsg> {
        if self.phase == Phase::Closed {
            return None;
        }
        let message = self.channel.try_wait()?;
        self.heed(message)
    }

    /// The next data; nothing once the peer has sent EOF or closed, or the connection
    /// is gone. May be dropped without losing any.
    pub async fn data(&mut self) -> Option<Bytes> {
        while self.phase == Phase::Open {
            if let ChannelMsg::Data { data } = self.message().await? {
                return Some(data);
            }
        }
        None
    }

    /// The next data if it has come already. Nothing also when there will be no
    /// other: [`data`](Self::data) tells.
    pub fn try_data(&mut self) -> Option<Bytes> {
        while self.phase == Phase::Open {
            if let ChannelMsg::Data { data } = self.try_message()? {
                return Some(data);
            }
        }
        None
    }

    /// Waits until the peer has closed the channel or the connection is gone. What
    /// comes until then is lost.
    pub async fn closed(&mut self) {
        while self.message().await.is_some() {}
    }

    fn heed(&mut self, message: ChannelMsg) -> Option<ChannelMsg> {
        match message {
            ChannelMsg::Eof => self.phase = Phase::Ended,
            ChannelMsg::Close => {
                self.phase = Phase::Closed;
                return None;
            }
            _ => {}
        }
        Some(message)
    }
}
