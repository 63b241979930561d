//! The clients' devices: one each, opened on request, with its addresses and routes,
//! and removed with its client.
//!
//! A device that was made here goes away with its descriptor, however this process
//! ends, and everything on it with it: it needs no journal. A device that existed before
//! stays, so the changes on it are journalled and undone.

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

/// Devices that may be opened concurrently. The kernel makes one after the other, and
/// each open occupies a thread.
const AT_ONCE: usize = 4;
/// The metric of the first route to a network behind a client. Later routes have lower
/// metrics, so that of several connections the latest is used.
const FIRST_METRIC: u32 = 1 << 24;

/// The unit that a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientUnit {
    /// The unit that its grant names; the device may exist already.
    Granted(Unit),
    /// A new device, of a unit that no grant names.
    New {
        /// The client's choice, which is not reserved.
        asked: UnitRequest,
        /// Units that grants name.
        reserved: Arc<BTreeSet<Unit>>,
    },
}

/// The device that a client is to get.
#[derive(Debug, Clone)]
pub struct ClientDeviceRequest {
    /// What the tunnel carries.
    pub mode: Mode,
    /// The unit of the device.
    pub unit: ClientUnit,
    /// The device's MTU.
    pub mtu: Mtu,
    /// The client's addresses, at most one per family.
    pub addresses: Vec<LeasedAddress>,
    /// Networks behind the client.
    pub sources: Vec<IpNetwork>,
    /// Whether it may reach other clients, at least some of them.
    pub grouped: bool,
}

/// Why a client has no device.
#[derive(Debug, Error)]
pub enum ClientDeviceError {
    /// The device cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The device cannot be set up.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The client has no address that could be the gateway to a network behind it.
    #[error(
        "the network {0} behind the client cannot be reached: the client has no address of that family"
    )]
    NoGateway(IpNetwork),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Ending,
}

/// An open device of a client.
#[derive(Debug)]
pub struct ClientDevice {
    /// The device.
    pub device: Device,
    /// The device's interface index.
    pub index: InterfaceIndex,
    /// The bridge port, if the device is on a bridge.
    pub bridged: Option<BridgedPort>,
    /// What is to be undone after the device's user has closed its handle.
    pub changes: ClientChanges,
}

/// A device that is a port of a bridge.
#[derive(Debug, Clone)]
pub struct BridgedPort {
    /// The device.
    pub link: LinkFacts,
    /// The bridge's interface index.
    pub bridge: InterfaceIndex,
}

/// The changes on a client's device; the device stays open as long as this lives.
#[derive(Debug)]
#[must_use = "the changes stay until undo() is called"]
pub struct ClientChanges {
    descriptor: Arc<OwnedFd>,
    /// The journalled changes, for a device that does not go away with them.
    state: Option<HostState>,
}

impl ClientChanges {
    /// Undoes the changes. The device is gone after that, unless it existed before or
    /// another handle of it is still open.
    pub async fn undo(self) -> UndoReport {
        let report = match self.state {
            Some(state) => state.undo().await,
            None => UndoReport::default(),
        };
        let descriptor = self.descriptor;
        // Closing takes the kernel about 10 ms, during which other tunnels have packets to
        // carry. If the runtime ends first, the end of the process closes it.
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

    /// The netlink connection.
    pub(in crate::server) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// The bridge that ethernet tunnels join.
    pub fn bridge(&self) -> Option<InterfaceName> {
        let bridge = self.bridge.read().unwrap_or_else(PoisonError::into_inner);
        bridge.clone()
    }

    /// Sets the bridge for later Ethernet tunnels.
    pub(in crate::server) fn set_bridge(&self, bridge: Option<InterfaceName>) {
        *self.bridge.write().unwrap_or_else(PoisonError::into_inner) = bridge;
    }

    /// Opens a device and sets it up. If a step fails, everything is undone.
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

    /// The changes for the link, its addresses and the routes through it.
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
            // Addresses and routes belong to the bridge's network. Isolation is set before the
            // link is up, so no frame passes without it.
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
        // The link before its addresses: see agent/set_up.
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

/// The device's bridge port, if these changes put it on a bridge.
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

/// Checks that the interface exists and is a bridge.
pub(in crate::server) async fn check_bridge(
    netlink: &Netlink,
    bridge: &InterfaceName,
) -> Result<(), NetError> {
    let link = netlink.link_by_name(bridge.as_str()).await?;
    match link.kind.as_deref() {
        Some("bridge") => Ok(()),
        _ => Err(NetError::NotBridge(bridge.to_string())),
    }
}

/// Settings to forward the tunnel's packets; on an Ethernet link also to answer ARP for
/// other clients, which are reached through this host.
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

/// The same for IPv6, which also needs an entry per client: see `neighbours`.
fn answers_for_others(device: &InterfaceName) -> Result<Change, SysctlError> {
    Ok(Change::Sysctl {
        key: SysctlKey::ipv6(device, "proxy_ndp")?,
        value: "1".to_owned(),
    })
}

/// This host's link-local address on an Ethernet link, which the kernel needs as the
/// source of neighbour solicitations: that of `server`, on this link only.
fn link_local(server: Ipv6Addr) -> InterfaceAddress {
    const BASE: u128 = 0xfe80 << 112;
    let interface = u128::from(server) & u128::from(u64::MAX);
    let address = IpAddr::V6(Ipv6Addr::from(BASE | interface));
    let network = IpNetwork::new(address, 64);
    InterfaceAddress::Network(network.unwrap_or_else(|_| IpNetwork::from(address)))
}

/// The gateway: the client on an Ethernet link, none on a point-to-point link.
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

/// Opens the device on a thread that may block: the kernel serialises changes of links.
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
    // The task is not started any more when the runtime ends.
    Ok(opened.map_err(|_| ClientDeviceError::Ending)??)
}

fn by_unit(unit: Unit) -> DeviceRequest {
    DeviceRequest::Unit(UnitRequest::Unit(unit))
}

/// Opens the device of the first free unit that is not reserved. The kernel does not know
/// the reservations and would choose among all free units.
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
            // Another process made it a moment ago.
            Err(error @ OpenError::Exists(_)) => exists = Some(error),
            made => return made,
        }
    }
    Err(exists.unwrap_or_else(|| OpenError::Busy(format!("{}N", mode.prefix()))))
}

#[cfg(test)]
mod tests;
