//! The devices of clients: one each, opened as the client asks for it, with its
//! addresses and routes, and gone with it.
//!
//! A device that was not there before goes away with its descriptor, however
//! this process ends, and takes everything on it along: it needs no journal.
//! One that somebody made beforehand stays, so what is changed on it is
//! journalled and undone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ipnetwork::IpNetwork;
use nix::net::if_::if_nameindex;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::host::change::protection::Ipv6;
use crate::host::change::sysctl::{SysctlError, SysctlKey};
use crate::host::change::{Change, GSO_MAX_SIZE, InterfaceAddress, TX_QUEUE_LENGTH, TunnelRoute};
use crate::host::error::NetError;
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::journal::state::{HostState, UndoReport};
use crate::host::netlink::Netlink;
use crate::host::plan::facts::{InterfaceIndex, LinkFacts};
use crate::server::address::lease::LeasedAddress;
use crate::tun::{Device, DeviceRequest, OpenError};
use crate::types::{InterfaceName, Mode, Mtu, Unit, UnitRequest};

/// Devices that are opened at a time. The kernel makes one after the other, and
/// each waits on a thread.
const AT_ONCE: usize = 4;
/// The metric of the first route to a network behind a client; of later ones it
/// is lower, so that of several connections the latest is the way there.
const FIRST_METRIC: u32 = 1 << 24;

/// Which unit a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientUnit {
    /// The one that its grant names: also a device that was made beforehand.
    Granted(Unit),
    /// A new device, of no unit that somebody's grant names.
    New {
        /// The client's choice, which is not reserved.
        asked: UnitRequest,
        /// Units that grants name.
        reserved: Arc<BTreeSet<Unit>>,
    },
}

/// The device that a client is to have.
#[derive(Debug, Clone)]
pub struct ClientDeviceRequest {
    /// What it carries.
    pub mode: Mode,
    /// Its number.
    pub unit: ClientUnit,
    /// Its MTU.
    pub mtu: Mtu,
    /// The client's addresses, one a family at most.
    pub addresses: Vec<LeasedAddress>,
    /// Networks behind the client.
    pub sources: Vec<IpNetwork>,
    /// Whether it may reach other clients, some of them at least.
    pub grouped: bool,
}

/// Why a client has no device.
#[derive(Debug, Error)]
pub enum ClientDeviceError {
    /// The device.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The host's state.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A network behind a client that has no address to go by.
    #[error(
        "the network {0} behind the client cannot be reached: the client has no address of that family"
    )]
    NoGateway(IpNetwork),
    /// The server is ending.
    #[error("this server is ending")]
    Ending,
}

/// An open device of a client.
#[derive(Debug)]
pub struct ClientDevice {
    /// The device.
    pub device: Device,
    /// Its number.
    pub index: InterfaceIndex,
    /// Where it is on a bridge.
    pub bridged: Option<BridgedPort>,
    /// What is to be undone once whoever has the device has let go of it.
    pub changes: ClientChanges,
}

/// A device that is a port of a bridge.
#[derive(Debug, Clone)]
pub struct BridgedPort {
    /// The device.
    pub link: LinkFacts,
    /// The bridge.
    pub bridge: InterfaceIndex,
}

/// What was changed on a client's device, which stays open while this is there.
#[derive(Debug)]
#[must_use = "the changes stay until undo() is called"]
pub struct ClientChanges {
    descriptor: Arc<OwnedFd>,
    /// Where the changes do not go with the device.
    state: Option<HostState>,
}

impl ClientChanges {
    /// Undoes them. The device is gone after that, unless it was made
    /// beforehand, or whoever has it has not let go of it yet.
    pub async fn undo(self) -> UndoReport {
        let report = match self.state {
            Some(state) => state.undo().await,
            None => UndoReport::default(),
        };
        let descriptor = self.descriptor;
        // The kernel takes some 10 ms for it, and others have packets to carry
        // meanwhile. Where the runtime ends this is done by the process's end.
        let _ = tokio::task::spawn_blocking(move || drop(descriptor)).await;
        report
    }
}

/// Opens clients' devices.
#[derive(Debug)]
pub struct ClientDevices {
    directory: RuntimeDir,
    netlink: Netlink,
    group: u32,
    bridge: RwLock<Option<InterfaceName>>,
    metric: AtomicU32,
    turn: Semaphore,
}

impl ClientDevices {
    /// All devices are put into the link group `group`.
    pub(in crate::server) fn new(directory: RuntimeDir, group: u32) -> Result<Self, NetError> {
        Ok(Self {
            directory,
            netlink: Netlink::open()?,
            group,
            bridge: RwLock::new(None),
            metric: AtomicU32::new(FIRST_METRIC),
            turn: Semaphore::new(AT_ONCE),
        })
    }

    /// The link group of all clients' devices.
    pub fn group(&self) -> u32 {
        self.group
    }

    /// The connection to the kernel.
    pub(in crate::server) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// The bridge that ethernet tunnels join.
    pub fn bridge(&self) -> Option<InterfaceName> {
        let bridge = self.bridge.read().unwrap_or_else(PoisonError::into_inner);
        bridge.clone()
    }

    /// From now on ethernet tunnels join this bridge.
    pub(in crate::server) fn set_bridge(&self, bridge: Option<InterfaceName>) {
        *self.bridge.write().unwrap_or_else(PoisonError::into_inner) = bridge;
    }

    /// Whether it is a bridge.
    pub(in crate::server) async fn check_bridge(
        &self,
        bridge: &InterfaceName,
    ) -> Result<(), NetError> {
        let link = self.netlink.link_by_name(bridge.as_str()).await?;
        match link.kind.as_deref() {
            Some("bridge") => Ok(()),
            _ => Err(NetError::NotBridge(bridge.to_string())),
        }
    }

    /// Opens a device and sets it up. Where something fails, all is undone.
    pub async fn open(
        &self,
        request: ClientDeviceRequest,
    ) -> Result<ClientDevice, ClientDeviceError> {
        let _turn = self
            .turn
            .acquire()
            .await
            .map_err(|_| ClientDeviceError::Ending)?;
        let device = open_device(request.unit.clone(), request.mode).await?;
        let changes = self.changes(&request, device.name())?;
        let link = self.netlink.link_by_name(device.name().as_str()).await?;
        if device.preexisting() {
            return self.set_up_journalled(device, &link, changes).await;
        }
        if changes.iter().any(is_bridge) {
            self.netlink.raise_station(&link).await?;
        }
        for change in &changes {
            change.make(&self.netlink, &link).await?;
        }
        Ok(ClientDevice {
            index: link.index,
            bridged: bridged_port(&self.netlink, &device, &changes).await?,
            changes: ClientChanges {
                descriptor: device.descriptor(),
                state: None,
            },
            device,
        })
    }

    async fn set_up_journalled(
        &self,
        device: Device,
        link: &LinkFacts,
        changes: Vec<Change>,
    ) -> Result<ClientDevice, ClientDeviceError> {
        let mut state = HostState::begin(&self.directory, device.name()).await?;
        let applied = async {
            for change in &changes {
                state.apply(change.clone()).await?;
            }
            bridged_port(&self.netlink, &device, &changes).await
        };
        let bridged = match applied.await {
            Ok(bridged) => bridged,
            Err(error) => {
                let report = state.undo().await;
                if !report.is_clean() {
                    tracing::warn!(?report, "not everything is undone");
                }
                return Err(error.into());
            }
        };
        Ok(ClientDevice {
            index: link.index,
            bridged,
            changes: ClientChanges {
                descriptor: device.descriptor(),
                state: Some(state),
            },
            device,
        })
    }

    /// The link, its addresses, the routes through it.
    fn changes(
        &self,
        request: &ClientDeviceRequest,
        device: &InterfaceName,
    ) -> Result<Vec<Change>, ClientDeviceError> {
        let bridge = self.bridge().filter(|_| request.mode == Mode::Ethernet);
        let networks = request.sources.iter().map(IpNetwork::ip);
        let clients = request.addresses.iter().map(|address| address.client);
        let any_ipv6 = clients.chain(networks).any(|address| address.is_ipv6());
        let mut changes = vec![
            Change::AddressGenerationNone,
            Change::TxQueueLength(TX_QUEUE_LENGTH),
            Change::GsoMaxSize(GSO_MAX_SIZE),
            Change::Mtu(request.mtu),
            Change::Group(self.group),
            Change::Protection(Ipv6::agreed(any_ipv6 && bridge.is_none())),
        ];
        let ethernet = request.mode == Mode::Ethernet;
        if let Some(bridge) = bridge {
            // Addresses and routes are those of the bridge's network.
            // Before it is up nothing comes by it.
            let isolated = !request.grouped;
            let guarded = Change::GuardedPort { isolated };
            changes.extend([Change::Bridge(bridge), guarded, Change::LinkUp]);
            return Ok(changes);
        }
        if request
            .addresses
            .iter()
            .any(|address| address.client.is_ipv4())
        {
            changes.extend(ipv4_settings(device, ethernet).map_err(NetError::from)?);
        }
        let ipv6 = request
            .addresses
            .iter()
            .find_map(|leased| match leased.server {
                IpAddr::V6(server) => Some(server),
                IpAddr::V4(_) => None,
            });
        if ethernet && ipv6.is_some() {
            changes.push(answers_for_others(device).map_err(NetError::from)?);
        }
        // The link before its addresses: see session/agent/set_up.
        changes.push(Change::LinkUp);
        if let Some(server) = ipv6.filter(|_| ethernet) {
            changes.push(Change::Address(link_local(server)));
        }
        for address in &request.addresses {
            changes.push(Change::Address(InterfaceAddress::PointToPoint {
                local: address.server,
                peer: address.client,
            }));
        }
        let metric = self.metric.fetch_sub(1, Ordering::Relaxed);
        for source in &request.sources {
            changes.push(Change::Route(TunnelRoute {
                gateway: gateway(request, source)?,
                metric: Some(metric),
                ..TunnelRoute::to(*source)
            }));
        }
        Ok(changes)
    }
}

fn is_bridge(change: &Change) -> bool {
    matches!(change, Change::Bridge(_))
}

/// Where the device is, if these changes have put it on a bridge.
async fn bridged_port(
    netlink: &Netlink,
    device: &Device,
    changes: &[Change],
) -> Result<Option<BridgedPort>, NetError> {
    if !changes.iter().any(is_bridge) {
        return Ok(None);
    }
    let link = netlink.link_by_name(device.name().as_str()).await?;
    Ok(link.master.map(|bridge| BridgedPort { link, bridge }))
}

/// What comes out of the tunnel is forwarded; on an Ethernet link other clients
/// are asked for as neighbours, and reached through this host.
fn ipv4_settings(device: &InterfaceName, ethernet: bool) -> Result<Vec<Change>, SysctlError> {
    let leaves: &[&str] = if ethernet {
        &["forwarding", "proxy_arp"]
    } else {
        &["forwarding"]
    };
    let on = |leaf: &&str| {
        Ok(Change::Sysctl {
            key: SysctlKey::ipv4(device, leaf)?,
            value: "1".to_owned(),
        })
    };
    leaves.iter().map(on).collect()
}

/// The same by IPv6, where it takes an entry for each client too: see `neighbours`.
fn answers_for_others(device: &InterfaceName) -> Result<Change, SysctlError> {
    Ok(Change::Sysctl {
        key: SysctlKey::ipv6(device, "proxy_ndp")?,
        value: "1".to_owned(),
    })
}

/// Ours on an Ethernet link, without which the kernel cannot ask there for whom it
/// forwards to: that of `server`, on this link alone.
fn link_local(server: Ipv6Addr) -> InterfaceAddress {
    const BASE: u128 = 0xfe80 << 112;
    let interface = u128::from(server) & u128::from(u64::MAX);
    let address = IpAddr::V6(Ipv6Addr::from(BASE | interface));
    let network = IpNetwork::new(address, 64);
    InterfaceAddress::Network(network.unwrap_or_else(|_| IpNetwork::from(address)))
}

/// On an Ethernet link the client is the router; a point-to-point link needs none.
fn gateway(
    request: &ClientDeviceRequest,
    source: &IpNetwork,
) -> Result<Option<IpAddr>, ClientDeviceError> {
    if request.mode == Mode::PointToPoint {
        return Ok(None);
    }
    let clients = request.addresses.iter().map(|address| address.client);
    let mut of_family = clients.filter(|client| client.is_ipv4() == source.is_ipv4());
    let gateway = of_family
        .next()
        .ok_or(ClientDeviceError::NoGateway(*source))?;
    Ok(Some(gateway))
}

/// Makes the device on a thread that may wait: the kernel lets one change of
/// links through at a time.
async fn open_device(unit: ClientUnit, mode: Mode) -> Result<Device, ClientDeviceError> {
    let open = move || match unit {
        ClientUnit::Granted(unit) => Device::open(&by_unit(unit), mode),
        ClientUnit::New {
            asked: UnitRequest::Any,
            reserved,
        } if !reserved.is_empty() => first_free(mode, &reserved),
        ClientUnit::New { asked, .. } => Device::create(&DeviceRequest::Unit(asked), mode),
    };
    let opened = tokio::task::spawn_blocking(open).await;
    // It is not started any more when the runtime ends.
    Ok(opened.map_err(|_| ClientDeviceError::Ending)??)
}

fn by_unit(unit: Unit) -> DeviceRequest {
    DeviceRequest::Unit(UnitRequest::Unit(unit))
}

/// The device of the first free unit that is not reserved; the kernel, which knows of
/// no reservations, chooses among all free ones.
fn first_free(mode: Mode, reserved: &BTreeSet<Unit>) -> Result<Device, OpenError> {
    let interfaces = if_nameindex().map_err(|errno| OpenError::Other {
        name: format!("{}N", mode.prefix()),
        source: errno.into(),
    })?;
    let names = interfaces.iter().filter_map(|it| it.name().to_str().ok());
    let taken: BTreeSet<&str> = names.collect();
    let mut exists = None;
    for unit in (0..=Unit::MAX).filter_map(|number| Unit::new(number).ok()) {
        if reserved.contains(&unit) || taken.contains(unit.device_name(mode).as_str()) {
            continue;
        }
        match Device::create(&by_unit(unit), mode) {
            // It was made a moment ago.
            Err(error @ OpenError::Exists(_)) => exists = Some(error),
            made => return made,
        }
    }
    Err(exists.unwrap_or_else(|| OpenError::Busy(format!("{}N", mode.prefix()))))
}

#[cfg(test)]
mod tests;
