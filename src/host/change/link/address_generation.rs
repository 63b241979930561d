//! Stops the kernel from generating IPv6 addresses for the link, so that a new tun device sends no
//! router solicitations.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, put_back};
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::{AddressGeneration, LinkFacts};

/// No address generation.
pub(in crate::host) struct Wanted;

/// IPv6 address generation was switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The mode before.
    pub before: AddressGeneration,
}

impl LinkChange for Wanted {
    async fn plan(&self, _: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        let before = link.address_generation;
        let before = before.filter(|before| *before != AddressGeneration::NONE);
        Ok(before.map(|before| Entry::AddressGenerationNone(Made { before })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        let none = AddressGeneration::NONE;
        netlink.set_address_generation(link, none).await
    }

    fn is_on_device(&self) -> bool {
        true
    }
}

impl LinkEntry for Made {
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        let Some(now) = link.address_generation else {
            return Ok(Outcome::Gone);
        };
        let restore = netlink.set_address_generation(link, self.before);
        let none = AddressGeneration::NONE.0;
        put_back(&now.0, &self.before.0, &none, restore).await
    }

    fn describe(&self, interface: &str) -> String {
        format!("IPv6 address generation off on {interface}")
    }

    fn is_undone_on_device(&self, _: &str) -> bool {
        true
    }
}
