//! Applies the guard's rules to the packets of a running tunnel, in any role. A server
//! replaces the rules while packets flow; a client and an agent keep one set.
//!
//! On a link that the peer shares with others, its MAC and link-local addresses are
//! granted one by one, as its frames need them. Frames that come before the grant are
//! dropped. Only the first of all waits for its grant, since it usually starts a
//! conversation; so a peer that is granted nothing is delayed once.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::frame::stream::StreamError;
use crate::packet::guard::link::{LinkAddress, LinkAddresses, Sender};
use crate::packet::guard::{GuardRules, Refused};
use crate::process::token_bucket::Allowance;
use crate::pump::framing::deframer::Content;
use crate::pump::{Deframer, Dropped, Filtered};
use crate::types::Mode;

/// Time between two log lines about refused packets.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of a refused packet that its log line shows.
const LOG_BYTES: usize = 64;
/// How long a frame waits for the grant of its station.
const PATIENCE: Duration = Duration::from_secs(1);

/// The guard of one tunnel.
#[derive(Debug)]
pub struct Guard {
    replaced: watch::Receiver<Arc<GuardRules>>,
    rules: Arc<GuardRules>,
    /// The link addresses of the peer.
    sender: Sender,
    claims: Option<LinkClaims>,
    /// Whether a frame has waited for its station.
    waited: bool,
    /// Lines about refused packets that may be written.
    log: Allowance,
}

/// Writes a line about a refused packet, where `lines` has one left; `silent` is
/// how many were refused since the last line.
#[cold]
fn note(lines: &mut Allowance, reason: Refused, head: &[u8]) {
    if let Some(silent) = lines.take(Instant::now()) {
        let head = head.get(..LOG_BYTES).unwrap_or(head);
        tracing::debug!(%reason, head = format_args!("{head:02x?}"), silent, "packet refused");
    }
}

/// The connection to the task that grants addresses of a shared link.
#[derive(Debug)]
pub struct LinkClaims {
    /// Takes requests; a later frame repeats a request for which the queue has no room.
    pub wanted: mpsc::Sender<LinkAddress>,
    /// The granted addresses. Each answer marks it as changed, also a refusal.
    pub held: watch::Receiver<Arc<LinkAddresses>>,
}

impl Guard {
    /// A guard with the latest of `rules`; the last ones stay when the sender is gone.
    pub fn new(mut rules: watch::Receiver<Arc<GuardRules>>) -> Self {
        let current = Arc::clone(&rules.borrow_and_update());
        Guard {
            replaced: rules,
            rules: current,
            sender: Sender::default(),
            claims: None,
            waited: false,
            log: Allowance::new(1, LOG_INTERVAL),
        }
    }

    /// A guard with constant rules.
    pub fn fixed(rules: GuardRules) -> Self {
        Guard::new(watch::channel(Arc::new(rules)).1)
    }

    /// This guard, for a peer that shares its link with others and uses the addresses
    /// that `claims` grants.
    pub fn on_shared_link(self, mut claims: LinkClaims) -> Self {
        let held = Arc::clone(&claims.held.borrow_and_update());
        Guard {
            sender: Sender::Shared { held, wanted: None },
            claims: Some(claims),
            ..self
        }
    }

    /// Checks a packet that begins with `head`, which holds all headers.
    async fn check(&mut self, mode: Mode, head: &[u8]) -> Result<(), Dropped> {
        let mut judged = self.check_now(mode, head);
        if judged.is_err() && self.asks() {
            self.answer().await;
            judged = self.check_now(mode, head);
        }
        judged.map_err(|reason| {
            note(&mut self.log, reason, head);
            reason.into()
        })
    }

    fn check_now(&mut self, mode: Mode, head: &[u8]) -> Result<(), Refused> {
        // Atomic loads; takes the locks only for a change.
        if self.replaced.has_changed().unwrap_or(false) {
            self.rules = Arc::clone(&self.replaced.borrow_and_update());
        }
        if let (Some(claims), Sender::Shared { held, .. }) = (&mut self.claims, &mut self.sender)
            && claims.held.has_changed().unwrap_or(false)
        {
            *held = Arc::clone(&claims.held.borrow_and_update());
        }
        self.rules.check(mode, &mut self.sender, head)
    }

    /// Requests the address that the last frame lacked; yields whether that frame waits
    /// for the answer.
    fn asks(&mut self) -> bool {
        let (Some(claims), Some(wanted)) = (&self.claims, self.sender.wanted()) else {
            return false;
        };
        let asked = claims.wanted.try_send(wanted).is_ok();
        asked && !mem::replace(&mut self.waited, true)
    }

    async fn answer(&mut self) {
        if let Some(claims) = &mut self.claims {
            let mut answered = claims.held.clone();
            // Without an answer the frame is checked again with the old grants.
            let _ = timeout(PATIENCE, answered.changed()).await;
        }
    }
}

impl Filtered<'_, Option<Guard>, Deframer> {
    /// The content of the next frame that the guard lets pass; `None` until more is
    /// pushed.
    pub(in crate::pump) async fn next(
        &mut self,
        mode: Mode,
    ) -> Result<Option<Content>, StreamError> {
        while let Some(content) = self.source.next(mode)? {
            if let (Content::Packet(packet), Some(guard)) = (&content, &mut self.filter)
                && let Err(reason) = guard.check(mode, packet.head()).await
            {
                self.counters.dropped_many(reason, packet.packets());
                continue;
            }
            return Ok(Some(content));
        }
        Ok(None)
    }
}
