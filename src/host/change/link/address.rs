//! Adds an address to the interface.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, done};
use crate::host::error::{NetError, Refusal};
use crate::host::netlink::{InterfaceAddress, Netlink};
use crate::host::plan::facts::{AddressFacts, LinkFacts};

/// An address was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The address.
    pub address: InterfaceAddress,
}

impl LinkChange for InterfaceAddress {
    async fn plan(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        let there = netlink.addresses(Some(link.index)).await?;
        let same =
            |found: &AddressFacts| (found.address, found.prefix) == (self.local(), self.prefix());
        if there.iter().any(same) {
            let object = format!("the address {self} on {}", link.name);
            return Err(NetError::Exists { object });
        }
        Ok(Some(Entry::Address(Made { address: *self })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        match netlink.add_address(link, self).await {
            Err(error) if error.refusal() == Some(Refusal::Exists) => Err(NetError::Exists {
                object: format!("the address {self}"),
            }),
            other => other,
        }
    }

    fn is_on_device(&self) -> bool {
        true
    }
}

impl LinkEntry for Made {
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        let address = &self.address;
        let ours = |found: &&AddressFacts| {
            (found.address, found.prefix, found.peer)
                == (address.local(), address.prefix(), address.peer())
        };
        let addresses = netlink.addresses(Some(link.index)).await?;
        match addresses.iter().find(ours) {
            Some(found) => done(netlink.remove_address(link, found).await),
            None => Ok(Outcome::Gone),
        }
    }

    fn describe(&self, interface: &str) -> String {
        format!("address {} on {interface}", self.address)
    }

    fn is_undone_on_device(&self, _: &str) -> bool {
        true
    }
}
