//! Accept rules in the FORWARD chain of iptables-legacy. Its tables are a ruleset of their own
//! beside nftables: a verdict of one does not override the other's, so packets that our table
//! passed may be dropped there.

use ipnetwork::IpNetwork;

use super::iptables::{self, IptablesError, Rule};
use super::kind::{HostChange, record_and_make};
use super::server_table::PASSED_MARK;
use crate::host::error::NetError;
use crate::host::journal::Journal;
use crate::host::netlink::Netlink;
use crate::types::family::Family;

/// Accept rules for packets of one family, at the head of FORWARD. Undoing
/// [`iptables::Made`] removes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyAccept {
    /// The family.
    pub family: Family,
    /// The packets to accept.
    pub packets: Accepted,
}

/// The packets that pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// Those of the tunnel's device, the replies to them, and those of these networks to it.
    OfTunnel(Vec<IpNetwork>),
    /// Those that a server's table passed; needs a table with
    /// [`ServerTable::mark_passed`](super::server_table::ServerTable::mark_passed).
    Passed,
}

impl HostChange for LegacyAccept {
    /// Adds a server's rule once.
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let entry = iptables::Made::entry(self.family);
        if self.packets == Accepted::Passed && journal.entries().contains(&entry) {
            return Ok(());
        }
        let commands = self.commands(journal.interface())?;
        let making = iptables::apply_to_legacy(self.family, &commands);
        record_and_make(journal, entry, making).await
    }
}

impl LegacyAccept {
    fn commands(&self, interface: &str) -> Result<String, IptablesError> {
        let comment = iptables::comment(interface)?;
        let rules = match &self.packets {
            Accepted::OfTunnel(inbound) => {
                let inbound = inbound.iter().copied();
                let inbound: Vec<IpNetwork> = inbound
                    .filter(|network| Family::of(network.ip()) == self.family)
                    .collect();
                iptables::let_through(interface, &inbound)
            }
            Accepted::Passed => {
                let mark = format!("-m mark --mark {PASSED_MARK:#x}/{PASSED_MARK:#x}");
                vec![Rule::accept(mark)]
            }
        };
        Ok(iptables::restore("", &rules, &comment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_carry_the_comment_that_takes_them_away() {
        let commands = |packets| {
            let accept = LegacyAccept {
                family: Family::V4,
                packets,
            };
            accept.commands("tun3").unwrap()
        };
        let networks = ["10.20.0.0/16", "fd20::/64"].map(|it| it.parse().unwrap());
        let text = commands(Accepted::OfTunnel(networks.to_vec()));
        assert_eq!(
            text.matches("--comment \"sshvpn tun3\" -j ACCEPT").count(),
            3
        );
        assert!(text.starts_with("*filter\n-I FORWARD -i tun3 "), "{text}");
        let text = commands(Accepted::Passed);
        assert_eq!(
            text,
            "*filter\n-I FORWARD -m mark --mark 0x10000000/0x10000000 -m comment --comment \"sshvpn tun3\" -j ACCEPT\nCOMMIT\n"
        );
    }
}
