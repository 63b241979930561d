//! Makes one change of a link, which `state` has journalled.

use crate::host::change::Change;
use crate::host::change::protection;
use crate::host::error::{NetError, Refusal};
use crate::host::netlink::{Netlink, PortSettings};
use crate::host::plan::facts::{AddressGeneration, InterfaceIndex, LinkFacts};
use crate::types::InterfaceName;

/// Makes a change of a link without a journal: for a link that ends with this process, along with
/// all of its configuration.
pub async fn make(netlink: &Netlink, link: &LinkFacts, change: &Change) -> Result<(), NetError> {
    match change {
        Change::LinkUp => netlink.set_up(link, true).await,
        Change::Mtu(mtu) => netlink.set_mtu(link, mtu.get()).await,
        Change::GsoMaxSize(bytes) => netlink.set_gso_max_size(link, *bytes).await,
        Change::TxQueueLength(packets) => netlink.set_tx_queue_length(link, *packets).await,
        Change::AddressGenerationNone => {
            let none = AddressGeneration::NONE;
            netlink.set_address_generation(link, none).await
        }
        Change::Bridge(bridge) => {
            let master = bridge_index(netlink, bridge).await?;
            netlink.set_master(link, Some(master)).await
        }
        Change::GuardedPort { isolated } => {
            let set = PortSettings::guarded(*isolated);
            netlink.set_bridge_port(link, &set).await
        }
        Change::Group(group) => netlink.set_group(link, *group).await,
        Change::Address(address) => already_there(netlink.add_address(link, address).await, || {
            format!("the address {address}")
        }),
        Change::Route(route) => already_there(netlink.add_route(link, route).await, || {
            format!("a route to {}", route.destination)
        }),
        Change::Protection(ipv6) => {
            protection::set_by_name(&link.name, *ipv6);
            Ok(())
        }
        Change::Sysctl { key, value } => Ok(key.write(value)?),
        // These are not changes of a link.
        Change::Shared(_)
        | Change::NameServers(_)
        | Change::FirewallTable(_)
        | Change::ForwardAccept(_)
        | Change::FirewallRules(_)
        | Change::ClientFirewall(..)
        | Change::ServerTable(_)
        | Change::ForwardPassed(_) => Ok(()),
    }
}

/// The bridge of that name.
pub(in crate::host) async fn bridge_index(
    netlink: &Netlink,
    bridge: &InterfaceName,
) -> Result<InterfaceIndex, NetError> {
    let link = netlink.link_by_name(bridge.as_str()).await?;
    match link.kind.as_deref() {
        Some("bridge") => Ok(link.index),
        _ => Err(NetError::NotBridge(bridge.to_string())),
    }
}

pub(in crate::host) fn exists(object: String) -> NetError {
    NetError::Exists { object }
}

fn already_there(
    result: Result<(), NetError>,
    object: impl FnOnce() -> String,
) -> Result<(), NetError> {
    match result {
        Err(error) if error.refusal() == Some(Refusal::Exists) => Err(exists(object())),
        other => other,
    }
}
