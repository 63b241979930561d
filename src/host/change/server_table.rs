//! A server's firewall table, one for all its clients. It matches their devices by one group of
//! links, so that it does not change as clients come and go.
//!
//! The server checks each client's packets before they arrive here; the table does NAT, TCP's
//! segment size, and a second check.

use ipnetwork::IpNetwork;

use super::Entry;
use super::firewall::{
    MadeAccept, MadeTable, TUNNEL_GROUPS, add_rule, comment, forward_chain, matches, same_family,
    table_name,
};
use super::kind::{HostChange, record_and_make};
use super::nft::{Nft, NftError};
use crate::host::error::NetError;
use crate::host::journal::Journal;
use crate::host::netlink::Netlink;
use crate::types::family::Family;

/// The bit of a packet's mark that marks a passed packet, from our forward chain to our last chain,
/// for our rule in the host's own forward chain.
pub(super) const PASSED_MARK: u32 = 0x1000_0000;

/// The table `inet sshvpn_NAME` of a server.
///
/// Packets between two clients pass: they come from a link of the group and leave by one, which no
/// other packet does, whatever its addresses. The server decides which clients may reach each other
/// where the packets come in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerTable {
    /// The group of the clients' links (IFLA_GROUP).
    pub group: u32,
    /// Networks beyond this host that clients may reach.
    pub onward: Vec<IpNetwork>,
    /// Sources that this host replaces by its own address towards the `onward` networks.
    pub masquerade: Vec<IpNetwork>,
    /// Whether hosts of the `onward` networks may open connections to clients.
    pub inbound: bool,
    /// Whether passed packets are marked for the rules of
    /// [`Change::ForwardPassed`](super::Change::ForwardPassed).
    pub mark_passed: bool,
}

/// A rule that accepts passed packets in the host's own forward chain of this family.
pub(in crate::host) struct Accept(pub Family);

impl HostChange for ServerTable {
    /// Replaces the table of an earlier call.
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let name = journal.interface().to_owned();
        let entry = Entry::FirewallTable(MadeTable {});
        match journal.entries().contains(&entry) {
            true => replace(&name, self).await,
            false => record_and_make(journal, entry, make(&name, self)).await,
        }
    }
}

impl HostChange for Accept {
    /// Adds the rule once.
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let name = journal.interface().to_owned();
        let entry = MadeAccept::entry(self.0);
        match journal.entries().contains(&entry) {
            true => Ok(()),
            false => record_and_make(journal, entry, add_accept(&name, self.0)).await,
        }
    }
}

impl ServerTable {
    /// The commands that make the table; they fail if a table of that name exists.
    fn commands(&self, name: &str) -> Result<String, NftError> {
        let table = table_name(name)?;
        let group = self.group;
        let mut text = format!(
            "create table {table}\n\
             add chain {table} from_client\n\
             add chain {table} to_client\n\
             add chain {table} forward {{ type filter hook forward priority -150; policy accept; }}\n"
        );
        let mut rule = |rule: &str| add_rule(&mut text, &format!("{table} {rule}"));
        rule(&format!("forward iifgroup {group} goto from_client"));
        rule(&format!("forward oifgroup {group} goto to_client"));
        let pass = match self.mark_passed {
            true => format!("meta mark set meta mark or {PASSED_MARK:#x} accept"),
            false => "accept".to_owned(),
        };
        // Reverse path filtering (RFC 3704) of both families.
        rule("from_client fib saddr . iif oif 0 drop");
        let clamp = "tcp flags syn tcp option maxseg size set rt mtu";
        rule(&format!("from_client {clamp}"));
        rule(&format!("from_client oifgroup {group} {pass}"));
        for onward in matches(&self.onward, "daddr") {
            rule(&format!("from_client {onward} {pass}"));
        }
        rule("from_client drop");
        rule(&format!("to_client {clamp}"));
        rule(&format!("to_client ct state established,related {pass}"));
        if self.inbound {
            // Packets of this server's own group went to from_client.
            rule(&format!("to_client iifgroup {TUNNEL_GROUPS} drop"));
            for beyond in matches(&self.onward, "saddr") {
                rule(&format!("to_client {beyond} {pass}"));
            }
        }
        rule("to_client drop");
        if self.mark_passed {
            unmark(&mut text, &table, group);
        }
        self.nat(&mut text, &table);
        Ok(text)
    }

    fn nat(&self, text: &mut String, table: &str) {
        let mut rules = Vec::new();
        for source in matches(&self.masquerade, "saddr") {
            for onward in matches(&self.onward, "daddr") {
                if same_family(&source, &onward) {
                    rules.push(format!("{source} {onward}"));
                }
            }
        }
        if rules.is_empty() {
            return;
        }
        text.push_str(&format!(
            "add chain {table} nat {{ type nat hook postrouting priority 100; policy accept; }}\n"
        ));
        let group = self.group;
        for rule in rules {
            add_rule(
                text,
                &format!("{table} nat {rule} oifgroup != {group} masquerade"),
            );
        }
    }
}

/// Clears the mark after the last forward chain.
fn unmark(text: &mut String, table: &str, group: u32) {
    text.push_str(&format!(
        "add chain {table} unmark {{ type filter hook postrouting priority -160; policy accept; }}\n"
    ));
    let cleared = !PASSED_MARK;
    for side in ["iifgroup", "oifgroup"] {
        add_rule(
            text,
            &format!("{table} unmark {side} {group} meta mark set meta mark and {cleared:#x}"),
        );
    }
}

/// Makes the table.
async fn make(name: &str, table: &ServerTable) -> Result<(), NetError> {
    let commands = table.commands(name)?;
    let nft = Nft::require()?;
    Ok(nft.apply("add the firewall table", &commands).await?)
}

/// Replaces the existing table atomically; makes it if it was removed.
async fn replace(name: &str, table: &ServerTable) -> Result<(), NetError> {
    let old = table_name(name)?;
    let commands = table.commands(name)?;
    let commands = format!("add table {old}\ndelete table {old}\n{commands}");
    let nft = Nft::require()?;
    Ok(nft.apply("replace the firewall table", &commands).await?)
}

/// Inserts a rule at the front of the host's forward chain that accepts the packets that the table
/// passed; undoing [`MadeAccept`] removes it.
async fn add_accept(name: &str, family: Family) -> Result<(), NetError> {
    table_name(name)?;
    let (chain, comment) = (forward_chain(family), comment(name));
    let commands = format!(
        "insert rule {chain} meta mark and {PASSED_MARK:#x} == {PASSED_MARK:#x} accept {comment}\n"
    );
    let nft = Nft::require()?;
    let added = nft.apply("add a rule to the forward chain", &commands);
    Ok(added.await?)
}

#[cfg(test)]
mod tests;
