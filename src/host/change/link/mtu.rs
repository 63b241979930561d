//! Sets the link's MTU.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, put_back};
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::LinkFacts;
use crate::types::Mtu;

/// The MTU was set, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The value before.
    pub before: u32,
    /// The new value.
    pub set: u32,
}

impl LinkChange for Mtu {
    async fn plan(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        let (before, set) = (link.mtu, self.get());
        if before == set {
            return Ok(None);
        }
        if set < Mtu::MIN_IPV6.get() {
            let addresses = netlink.addresses(Some(link.index)).await?;
            if addresses.iter().any(|found| found.address.is_ipv6()) {
                return Err(NetError::MtuUnderIpv6 {
                    interface: link.name.clone(),
                    mtu: set,
                });
            }
        }
        Ok(Some(Entry::Mtu(Made { before, set })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        netlink.set_mtu(link, self.get()).await
    }

    fn is_on_device(&self) -> bool {
        true
    }
}

impl LinkEntry for Made {
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        let restore = netlink.set_mtu(link, self.before);
        put_back(&link.mtu, &self.before, &self.set, restore).await
    }

    fn describe(&self, interface: &str) -> String {
        format!("MTU {} of {interface}", self.set)
    }

    fn is_undone_on_device(&self, _: &str) -> bool {
        true
    }
}
