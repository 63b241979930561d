//! The server's changes on its host: firewall, forwarding and NAT for all clients, made
//! at the start, changed at a reload, undone at the end. The changes for each client are
//! in `client_device`.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::config::serve::settings::ServeSettings;
use crate::host::change::Change;
use crate::host::change::server_table::ServerTable;
use crate::host::change::shared_setting::SharedSetting;
use crate::host::error::NetError;
use crate::host::journal::JournalError;
use crate::host::journal::recovery::Recoverer;
use crate::host::journal::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::host::journal::state::{HostState, UndoReport};
use crate::host::netlink::Netlink;
use crate::host::plan::facts::HostFacts;
use crate::host::plan::surroundings::{Onward, Surroundings};
use crate::host::privilege::{PrivilegeError, require_net_admin, require_tun};
use crate::process::cleanup;
use crate::process::message::say;
use crate::server::address::pool::{Pool, Pools};
use crate::server::tunnel::client_device::{self, ClientDevices};
use crate::types::family::Family;
use crate::types::{InterfaceName, ParseError};

/// The name of a server's journal and firewall table; a second server on the host appends
/// its port.
const NAME: &str = "serve";
/// The link group of the first server, "sv" in its upper half; others add their port.
const GROUP: u32 = 0x7376_0000;

/// Why the host cannot be prepared for clients.
#[derive(Debug, Error)]
pub enum ServeHostError {
    /// This host cannot make tunnels.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The host's state cannot be changed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The directory of the journals cannot be used.
    #[error("the undo journal: {0}")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The settings need nft, which is missing.
    #[error(
        "there is no 'nft' program on this host, which {0} needs: install nftables, or configure no networks for clients"
    )]
    NoNft(&'static str),
    /// An invalid name.
    #[error(transparent)]
    Name(#[from] ParseError),
}

/// Checks that this host can make tunnels, and reads its network state; first undoes what
/// a dead process left.
pub async fn prepare() -> Result<HostFacts, ServeHostError> {
    require_net_admin()?;
    require_tun()?;
    if let Err(failure) = cleanup::recover(false, Recoverer::Server).await {
        tracing::warn!(%failure, "the changes of an earlier process are not undone");
    }
    Ok(Netlink::open()?.facts().await?)
}

/// Why [`ServeHost::start`] would fail with these settings; changes nothing.
pub(super) async fn check(
    netlink: &Netlink,
    settings: &ServeSettings,
    pools: &Pools,
) -> Vec<ServeHostError> {
    let mut found = Vec::new();
    if let Some(bridge) = &settings.network.bridge {
        let bridged = client_device::check_bridge(netlink, bridge).await;
        found.extend(bridged.err().map(ServeHostError::from));
    }
    match Surroundings::look(netlink).await {
        Ok(around) if around.nft => {}
        Ok(around) => found.extend(without_nft(&Wish::of(settings, pools, &around)).err()),
        Err(error) => found.push(error.into()),
    }
    found
}

/// The changes on the host for all clients of a server.
///
/// Dropping it undoes nothing; the next start or `sshvpn cleanup` does.
#[derive(Debug)]
#[must_use = "the changes stay until stop() is called"]
pub struct ServeHost {
    state: HostState,
    devices: Arc<ClientDevices>,
}

impl ServeHost {
    /// Prepares this host for clients: first the firewall, then forwarding. If a step fails,
    /// everything is undone.
    pub async fn start(
        directory: &RuntimeDir,
        settings: &ServeSettings,
        pools: &Pools,
    ) -> Result<Self, ServeHostError> {
        let (state, group) = begin(directory, settings)?;
        let devices = Arc::new(ClientDevices::new(directory.clone(), group)?);
        let mut host = Self { state, devices };
        match host.reload(settings, pools).await {
            Ok(()) => Ok(host),
            Err(error) => {
                cleanup::print_report(&host.stop().await, false);
                Err(error)
            }
        }
    }

    /// Opens the clients' devices.
    pub fn devices(&self) -> Arc<ClientDevices> {
        Arc::clone(&self.devices)
    }

    /// Applies the new settings to this host. Clients stay; the firewall table is replaced
    /// in one step.
    pub async fn reload(
        &mut self,
        settings: &ServeSettings,
        pools: &Pools,
    ) -> Result<(), ServeHostError> {
        let bridge = settings.network.bridge.clone();
        if let Some(bridge) = &bridge {
            client_device::check_bridge(self.state.netlink(), bridge).await?;
        }
        let around = Surroundings::look(self.state.netlink()).await?;
        let wish = Wish::of(settings, pools, &around);
        match around.nft {
            true => {
                let mut table = wish.table.clone();
                table.group = self.devices.group();
                self.state.apply(Change::ServerTable(table)).await?;
                for family in wish.drops {
                    self.state.apply(Change::ForwardPassed(family)).await?;
                }
            }
            false => without_nft(&wish)?,
        }
        self.state.share_exactly(&wish.shared)?;
        self.devices.set_bridge(bridge);
        Ok(())
    }

    /// Undoes everything. Live tunnels then lose their routes beyond this host.
    pub async fn stop(self) -> UndoReport {
        self.state.undo().await
    }
}

/// Opens the journal under the first free name, with the link group that belongs to it.
fn begin(
    directory: &RuntimeDir,
    settings: &ServeSettings,
) -> Result<(HostState, u32), ServeHostError> {
    let name: InterfaceName = NAME.parse()?;
    match HostState::begin_without_device(directory, &name) {
        Err(NetError::Journal(JournalError::Busy { .. })) => {}
        other => return Ok((other?, GROUP)),
    }
    let port = settings.listen.first().map_or(0, |address| address.port());
    let name: InterfaceName = format!("{NAME}_{port}").parse()?;
    let state = HostState::begin_without_device(directory, &name)?;
    Ok((state, GROUP + u32::from(port)))
}

/// The host changes that the settings require.
#[derive(Debug)]
struct Wish {
    table: ServerTable,
    shared: Vec<SharedSetting>,
    /// Families whose forward chain needs an accept rule.
    drops: Vec<Family>,
}

impl Wish {
    fn of(settings: &ServeSettings, pools: &Pools, around: &Surroundings) -> Self {
        let network = &settings.network;
        let rules = &settings.clients;
        let of_rules = rules.iter().filter_map(|rule| rule.routes.as_ref());
        let onward: Vec<IpNetwork> = network
            .routes
            .iter()
            .chain(of_rules.flatten())
            .copied()
            .collect();
        let sources = rules.iter().flat_map(|rule| &rule.sources);
        let fixed = rules.iter().flat_map(|rule| &rule.addresses);
        let mut masquerade = Vec::new();
        if network.nat {
            masquerade.extend(pools.iter().map(Pool::network));
            masquerade.extend(fixed.copied().map(IpNetwork::from));
            masquerade.extend(sources.clone());
        }
        let ways = Onward::to(&around.facts, &onward);
        // Packets from one client to another are forwarded too.
        let among_clients = |family| {
            let groups = rules.iter().any(|rule| !rule.groups.is_empty());
            (groups && pools.of(family).is_some())
                || sources
                    .clone()
                    .any(|source| Family::of(source.ip()) == family)
        };
        let mut shared = ways.to_forward_ipv4();
        if ways.has(Family::V6) || among_clients(Family::V6) {
            shared.extend(around.to_forward_ipv6(None));
        }
        let drops = around.drops.iter().copied();
        let drops: Vec<Family> = drops
            .filter(|family| ways.has(*family) || among_clients(*family))
            .collect();
        let table = ServerTable {
            group: 0,
            onward,
            masquerade,
            inbound: network.inbound,
            mark_passed: !drops.is_empty(),
        };
        Self {
            table,
            shared,
            drops,
        }
    }
}

/// Checks what works without nft: the server itself checks what clients send, but not what
/// is sent to them.
fn without_nft(wish: &Wish) -> Result<(), ServeHostError> {
    let table = &wish.table;
    if table.onward.is_empty() {
        if table.inbound {
            return Ok(());
        }
        if !wish.shared.is_empty() {
            return Err(ServeHostError::NoNft("blocking connections to clients"));
        }
        say(
            "warning: there is no 'nft' program on this host: if the host forwards, others can open connections to clients",
        );
        return Ok(());
    }
    if !table.masquerade.is_empty() {
        return Err(ServeHostError::NoNft("NAT (or do without, by --no-nat)"));
    }
    if !table.inbound {
        return Err(ServeHostError::NoNft("blocking connections to clients"));
    }
    say(
        "warning: there is no 'nft' program on this host: the TCP segment size is not limited to the tunnels' MTU",
    );
    Ok(())
}

#[cfg(test)]
mod tests;
