//! What a logged-in client may do, and what it holds. A reload judges its login again: a
//! client that would not be let in any more, or would not be given what it holds, is
//! disconnected. Later requests are judged by the latest rules.
//!
//! ```text
//!   reload ─► judge_again ─┬► the new grant applies from now on
//!                          └► Withdrawal ─► dismiss ─► its tunnel, its connection
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::access_rules::Reachability;
use super::revocation::{PlaceHeld, Revocation, TunnelHeld, check_place, check_tunnel};
use crate::server::forward::listen::Named;
use crate::server::login::grant::{Grant, TunnelGrant};
use crate::server::login::policy::Policy;
use crate::server::report::registry::ConnectionId;
use crate::server::report::registry::forwards::ForwardKind;
use crate::ssh::server::login::credential::{Attempt, Credential};

/// Why a client is disconnected. `Display` gives the text that the client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Dismissal {
    /// The server stops, for this reason.
    ServerStopping(String),
    /// A reload revoked the client's login or something that it holds.
    AccessWithdrawn,
}

impl fmt::Display for Dismissal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dismissal::ServerStopping(why) => why,
            Dismissal::AccessWithdrawn => "access was withdrawn",
        })
    }
}

/// How a client logged in.
pub(in crate::server) struct Entry {
    /// The user name that the client gave.
    pub user: String,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// The verified credential.
    pub credential: Credential,
    /// For a security key: whether the user touched it.
    pub touched: bool,
}

/// A client's grant and what the client holds by it; shared by the client's tasks.
pub(in crate::server) struct Entitlement {
    id: ConnectionId,
    entry: Entry,
    reach: Arc<Reachability>,
    state: Mutex<State>,
    dismissal: watch::Sender<Option<Dismissal>>,
}

struct State {
    grant: Arc<Grant>,
    tunnel: Option<TunnelHeld>,
    places: BTreeMap<u64, PlaceHeld>,
    /// The number of the next held place.
    next: u64,
}

/// Something that the client holds until this is dropped.
#[must_use = "what is held is let go when this is dropped"]
pub(in crate::server) struct Held {
    /// The grant that permitted it.
    pub grant: Arc<Grant>,
    entitlement: Arc<Entitlement>,
    /// The number of the place; `None` for a tunnel.
    place: Option<u64>,
}

impl Entitlement {
    /// The entitlement of a client that has just logged in with this grant.
    pub(in crate::server) fn new(
        id: ConnectionId,
        entry: Entry,
        grant: Arc<Grant>,
        reach: Arc<Reachability>,
    ) -> Arc<Self> {
        Arc::new(Entitlement {
            id,
            entry,
            reach,
            state: Mutex::new(State {
                grant,
                tunnel: None,
                places: BTreeMap::new(),
                next: 0,
            }),
            dismissal: watch::Sender::new(None),
        })
    }

    /// The current grant.
    pub(in crate::server) fn grant(&self) -> Arc<Grant> {
        Arc::clone(&self.lock().grant)
    }

    /// Judges the client by new rules. If they let it keep all that it holds, their grant
    /// applies from now on, also to what its tunnel may reach.
    pub(in crate::server) fn judge_again(
        &self,
        policy: &Policy,
        now: SystemTime,
    ) -> Result<(), Revocation> {
        let grant = policy.judge(&Attempt {
            user: &self.entry.user,
            peer: self.entry.peer,
            credential: &self.entry.credential,
            touched: self.entry.touched,
            now,
        })?;
        let mut state = self.lock();
        for place in state.places.values() {
            check_place(place, &state.grant, &grant)?;
        }
        if let Some(held) = &state.tunnel {
            self.let_reach(check_tunnel(held, &grant, policy)?);
        }
        state.grant = Arc::new(grant);
        Ok(())
    }

    /// Registers a tunnel that was set up under an earlier grant, and applies the latest
    /// grant to it before a packet flows.
    pub(in crate::server) fn hold_tunnel(
        self: &Arc<Self>,
        tunnel: TunnelHeld,
        policy: &Policy,
    ) -> Result<Held, Revocation> {
        let mut state = self.lock();
        if self.dismissal.borrow().is_some() {
            return Err(Revocation::Dismissed);
        }
        self.let_reach(check_tunnel(&tunnel, &state.grant, policy)?);
        state.tunnel = Some(tunnel);
        Ok(self.held(&state.grant, None))
    }

    /// Registers a connection to this place, if the grant permits it.
    pub(in crate::server) fn hold_open(self: &Arc<Self>, host: &str, port: u16) -> Option<Held> {
        self.hold(ForwardKind::Open, host, port)
    }

    /// Registers a listener at this place, as the client names it, if the grant permits it.
    pub(in crate::server) fn hold_listener(
        self: &Arc<Self>,
        host: &str,
        port: u16,
    ) -> Option<Held> {
        self.hold(ForwardKind::Listen, host, port)
    }

    fn hold(self: &Arc<Self>, kind: ForwardKind, host: &str, port: u16) -> Option<Held> {
        let mut state = self.lock();
        let at = match kind {
            ForwardKind::Open => Vec::new(),
            ForwardKind::Listen => Named::of(host).places(&state.grant.listen, port),
        };
        let place = PlaceHeld {
            kind,
            host: host.to_owned(),
            port,
            at,
        };
        if !place.is_permitted(&state.grant) {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.places.insert(number, place);
        Some(self.held(&state.grant, Some(number)))
    }

    fn held(self: &Arc<Self>, grant: &Arc<Grant>, place: Option<u64>) -> Held {
        Held {
            grant: Arc::clone(grant),
            entitlement: Arc::clone(self),
            place,
        }
    }

    fn let_reach(&self, tunnel: &TunnelGrant) {
        self.reach
            .change(self.id, tunnel.routes.clone(), tunnel.groups.clone());
    }

    /// Tells all tasks of the client to disconnect it. If its access is revoked, its packets
    /// reach only this host until then.
    pub(in crate::server) fn dismiss(&self, why: &Dismissal) {
        self.dismissal.send_replace(Some(why.clone()));
        if *why == Dismissal::AccessWithdrawn {
            // Waits for a tunnel that is being made; that one sees the dismissal next.
            let _state = self.lock();
            self.reach
                .change(self.id, Default::default(), Default::default());
        }
    }

    /// Waits until the client must be disconnected; returns the reason.
    pub(in crate::server) async fn dismissed(&self) -> Dismissal {
        let mut watched = self.dismissal.subscribe();
        loop {
            if let Some(why) = watched.borrow_and_update().clone() {
                return why;
            }
            if watched.changed().await.is_err() {
                // `self` holds the sender, so this does not happen.
                std::future::pending::<()>().await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.entitlement.lock();
        match self.place {
            Some(number) => drop(state.places.remove(&number)),
            None => state.tunnel = None,
        }
    }
}

#[cfg(test)]
mod tests;
