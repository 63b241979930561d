//! Turns the kernel's messages into facts. A missing attribute or one of unknown form is left out;
//! nothing here fails.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::unistd::Uid;
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use crate::host::plan::facts::{
    AddressFacts, AddressGeneration, InterfaceIndex, LinkFacts, NextHop, RouteFacts, RouteKind,
    RuleFacts,
};

/// `IFLA_TUN_OWNER` (linux/if_link.h).
const IFLA_TUN_OWNER: u16 = 1;

impl LinkFacts {
    /// Reads an RTM_NEWLINK.
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: InterfaceIndex(message.header.index),
            name: String::new(),
            kind: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            tx_queue_length: 0,
            gso_max_size: None,
            address_generation: None,
            master: None,
            group: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name.clone(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::GsoMaxSize(bytes) => link.gso_max_size = Some(*bytes),
                LinkAttribute::TxQueueLen(packets) => link.tx_queue_length = *packets,
                LinkAttribute::LinkInfo(info) => link.kind = kind(info),
                LinkAttribute::Controller(index) => {
                    link.master = Some(*index).filter(|index| *index != 0).map(InterfaceIndex);
                }
                LinkAttribute::Group(group) => link.group = *group,
                LinkAttribute::AfSpecUnspec(families) => {
                    link.address_generation = address_generation(families);
                }
                _ => {}
            }
        }
        link
    }
}

/// The owner in an RTM_NEWLINK of a tun or tap device.
pub(super) fn owner_of_tun(message: &LinkMessage) -> Option<Uid> {
    let infos = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(info) => Some(info),
            _ => None,
        });
    let values = infos.flatten().filter_map(|info| match info {
        LinkInfo::Data(InfoData::Tun(values)) => Some(values),
        _ => None,
    });
    let mut owners = values
        .flatten()
        .filter(|value| value.kind() == IFLA_TUN_OWNER);
    let owner = owners.next()?;
    let mut bytes = [0; 4];
    (owner.value_len() == bytes.len()).then(|| {
        owner.emit_value(&mut bytes);
        Uid::from_raw(u32::from_ne_bytes(bytes))
    })
}

fn kind(info: &[LinkInfo]) -> Option<String> {
    info.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn address_generation(families: &[AfSpecUnspec]) -> Option<AddressGeneration> {
    families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(settings) => settings.iter().find_map(|setting| match setting {
            AfSpecInet6::AddrGenMode(mode) => Some(AddressGeneration(mode.into())),
            _ => None,
        }),
        _ => None,
    })
}

impl AddressFacts {
    /// Reads an RTM_NEWADDR of an IP family.
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address) = (None, None);
        let mut no_dad = message.header.flags.contains(AddressHeaderFlags::Nodad);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(flags) => no_dad |= flags.contains(AddressFlags::Nodad),
                _ => {}
            }
        }
        // The kernel sends IFA_LOCAL for IPv6 only if there is a peer.
        let own = local.or(address)?;
        Some(Self {
            index: InterfaceIndex(message.header.index),
            address: own,
            prefix: message.header.prefix_len,
            peer: address.filter(|peer| *peer != own),
            no_dad,
        })
    }
}

impl RouteFacts {
    /// Reads an RTM_NEWROUTE of an IP family.
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let everything = match header.address_family {
            AddressFamily::Inet => IpAddr::from([0u8; 4]),
            AddressFamily::Inet6 => IpAddr::from([0u8; 16]),
            _ => return None,
        };
        let mut destination = everything;
        let mut single = NextHop {
            device: None,
            gateway: None,
        };
        let mut several = Vec::new();
        let (mut table, mut metric, mut source) = (u32::from(header.table), 0, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(number) => metric = *number,
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Oif(number) => single.device = Some(InterfaceIndex(*number)),
                RouteAttribute::MultiPath(hops) => several = hops.iter().map(next_hop).collect(),
                other => single.gateway = single.gateway.or(gateway(other)),
            }
        }
        if single.device.is_some() || single.gateway.is_some() {
            several.insert(0, single);
        }
        Some(Self {
            destination: IpNetwork::new(destination, header.destination_prefix_length).ok()?,
            table,
            kind: route_kind(header.kind),
            protocol: header.protocol.into(),
            metric,
            source,
            hops: several,
        })
    }
}

fn route_kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Anycast => RouteKind::Anycast,
        RouteType::Multicast => RouteKind::Multicast,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => RouteKind::Reject,
        other => RouteKind::Other(other.into()),
    }
}

fn next_hop(hop: &RouteNextHop) -> NextHop {
    NextHop {
        device: Some(InterfaceIndex(hop.interface_index)),
        gateway: hop.attributes.iter().find_map(gateway),
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

impl RuleFacts {
    /// Reads an RTM_NEWRULE.
    pub(super) fn from_message(message: &RuleMessage) -> Self {
        let header = &message.header;
        let mut rule = Self {
            ipv6: header.family == AddressFamily::Inet6,
            priority: 0,
            source: None,
            destination: None,
            mark: None,
            input_interface: None,
            output_interface: None,
            table: None,
            inverted: header.flags.contains(RuleFlags::Invert),
            suppress_prefix_length: None,
        };
        let mut table = u32::from(header.table);
        let (mut mark, mut mask) = (None, u32::MAX);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(number) => rule.priority = *number,
                RuleAttribute::Source(ip) => rule.source = IpNetwork::new(*ip, header.src_len).ok(),
                RuleAttribute::Destination(ip) => {
                    rule.destination = IpNetwork::new(*ip, header.dst_len).ok();
                }
                RuleAttribute::FwMark(number) => mark = Some(*number),
                RuleAttribute::FwMask(number) => mask = *number,
                RuleAttribute::Iifname(name) => rule.input_interface = Some(name.clone()),
                RuleAttribute::Oifname(name) => rule.output_interface = Some(name.clone()),
                RuleAttribute::Table(number) => table = *number,
                // The kernel sends -1 for "none".
                RuleAttribute::SuppressPrefixLen(length) if *length != u32::MAX => {
                    rule.suppress_prefix_length = Some(*length);
                }
                _ => {}
            }
        }
        rule.mark = mark.map(|mark| (mark, mask));
        rule.table = (header.action == RuleAction::ToTable).then_some(table);
        rule
    }
}
