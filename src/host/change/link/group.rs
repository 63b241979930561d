//! Puts the interface into a group (IFLA_GROUP), by which firewall rules match it.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::firewall::TUNNEL_GROUP;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, put_back};
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::LinkFacts;

/// The group.
pub(in crate::host) struct Wanted(pub u32);

/// The interface was put into a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The group before.
    pub before: u32,
    /// The new group.
    pub set: u32,
}

impl LinkChange for Wanted {
    async fn plan(&self, _: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        let (before, set) = (link.group, self.0);
        Ok((before != set).then_some(Entry::Group(Made { before, set })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        netlink.set_group(link, self.0).await
    }

    /// The group of tunnels separates a tunnel from other tunnels and opens nothing.
    fn is_on_device(&self) -> bool {
        self.0 == TUNNEL_GROUP
    }
}

impl LinkEntry for Made {
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        let restore = netlink.set_group(link, self.before);
        put_back(&link.group, &self.before, &self.set, restore).await
    }

    fn describe(&self, interface: &str) -> String {
        format!("group {} of {interface}", self.set)
    }
}
