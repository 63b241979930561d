//! A client's firewall on its own host, independent of the server: no connection comes in through
//! the tunnel, and nothing is forwarded from or to it, unless the user asked for it. Pure text,
//! passed to `nft` or `iptables-restore`.

use ipnetwork::IpNetwork;

use super::Entry;
use super::firewall::{MadeTable, add_rule, matches, same_family, table_name};
use super::iptables::{self, ANSWERS, Chain, IptablesError};
use super::kind::{HostChange, record_and_make};
use super::nft::{Nft, NftError};
use crate::host::error::NetError;
use crate::host::journal::Journal;
use crate::host::netlink::Netlink;
use crate::types::family::Family;

/// The packets that may pass between the tunnel and this host.
///
/// Always allowed: replies, pings of this host, and the neighbour discovery that Ethernet needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientFirewall {
    /// Networks and single hosts beyond the tunnel that may open connections.
    pub inbound: Vec<IpNetwork>,
    /// Networks behind this host that may use the tunnel.
    pub forward: Vec<IpNetwork>,
}

/// The program that makes the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// nft, in the table `inet sshvpn_NAME`.
    Nft,
    /// nft on a kernel without connection tracking: an opened connection is recognized for TCP
    /// only, by its first packet.
    NftStateless,
    /// iptables or ip6tables, in the table `mangle`.
    Iptables(Family),
}

/// The rules and the program that makes them.
pub(in crate::host) struct Wanted<'a>(pub &'a ClientFirewall, pub Means);

impl HostChange for Wanted<'_> {
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let Wanted(firewall, means) = *self;
        let entry = match means {
            Means::Iptables(family) => iptables::Made::entry(family),
            Means::Nft | Means::NftStateless => Entry::FirewallTable(MadeTable {}),
        };
        let name = journal.interface().to_owned();
        record_and_make(journal, entry, make(&name, firewall, means)).await
    }
}

impl ClientFirewall {
    /// The commands that make the table; they fail if a table of that name exists.
    fn table(&self, interface: &str, stateless: bool) -> Result<String, NftError> {
        let table = table_name(interface)?;
        let answers: &[&str] = match stateless {
            false => &["ct state established,related"],
            true => &["tcp flags & (syn | ack) != syn", "meta l4proto != tcp"],
        };
        let mut text = format!("create table {table}\n");
        for hook in ["input", "forward"] {
            text.push_str(&format!(
                "add chain {table} {hook} {{ type filter hook {hook} priority -150; policy accept; }}\n"
            ));
        }
        let (from, to) = (
            format!("iifname \"{interface}\""),
            format!("oifname \"{interface}\""),
        );
        let mut rule = |rule: String| add_rule(&mut text, &format!("{table} {rule}"));
        for answer in answers {
            rule(format!("input {from} {answer} accept"));
        }
        rule(format!("input {from} icmp type echo-request accept"));
        rule(format!(
            "input {from} icmpv6 type {{ echo-request, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query }} accept"
        ));
        // Switches with IGMP snooping stop forwarding to a host that does not answer queries.
        rule(format!("input {from} ip protocol igmp accept"));
        for beyond in matches(&self.inbound, "saddr") {
            rule(format!("input {from} {beyond} accept"));
        }
        rule(format!("input {from} drop"));
        if !self.forward.is_empty() {
            for side in [&from, &to] {
                let clamp = "tcp flags syn tcp option maxseg size set rt mtu";
                rule(format!("forward {side} {clamp}"));
            }
        }
        for behind in matches(&self.forward, "daddr") {
            for answer in answers {
                rule(format!("forward {from} {behind} {answer} accept"));
            }
            for beyond in matches(&self.inbound, "saddr") {
                if same_family(&behind, &beyond) {
                    rule(format!("forward {from} {behind} {beyond} accept"));
                }
            }
        }
        rule(format!("forward {from} drop"));
        for behind in matches(&self.forward, "saddr") {
            rule(format!("forward {to} {behind} accept"));
        }
        rule(format!("forward {to} drop"));
        Ok(text)
    }

    /// The input of iptables-restore(8) for one family's rules.
    fn rules(&self, interface: &str, family: Family) -> Result<String, IptablesError> {
        let comment = iptables::comment(interface)?;
        let chains = self.chains(interface, family);
        let mut rules: Vec<_> = chains.iter().map(|chain| chain.entrance.clone()).collect();
        if !of_family(&self.forward, family).is_empty() {
            rules.extend(iptables::clamp(interface));
        }
        let made: String = chains.iter().map(Chain::lines).collect();
        Ok(iptables::restore(&made, &rules, &comment))
    }

    fn chains(&self, interface: &str, family: Family) -> [Chain; 3] {
        let inbound = of_family(&self.inbound, family);
        let forward = of_family(&self.forward, family);
        let mut input = vec![format!("{ANSWERS} -j RETURN")];
        input.extend(
            harmless(family)
                .iter()
                .map(|harmless| format!("{harmless} -j RETURN")),
        );
        input.extend(
            inbound
                .iter()
                .map(|beyond| format!("-s {beyond} -j RETURN")),
        );
        let mut onward = Vec::new();
        for behind in &forward {
            onward.push(format!("-d {behind} {ANSWERS} -j RETURN"));
            let open = inbound.iter();
            onward.extend(open.map(|beyond| format!("-s {beyond} -d {behind} -j RETURN")));
        }
        let outbound = forward
            .iter()
            .map(|behind| format!("-s {behind} -j RETURN"));
        let (from, to) = (format!("-i {interface}"), format!("-o {interface}"));
        [
            Chain::dropping(
                iptables::inbound_chain(interface),
                "INPUT",
                from.clone(),
                input,
            ),
            Chain::dropping(iptables::onward_chain(interface), "FORWARD", from, onward),
            Chain::dropping(
                iptables::outbound_chain(interface),
                "FORWARD",
                to,
                outbound.collect(),
            ),
        ]
    }
}

/// Matches of packets that may always come in, besides replies.
fn harmless(family: Family) -> &'static [&'static str] {
    match family {
        // Switches with snooping stop forwarding to a host that answers no queries (IGMP, MLD).
        Family::V4 => &["-p icmp --icmp-type echo-request", "-p igmp"],
        Family::V6 => &[
            "-p icmpv6 --icmpv6-type echo-request",
            "-p icmpv6 --icmpv6-type neighbour-solicitation",
            "-p icmpv6 --icmpv6-type neighbour-advertisement",
            "-p icmpv6 --icmpv6-type 130",
        ],
    }
}

fn of_family(networks: &[IpNetwork], family: Family) -> Vec<IpNetwork> {
    let networks = networks.iter().copied();
    networks
        .filter(|network| Family::of(network.ip()) == family)
        .collect()
}

/// Makes the rules for the tunnel of this name.
async fn make(interface: &str, firewall: &ClientFirewall, means: Means) -> Result<(), NetError> {
    if let Means::Iptables(family) = means {
        return iptables::apply(family, &firewall.rules(interface, family)?).await;
    }
    let commands = firewall.table(interface, means == Means::NftStateless)?;
    let nft = Nft::require()?;
    Ok(nft.apply("add the firewall table", &commands).await?)
}

#[cfg(test)]
mod tests;
