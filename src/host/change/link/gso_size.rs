//! Limits the super-packets that the kernel may hand to the device (IFLA_GSO_MAX_SIZE).

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, put_back};
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::LinkFacts;

/// The limit to set, in bytes.
pub(in crate::host) struct Wanted(pub u32);

/// The size of super-packets was limited, in bytes.
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
        let set = self.0;
        let before = link.gso_max_size.filter(|before| *before != set);
        Ok(before.map(|before| Entry::GsoMaxSize(Made { before, set })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        netlink.set_gso_max_size(link, self.0).await
    }

    fn is_on_device(&self) -> bool {
        true
    }
}

impl LinkEntry for Made {
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        let now = link.gso_max_size.unwrap_or(self.before);
        let restore = netlink.set_gso_max_size(link, self.before);
        put_back(&now, &self.before, &self.set, restore).await
    }

    fn describe(&self, interface: &str) -> String {
        format!("super-packets of {} bytes on {interface}", self.set)
    }

    fn is_undone_on_device(&self, _: &str) -> bool {
        true
    }
}
