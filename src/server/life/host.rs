//! The server's part in its host: the firewall, forwarding and NAT for all
//! clients, made once at the start, changed at a reload, undone at the end.
//! What each client has of its own is in `client_device`.

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
use crate::server::tunnel::client_device::ClientDevices;
use crate::types::family::Family;
use crate::types::{InterfaceName, ParseError};

/// The name of a server's journal and firewall table; of a second server on one
/// host its port comes behind it.
const NAME: &str = "serve";
/// The group of the first server's links, "sv" in its upper half; of others
/// their port is added.
const GROUP: u32 = 0x7376_0000;

/// Why the host is not ready for clients.
#[derive(Debug, Error)]
pub enum ServeHostError {
    /// No tunnels can be made here.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The host's state.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The place of the journals.
    #[error("the undo journal: {0}")]
    RuntimeDir(#[from] RuntimeDirError),
    /// nft is needed.
    #[error(
        "there is no 'nft' program on this host, which {0} needs: install nftables, or name no networks for clients"
    )]
    NoNft(&'static str),
    /// A name that cannot be.
    #[error(transparent)]
    Name(#[from] ParseError),
}

/// Whether tunnels can be made here, and what the network is like; what a dead
/// process left is undone before.
pub async fn prepare() -> Result<HostFacts, ServeHostError> {
    require_net_admin()?;
    require_tun()?;
    if let Err(failure) = cleanup::recover(false, Recoverer::Server).await {
        tracing::warn!(%failure, "what an earlier process left is not undone");
    }
    Ok(Netlink::open()?.facts().await?)
}

/// What a server has changed on its host for all its clients.
///
/// Dropping it undoes nothing; the next start or `sshvpn cleanup` does.
#[derive(Debug)]
#[must_use = "the changes stay until stop() is called"]
pub struct ServeHost {
    state: HostState,
    devices: Arc<ClientDevices>,
}

impl ServeHost {
    /// Makes this host ready for clients: its firewall first, then forwarding.
    /// Where something fails, all is undone.
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

    /// Where clients get their devices.
    pub fn devices(&self) -> Arc<ClientDevices> {
        Arc::clone(&self.devices)
    }

    /// Makes this host as the settings want it now. Clients stay; the firewall
    /// table is replaced in one step.
    pub async fn reload(
        &mut self,
        settings: &ServeSettings,
        pools: &Pools,
    ) -> Result<(), ServeHostError> {
        let bridge = settings.network.bridge.clone();
        if let Some(bridge) = &bridge {
            self.devices.check_bridge(bridge).await?;
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

    /// Undoes everything. Tunnels that are still up lose their way beyond this host.
    pub async fn stop(self) -> UndoReport {
        self.state.undo().await
    }
}

/// Begins the journal, under the first name that is free, with the group of
/// links that belongs to it.
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

/// What the settings come to on this host.
#[derive(Debug)]
struct Wish {
    table: ServerTable,
    shared: Vec<SharedSetting>,
    /// Families whose forward chain has to be told.
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

/// What each client may send is checked without it; what it may be sent is not.
fn without_nft(wish: &Wish) -> Result<(), ServeHostError> {
    let table = &wish.table;
    if table.onward.is_empty() {
        if table.inbound {
            return Ok(());
        }
        if !wish.shared.is_empty() {
            return Err(ServeHostError::NoNft(
                "keeping others from opening connections to clients",
            ));
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
        return Err(ServeHostError::NoNft(
            "keeping others from opening connections to clients",
        ));
    }
    say(
        "warning: there is no 'nft' program on this host: TCP's segment size is not held to what the tunnels carry",
    );
    Ok(())
}

#[cfg(test)]
mod tests;
