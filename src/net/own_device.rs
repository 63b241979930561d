//! What may be changed with a capability of the program file (setcap(8)): a tunnel
//! device of the caller's, and nothing else of this host. Any user who may run the
//! program has the capability then, and can write a journal of their own.
//!
//! | change | made | undone from a journal of a dead process |
//! |---|---|---|
//! | link up, MTU, queue length, super-packets, address generation | on the own device | on the own device |
//! | address, route through the device | on the own device | removed from the own device |
//! | sysctl of the device, its protection | on the own device | no: a journal could loosen it |
//! | the group of tunnels | on the own device | no |
//! | bridge, port of a bridge, another group | no | no |
//! | forwarding, firewall, name servers | no | no |

use nix::unistd::{Uid, getuid};

use super::change::Change;
use super::error::NetError;
use super::facts::LinkFacts;
use super::firewall::TUNNEL_GROUP;
use super::journal::Entry;
use super::netlink::Netlink;
use crate::config::elevation;

/// Whether the device may be changed.
pub(super) async fn is_own(netlink: &Netlink, link: &LinkFacts) -> Result<bool, NetError> {
    Ok(!elevation::by_file_capabilities() || belongs_to(netlink, link, getuid()).await?)
}

async fn belongs_to(netlink: &Netlink, link: &LinkFacts, uid: Uid) -> Result<bool, NetError> {
    Ok(link.is_tun() && netlink.owner_of_tun(link).await? == Some(uid))
}

/// An error where the change reaches beyond the device.
pub(super) fn require_on_device(change: &Change) -> Result<(), NetError> {
    if !elevation::by_file_capabilities() || is_on_device(change) {
        return Ok(());
    }
    Err(NetError::Borrowed)
}

fn is_on_device(change: &Change) -> bool {
    match change {
        Change::LinkUp
        | Change::Mtu(_)
        | Change::TxQueueLength(_)
        | Change::GsoMaxSize(_)
        | Change::AddressGenerationNone
        | Change::Protection(_)
        // By it a tunnel is kept from others, and nothing is opened.
        | Change::Group(TUNNEL_GROUP)
        | Change::Address(_)
        | Change::Route(_)
        | Change::Sysctl { .. } => true,
        Change::Bridge(_)
        | Change::GuardedPort { .. }
        | Change::Group(_)
        | Change::Shared(_)
        | Change::FirewallTable(_)
        | Change::ForwardAccept(_)
        | Change::FirewallRules(_)
        | Change::ClientFirewall(..)
        | Change::NameServers(_)
        | Change::ServerTable(_)
        | Change::ForwardPassed(_) => false,
    }
}

/// Whether the entry of a dead process's journal may be undone.
pub(super) fn may_be_undone(entry: &Entry) -> bool {
    !elevation::by_file_capabilities() || is_harmless(entry)
}

fn is_harmless(entry: &Entry) -> bool {
    match entry {
        Entry::LinkUp { .. }
        | Entry::Mtu { .. }
        | Entry::TxQueueLength { .. }
        | Entry::GsoMaxSize { .. }
        | Entry::AddressGenerationNone { .. }
        | Entry::Address { .. }
        | Entry::Route { .. } => true,
        Entry::Bridge { .. }
        | Entry::GuardedPort { .. }
        | Entry::Group { .. }
        | Entry::Sysctl { .. }
        | Entry::SharedSysctl { .. }
        | Entry::FirewallTable
        | Entry::ForwardAccept { .. }
        | Entry::FirewallRules { .. }
        | Entry::NameServers { .. } => false,
    }
}
