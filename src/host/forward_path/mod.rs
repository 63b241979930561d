//! Judges the chains that a forwarded packet meets, of nftables and of iptables, and names those
//! that drop a tunnel's packets. Pure: the rulesets were read beforehand, and may be a remote
//! host's.

mod iptables;
mod nft;
mod packet;
mod rules;

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::types::InterfaceName;
use crate::types::family::Family;
use ipnetwork::IpNetwork;
pub(crate) use packet::Device;
use packet::{Packet, Side};
use rules::Table;

/// Chains that are named, at most.
const MOST_WARNINGS: usize = 8;
/// Interfaces that packets are judged for, at most.
const MOST_WAYS: usize = 16;
/// Networks that rules are compared with, at most.
const MOST_NETWORKS: usize = 16;

/// The comment that begins with this marks a rule of ours.
const OWN: &str = "sshvpn ";

/// The rulesets of a host, as far as they concern forwarded packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rulesets {
    tables: Vec<Table>,
}

/// The ruleset that a table belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ruleset {
    /// nftables, of this family; iptables-nft keeps its tables there, as `ip` and `ip6`.
    Nft(NftFamily),
    /// iptables-legacy or ip6tables-legacy.
    Legacy(Family),
}

/// A family of nftables' tables that IP packets meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NftFamily {
    Ip,
    Ip6,
    Inet,
}

impl NftFamily {
    fn named(name: &str) -> Option<Self> {
        match name {
            "ip" => Some(NftFamily::Ip),
            "ip6" => Some(NftFamily::Ip6),
            "inet" => Some(NftFamily::Inet),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            NftFamily::Ip => "ip",
            NftFamily::Ip6 => "ip6",
            NftFamily::Inet => "inet",
        }
    }
}

impl Ruleset {
    fn has(self, family: Family) -> bool {
        match self {
            Ruleset::Nft(NftFamily::Inet) => true,
            Ruleset::Nft(NftFamily::Ip) => family == Family::V4,
            Ruleset::Nft(NftFamily::Ip6) => family == Family::V6,
            Ruleset::Legacy(of) => of == family,
        }
    }
}

/// A tunnel whose packets are forwarded, or all of a server's.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel<'a> {
    /// The device.
    pub device: Device<'a>,
    /// How a command names it.
    pub named: Named<'a>,
    /// The networks beyond.
    pub networks: &'a [IpNetwork],
    /// Whether hosts there may open connections to the client.
    pub inbound: bool,
    /// Families that clients of a server use among each other.
    pub among_clients: &'a [Family],
}

/// The packets of one family of a tunnel.
struct Forwarded<'a> {
    tunnel: &'a Tunnel<'a>,
    family: Family,
    /// The interfaces on the way to the networks.
    ways: &'a BTreeSet<InterfaceName>,
}

/// A chain that drops the tunnel's packets, unless one of its rules with a match that is not
/// judged here accepts them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Dropping {
    ruleset: Ruleset,
    family: Family,
    table: String,
    chain: String,
}

/// The chains that drop a tunnel's packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Obstacles {
    /// Families whose FORWARD chain of iptables-nft needs rules of ours.
    pub iptables: Vec<Family>,
    /// Families whose FORWARD chain of iptables-legacy needs rules of ours.
    pub legacy: Vec<Family>,
    /// The others, each as a warning.
    pub warnings: Vec<String>,
}

/// How a command names the devices of a tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named<'a> {
    /// The device.
    Device(&'a str),
    /// The group of a server's devices (IFLA_GROUP).
    Group(u32),
}

/// The chain in which rules of ours let the packets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mend {
    /// iptables-nft's FORWARD, table `filter`.
    Iptables,
    /// iptables-legacy's.
    Legacy,
}

impl Rulesets {
    /// Reads the output of `nft -j list ruleset`; what was cut off or is not understood is left
    /// out. Returns whether it is such output at all.
    pub(crate) fn add_nft(&mut self, json: &str) -> bool {
        let tables = nft::parse(json);
        let read = tables.is_some();
        self.tables.extend(tables.unwrap_or_default());
        read
    }

    /// Reads the output of `iptables -t TABLE -S`.
    pub(crate) fn add_iptables(&mut self, ruleset: Ruleset, table: &str, listing: &str) {
        self.tables.push(iptables::parse(ruleset, table, listing));
    }

    /// The chains that drop any of the tunnel's packets; `ways` are the interfaces on the way to
    /// the networks of one family.
    pub(crate) fn obstacles<'a>(
        &self,
        tunnel: &'a Tunnel<'a>,
        ways: impl Fn(Family) -> &'a BTreeSet<InterfaceName>,
    ) -> Obstacles {
        let named = tunnel.named;
        let mut obstacles = Obstacles::default();
        let dropping = [Family::V4, Family::V6].into_iter().flat_map(|family| {
            self.dropping(&Forwarded {
                tunnel,
                family,
                ways: ways(family),
            })
        });
        for dropping in dropping {
            match dropping.mend() {
                Some(Mend::Iptables) => obstacles.iptables.push(dropping.family),
                Some(Mend::Legacy) => obstacles.legacy.push(dropping.family),
                None if obstacles.warnings.len() < MOST_WARNINGS => {
                    obstacles.warnings.push(dropping.advice(named));
                }
                None => {}
            }
        }
        obstacles
    }

    /// The chains that drop these packets, each once.
    fn dropping(&self, forwarded: &Forwarded<'_>) -> Vec<Dropping> {
        let packets = forwarded.packets();
        let mut found = Vec::new();
        let tables = self.tables.iter();
        for table in tables.filter(|table| table.ruleset.has(forwarded.family)) {
            let dropping = table.dropping(&packets).into_iter();
            found.extend(dropping.map(|chain| Dropping {
                ruleset: table.ruleset,
                family: forwarded.family,
                table: table.name.clone(),
                chain: chain.to_owned(),
            }));
        }
        found
    }
}

impl Forwarded<'_> {
    fn packets(&self) -> Vec<Packet<'_>> {
        let there: Vec<IpNetwork> = self
            .tunnel
            .networks
            .iter()
            .copied()
            .filter(|network| Family::of(network.ip()) == self.family)
            .take(MOST_NETWORKS + 1)
            .collect();
        // Of too many it is not judged which rules are for them.
        let there = if there.len() > MOST_NETWORKS {
            Vec::new()
        } else {
            there
        };
        let tunnel = Side {
            device: self.tunnel.device,
            addresses: Vec::new(),
        };
        let mut packets = Vec::new();
        if self.tunnel.among_clients.contains(&self.family) {
            let packet = |reply| Packet::of(&tunnel, &tunnel, self.family, reply);
            packets.extend([false, true].map(packet));
        }
        for way in self.ways.iter().take(MOST_WAYS) {
            let way = Side {
                device: Device::Named(way.as_str()),
                addresses: there.clone(),
            };
            for reply in [false, true] {
                let (from, to) = (&tunnel, &way);
                if !reply || self.tunnel.inbound {
                    packets.push(Packet::of(from, to, self.family, reply));
                }
                if reply || self.tunnel.inbound {
                    packets.push(Packet::of(to, from, self.family, reply));
                }
            }
        }
        packets
    }
}

impl Dropping {
    /// The chain in which a rule may be added; `None` for a chain that another program or the
    /// administrator rewrites as a whole: a rule there would be lost or undo what they decided.
    fn mend(&self) -> Option<Mend> {
        let forward = self.table == "filter" && self.chain == "FORWARD";
        match self.ruleset {
            Ruleset::Nft(NftFamily::Ip | NftFamily::Ip6) if forward => Some(Mend::Iptables),
            Ruleset::Legacy(_) if forward => Some(Mend::Legacy),
            _ => None,
        }
    }

    /// Names the chain, and the command that lets the tunnel's packets pass.
    fn advice(&self, tunnel: Named<'_>) -> String {
        let (table, chain) = (shown(&self.table), shown(&self.chain));
        let of = match self.ruleset {
            Ruleset::Nft(family) => format!("nftables' table '{} {table}'", family.name()),
            Ruleset::Legacy(family) => format!("{}'s table '{table}'", legacy(family)),
        };
        let packets = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let mut text = format!("chain '{chain}' of {of} drops the tunnel's {packets} packets");
        if let Some(command) = self.command(tunnel) {
            let _ = write!(text, "; to let them pass: {command}");
        }
        text
    }

    fn command(&self, tunnel: Named<'_>) -> Option<String> {
        let (table, chain) = (&self.table, &self.chain);
        let device = match tunnel {
            Named::Device(name) => Some(name).filter(|name| is_word(name)),
            Named::Group(_) => None,
        };
        if !is_word(table) || !is_word(chain) {
            return None;
        }
        Some(match (self.ruleset, tunnel) {
            (Ruleset::Nft(_), _) if table == "firewalld" => {
                // firewalld knows no groups; a plus stands for any number.
                let device = device.unwrap_or("tun+");
                format!("firewall-cmd --zone=trusted --add-interface={device}")
            }
            (Ruleset::Nft(family), _) => {
                let insert = format!("nft insert rule {} {table} {chain}", family.name());
                let (from, to) = match tunnel {
                    Named::Group(group) => {
                        (format!("iifgroup {group}"), format!("oifgroup {group}"))
                    }
                    Named::Device(_) => (
                        format!("iifname {}", device?),
                        format!("oifname {}", device?),
                    ),
                };
                format!("{insert} {from} accept; {insert} {to} ct state established,related accept")
            }
            (Ruleset::Legacy(family), _) => {
                let insert = format!("{} -t {table} -I {chain}", legacy(family));
                let device = device.unwrap_or("tun+");
                format!(
                    "{insert} -i {device} -j ACCEPT; {insert} -o {device} -m conntrack --ctstate \
                     RELATED,ESTABLISHED -j ACCEPT"
                )
            }
        })
    }
}

fn legacy(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    }
}

/// Whether a name can stand in a command without quotes.
fn is_word(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.starts_with('-') && (1..=64).contains(&name.len()) && name.chars().all(plain)
}

/// A name, safe to print.
fn shown(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    name.chars().take(64).map(safe).collect()
}

#[cfg(test)]
mod tests;
