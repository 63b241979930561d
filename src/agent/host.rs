//! The agent's host: reports its facts and changes it. The trait [`Host`] separates this from the
//! dialogue, so that each can be tested alone.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::unistd::{Uid, User};

use super::error::AgentError;
use super::guard;
use super::limits::Limits;
use super::limits_file;
use super::set_up;
use crate::config::invoker::elevation;
use crate::frame::control::{AgentFacts, Look, Ready, SetUp, Way};
use crate::host::address_claim::{self, AddressClaim, Side};
use crate::host::change::Change;
use crate::host::change::sysctl;
use crate::host::error::NetError;
use crate::host::journal::recovery::Recoverer;
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::journal::state::HostState;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::is_default_like;
use crate::host::plan::offered;
use crate::host::plan::surroundings::Surroundings;
use crate::host::privilege::{require_net_admin, require_tun};
use crate::packet::guard::GuardRules;
use crate::process::cleanup;
use crate::process::confinement;
use crate::process::message::say;
use crate::tun::{Device, DeviceRequest};
use crate::types::address_set::AddressSet;
use crate::types::family::Family;

/// Networks in use that are reported, at most; they have to fit into one message.
const MOST_NETWORKS: usize = 16_000;
/// Networks that are listed for `--route auto`, at most: a client takes fewer.
const MOST_ROUTED: usize = 4096;
/// Routes that are looked up for one request, at most.
const MOST_WAYS: usize = 8192;

/// The host that an agent runs on.
pub(crate) trait Host {
    /// Checks that a tunnel can be made, and undoes what killed processes left.
    fn prepare(&mut self) -> impl Future<Output = Result<(), AgentError>>;
    /// Reports the host's facts.
    fn look(&self, look: &Look) -> impl Future<Output = Result<AgentFacts, AgentError>>;
    /// Claims the client's addresses, in place of earlier claims; returns those that another tunnel
    /// has, in which case none is claimed.
    fn claim(&mut self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, AgentError>;
    /// Makes the device; returns it and the further changes.
    fn open(&mut self, wish: &SetUp) -> impl Future<Output = Result<Opened, AgentError>>;
    /// Makes one change; returns its description.
    fn apply(&mut self, change: Change) -> impl Future<Output = Result<String, AgentError>>;
    /// Drops, for good, the rights that neither the tunnel nor its undoing needs.
    fn confine(&mut self) -> impl Future<Output = ()>;
    /// Undoes everything; returns what could not be undone, or was changed by another program
    /// since.
    fn undo(&mut self) -> impl Future<Output = Vec<String>>;
    /// Cleans up after the device is closed.
    fn finish(&mut self) -> impl Future<Output = ()>;
}

/// The device made for a request.
pub(crate) struct Opened {
    pub device: Device,
    /// The message to the client once the changes are made.
    pub ready: Ready,
    /// The further changes, in order.
    pub changes: Vec<Change>,
    /// What keeps packets from passing, for the client's user.
    pub warnings: Vec<String>,
    /// The guard's rules for the client's packets.
    pub guard: GuardRules,
}

/// This host.
pub(crate) struct ThisHost {
    /// The command line's limits; after `prepare`, narrowed by the host's file.
    limits: Limits,
    /// The directory of the journals, if not the default.
    directory: Option<RuntimeDir>,
    claims: Vec<AddressClaim>,
    state: Option<HostState>,
    /// Whether a change could not be undone while the device existed.
    unfinished: bool,
}

impl ThisHost {
    /// `limits` are those of the command line.
    pub(crate) fn new(limits: Limits) -> Self {
        ThisHost {
            limits,
            directory: None,
            claims: Vec::new(),
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
            tracing::warn!(%failure, "the changes that an earlier tunnel left are not undone");
        }
        Ok(())
    }

    async fn look(&self, look: &Look) -> Result<AgentFacts, AgentError> {
        let netlink = Netlink::open()?;
        let mut facts = netlink.facts().await?;
        facts.claimed = address_claim::claimed();
        let login = User::from_uid(Uid::effective()).ok().flatten();
        Ok(AgentFacts {
            login: login.map_or_else(|| Uid::effective().to_string(), |user| user.name),
            networks: told(&facts.networks_in_use()),
            ipv6: sysctl::has_ipv6(),
            ways: look_up(&netlink, &look.ways).await,
            permissions: self.limits.permissions(),
            routed: look.routed.then(|| {
                let mut routed = offered::networks(&facts);
                routed.truncate(MOST_ROUTED);
                routed
            }),
        })
    }

    fn claim(&mut self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, AgentError> {
        let mut families = BTreeSet::new();
        let mut addresses_of_families = addresses.iter().map(|it| Family::of(*it));
        if !addresses_of_families.all(|family| families.insert(family)) {
            let text = "a claim on two addresses of one family".to_owned();
            return Err(AgentError::Nonsense(text));
        }
        self.claims.clear();
        let mut taken = Vec::new();
        for address in addresses {
            match AddressClaim::take(*address, Side::Remote) {
                Ok(Some(claim)) => self.claims.push(claim),
                Ok(None) => taken.push(*address),
                // Without it, only tunnels that start together can collide.
                Err(error) => tracing::debug!(%error, %address, "the address cannot be claimed"),
            }
        }
        if !taken.is_empty() {
            self.claims.clear();
        }
        Ok(taken)
    }

    async fn open(&mut self, wish: &SetUp) -> Result<Opened, AgentError> {
        set_up::check(wish, &self.limits)?;
        // Programs that it starts have no capabilities, so nft and iptables would seem unusable.
        if wish.forward.is_some() && elevation::by_file_capabilities() {
            return Err(NetError::Borrowed.into());
        }
        self.claim_those_of(wish)?;
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
        let warnings = set_up::warnings(wish, &ready.device, &around);
        let changes = set_up::changes(wish, &ready.device, &around, &self.limits)?;
        Ok(Opened {
            device,
            ready,
            changes,
            warnings,
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
        // The device is gone, and with it any change on it that could not be undone.
        // Recovery logs what is left.
        if self.unfinished
            && let Err(failure) = cleanup::recover(false, Recoverer::Other).await
        {
            tracing::warn!(%failure, "not everything is undone");
        }
        cleanup::remove_empty_runtime_dir();
    }
}

impl ThisHost {
    /// Claims the client's addresses unless it has done so itself, as older clients do not.
    fn claim_those_of(&mut self, wish: &SetUp) -> Result<(), AgentError> {
        let clients: Vec<IpAddr> = wish.addresses.iter().map(|pair| pair.client).collect();
        let mut claims = self.claims.iter();
        if clients.len() == self.claims.len() && claims.all(|it| clients.contains(&it.address())) {
            return Ok(());
        }
        match self.claim(&clients)?.first() {
            Some(taken) => Err(AgentError::AddressTaken(*taken)),
            None => Ok(()),
        }
    }

    fn device_request(&self, wish: &SetUp) -> DeviceRequest {
        match &wish.device {
            Some(name) => DeviceRequest::Named(name.clone()),
            None => DeviceRequest::FirstFree(self.limits.device_prefix.clone().unwrap_or_default()),
        }
    }
}

/// Merges the networks in use. If there are too many, keeps private ones first, since a tunnel's
/// addresses are chosen from those.
fn told(networks: &[IpNetwork]) -> Vec<IpNetwork> {
    let mut joined = AddressSet::of(networks).to_networks();
    if joined.iter().any(is_default_like) {
        // A default route would not be taken for a network in use.
        joined = networks.to_vec();
    }
    if joined.len() > MOST_NETWORKS {
        joined.sort_by_key(|network| !is_private(network.ip()));
        joined.truncate(MOST_NETWORKS);
    }
    joined
}

/// Whether the address is private by RFC 1918, RFC 6598 or RFC 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

/// The routes of those addresses that have one.
async fn look_up(netlink: &Netlink, addresses: &[IpAddr]) -> BTreeMap<IpAddr, Way> {
    let mut ways = BTreeMap::new();
    for address in addresses.iter().take(MOST_WAYS) {
        let path = match netlink.route_to(*address).await {
            Ok(path) => path,
            Err(error) => {
                tracing::debug!(%error, "no route");
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
