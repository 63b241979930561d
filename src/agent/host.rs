//! The agent's own host: what is told of it, and what is changed on it. A trait
//! stands between this and the dialogue, so that each is tested without the other.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::unistd::{Uid, User};

use super::error::AgentError;
use super::guard;
use super::limits::Limits;
use super::limits_file;
use super::set_up;
use crate::frame::control::{AgentFacts, Look, Ready, SetUp, Way};
use crate::host::change::Change;
use crate::host::change::sysctl;
use crate::host::journal::recovery::Recoverer;
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::journal::state::HostState;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::is_default_like;
use crate::host::plan::surroundings::Surroundings;
use crate::host::privilege::{require_net_admin, require_tun};
use crate::packet::guard::GuardRules;
use crate::process::cleanup;
use crate::process::confinement;
use crate::process::message::say;
use crate::tun::{Device, DeviceRequest};
use crate::types::address_set::AddressSet;

/// Networks in use that are told at most; they have to fit one message.
const MOST_NETWORKS: usize = 16_000;
/// Ways that are looked up for one question.
const MOST_WAYS: usize = 8192;

/// A host that an agent runs on.
pub(crate) trait Host {
    /// Whether a tunnel can be made here at all; what a dead one left is undone.
    fn prepare(&mut self) -> impl Future<Output = Result<(), AgentError>>;
    /// Answers a question about the host.
    fn look(&self, look: &Look) -> impl Future<Output = Result<AgentFacts, AgentError>>;
    /// Makes the device; yields it, and what else there is to change.
    fn open(&mut self, wish: &SetUp) -> impl Future<Output = Result<Opened, AgentError>>;
    /// Makes one change; yields what was done.
    fn apply(&mut self, change: Change) -> impl Future<Output = Result<String, AgentError>>;
    /// Gives up, for good, what neither the tunnel nor undoing takes.
    fn confine(&mut self) -> impl Future<Output = ()>;
    /// Undoes everything; yields what could not be undone, or was changed by
    /// somebody else since.
    fn undo(&mut self) -> impl Future<Output = Vec<String>>;
    /// The end, when the device is gone too.
    fn finish(&mut self) -> impl Future<Output = ()>;
}

/// A device that was made for a request.
pub(crate) struct Opened {
    pub device: Device,
    /// What the client is told of it once the changes are made.
    pub ready: Ready,
    /// What is still to be changed, in order.
    pub changes: Vec<Change>,
    /// What the client may send to it.
    pub guard: GuardRules,
}

/// This host.
pub(crate) struct ThisHost {
    /// By the command line; with the host's file after `prepare`.
    limits: Limits,
    /// Where the journals are, if not in the usual place.
    directory: Option<RuntimeDir>,
    state: Option<HostState>,
    /// Something was not undone while the device was there.
    unfinished: bool,
}

impl ThisHost {
    /// With the limits of the command line.
    pub(crate) fn new(limits: Limits) -> Self {
        ThisHost {
            limits,
            directory: None,
            state: None,
            unfinished: false,
        }
    }
}

impl Host for ThisHost {
    async fn prepare(&mut self) -> Result<(), AgentError> {
        let asked = std::mem::take(&mut self.limits);
        self.limits = limits_file::load()?.narrowed_by(asked)?;
        require_net_admin()?;
        require_tun()?;
        if let Err(failure) = cleanup::recover(false, Recoverer::Other).await {
            tracing::warn!(%failure, "what an earlier tunnel left is not undone");
        }
        Ok(())
    }

    async fn look(&self, look: &Look) -> Result<AgentFacts, AgentError> {
        let netlink = Netlink::open()?;
        let facts = netlink.facts().await?;
        let login = User::from_uid(Uid::effective()).ok().flatten();
        Ok(AgentFacts {
            login: login.map_or_else(|| Uid::effective().to_string(), |user| user.name),
            networks: told(&facts.networks_in_use()),
            ipv6: sysctl::has_ipv6(),
            ways: look_up(&netlink, &look.ways).await,
            permissions: self.limits.permissions(),
        })
    }

    async fn open(&mut self, wish: &SetUp) -> Result<Opened, AgentError> {
        set_up::check(wish, &self.limits)?;
        let around = Surroundings::look(&Netlink::open()?).await?;
        let device = match self.limits.allows_existing_device() {
            true => Device::open(&self.device_request(wish), wish.mode)?,
            false => Device::create(&self.device_request(wish), wish.mode)?,
        };
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => cleanup::open_runtime_dir()?,
        };
        self.state = Some(HostState::begin(&directory, device.name()).await?);
        let ready = Ready {
            device: device.name().clone(),
            mtu: wish.mtu,
        };
        let changes = set_up::changes(wish, &ready.device, &around, &self.limits)?;
        Ok(Opened {
            device,
            ready,
            changes,
            guard: guard::rules(wish, &self.limits),
        })
    }

    async fn apply(&mut self, change: Change) -> Result<String, AgentError> {
        let (what, needed) = (set_up::described(&change), set_up::is_needed(&change));
        let Some(state) = &mut self.state else {
            return Ok(what);
        };
        match state.apply(change).await {
            Ok(()) => Ok(what),
            Err(error) if needed => Err(error.into()),
            Err(error) => Ok(format!("no {what}: {error}")),
        }
    }

    async fn confine(&mut self) {
        let Some(state) = &self.state else {
            return;
        };
        if let Err(error) = confinement::keep_undoing(state, false).await {
            say(format_args!("sshvpn: agent: warning: {error}"));
        }
    }

    async fn undo(&mut self) -> Vec<String> {
        let Some(state) = self.state.take() else {
            return Vec::new();
        };
        let report = state.undo().await;
        self.unfinished = !report.failed.is_empty();
        let failed = report
            .failed
            .iter()
            .map(|(what, error)| format!("{what}: {error}"));
        report
            .left
            .into_iter()
            .chain(report.beyond)
            .chain(failed)
            .collect()
    }

    async fn finish(&mut self) {
        // With the device, what could not be undone on it has gone too; what is
        // still there is said.
        if self.unfinished
            && let Err(failure) = cleanup::recover(false, Recoverer::Other).await
        {
            tracing::warn!(%failure, "not everything is undone");
        }
        cleanup::remove_empty_runtime_dir();
    }
}

impl ThisHost {
    fn device_request(&self, wish: &SetUp) -> DeviceRequest {
        match &wish.device {
            Some(name) => DeviceRequest::Named(name.clone()),
            None => DeviceRequest::FirstFree(self.limits.device_prefix.clone().unwrap_or_default()),
        }
    }
}

/// The networks in use as few as possible; of too many, those that a tunnel's
/// addresses could be chosen in come first.
fn told(networks: &[IpNetwork]) -> Vec<IpNetwork> {
    let mut joined = AddressSet::of(networks).to_networks();
    if joined.iter().any(is_default_like) {
        // Nobody would take that for a network in use.
        joined = networks.to_vec();
    }
    if joined.len() > MOST_NETWORKS {
        joined.sort_by_key(|network| !is_private(network.ip()));
        joined.truncate(MOST_NETWORKS);
    }
    joined
}

/// RFC 1918, RFC 6598 and RFC 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

/// The ways of those addresses that have one.
async fn look_up(netlink: &Netlink, addresses: &[IpAddr]) -> BTreeMap<IpAddr, Way> {
    let mut ways = BTreeMap::new();
    for address in addresses.iter().take(MOST_WAYS) {
        let path = match netlink.route_to(*address).await {
            Ok(path) => path,
            Err(error) => {
                tracing::debug!(%error, "no way");
                continue;
            }
        };
        if let Ok(interface) = path.device_name.parse() {
            let local = path.local;
            ways.insert(*address, Way { interface, local });
        }
    }
    ways
}

#[cfg(test)]
mod tests;
