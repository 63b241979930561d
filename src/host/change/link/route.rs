//! Adds a route through the interface to table `main`.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, done};
use crate::host::error::{NetError, Refusal};
use crate::host::netlink::{Netlink, TunnelRoute};
use crate::host::plan::facts::LinkFacts;

/// A route was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The route.
    pub route: TunnelRoute,
}

impl LinkChange for TunnelRoute {
    async fn plan(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        let there = netlink.routes(Some(link.index)).await?;
        if there.iter().any(|found| found.same_slot(self)) {
            let object = format!("the route {self} through {}", link.name);
            return Err(NetError::Exists { object });
        }
        Ok(Some(Entry::Route(Made { route: *self })))
    }

    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        match netlink.add_route(link, self).await {
            Err(error) if error.refusal() == Some(Refusal::Exists) => Err(NetError::Exists {
                object: format!("a route to {}", self.destination),
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
        let routes = netlink.routes(Some(link.index)).await?;
        let mut ours = routes.iter();
        match ours.find(|found| found.is_ours(&self.route, link.index)) {
            Some(found) => done(netlink.remove_route(link, found).await),
            None => Ok(Outcome::Gone),
        }
    }

    fn describe(&self, interface: &str) -> String {
        format!("route {} through {interface}", self.route)
    }

    fn is_undone_on_device(&self, _: &str) -> bool {
        true
    }
}
