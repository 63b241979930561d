//! Reads, adds and removes routes, reads policy rules, and looks up the route to a destination.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use serde::{Deserialize, Serialize};

use super::{Netlink, Request};
use crate::host::error::{NetError, Operation};
use crate::host::plan::facts::{
    InterfaceIndex, LinkFacts, NextHop, PathFacts, RouteFacts, RouteKind, RuleFacts, TABLE_MAIN,
};

/// A route through the tunnel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRoute {
    /// The destination network.
    pub destination: IpNetwork,
    /// The gateway behind the tunnel: needed on a tap device, where the remote host is one of many;
    /// not on a tun device.
    pub gateway: Option<IpAddr>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// The priority; the lowest value wins. `None` is the kernel's default.
    pub metric: Option<u32>,
}

impl TunnelRoute {
    /// A route to `destination` without further attributes.
    pub fn to(destination: IpNetwork) -> Self {
        Self {
            destination,
            gateway: None,
            source: None,
            metric: None,
        }
    }

    /// The metric that the kernel gives the route: for IPv6 it replaces zero by IP6_RT_PRIO_USER
    /// (net/ip6_route.h).
    pub fn effective_metric(&self) -> u32 {
        match (self.destination, self.metric.unwrap_or(0)) {
            (IpNetwork::V6(_), 0) => 1024,
            (_, metric) => metric,
        }
    }
}

impl fmt::Display for TunnelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        Ok(())
    }
}

impl Netlink {
    /// The routes that leave by one interface, or all routes; both families, all tables.
    pub async fn routes(
        &self,
        leaving_by: Option<InterfaceIndex>,
    ) -> Result<Vec<RouteFacts>, NetError> {
        let request = Request::new(Operation::Read, "the routes of this host");
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            if let Some(index) = leaving_by {
                filter.attributes.push(RouteAttribute::Oif(index.0));
            }
            let dump = self.handle.route().get(filter);
            let messages = request.collect(dump.execute()).await?;
            routes.extend(messages.iter().filter_map(RouteFacts::from_message));
        }
        routes.retain(|route| leaving_by.is_none_or(|index| route.leaves_by(index)));
        Ok(routes)
    }

    /// The policy rules of both families.
    pub async fn rules(&self) -> Result<Vec<RuleFacts>, NetError> {
        let request = Request::new(Operation::Read, "the policy rules of this host");
        let mut rules = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let dump = self.handle.rule().get(version);
            let messages = request.collect(dump.execute()).await?;
            rules.extend(messages.iter().map(RuleFacts::from_message));
        }
        Ok(rules)
    }

    /// The path that a packet to `destination` would take now.
    pub async fn route_to(&self, destination: IpAddr) -> Result<PathFacts, NetError> {
        let request = Request::new(Operation::LookUp, format!("the route to {destination}"))
            .ipv6(destination.is_ipv6());
        let no_answer = |detail: &str| NetError::NoAnswer {
            operation: request.operation,
            object: request.object.clone(),
            detail: detail.to_owned(),
        };
        let mut question = RouteMessage::default();
        set_destination(&mut question, IpNetwork::from(destination));
        let get = self.handle.route().get(question);
        let answers = request.collect(get.execute()).await?;
        let route = answers
            .first()
            .and_then(RouteFacts::from_message)
            .ok_or_else(|| no_answer("it names no route"))?;
        let NextHop { device, gateway } = route.hops.first().copied().unwrap_or(NextHop {
            device: None,
            gateway: None,
        });
        let device = device.ok_or_else(|| no_answer("it names no interface"))?;
        let link = self.link_by_index(device).await?;
        let link = link.ok_or_else(|| no_answer("its interface is gone"))?;
        Ok(PathFacts {
            device,
            device_name: link.name,
            source: route.source,
            gateway,
            local: route.kind == RouteKind::Local,
        })
    }

    /// The route by which the kernel would send a packet to `destination` now, with its table.
    /// Kernels before 4.13 report a route to `destination` alone.
    pub async fn chosen_route(&self, destination: IpAddr) -> Result<RouteFacts, NetError> {
        let request = Request::new(Operation::LookUp, format!("the route to {destination}"))
            .ipv6(destination.is_ipv6());
        let mut question = RouteMessage::default();
        set_destination(&mut question, IpNetwork::from(destination));
        // IPv6 reports the table always, and refuses to be asked for it.
        question.header.flags = match destination {
            IpAddr::V4(_) => RouteFlags::LookupTable | RouteFlags::FibMatch,
            IpAddr::V6(_) => RouteFlags::FibMatch,
        };
        let get = self.handle.route().get(question);
        let answers = request.collect(get.execute()).await?;
        let route = answers.first().and_then(RouteFacts::from_message);
        route.ok_or_else(|| NetError::NoAnswer {
            operation: request.operation,
            object: request.object.clone(),
            detail: "it names no route".to_owned(),
        })
    }

    /// Adds a route through `link` to table main; the kernel refuses one with the destination and
    /// the metric of an existing route.
    pub async fn add_route(&self, link: &LinkFacts, route: &TunnelRoute) -> Result<(), NetError> {
        let request = Request::new(Operation::AddRoute, described(link, &route.to_string()))
            .ipv6(route.destination.is_ipv6());
        let mut message = RouteMessage::default();
        set_destination(&mut message, route.destination);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        // ip-route(8): without a gateway the destination is on the link.
        if route.destination.is_ipv4() && route.gateway.is_none() {
            message.header.scope = RouteScope::Link;
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Oif(link.index.0));
        attributes.push(RouteAttribute::Priority(route.effective_metric()));
        attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
        attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        let add = self.handle.route().add(message);
        add.execute().await.map_err(|error| request.failed(error))
    }

    /// Removes a route of `link` from table main.
    pub async fn remove_route(&self, link: &LinkFacts, route: &RouteFacts) -> Result<(), NetError> {
        let name = described(link, &route.destination.to_string());
        let request = Request::new(Operation::RemoveRoute, name).ipv6(route.destination.is_ipv6());
        let mut message = RouteMessage::default();
        set_destination(&mut message, route.destination);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = route.protocol.into();
        message.header.kind = RouteType::Unicast;
        message.header.scope = RouteScope::NoWhere;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Oif(link.index.0));
        attributes.push(RouteAttribute::Priority(route.metric));
        let remove = self.handle.route().del(message);
        remove
            .execute()
            .await
            .map_err(|error| request.failed(error))
    }
}

impl RouteFacts {
    /// Whether this is `route` as sshvpn makes it on that interface.
    pub fn is_ours(&self, route: &TunnelRoute, index: InterfaceIndex) -> bool {
        self.same_slot(route)
            && self.protocol == u8::from(RouteProtocol::Static)
            && self.hops
                == [NextHop {
                    device: Some(index),
                    gateway: route.gateway,
                }]
    }

    /// Whether the kernel would refuse `route` because of this route.
    pub fn same_slot(&self, route: &TunnelRoute) -> bool {
        self.table == TABLE_MAIN
            && self.destination == route.destination
            && self.metric == route.effective_metric()
    }
}

fn described(link: &LinkFacts, route: &str) -> String {
    format!("{route} through {}", link.name)
}

fn set_destination(message: &mut RouteMessage, destination: IpNetwork) {
    message.header.address_family = match destination {
        IpNetwork::V4(_) => AddressFamily::Inet,
        IpNetwork::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = destination.prefix();
    let address = RouteAddress::from(destination.ip());
    // A message without RTA_DST means the default route.
    if destination.prefix() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(address));
    }
}
