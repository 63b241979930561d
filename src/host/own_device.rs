//! Limits what a process with file capabilities (setcap(8)) may change: the caller's own tunnel
//! device, nothing else of this host.
//!
//! Any user who may run the program has the capability then, and can write a journal of their own.
//!
//! | change | made | undone from a journal of a dead process |
//! |---|---|---|
//! | link up, MTU, queue length, super-packets, address generation | on the own device | on the own device |
//! | address, route through the device | on the own device | removed from the own device |
//! | settings that refuse configuration by the peer | on the own device | on the own device |
//! | other sysctl of the device | on the own device | no |
//! | the group of tunnels | on the own device | no |
//! | bridge, port of a bridge, another group | no | no |
//! | forwarding, firewall, name servers | no | no |

use nix::unistd::{Uid, geteuid, getuid};

use super::change::Change;
use super::error::NetError;
use super::journal::recovery::Recoverer;
use super::netlink::Netlink;
use super::plan::facts::LinkFacts;
use crate::config::invoker::elevation;

/// The changes that this process may undo from a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UndoScope {
    /// Every journalled change.
    Host,
    /// Changes of the caller's own tunnel devices.
    OwnDevices,
}

impl UndoScope {
    /// The scope for a journal of this process.
    pub(super) fn of_this_process() -> Self {
        match elevation::by_file_capabilities() {
            true => UndoScope::OwnDevices,
            false => UndoScope::Host,
        }
    }

    /// The scope for a journal of a dead process, which the user may have forged.
    ///
    /// A process that is not root may have got its capabilities from a wrapper, as ambient ones. A
    /// server gets them from the administrator, and so does its user.
    pub(super) fn of_journals_left_behind(by: Recoverer) -> Self {
        match by {
            Recoverer::Other if !geteuid().is_root() => UndoScope::OwnDevices,
            _ => Self::of_this_process(),
        }
    }
}

/// Whether this process may change the device.
pub(super) async fn is_own(
    netlink: &Netlink,
    link: &LinkFacts,
    reach: UndoScope,
) -> Result<bool, NetError> {
    Ok(reach == UndoScope::Host || belongs_to(netlink, link, getuid()).await?)
}

async fn belongs_to(netlink: &Netlink, link: &LinkFacts, uid: Uid) -> Result<bool, NetError> {
    Ok(link.is_tun() && netlink.owner_of_tun(link).await? == Some(uid))
}

/// Returns an error if the change reaches beyond the device.
pub(super) fn require_on_device(change: &Change) -> Result<(), NetError> {
    if !elevation::by_file_capabilities() || change.is_on_device() {
        return Ok(());
    }
    Err(NetError::Borrowed)
}
