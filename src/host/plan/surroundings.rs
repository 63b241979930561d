//! The state of this host that a forwarding tunnel's changes depend on, and the settings that
//! forwarding needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;

use super::facts::HostFacts;
use super::ways;
use crate::host::change::iptables::{self, Iptables, legacy_tables};
use crate::host::change::nft::Nft;
use crate::host::change::shared_setting::SharedSetting;
use crate::host::error::NetError;
use crate::host::forward_path::{self, NftFamily, Obstacles, Rulesets, Tunnel};
use crate::host::netlink::Netlink;
use crate::host::program::Program;
use crate::types::InterfaceName;
use crate::types::family::Family;

/// Exists if the kernel supports IPv6, even while IPv6 is disabled.
const IPV6: &str = "/proc/sys/net/ipv6";

/// The state of this host that the changes depend on.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Links and routes.
    pub facts: HostFacts,
    /// Interfaces on which the kernel itself accepts router advertisements.
    pub takes_advertisements: BTreeSet<InterfaceName>,
    /// Whether there is an nft program, and nf_tables in the kernel.
    pub nft: bool,
    /// The families that have an iptables program, if there is no nft.
    pub iptables: Vec<Family>,
    /// Whether the kernel supports IPv6.
    pub ipv6: bool,
    /// The firewall's rules for forwarded packets.
    pub(crate) rulesets: Rulesets,
}

/// Tables of iptables that forwarded packets meet in their chain FORWARD.
const FORWARD_TABLES: [&str; 2] = ["filter", "mangle"];

/// The programs by which a server changes this host's firewall: nft, else iptables; and
/// iptables-legacy, if it has rules.
pub fn firewall_programs() -> Vec<PathBuf> {
    const LEGACY: [&str; 9] = [
        "nft",
        "iptables",
        "iptables-restore",
        "ip6tables",
        "ip6tables-restore",
        "iptables-legacy",
        "iptables-legacy-restore",
        "ip6tables-legacy",
        "ip6tables-legacy-restore",
    ];
    let names = match Program::find("nft") {
        Some(_) if has_legacy_rules() => &LEGACY[..],
        Some(_) => &["nft"],
        None => &[
            "iptables",
            "iptables-restore",
            "ip6tables",
            "ip6tables-restore",
        ],
    };
    let found = names.iter().filter_map(|name| Program::find(name));
    found.map(|program| program.path().to_owned()).collect()
}

/// Whether iptables-legacy filters forwarded packets.
pub fn has_legacy_rules() -> bool {
    let mut tables = [Family::V4, Family::V6].into_iter().flat_map(legacy_tables);
    tables.any(|name| FORWARD_TABLES.contains(&name.as_str()))
}

async fn add_iptables(
    rulesets: &mut Rulesets,
    program: &Iptables,
    family: Family,
    tables: &[&str],
) {
    let ruleset = match (program.ruleset(), family) {
        (iptables::Ruleset::Legacy, _) => forward_path::Ruleset::Legacy(family),
        (iptables::Ruleset::Nft, Family::V4) => forward_path::Ruleset::Nft(NftFamily::Ip),
        (iptables::Ruleset::Nft, Family::V6) => forward_path::Ruleset::Nft(NftFamily::Ip6),
    };
    for table in tables {
        match program.list(table).await {
            Ok(listing) => rulesets.add_iptables(ruleset, table, &listing),
            Err(error) => tracing::debug!(%error, table, "not judged"),
        }
    }
}

/// Reads the tables of ip_tables that exist.
async fn add_legacy(rulesets: &mut Rulesets, family: Family) {
    let existing = legacy_tables(family);
    let tables = FORWARD_TABLES.into_iter();
    let tables: Vec<&str> = tables
        .filter(|table| existing.iter().any(|name| name == table))
        .collect();
    if let (false, Some(program)) = (tables.is_empty(), Iptables::legacy(family).await) {
        add_iptables(rulesets, &program, family, &tables).await;
    }
}

impl Surroundings {
    /// Reads the state of this host.
    pub async fn look(netlink: &Netlink) -> Result<Self, NetError> {
        let facts = netlink.facts().await?;
        let takes_advertisements = ways::advertised(&facts)
            .into_iter()
            .filter(|interface| {
                // With accept_ra=0 a program may handle them; that one works with forwarding too.
                let key = SharedSetting::AcceptAdvertisements(interface.clone()).key();
                key.read().is_ok_and(|value| value != "0")
            })
            .collect();
        let nft = Nft::usable().await;
        let mut rulesets = Rulesets::default();
        let listed = match &nft {
            Some(nft) => rulesets.add_nft(&nft.ruleset().await),
            None => false,
        };
        let mut iptables = Vec::new();
        for family in [Family::V4, Family::V6] {
            if nft.is_none()
                && let Some(program) = Iptables::usable(family).await
            {
                iptables.push(family);
                if !listed && program.ruleset() == iptables::Ruleset::Nft {
                    add_iptables(&mut rulesets, &program, family, &FORWARD_TABLES).await;
                }
            }
            add_legacy(&mut rulesets, family).await;
        }
        Ok(Self {
            facts,
            takes_advertisements,
            nft: nft.is_some(),
            iptables,
            ipv6: Path::new(IPV6).exists(),
            rulesets,
        })
    }

    /// The chains that drop packets of this tunnel.
    pub(crate) fn obstacles<'a>(&self, onward: &'a Onward, tunnel: &'a Tunnel<'a>) -> Obstacles {
        self.rulesets
            .obstacles(tunnel, |family| onward.ways(family))
    }

    /// The settings that this host needs to forward IPv6; the first ones keep the routes that it
    /// has from router advertisements. The tunnel's own device, if it existed before, uses no
    /// advertisements while the tunnel is up.
    pub fn to_forward_ipv6(&self, tunnel: Option<&InterfaceName>) -> Vec<SharedSetting> {
        let learned = ways::advertised(&self.facts);
        let kept = learned.intersection(&self.takes_advertisements).cloned();
        let kept = kept.filter(|interface| Some(interface) != tunnel);
        let mut settings: Vec<SharedSetting> =
            kept.map(SharedSetting::AcceptAdvertisements).collect();
        settings.push(SharedSetting::ForwardIpv6);
        settings
    }
}

/// The interfaces by which forwarded packets leave this host.
#[derive(Debug, Default)]
pub struct Onward {
    ways4: BTreeSet<InterfaceName>,
    ways6: BTreeSet<InterfaceName>,
}

impl Onward {
    /// The interfaces on the way to these networks.
    pub fn to<'a>(
        facts: &HostFacts,
        networks: impl IntoIterator<Item = &'a IpNetwork> + Clone,
    ) -> Self {
        let by_family = |ipv4: bool| {
            let networks = networks.clone().into_iter();
            ways::to_networks(facts, networks.filter(|network| network.is_ipv4() == ipv4))
        };
        Self {
            ways4: by_family(true),
            ways6: by_family(false),
        }
    }

    /// Whether any packet of that family can leave.
    pub fn has(&self, family: Family) -> bool {
        !self.ways(family).is_empty()
    }

    fn ways(&self, family: Family) -> &BTreeSet<InterfaceName> {
        match family {
            Family::V4 => &self.ways4,
            Family::V6 => &self.ways6,
        }
    }

    /// The settings that this host needs to forward the replies in IPv4.
    pub fn to_forward_ipv4(&self) -> Vec<SharedSetting> {
        let ways = self.ways4.iter().cloned();
        ways.map(SharedSetting::ForwardIpv4).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::forward_path::{Device, Named};
    use crate::host::test_namespace::{self, ip};

    fn run(line: &str) {
        let mut words = line.split(' ');
        let mut command = std::process::Command::new(words.next().unwrap());
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }

    /// What drops packets of tun3 to the network of eth1.
    async fn seen() -> Obstacles {
        let around = Surroundings::look(&Netlink::open().unwrap()).await.unwrap();
        let network = ["10.20.0.0/16".parse().unwrap()];
        let tunnel = Tunnel {
            device: Device::Named("tun3"),
            named: Named::Device("tun3"),
            networks: &network,
            inbound: false,
            among_clients: &[],
        };
        around.obstacles(&Onward::to(&around.facts, &network), &tunnel)
    }

    #[test]
    fn chains_of_every_program_are_seen_as_they_print_them() {
        test_namespace::run(async {
            ip("link add eth1 type veth peer name far1");
            ip("addr add 10.20.0.1/16 dev eth1");
            ip("link set eth1 up");
            ip("link set far1 up");
            let none = Obstacles::default();
            assert_eq!(seen().await, none);
            assert!(
                legacy_tables(Family::V4).is_empty(),
                "looking makes no table"
            );
            run("iptables-nft -A FORWARD -i eth7 -j DROP");
            run("iptables-nft -A FORWARD -p tcp --dport 25 -j DROP");
            run("iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP");
            assert_eq!(seen().await, none);
            let four = vec![Family::V4];
            run("iptables-nft -A FORWARD -m comment --comment x -j REJECT");
            assert_eq!(seen().await.iptables, four);
            run("iptables-nft -F");
            run("iptables-nft -P FORWARD DROP");
            assert_eq!(seen().await.iptables, four);
            run("iptables-nft -P FORWARD ACCEPT");
            run("iptables-legacy -A FORWARD -i tun3 -j REJECT");
            assert_eq!(seen().await.legacy, four);
            run("iptables-legacy -F");
            run("nft add table inet mine");
            run(
                "nft add chain inet mine f { type filter hook forward priority 5 ; policy drop ; }",
            );
            let warnings = seen().await.warnings;
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains("'inet mine'"), "{warnings:?}");
            run("nft add rule inet mine f ct state { established, related } accept");
            run("nft add rule inet mine f iifname tun3 ip daddr 10.0.0.0/8 accept");
            assert_eq!(seen().await, none);
        });
    }
}
