//! Brings the link up.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome};
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::{AddressFacts, LinkFacts};

/// Bring the link up.
pub(in crate::host) struct Wanted;

/// The link was brought up; it was down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Its IPv6 addresses before: bringing a link down removes them.
    pub ipv6_before: Vec<AddressFacts>,
}

impl LinkChange for Wanted {
    async fn plan(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        if link.up {
            return Ok(None);
        }
        let mut ipv6_before = netlink.addresses(Some(link.index)).await?;
        ipv6_before.retain(|address| address.address.is_ipv6());
        Ok(Some(Entry::LinkUp(Made { ipv6_before })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        netlink.set_up(link, true).await
    }

    fn is_on_device(&self) -> bool {
        true
    }
}

impl LinkEntry for Made {
    /// Brings the link down. The kernel then removes its IPv6 addresses; those that it had before
    /// it was brought up, and still has, are added again.
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        if !link.up {
            return Ok(Outcome::Gone);
        }
        let had = netlink.addresses(Some(link.index)).await?;
        netlink.set_up(link, false).await?;
        let have = netlink.addresses(Some(link.index)).await?;
        let among = |list: &[AddressFacts], wanted: &AddressFacts| {
            list.iter()
                .any(|found| found.address == wanted.address && found.prefix == wanted.prefix)
        };
        for address in &self.ipv6_before {
            if among(&had, address) && !among(&have, address) {
                netlink.put_address(link, address).await?;
            }
        }
        Ok(Outcome::Undone)
    }

    fn describe(&self, interface: &str) -> String {
        format!("{interface} up")
    }

    fn is_undone_on_device(&self, _: &str) -> bool {
        true
    }
}
