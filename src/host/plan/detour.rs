//! Why the kernel sends packets elsewhere than into the tunnel: another program's policy rule, or a
//! more specific route. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::facts::{HostFacts, InterfaceIndex, RouteFacts, RouteKind, RuleFacts, TABLE_MAIN};
use super::route_plan::way;
use crate::types::family::is_within;

/// The routing table `local` (RT_TABLE_LOCAL).
const TABLE_LOCAL: u32 = 255;

/// The reason for which packets to an address do not take the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detour {
    /// The address is this host's own.
    Own,
    /// A policy rule looks in another table first.
    Rule {
        /// The rule's priority, if the rule was found.
        priority: Option<u32>,
        /// The table.
        table: u32,
        /// The route in that table, and its path.
        route: IpNetwork,
        /// Its path.
        way: String,
    },
    /// A route of the table main is more specific.
    Route {
        /// The route.
        route: IpNetwork,
        /// Its path.
        way: String,
    },
    /// A policy rule refuses the packets.
    RefusedByRule {
        /// The rule's priority.
        priority: u32,
    },
    /// A route refuses the packets.
    RefusedByRoute {
        /// The route.
        route: IpNetwork,
        /// Its table.
        table: u32,
    },
}

impl Detour {
    /// The detour of packets to `address`, for which the kernel has chosen `chosen`; `None` if they
    /// leave by `tunnel`.
    pub fn of(
        address: IpAddr,
        chosen: &RouteFacts,
        tunnel: InterfaceIndex,
        facts: &HostFacts,
    ) -> Option<Self> {
        if chosen.leaves_by(tunnel) {
            return None;
        }
        let (route, way) = (chosen.destination, way(chosen, facts));
        Some(match chosen.table {
            TABLE_LOCAL => Detour::Own,
            _ if chosen.kind == RouteKind::Local => Detour::Own,
            TABLE_MAIN => Detour::Route { route, way },
            table => Detour::Rule {
                priority: first_rule(facts, address, |rule| rule.table == Some(table)),
                table,
                route,
                way,
            },
        })
    }

    /// The cause where the kernel refuses packets to `address`; `None` if none is known.
    pub fn of_refused(address: IpAddr, facts: &HostFacts) -> Option<Self> {
        let by_rule = first_rule(facts, address, |rule| rule.table.is_none());
        let to = IpNetwork::from(address);
        let refusing = facts.routes.iter().filter(|route| {
            route.kind == RouteKind::Reject
                && route.table != TABLE_MAIN
                && is_within(&to, &route.destination)
                && first_rule(facts, address, |rule| rule.table == Some(route.table)).is_some()
        });
        let by_route = refusing.max_by_key(|route| route.destination.prefix());
        by_route
            .map(|route| Detour::RefusedByRoute {
                route: route.destination,
                table: route.table,
            })
            .or(by_rule.map(|priority| Detour::RefusedByRule { priority }))
    }
}

/// The priority of the first rule of that kind which a new connection to `address` meets.
fn first_rule(
    facts: &HostFacts,
    address: IpAddr,
    wanted: impl Fn(&RuleFacts) -> bool,
) -> Option<u32> {
    let rules = facts.rules.iter();
    let meets = rules.filter(|rule| wanted(rule) && is_met(rule, address));
    meets.map(|rule| rule.priority).min()
}

/// Whether a packet of this host matches the rule: without a source yet, without a mark, and of a
/// socket that is bound to no interface.
fn is_met(rule: &RuleFacts, address: IpAddr) -> bool {
    let to = rule.destination.is_none_or(|to| to.contains(address));
    let unmarked = rule.mark.is_none_or(|(mark, mask)| mark & mask == 0);
    let own = rule
        .input_interface
        .as_deref()
        .is_none_or(|name| name == "lo");
    let plain = rule.source.is_none() && rule.output_interface.is_none();
    rule.ipv6 == address.is_ipv6() && (to && unmarked && own && plain) != rule.inverted
}

impl fmt::Display for Detour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detour::Own => f.write_str("that address is this host's own"),
            Detour::Rule {
                priority: Some(priority),
                table,
                route,
                way,
            } => write!(
                f,
                "the policy rule with priority {priority} looks in table {table} first, which has a route {route} {way}"
            ),
            Detour::Rule {
                priority: None,
                table,
                route,
                way,
            } => write!(
                f,
                "a policy rule looks in table {table} first, which has a route {route} {way}"
            ),
            Detour::Route { route, way } => {
                write!(f, "the route {route} {way} comes first")
            }
            Detour::RefusedByRule { priority } => {
                write!(f, "the policy rule with priority {priority} refuses them")
            }
            Detour::RefusedByRoute { route, table } => {
                write!(f, "the route {route} of table {table} refuses them")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::plan::facts::{LinkFacts, NextHop};

    const TUNNEL: InterfaceIndex = InterfaceIndex(9);

    fn rule(priority: u32, table: u32) -> RuleFacts {
        RuleFacts {
            ipv6: false,
            priority,
            source: None,
            destination: None,
            mark: None,
            input_interface: None,
            output_interface: None,
            table: Some(table),
            inverted: false,
            suppress_prefix_length: None,
        }
    }

    fn route(destination: &str, table: u32, device: u32) -> RouteFacts {
        RouteFacts {
            destination: destination.parse().unwrap(),
            table,
            kind: RouteKind::Unicast,
            protocol: 4,
            metric: 0,
            source: None,
            hops: vec![NextHop {
                device: Some(InterfaceIndex(device)),
                gateway: None,
            }],
        }
    }

    fn host(rules: Vec<RuleFacts>) -> HostFacts {
        let link = |index, name: &str| LinkFacts {
            index: InterfaceIndex(index),
            name: name.to_owned(),
            kind: None,
            mtu: 1500,
            up: true,
            loopback: false,
            tx_queue_length: 1000,
            gso_max_size: None,
            address_generation: None,
            master: None,
            group: 0,
        };
        HostFacts {
            links: vec![link(5, "tailscale0"), link(9, "sshvpn0")],
            rules,
            ..HostFacts::default()
        }
    }

    fn said(chosen: &RouteFacts, rules: Vec<RuleFacts>) -> Option<String> {
        let to = "10.2.0.1".parse().unwrap();
        Detour::of(to, chosen, TUNNEL, &host(rules)).map(|detour| detour.to_string())
    }

    #[test]
    fn the_first_rule_that_meets_the_packet_is_named() {
        let other = route("10.0.0.0/8", 52, 5);
        let marked = RuleFacts {
            mark: Some((0x80000, 0xff0000)),
            ..rule(5210, 52)
        };
        let elsewhere = RuleFacts {
            destination: Some("10.9.0.0/16".parse().unwrap()),
            ..rule(5220, 52)
        };
        let unmarked = RuleFacts {
            inverted: true,
            ..marked.clone()
        };
        let text = "looks in table 52 first, which has a route 10.0.0.0/8 on tailscale0";
        let rules = vec![marked, elsewhere, rule(5270, 52), rule(32766, 254)];
        let expected = format!("the policy rule with priority 5270 {text}");
        assert_eq!(said(&other, rules), Some(expected));
        let expected = format!("the policy rule with priority 5210 {text}");
        assert_eq!(said(&other, vec![unmarked]), Some(expected));
        assert_eq!(said(&other, vec![]), Some(format!("a policy rule {text}")));
    }

    #[test]
    fn the_tunnels_route_is_no_detour_and_a_longer_one_is() {
        assert_eq!(said(&route("10.2.0.0/16", 254, 9), vec![]), None);
        assert_eq!(
            said(&route("10.2.0.0/24", 254, 5), vec![]).as_deref(),
            Some("the route 10.2.0.0/24 on tailscale0 comes first")
        );
    }

    #[test]
    fn a_refusal_has_its_rule_or_route() {
        let to = "10.2.0.1".parse().unwrap();
        let mut facts = host(vec![RuleFacts {
            table: None,
            ..rule(77, 0)
        }]);
        let by_rule = Detour::of_refused(to, &facts);
        assert_eq!(by_rule, Some(Detour::RefusedByRule { priority: 77 }));
        facts.rules = vec![rule(5270, 52)];
        assert_eq!(Detour::of_refused(to, &facts), None);
        std::sync::Arc::make_mut(&mut facts.routes).push(RouteFacts {
            kind: RouteKind::Reject,
            ..route("10.0.0.0/8", 52, 5)
        });
        assert_eq!(
            Detour::of_refused(to, &facts).unwrap().to_string(),
            "the route 10.0.0.0/8 of table 52 refuses them"
        );
    }
}
