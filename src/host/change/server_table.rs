//! What a server asks of the host's firewall: one table for all its clients,
//! whose devices are one group of links, so that it does not change as clients
//! come and go. What a client may send is checked packet by packet before it
//! comes here; this is NAT, TCP's segment size, and a second fence.

use ipnetwork::IpNetwork;

use super::firewall::{
    TUNNEL_GROUPS, add_rule, comment, forward_chain, matches, same_family, table_name,
};
use super::nft::{Nft, NftError};
use crate::host::error::NetError;
use crate::types::family::Family;

/// The bit of a packet's mark that tells our rule in the host's own forward
/// chain what the table passed, from our forward chain to our last one.
const PASSED_MARK: u32 = 0x1000_0000;

/// The table `inet sshvpn_NAME` of a server.
///
/// Packets between two clients pass: they come from a link of the group and
/// leave by one, which no other packet does, whatever addresses are in it. Who
/// may reach whom is decided where they come in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerTable {
    /// The group of the clients' links (IFLA_GROUP).
    pub group: u32,
    /// Networks beyond this host that clients may reach.
    pub onward: Vec<IpNetwork>,
    /// Sources that appear there with this host's address.
    pub masquerade: Vec<IpNetwork>,
    /// Whether hosts there may open connections to clients.
    pub inbound: bool,
    /// Whether passed packets are marked for the rules of
    /// [`Change::ForwardPassed`](super::Change::ForwardPassed).
    pub mark_passed: bool,
}

impl ServerTable {
    /// The commands that make it; they fail where there is one of that name.
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
            // Links of this server's own group went to from_client.
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

/// Takes the mark off behind the last forward chain.
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
pub(in crate::host) async fn make(name: &str, table: &ServerTable) -> Result<(), NetError> {
    let commands = table.commands(name)?;
    let nft = Nft::require()?;
    Ok(nft.apply("add the firewall table", &commands).await?)
}

/// Puts the table in place of the one that is there, in one step; makes it
/// where somebody has removed that.
pub(in crate::host) async fn replace(name: &str, table: &ServerTable) -> Result<(), NetError> {
    let old = table_name(name)?;
    let commands = table.commands(name)?;
    let commands = format!("add table {old}\ndelete table {old}\n{commands}");
    let nft = Nft::require()?;
    Ok(nft.apply("replace the firewall table", &commands).await?)
}

/// Puts a rule in front of the host's forward chain that lets through what the
/// table passed; [`remove_accept`](super::firewall::remove_accept) removes it.
pub(in crate::host) async fn add_accept(name: &str, family: Family) -> Result<(), NetError> {
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
