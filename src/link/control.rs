//! Exchanges control messages over the agent stream before packets flow; used at both
//! ends.

use thiserror::Error;

use crate::frame::FrameError;
use crate::frame::control::{ControlError, Message};
use crate::frame::stream::{self, StreamError, StreamFrame, StreamReader};
use crate::pump::{FrameSink, FrameSource, SendFailure};
use crate::types::Mode;

/// Packets and bad frames ignored at most; neither end sends any before both are ready.
const MOST_PASSED_OVER: u32 = 1000;

/// Why a message was neither received nor sent.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConversationError {
    /// The other end ended the stream, or the connection is gone.
    #[error("the stream ended")]
    Ended,
    /// The stream is not a stream of frames.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A message is invalid.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Too many frames that are not messages.
    #[error("more than {MOST_PASSED_OVER} packets before both ends are ready")]
    Packets,
    /// A message that cannot be sent.
    #[error("a message that cannot be sent: {0}")]
    Frame(#[from] FrameError),
}

/// Both directions of a stream: `R` yields its bytes, `W` takes whole frames.
pub struct Conversation<R, W> {
    reader: StreamReader,
    input: R,
    output: W,
    passed_over: u32,
}

impl<R: FrameSource, W: FrameSink> Conversation<R, W> {
    /// A stream that was neither read nor written yet.
    pub fn new(input: R, output: W) -> Self {
        Conversation {
            reader: StreamReader::new(Mode::PointToPoint),
            input,
            output,
            passed_over: 0,
        }
    }

    /// Adds bytes that were already read.
    pub fn unread(&mut self, bytes: bytes::Bytes) {
        self.reader.push(bytes);
    }

    /// Sends a message.
    pub async fn send(&self, message: &Message) -> Result<(), ConversationError> {
        tracing::debug!("sending {message:?}");
        let frame = stream::encode_control(&message.to_json()?)?;
        self.output
            .send(frame)
            .await
            .map_err(|failure| match failure {
                SendFailure::TooLarge(_) => ConversationError::Frame(FrameError::TooLong),
                SendFailure::Closed => ConversationError::Ended,
            })
    }

    /// Waits for the next message. Ignores packets that come before both ends are ready,
    /// as on any link that is down.
    pub async fn receive(&mut self) -> Result<Message, ConversationError> {
        loop {
            match self.reader.next_frame()? {
                Some(StreamFrame::Control(json)) => {
                    let message = Message::from_json(&json)?;
                    tracing::debug!("received {message:?}");
                    return Ok(message);
                }
                Some(StreamFrame::Packet(_) | StreamFrame::Bad(_)) => {
                    self.passed_over += 1;
                    if self.passed_over > MOST_PASSED_OVER {
                        return Err(ConversationError::Packets);
                    }
                }
                None => match self.input.receive().await {
                    Some(chunk) => self.reader.push(chunk),
                    None => return Err(ConversationError::Ended),
                },
            }
        }
    }

    /// The parts, for the packets of `mode` that follow.
    pub fn into_parts(mut self, mode: Mode) -> (StreamReader, R, W) {
        self.reader.set_mode(mode);
        (self.reader, self.input, self.output)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    impl<R, W> super::Conversation<R, W> {
        /// The sending side, for bytes that are no message.
        pub(crate) fn output(&self) -> &W {
            &self.output
        }
    }

    use super::*;
    use crate::frame::control::Hello;
    use bytes::Bytes;
    use tokio::sync::mpsc;

    /// One direction of a stream in memory.
    pub(crate) struct Input(pub(crate) mpsc::Receiver<Bytes>);
    /// Its other end.
    pub(crate) struct Output(pub(crate) mpsc::Sender<Bytes>);

    impl FrameSource for Input {
        async fn receive(&mut self) -> Option<Bytes> {
            self.0.recv().await
        }

        fn try_receive(&mut self) -> Option<Bytes> {
            self.0.try_recv().ok()
        }
    }

    impl FrameSink for Output {
        async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
            for frame in frames.drain(..) {
                let sent = self.0.send(frame).await;
                sent.map_err(|_| SendFailure::Closed)?;
            }
            Ok(())
        }
    }

    impl Conversation<Input, Output> {
        /// Sends raw bytes.
        pub(crate) async fn send_raw(&self, bytes: Bytes) {
            self.output.send(bytes).await.unwrap();
        }
    }

    /// Both ends of a stream.
    pub(crate) fn pair() -> [Conversation<Input, Output>; 2] {
        let (one_out, other_in) = mpsc::channel(16);
        let (other_out, one_in) = mpsc::channel(16);
        [
            Conversation::new(Input(one_in), Output(one_out)),
            Conversation::new(Input(other_in), Output(other_out)),
        ]
    }

    #[tokio::test]
    async fn what_one_says_the_other_hears() {
        let [one, mut other] = pair();
        let hello = Message::Hello(Hello::ours());
        one.send(&hello).await.unwrap();
        one.output
            .send(Bytes::from_static(&[0, 0, 0, 4, 0, 0, 0, 2]))
            .await
            .unwrap();
        one.send(&Message::Ping { token: 1 }).await.unwrap();
        assert_eq!(other.receive().await, Ok(hello));
        assert_eq!(other.receive().await, Ok(Message::Ping { token: 1 }));
        drop(one);
        assert_eq!(other.receive().await, Err(ConversationError::Ended));
        let sent = other.send(&Message::Ping { token: 1 }).await;
        assert_eq!(sent, Err(ConversationError::Ended));
    }

    #[tokio::test]
    async fn what_was_read_already_comes_first() {
        let [_one, mut other] = pair();
        let json = Message::Pong { token: 2 }.to_json().unwrap();
        other.unread(stream::encode_control(&json).unwrap());
        assert_eq!(other.receive().await, Ok(Message::Pong { token: 2 }));
    }

    #[tokio::test]
    async fn packets_without_end_are_an_error() {
        let [_one, mut other] = pair();
        other.unread(Bytes::from(vec![0; 4 * 2000]));
        assert_eq!(other.receive().await, Err(ConversationError::Packets));
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        let [one, mut other] = pair();
        one.output
            .send(Bytes::from_static(b"Welcome"))
            .await
            .unwrap();
        let error = other.receive().await.unwrap_err();
        assert!(matches!(error, ConversationError::Stream(_)), "{error}");
    }
}
