//! Turns what a logged-in client asks for into requests; refuses here what is never
//! granted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::server::{ChannelOpenHandle, Handle};
use russh::{Channel, ChannelId, ChannelOpenFailure};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connection::Shared;
use super::events::ServeError;
use super::patience::Patience;
use super::place::{Place, Places};
use super::requests::{
    CancelReply, ListenReply, OpenReply, Opening, Originator, QUEUE, Request, SubsystemReply,
    TunnelReply, Unqueued,
};
use crate::ssh::channel::side::ServerSide;
use crate::ssh::channel::tunnel::CHANNEL_TYPE;
use crate::types::{Mode, UnitRequest};

/// How long a request may wait for its answer; the whole connection waits with it.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason when the limit of channels or of waiting requests is reached.
const TOO_MANY: &str = "too many channels";

/// The reason for requests that are not supported.
const NOT_SERVED: &str = "not served here";

/// At most this many characters of a refused request, and of other text from the client,
/// are kept.
const KEPT_CHARACTERS: usize = 256;

/// The longest name of a host (RFC 1035, section 2.3.4), listener or subsystem, in
/// bytes. A longer name is not valid, and would be kept, logged and sent back.
const LONGEST_NAME: usize = 255;

/// The reason for a name that is too long.
const TOO_LONG: &str = "the name is too long";

/// The requests of one client.
pub(super) struct Asking {
    shared: Arc<Shared>,
    places: Places,
    requests: mpsc::Sender<Request>,
    unqueued: Unqueued,
    /// Sessions in which nothing has been started.
    sessions: HashMap<ChannelId, Waiting>,
    patience: Patience,
}

/// A session in which nothing has been started.
struct Waiting {
    channel: Channel<ServerSide>,
    place: Place,
}

/// The payload of a request for a tunnel (OpenSSH PROTOCOL, section 2.3).
#[derive(Debug, PartialEq, Eq)]
struct TunnelPayload {
    mode: Mode,
    unit: UnitRequest,
}

impl TunnelPayload {
    /// Fails with the reason.
    fn parse(payload: &[u8]) -> Result<Self, &'static str> {
        let (mode, unit) = payload
            .split_first_chunk()
            .and_then(|(mode, unit)| Some((mode, unit.try_into().ok()?)))
            .ok_or("malformed request for a tunnel")?;
        let mode = Mode::from_wire(u32::from_be_bytes(*mode));
        let unit = UnitRequest::from_wire(u32::from_be_bytes(unit));
        Ok(TunnelPayload {
            mode: mode.ok_or("unsupported tunnel mode")?,
            unit: unit.map_err(|_| "invalid tunnel unit")?,
        })
    }
}

impl Asking {
    /// Sends requests to `requests`; each channel takes one of `places`.
    pub(super) fn new(
        shared: Arc<Shared>,
        places: Places,
        requests: mpsc::Sender<Request>,
        unqueued: Unqueued,
    ) -> Self {
        Asking {
            shared,
            places,
            requests,
            unqueued,
            sessions: HashMap::new(),
            patience: Patience::new(),
        }
    }

    /// Logs that `what` is refused because it is not supported.
    pub(super) fn unserved(&self, what: &str) {
        self.refused(what, NOT_SERVED);
    }

    /// The same for a request with a name.
    pub(super) fn unserved_named(&self, what: &str, name: &str) {
        self.unserved(&format!("{what} {}", kept(name)));
    }

    /// Keeps half of the queue free for requests that need an answer: a flood is recorded by
    /// its number.
    fn refused(&self, what: &str, why: &str) {
        if self.requests.capacity() <= QUEUE / 2 {
            return self.unqueued.count();
        }
        // There is room, or the queue is closed and has no receiver that would log it.
        let _ = self.requests.try_send(Request::Unserved {
            what: kept(what).to_owned(),
            why: why.to_owned(),
        });
    }

    /// Refuses a channel for `what`; ends the connection if the client has caused too many
    /// refusals.
    pub(super) async fn refuse(
        &mut self,
        reply: ChannelOpenHandle,
        reason: ChannelOpenFailure,
        what: &str,
    ) -> Result<(), ServeError> {
        match &reason {
            ChannelOpenFailure::Other { reason, .. } => self.refused(what, reason),
            _ => self.unserved(what),
        }
        reply.reject(reason).await;
        if self.patience.try_refuse(Instant::now()) {
            Ok(())
        } else {
            Err(ServeError::Flood)
        }
    }

    /// Opens a session. Its purpose is not known yet; a subsystem needs one.
    pub(super) async fn session(
        &mut self,
        channel: Channel<ServerSide>,
        reply: ChannelOpenHandle,
    ) -> Result<(), ServeError> {
        let Some(place) = self.places.take() else {
            return self.refuse(reply, shortage(), "session").await;
        };
        let id = channel.id();
        self.sessions.insert(id, Waiting { channel, place });
        // The window is granted when something is started in the session.
        reply.accept_without_window().await;
        Ok(())
    }

    /// The client has closed a session.
    pub(super) fn closed(&mut self, id: ChannelId) {
        self.sessions.remove(&id);
    }

    /// Requests a subsystem in a session; false if it is refused.
    pub(super) fn subsystem(&mut self, id: ChannelId, name: &str, handle: Handle) -> bool {
        if name.len() > LONGEST_NAME {
            self.refused(&format!("subsystem {}", kept(name)), TOO_LONG);
            return false;
        }
        let Ok(queue) = self.requests.try_reserve() else {
            self.unqueued.count();
            return false;
        };
        let Some(Waiting { channel, place }) = self.sessions.remove(&id) else {
            drop(queue);
            self.refused(
                &format!("subsystem {name}"),
                "the channel is not an unused session",
            );
            return false;
        };
        let (read, write) = channel.split();
        queue.send(Request::Subsystem {
            name: name.to_owned(),
            reply: SubsystemReply {
                read,
                write,
                handle,
                connection: Arc::clone(&self.shared),
                place,
            },
        });
        true
    }

    /// Requests a tunnel.
    pub(super) async fn tunnel(
        &mut self,
        channel: Channel<ServerSide>,
        payload: &[u8],
        reply: ChannelOpenHandle,
        handle: Handle,
    ) -> Result<(), ServeError> {
        let TunnelPayload { mode, unit } = match TunnelPayload::parse(payload) {
            Ok(tunnel) => tunnel,
            Err(problem) => {
                // An error means that the connection is gone and needs no reason.
                let _ = handle.debug(true, problem.to_owned());
                return self.refuse(reply, prohibited(problem), CHANNEL_TYPE).await;
            }
        };
        self.ask(channel, reply, CHANNEL_TYPE, |opening| Request::Tunnel {
            mode,
            unit,
            reply: TunnelReply { opening, handle },
        })
        .await
    }

    /// Requests a TCP connection.
    pub(super) async fn open(
        &mut self,
        channel: Channel<ServerSide>,
        (host, port): (&str, u32),
        (address, originator_port): (&str, u32),
        reply: ChannelOpenHandle,
    ) -> Result<(), ServeError> {
        let what = format!("direct-tcpip {}:{port}", kept(host));
        if host.len() > LONGEST_NAME {
            return self.refuse(reply, prohibited(TOO_LONG), &what).await;
        }
        let Some(port) = u16::try_from(port).ok().filter(|port| *port != 0) else {
            return self.refuse(reply, prohibited("no such port"), &what).await;
        };
        let host = host.to_owned();
        let originator = Originator {
            address: kept(address).to_owned(),
            port: originator_port,
        };
        self.ask(channel, reply, &what, |opening| Request::Open {
            host,
            port,
            originator,
            reply: OpenReply(opening),
        })
        .await
    }

    /// Passes a request for a channel for `what` on, if there are a place and room in the
    /// queue.
    async fn ask(
        &mut self,
        channel: Channel<ServerSide>,
        reply: ChannelOpenHandle,
        what: &str,
        request: impl FnOnce(Opening) -> Request,
    ) -> Result<(), ServeError> {
        if self.patience.is_exhausted(Instant::now()) {
            return Err(ServeError::Flood);
        }
        let reserved = self.requests.try_reserve();
        let (Ok(queue), Some(place)) = (reserved, self.places.take()) else {
            return self.refuse(reply, shortage(), what).await;
        };
        queue.send(request(Opening {
            channel,
            reply,
            place,
            patience: self.patience.clone(),
        }));
        Ok(())
    }

    /// Requests a listener; yields its port.
    pub(super) async fn listen(&self, address: &str, port: u32) -> Option<u16> {
        let (reply, answer) = oneshot::channel();
        let what = || format!("tcpip-forward {}:{port}", kept(address));
        let Ok(port) = u16::try_from(port) else {
            self.refused(&what(), "no such port");
            return None;
        };
        if address.len() > LONGEST_NAME {
            self.refused(&what(), TOO_LONG);
            return None;
        }
        let request = Request::Listen {
            address: address.to_owned(),
            port,
            reply: ListenReply(reply),
        };
        self.answered(request, answer).await
    }

    /// Requests the end of a listener; false if there is none.
    pub(super) async fn cancel(&self, address: &str, port: u32) -> bool {
        let (reply, answer) = oneshot::channel();
        let Ok(port) = u16::try_from(port) else {
            return false;
        };
        if address.len() > LONGEST_NAME {
            return false;
        }
        let request = Request::CancelListen {
            address: address.to_owned(),
            port,
            reply: CancelReply(reply),
        };
        self.answered(request, answer).await.is_some()
    }

    /// The answer to a request. The connection waits for it, because replies must be in the
    /// order of their requests (RFC 4254, section 4). The answering side learns whether the
    /// answer was in time.
    async fn answered<T>(&self, request: Request, mut answer: oneshot::Receiver<T>) -> Option<T> {
        match self.requests.try_send(request) {
            Ok(()) => match timeout(LISTEN_TIMEOUT, &mut answer).await {
                Ok(answer) => answer.ok(),
                Err(_) => {
                    // An answer that was sent before this point was in time.
                    answer.close();
                    answer.try_recv().ok()
                }
            },
            Err(TrySendError::Full(_)) => {
                self.unqueued.count();
                None
            }
            Err(TrySendError::Closed(_)) => None,
        }
    }
}

/// The part of a client's text that is kept.
pub(super) fn kept(text: &str) -> &str {
    let end = text.char_indices().nth(KEPT_CHARACTERS);
    end.map_or(text, |(end, _)| &text[..end])
}

fn shortage() -> ChannelOpenFailure {
    described(ChannelOpenFailure::ResourceShortage, TOO_MANY)
}

fn prohibited(description: &str) -> ChannelOpenFailure {
    described(ChannelOpenFailure::AdministrativelyProhibited, description)
}

/// A failure with sshvpn's own description.
pub(super) fn described(failure: ChannelOpenFailure, description: &str) -> ChannelOpenFailure {
    ChannelOpenFailure::Other {
        code: failure.code(),
        reason: description.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::server::requests::Requests;
    use crate::types::Unit;

    fn payload(mode: u32, unit: u32) -> Vec<u8> {
        [mode.to_be_bytes(), unit.to_be_bytes()].concat()
    }

    #[test]
    fn requests_for_tunnels_are_what_they_say() {
        let tunnel = |mode, unit| Ok(TunnelPayload { mode, unit });
        let five = UnitRequest::Unit(Unit::new(5).unwrap());
        assert_eq!(
            TunnelPayload::parse(&payload(1, 5)),
            tunnel(Mode::PointToPoint, five)
        );
        assert_eq!(
            TunnelPayload::parse(&payload(2, 0x7fff_ffff)),
            tunnel(Mode::Ethernet, UnitRequest::Any)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_is_known_to_be() {
        let (asks, mut requests) = mpsc::channel(QUEUE);
        let asking = Asking::new(Arc::default(), Places::new(1), asks, Unqueued::default());
        assert_eq!(asking.listen("localhost", 8080).await, None);
        let Some(Request::Listen { reply, .. }) = requests.recv().await else {
            panic!("another request");
        };
        assert!(!reply.accept(8080));
        let (port, heard) = tokio::join!(asking.listen("localhost", 0), async {
            match requests.recv().await {
                Some(Request::Listen { reply, .. }) => reply.accept(4242),
                _ => false,
            }
        });
        assert_eq!((port, heard), (Some(4242), true));
    }

    #[tokio::test]
    async fn requests_without_room_in_the_queue_are_recorded_by_their_number() {
        let (asks, queue) = mpsc::channel(QUEUE);
        let unqueued = Unqueued::default();
        let mut requests = Requests::new(queue, unqueued.clone());
        let asking = Asking::new(Arc::default(), Places::new(1), asks, unqueued);
        for number in 0..QUEUE + 3 {
            asking.unserved(&format!("request {number}"));
        }
        let Some(Request::Unserved { what, why }) = requests.next().await else {
            panic!("another request");
        };
        // The half of the queue that stays free, and the three beyond it.
        assert_eq!(what, format!("{} requests", QUEUE / 2 + 3));
        assert_eq!(why, "too many requests wait");
        drop(asking);
        let mut recorded = 0;
        while requests.next().await.is_some() {
            recorded += 1;
        }
        assert_eq!(recorded, QUEUE / 2);
    }

    #[test]
    fn nonsense_is_told_from_tunnels() {
        for (mode, unit) in [
            (0, 0),
            (3, 0),
            (u32::MAX, 0),
            (1, 0x8000_0000),
            (1, u32::MAX),
        ] {
            assert!(TunnelPayload::parse(&payload(mode, unit)).is_err());
        }
        for length in (0..8).chain(9..20) {
            assert!(TunnelPayload::parse(&vec![1; length]).is_err(), "{length}");
        }
    }
}
