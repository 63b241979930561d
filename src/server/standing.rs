//! What a client that is logged in may do, and what it holds by that. A reload
//! judges its login again: who would not be let in any more, or would not be
//! given what it holds, has to go. What is asked for later is judged by the
//! latest rules.
//!
//! ```text
//!   reload ─► judge_again ─┬► its grant is another from now on
//!                          └► Withdrawal ─► dismiss ─► its tunnel, its connection
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use thiserror::Error;
use tokio::sync::watch;

use super::denial::Denial;
use super::grant::{Grant, TunnelGrant};
use super::policy::Policy;
use super::reach::Reachability;
use super::registry::ConnectionId;
use super::registry::forwards::ForwardKind;
use crate::config::types::{InterfaceName, Mode};
use crate::net::address_range::Family;
use crate::ssh::server::credential::{Attempt, Credential};

/// Why a client has to go. Shown, it is what the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dismissal {
    /// The server ends, for this reason.
    ServerStopping(String),
    /// It would not be let in any more, or holds what it would not be given.
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

/// Why access is withdrawn. This is for the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Withdrawal {
    /// The login would be denied.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// No tunnels, or not of this kind.
    #[error("{0} is not granted any more")]
    Tunnel(InterfaceName),
    /// Another unit than it has.
    #[error("another unit than that of {0} is granted")]
    Unit(InterfaceName),
    /// It has an address that is not its own, or is another client's.
    #[error("the address {0} is not granted any more")]
    Address(IpAddr),
    /// A network behind it is not.
    #[error("the network {0} behind it is not granted any more")]
    Source(IpNetwork),
    /// It has a TCP forward that it may not have.
    #[error("the forward {host}:{port} is not permitted any more")]
    Forward {
        /// As the client named it.
        host: String,
        /// As the client named it.
        port: u16,
    },
    /// It is on its way out.
    #[error("it has to go already")]
    Dismissed,
}

/// The way by which somebody came in.
pub(super) struct Entry {
    /// The user name that was given.
    pub user: String,
    /// From where.
    pub peer: SocketAddr,
    /// What was shown and verified.
    pub credential: Credential,
    /// Whether it was touched, where it is a security key.
    pub touched: bool,
}

/// A client's grant, and what it holds. Its tasks share it.
pub(super) struct Standing {
    id: ConnectionId,
    entry: Entry,
    reach: Arc<Reachability>,
    state: Mutex<State>,
    dismissal: watch::Sender<Option<Dismissal>>,
}

struct State {
    grant: Arc<Grant>,
    tunnel: Option<TunnelHeld>,
    places: BTreeMap<u64, Place>,
    /// The number of the next place.
    next: u64,
}

/// A tunnel that a client holds.
#[derive(Debug, Clone)]
pub(super) struct TunnelHeld {
    /// This host's device.
    pub device: InterfaceName,
    /// What it carries.
    pub mode: Mode,
    /// The client's addresses.
    pub addresses: Vec<IpAddr>,
    /// By what it has them, and what it may reach.
    pub grant: TunnelGrant,
}

/// Where a forward leads, or listens.
struct Place {
    kind: ForwardKind,
    host: String,
    port: u16,
}

/// Held until this is dropped.
#[must_use = "what is held is let go when this is dropped"]
pub(super) struct Held {
    /// By which it is held.
    pub grant: Arc<Grant>,
    standing: Arc<Standing>,
    /// A tunnel where there is none.
    place: Option<u64>,
}

impl Standing {
    /// Of a client that has just come in, with this grant.
    pub(super) fn new(
        id: ConnectionId,
        entry: Entry,
        grant: Arc<Grant>,
        reach: Arc<Reachability>,
    ) -> Arc<Self> {
        Arc::new(Standing {
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

    /// What it may do now.
    pub(super) fn grant(&self) -> Arc<Grant> {
        Arc::clone(&self.lock().grant)
    }

    /// Holds the client to other rules than it came in by. Where they let it keep
    /// what it has, they are its grant from now on, and its tunnel reaches what
    /// they say.
    pub(super) fn judge_again(&self, policy: &Policy, now: SystemTime) -> Result<(), Withdrawal> {
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

    /// A tunnel that is set up, and reaches what the grant of its beginning says:
    /// it is held to the latest one, before a packet flows.
    pub(super) fn hold_tunnel(
        self: &Arc<Self>,
        tunnel: TunnelHeld,
        policy: &Policy,
    ) -> Result<Held, Withdrawal> {
        let mut state = self.lock();
        if self.dismissal.borrow().is_some() {
            return Err(Withdrawal::Dismissed);
        }
        self.let_reach(check_tunnel(&tunnel, &state.grant, policy)?);
        state.tunnel = Some(tunnel);
        Ok(self.held(&state.grant, None))
    }

    /// A connection to this place, where it is permitted.
    pub(super) fn hold_open(self: &Arc<Self>, host: &str, port: u16) -> Option<Held> {
        self.hold(ForwardKind::Open, host, port)
    }

    /// A listener at this place, as the client names it, where it is permitted.
    pub(super) fn hold_listener(self: &Arc<Self>, host: &str, port: u16) -> Option<Held> {
        self.hold(ForwardKind::Listen, host, port)
    }

    fn hold(self: &Arc<Self>, kind: ForwardKind, host: &str, port: u16) -> Option<Held> {
        let place = Place {
            kind,
            host: host.to_owned(),
            port,
        };
        let mut state = self.lock();
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
            standing: Arc::clone(self),
            place,
        }
    }

    fn let_reach(&self, tunnel: &TunnelGrant) {
        self.reach
            .change(self.id, tunnel.routes.clone(), tunnel.groups.clone());
    }

    /// Tells all tasks of the client that it has to go. Without access, its
    /// packets go nowhere but to this host until then.
    pub(super) fn dismiss(&self, why: &Dismissal) {
        self.dismissal.send_replace(Some(why.clone()));
        if *why == Dismissal::AccessWithdrawn {
            // Behind a tunnel that is being made, which sees the dismissal next.
            let _state = self.lock();
            self.reach
                .change(self.id, Default::default(), Default::default());
        }
    }

    /// Waits until it has to go; yields why.
    pub(super) async fn dismissed(&self) -> Dismissal {
        let mut watched = self.dismissal.subscribe();
        loop {
            if let Some(why) = watched.borrow_and_update().clone() {
                return why;
            }
            if watched.changed().await.is_err() {
                // Its sender is here, so it does not go.
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
        let mut state = self.standing.lock();
        match self.place {
            Some(number) => drop(state.places.remove(&number)),
            None => state.tunnel = None,
        }
    }
}

impl Place {
    fn is_permitted(&self, grant: &Grant) -> bool {
        match self.kind {
            ForwardKind::Open => grant.open.permits(&self.host, self.port),
            ForwardKind::Listen => grant.listen.permits_listener(&self.host, self.port),
        }
    }
}

/// What `grant` says of a tunnel, if it gives all that is held.
fn check_tunnel<'a>(
    held: &TunnelHeld,
    grant: &'a Grant,
    policy: &Policy,
) -> Result<&'a TunnelGrant, Withdrawal> {
    let granted = grant.tunnel.as_ref();
    let granted = granted
        .filter(|granted| granted.modes.contains(&held.mode))
        .ok_or_else(|| Withdrawal::Tunnel(held.device.clone()))?;
    let name = |unit: u32| format!("{}{unit}", held.mode.prefix());
    if granted
        .unit
        .is_some_and(|unit| held.device.as_str() != name(unit.get()))
    {
        return Err(Withdrawal::Unit(held.device.clone()));
    }
    let mut addresses = held.addresses.iter();
    if let Some(lost) = addresses.find(|address| !keeps(held, granted, policy, **address)) {
        return Err(Withdrawal::Address(*lost));
    }
    let is_granted = |source: &IpNetwork| {
        granted
            .sources
            .iter()
            .any(|wider| wider.prefix() <= source.prefix() && wider.contains(source.network()))
    };
    let mut sources = held.grant.sources.iter();
    match sources.find(|source| !is_granted(source)) {
        Some(lost) => Err(Withdrawal::Source(*lost)),
        None => Ok(granted),
    }
}

/// Whether a client keeps an address: one of its own, or one of the pool, where
/// neither it nor another client has come to be given one of its own instead.
fn keeps(held: &TunnelHeld, granted: &TunnelGrant, policy: &Policy, address: IpAddr) -> bool {
    let own = |grant: &TunnelGrant| {
        let mut own = grant.addresses.iter().copied();
        own.find(|own| Family::of(*own) == Family::of(address))
    };
    granted.addresses.contains(&address)
        || (own(granted) == own(&held.grant) && !policy.is_fixed(address))
}

/// A connection that was permitted by one of many places may lead to a client
/// of a group.
fn check_place(place: &Place, before: &Grant, now: &Grant) -> Result<(), Withdrawal> {
    let groups = |grant: &Grant| {
        let tunnel = grant.tunnel.as_ref();
        tunnel
            .map(|tunnel| tunnel.groups.clone())
            .unwrap_or_default()
    };
    let is_named = place.kind == ForwardKind::Open && now.open.names(&place.host, place.port);
    let in_groups = match place.kind {
        ForwardKind::Open => is_named || groups(before).is_subset(&groups(now)),
        ForwardKind::Listen => true,
    };
    match in_groups && place.is_permitted(now) {
        true => Ok(()),
        false => Err(Withdrawal::Forward {
            host: place.host.clone(),
            port: place.port,
        }),
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
