//! The state of this host that a forwarding tunnel's changes depend on, and the settings that
//! forwarding needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;

use super::address_range::Family;
use super::facts::HostFacts;
use super::ways;
use crate::host::change::firewall;
use crate::host::change::iptables::Iptables;
use crate::host::change::nft::Nft;
use crate::host::change::shared_setting::SharedSetting;
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::program::Program;
use crate::types::InterfaceName;

/// Exists if the kernel supports IPv6, even while IPv6 is disabled.
const IPV6: &str = "/proc/sys/net/ipv6";

/// The state of this host that the changes depend on.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Links and routes.
    pub facts: HostFacts,
    /// Interfaces on which the kernel itself accepts router advertisements.
    pub takes_advertisements: BTreeSet<InterfaceName>,
    /// Whether there is an nft program.
    pub nft: bool,
    /// The families that have an iptables program, if there is no nft.
    pub iptables: Vec<Family>,
    /// Whether the kernel supports IPv6.
    pub ipv6: bool,
    /// Families whose forward chain drops by default.
    pub drops: Vec<Family>,
}

/// The programs by which a server changes this host's firewall: nft, else iptables.
pub fn firewall_programs() -> Vec<PathBuf> {
    if let Some(nft) = Program::find("nft") {
        return vec![nft.path().to_owned()];
    }
    let names = [
        "iptables",
        "iptables-restore",
        "ip6tables",
        "ip6tables-restore",
    ];
    let found = names.into_iter().filter_map(Program::find);
    found.map(|program| program.path().to_owned()).collect()
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
        let nft = Nft::find();
        let (mut iptables, mut drops) = (Vec::new(), Vec::new());
        for family in [Family::V4, Family::V6] {
            let dropping = match (&nft, Iptables::find(family)) {
                (Some(nft), _) => firewall::forward_drops(nft, family).await,
                (None, Some(program)) => {
                    iptables.push(family);
                    program.forward_drops().await
                }
                (None, None) => false,
            };
            if dropping {
                drops.push(family);
            }
        }
        Ok(Self {
            facts,
            takes_advertisements,
            nft: nft.is_some(),
            iptables,
            ipv6: Path::new(IPV6).exists(),
            drops,
        })
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
        match family {
            Family::V4 => !self.ways4.is_empty(),
            Family::V6 => !self.ways6.is_empty(),
        }
    }

    /// The settings that this host needs to forward the replies in IPv4.
    pub fn to_forward_ipv4(&self) -> Vec<SharedSetting> {
        let ways = self.ways4.iter().cloned();
        ways.map(SharedSetting::ForwardIpv4).collect()
    }
}
