//! The changes that a tunnel makes on this host, in order.

use ipnetwork::IpNetwork;

use super::remote_part::Agreed;
use crate::host::change::protection::Ipv6;
use crate::host::change::resolver::{ResolverChange, ResolverWay};
use crate::host::change::{Change, GSO_MAX_SIZE, InterfaceAddress, TX_QUEUE_LENGTH, TunnelRoute};
use crate::host::plan::addressing::AddressPair;
use crate::types::Mode;
use crate::types::family::is_within;

/// The changes for the link, then its addresses, its routes, and the name servers behind it.
pub(super) fn changes<P>(mode: Mode, agreed: &Agreed<P>, routes: &[IpNetwork]) -> Vec<Change> {
    let addresses = &agreed.addresses;
    let ipv6 = Ipv6::agreed(addresses.iter().any(|pair| pair.local.is_ipv6()));
    let mut changes = vec![
        Change::AddressGenerationNone,
        Change::TxQueueLength(TX_QUEUE_LENGTH),
        Change::GsoMaxSize(GSO_MAX_SIZE),
        Change::Mtu(agreed.mtu),
        Change::Protection(ipv6),
        Change::LinkUp,
    ];
    for pair in addresses {
        changes.push(Change::Address(match (mode, pair.local_network()) {
            (Mode::Ethernet, Some(network)) => InterfaceAddress::Network(network),
            _ => InterfaceAddress::PointToPoint {
                local: pair.local,
                peer: pair.remote,
            },
        }));
    }
    for route in routes {
        let pair = addresses
            .iter()
            .find(|pair| pair.local.is_ipv4() == route.is_ipv4());
        let link = pair.and_then(AddressPair::local_network);
        if mode == Mode::Ethernet && link.is_some_and(|link| is_within(route, &link)) {
            // The link's own route leads there.
            continue;
        }
        changes.push(Change::Route(TunnelRoute {
            // An ethernet link may have many hosts, so the route names a gateway.
            gateway: pair
                .map(|pair| pair.remote)
                .filter(|_| mode == Mode::Ethernet),
            source: pair.map(|pair| pair.local),
            ..TunnelRoute::to(*route)
        }));
    }
    if let Some(name_servers) = &agreed.pushed.name_servers {
        changes.push(Change::NameServers(ResolverChange {
            name_servers: name_servers.clone(),
            way: ResolverWay::of_host(),
        }));
    }
    changes
}

/// The user's line for a change; `None` for changes that are not reported.
pub(super) fn describe(change: &Change) -> Option<String> {
    match change {
        Change::Address(address) => Some(format!("address {address}")),
        Change::Route(route) => Some(format!("route {route}")),
        Change::Mtu(mtu) => Some(format!("MTU {mtu}")),
        Change::NameServers(change) => Some(change.to_string()),
        _ => None,
    }
}

/// This host's machine-id(5); empty if it has none.
pub(super) fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::up::remote_part::Pushed;
    use crate::types::Mtu;

    fn agreed(addresses: &[AddressPair]) -> Agreed<()> {
        Agreed {
            remote: (),
            addresses: addresses.to_vec(),
            mtu: Mtu::ETHERNET,
            pushed: Pushed::default(),
            without_nat: false,
        }
    }

    fn pair(local: &str, remote: &str, prefix: u8) -> AddressPair {
        AddressPair {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            prefix,
        }
    }

    #[test]
    fn routes_come_last_and_go_by_the_address_of_their_family() {
        let addresses = [
            pair("10.9.0.1", "10.9.0.2", 30),
            pair("fd00::1", "fd00::2", 64),
        ];
        let routes = ["10.1.0.0/16".parse().unwrap(), "fd12::/64".parse().unwrap()];
        let changes = changes(Mode::PointToPoint, &agreed(&addresses), &routes);
        let Some(Change::Route(last)) = changes.last() else {
            panic!("{changes:?}")
        };
        assert_eq!(
            (last.gateway, last.source),
            (None, Some(addresses[1].local))
        );
        let up = changes.iter().position(|change| *change == Change::LinkUp);
        let first = changes
            .iter()
            .position(|change| matches!(change, Change::Address(_)));
        assert!(up < first);
    }

    #[test]
    fn an_ethernet_tunnel_is_a_network_with_a_gateway() {
        let addresses = [pair("10.9.0.1", "10.9.0.2", 30)];
        let routes = ["10.1.0.0/16".parse().unwrap()];
        let changes = changes(Mode::Ethernet, &agreed(&addresses), &routes);
        let network = InterfaceAddress::Network("10.9.0.1/30".parse().unwrap());
        assert!(changes.contains(&Change::Address(network)));
        let Some(Change::Route(last)) = changes.last() else {
            panic!("{changes:?}")
        };
        assert_eq!(last.gateway, Some(addresses[0].remote));
    }
}
