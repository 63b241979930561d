//! Makes the interface a port of an existing bridge.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, put_back};
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::{InterfaceIndex, LinkFacts};
use crate::types::InterfaceName;

/// The bridge.
pub(in crate::host) struct Wanted<'a>(pub &'a InterfaceName);

/// The interface was made a port of a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Its master before.
    pub before: Option<InterfaceIndex>,
    /// The bridge.
    pub set: InterfaceIndex,
}

impl LinkChange for Wanted<'_> {
    async fn plan(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        let (before, set) = (link.master, self.index(netlink).await?);
        Ok((before != Some(set)).then_some(Entry::Bridge(Made { before, set })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        let master = self.index(netlink).await?;
        netlink.set_master(link, Some(master)).await
    }
}

impl Wanted<'_> {
    async fn index(&self, netlink: &Netlink) -> Result<InterfaceIndex, NetError> {
        let link = netlink.link_by_name(self.0.as_str()).await?;
        match link.kind.as_deref() {
            Some("bridge") => Ok(link.index),
            _ => Err(NetError::NotBridge(self.0.to_string())),
        }
    }
}

impl LinkEntry for Made {
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        let number = |master: Option<InterfaceIndex>| master.map_or(0, |master| master.0);
        let (now, before) = (number(link.master), number(self.before));
        let restore = netlink.set_master(link, self.before);
        put_back(&now, &before, &self.set.0, restore).await
    }

    fn describe(&self, interface: &str) -> String {
        format!("the bridge of {interface}")
    }
}
