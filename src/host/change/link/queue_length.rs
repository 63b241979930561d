//! Sets the length of the link's transmit queue.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, put_back};
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::LinkFacts;

/// The length to set, in packets.
pub(in crate::host) struct Wanted(pub u32);

/// The transmit queue length was set, in packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The value before.
    pub before: u32,
    /// The new value.
    pub set: u32,
}

impl LinkChange for Wanted {
    async fn plan(&self, _: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        let (before, set) = (link.tx_queue_length, self.0);
        Ok((before != set).then_some(Entry::TxQueueLength(Made { before, set })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        netlink.set_tx_queue_length(link, self.0).await
    }

    fn is_on_device(&self) -> bool {
        true
    }
}

impl LinkEntry for Made {
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        let restore = netlink.set_tx_queue_length(link, self.before);
        put_back(&link.tx_queue_length, &self.before, &self.set, restore).await
    }

    fn describe(&self, interface: &str) -> String {
        format!("transmit queue length {} of {interface}", self.set)
    }

    fn is_undone_on_device(&self, _: &str) -> bool {
        true
    }
}
