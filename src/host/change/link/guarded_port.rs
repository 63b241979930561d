//! Stops the bridge from learning at the interface, which is a port of it.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, put_back};
use crate::host::error::NetError;
use crate::host::netlink::{Netlink, PortSettings};
use crate::host::plan::facts::LinkFacts;
use crate::packet::guard::link::MacAddress;

/// A guarded port.
pub(in crate::host) struct Wanted {
    pub isolated: bool,
}

/// The bridge was told not to learn from the interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The settings before.
    pub before: PortSettings,
    /// The new settings.
    pub set: PortSettings,
    /// The stations that were there before; undoing removes those that were added since.
    pub stations: Vec<MacAddress>,
}

impl LinkChange for Wanted {
    async fn plan(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        let Some(before) = netlink.bridge_port(link).await? else {
            return Ok(None);
        };
        let set = PortSettings::guarded(self.isolated).as_known_to(&before);
        let stations = netlink.stations_at(link).await?;
        let stations = stations.iter().map(|found| found.station).collect();
        Ok(Some(Entry::GuardedPort(Made {
            before,
            set,
            stations,
        })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        let set = PortSettings::guarded(self.isolated);
        netlink.set_bridge_port(link, &set).await
    }
}

impl LinkEntry for Made {
    /// Restores the bridge port's settings and removes the stations that we added there.
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        let Some(now) = netlink.bridge_port(link).await? else {
            return Ok(Outcome::Gone);
        };
        for found in netlink.stations_at(link).await? {
            if !found.own && !self.stations.contains(&found.station) {
                netlink.remove_station(link, found.station).await?;
            }
        }
        let restore = netlink.set_bridge_port(link, &self.before);
        put_back(&now, &self.before, &self.set, restore).await
    }

    fn describe(&self, interface: &str) -> String {
        format!("how the bridge treats {interface}")
    }
}
