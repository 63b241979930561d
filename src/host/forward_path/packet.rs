//! A packet to judge, and the tests of rules that it is put to.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::types::family::{Family, is_within};

/// An interface of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device<'a> {
    /// The interface of this name.
    Named(&'a str),
    /// A new tun or tap device, whose name begins with one of these.
    Beginning(&'a [&'a str]),
}

/// Where a packet comes from, or goes.
#[derive(Debug, Clone)]
pub(super) struct Side<'a> {
    pub device: Device<'a>,
    /// Its address is in one of these; empty if it is not known.
    pub addresses: Vec<IpNetwork>,
}

#[derive(Debug, Clone)]
pub(super) struct Packet<'a> {
    pub family: Family,
    pub from: Side<'a>,
    pub to: Side<'a>,
    /// Whether it belongs to a connection that was opened the other way; else it opens one.
    pub reply: bool,
}

impl<'a> Packet<'a> {
    pub(super) fn of(from: &Side<'a>, to: &Side<'a>, family: Family, reply: bool) -> Self {
        Packet {
            family,
            from: from.clone(),
            to: to.clone(),
            reply,
        }
    }
}

/// Whether a packet matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Matches {
    No,
    May,
    Yes,
}

impl Matches {
    fn not(self) -> Self {
        match self {
            Matches::No => Matches::Yes,
            Matches::May => Matches::May,
            Matches::Yes => Matches::No,
        }
    }
}

/// One match of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// Not judged here.
    Unknown,
    Never,
    Not(Box<Test>),
    Family(Family),
    /// The interface that the packet came in by; a name that ends in `*` is a beginning.
    In(Vec<String>),
    Out(Vec<String>),
    Source(Addresses),
    Destination(Addresses),
    /// The state of the connection is one of these: new, established.
    State {
        new: bool,
        established: bool,
    },
}

/// A list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Addresses {
    pub networks: Vec<IpNetwork>,
    /// Whether there are others, which are not judged here.
    pub more: bool,
}

impl Test {
    pub(super) fn negated(self, negated: bool) -> Self {
        match negated {
            true => Test::Not(Box::new(self)),
            false => self,
        }
    }

    pub(super) fn matches(&self, packet: &Packet<'_>) -> Matches {
        let sure = |is: bool| if is { Matches::Yes } else { Matches::No };
        match self {
            Test::Unknown => Matches::May,
            Test::Never => Matches::No,
            Test::Not(test) => test.matches(packet).not(),
            Test::Family(family) => sure(*family == packet.family),
            Test::In(names) => packet.from.device.matches(names),
            Test::Out(names) => packet.to.device.matches(names),
            Test::Source(addresses) => addresses.match_side(&packet.from, packet.family),
            Test::Destination(addresses) => addresses.match_side(&packet.to, packet.family),
            Test::State { new, established } => {
                sure(if packet.reply { *established } else { *new })
            }
        }
    }
}

impl Device<'_> {
    fn matches(self, names: &[String]) -> Matches {
        let matched = names.iter().map(|name| self.matches_one(name));
        matched.max().unwrap_or(Matches::No)
    }

    fn matches_one(self, name: &str) -> Matches {
        let beginning = name.strip_suffix('*');
        match self {
            Device::Named(own) => match beginning {
                Some(beginning) if own.starts_with(beginning) => Matches::Yes,
                None if own == name => Matches::Yes,
                _ => Matches::No,
            },
            Device::Beginning(own) => {
                let any = |test: &dyn Fn(&str) -> bool| own.iter().any(|own| test(own));
                match beginning {
                    Some(beginning) if own.iter().all(|own| own.starts_with(beginning)) => {
                        Matches::Yes
                    }
                    Some(beginning)
                        if any(&|own| own.starts_with(beginning) || beginning.starts_with(own)) =>
                    {
                        Matches::May
                    }
                    None if any(&|own| name.starts_with(own)) => Matches::May,
                    _ => Matches::No,
                }
            }
        }
    }
}

impl Addresses {
    fn match_side(&self, side: &Side<'_>, family: Family) -> Matches {
        let of_family = |network: &&IpNetwork| Family::of(network.ip()) == family;
        let networks: Vec<&IpNetwork> = self.networks.iter().filter(of_family).collect();
        if networks.iter().any(|network| network.prefix() == 0) {
            return Matches::Yes;
        }
        if side.addresses.is_empty() {
            return match networks.is_empty() && !self.more {
                true => Matches::No,
                false => Matches::May,
            };
        }
        let within = |network: &IpNetwork| networks.iter().any(|list| is_within(network, list));
        if side.addresses.iter().all(within) {
            return Matches::Yes;
        }
        let meets = |network: &IpNetwork| {
            let mut listed = networks.iter();
            listed.any(|list| is_within(network, list) || is_within(list, network))
        };
        match self.more || side.addresses.iter().any(meets) {
            true => Matches::May,
            false => Matches::No,
        }
    }

    /// Adds an address or a prefix; anything else is one that is not judged.
    pub(super) fn add(&mut self, text: &str) {
        match text.parse::<IpNetwork>() {
            Ok(network) => self.networks.push(network),
            Err(_) => self.more = true,
        }
    }

    /// Adds `address/length`.
    pub(super) fn add_prefix(&mut self, address: &str, length: Option<u64>) {
        let network = address.parse::<IpAddr>().ok().and_then(|address| {
            let length = u8::try_from(length?).ok()?;
            IpNetwork::new(address, length).ok()
        });
        match network {
            Some(network) => self.networks.push(network),
            None => self.more = true,
        }
    }
}
