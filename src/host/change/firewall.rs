//! The firewall of a tunnel at the server's host: a table of its own that drops connections to the
//! client, with NAT and TCP's segment size.
//!
//! It also adds rules to iptables-nft's FORWARD chain where that drops the packets, since no other
//! table can override that chain. Pure text, passed to `nft`.

use std::fmt::Write;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Entry;
use super::kind::{HostChange, HostEntry, Outcome, record_and_make};
use super::nft::{Nft, NftError};
use crate::host::error::NetError;
use crate::host::journal::Journal;
use crate::host::netlink::Netlink;
use crate::types::address_set::AddressSet;
use crate::types::family::Family;

/// The bit of a packet's mark that marks a reply, from our table's forward chain to its last chain,
/// for our rule in the host's forward chain. A connection tracking match would be simpler, but
/// iptables refuses to list a table that contains a native one.
const REPLY_MARK: u32 = 0x2000_0000;

/// The group (IFLA_GROUP) of every tunnel device of an agent or of the tun carrier, "sw" in its
/// upper half: by it the tables of two tunnels recognize each other's device.
pub const TUNNEL_GROUP: u32 = 0x7377_0000;
/// The groups of all tunnel devices: [`TUNNEL_GROUP`], and from 0x73760000 on one for each server.
pub(in crate::host) const TUNNEL_GROUPS: &str = "0x73760000-0x7377ffff";

/// A tunnel's own table, `inet sshvpn_NAME`. It always drops new connections to the client, and
/// limits TCP's segment size to the path's, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirewallTable {
    /// Networks whose hosts may open connections to the client.
    pub inbound: Vec<IpNetwork>,
    /// Whether hosts of those networks may send through another tunnel of this host.
    pub tunnels: bool,
    /// Source addresses that this host replaces by its own address.
    pub masquerade: Vec<IpAddr>,
    /// Whether replies are marked for the rules of
    /// [`Change::ForwardAccept`](super::Change::ForwardAccept).
    pub mark_replies: bool,
    /// The only networks that the tunnel's packets may be forwarded to, none overlapping another;
    /// with a list, packets whose reply would not go into the tunnel are dropped too.
    pub limit: Option<Vec<IpNetwork>>,
}

impl FirewallTable {
    /// The commands that make the table; they fail if a table of that name exists.
    fn commands(&self, interface: &str) -> Result<String, NftError> {
        let table = table_name(interface)?;
        let mut text = format!(
            "create table {table}\n\
             add chain {table} forward {{ type filter hook forward priority -150; policy accept; }}\n"
        );
        for side in ["iifname", "oifname"] {
            add_rule(
                &mut text,
                &format!(
                    "{table} forward {side} \"{interface}\" tcp flags syn tcp option maxseg size set rt mtu"
                ),
            );
        }
        let pass = match self.mark_replies {
            true => format!("meta mark set meta mark or {REPLY_MARK:#x} accept"),
            false => "accept".to_owned(),
        };
        for rule in closed(&self.inbound, self.tunnels, &pass) {
            add_rule(
                &mut text,
                &format!("{table} forward oifname \"{interface}\" {rule}"),
            );
        }
        if self.mark_replies {
            let cleared = !REPLY_MARK;
            text.push_str(&format!(
                "add chain {table} unmark {{ type filter hook postrouting priority -160; policy accept; }}\n"
            ));
            add_rule(
                &mut text,
                &format!(
                    "{table} unmark oifname \"{interface}\" meta mark set meta mark and {cleared:#x}"
                ),
            );
        }
        if !self.masquerade.is_empty() {
            text.push_str(&format!(
                "add chain {table} nat {{ type nat hook postrouting priority 100; policy accept; }}\n"
            ));
        }
        for source in &self.masquerade {
            let family = match Family::of(*source) {
                Family::V4 => "ip",
                Family::V6 => "ip6",
            };
            add_rule(
                &mut text,
                &format!(
                    "{table} nat {family} saddr {source} oifname != \"{interface}\" masquerade"
                ),
            );
        }
        if let Some(networks) = &self.limit {
            limit(&mut text, &table, interface, networks);
        }
        Ok(text)
    }

    /// Whether the tunnel must not run without the table; else a failure to make it is tolerated.
    pub fn is_needed(&self) -> bool {
        self.limit.is_some() || !self.masquerade.is_empty() || self.mark_replies
    }
}

/// Accept rules for the tunnel's packets in the host's own forward chain of this family.
pub(in crate::host) struct Accept(pub Family);

/// The tunnel's firewall table was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeTable {}

/// Rules that accept the tunnel's packets were added to the host's own forward chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeAccept {
    /// For IPv6, else for IPv4.
    pub ipv6: bool,
}

impl MadeAccept {
    /// The entry for rules of this family.
    pub(in crate::host) fn entry(family: Family) -> Entry {
        Entry::ForwardAccept(Self {
            ipv6: family == Family::V6,
        })
    }
}

impl HostChange for FirewallTable {
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let name = journal.interface().to_owned();
        let entry = Entry::FirewallTable(MadeTable {});
        record_and_make(journal, entry, make_table(&name, self)).await
    }
}

impl HostEntry for MadeTable {
    async fn undo(
        &self,
        _: &Netlink,
        journal: &mut Journal,
        _: usize,
    ) -> Result<Outcome, NetError> {
        remove_table(journal.interface()).await
    }

    fn describe(&self, interface: &str) -> String {
        format!("the firewall table of {interface}")
    }
}

impl HostChange for Accept {
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let name = journal.interface().to_owned();
        record_and_make(
            journal,
            MadeAccept::entry(self.0),
            add_accept(&name, self.0),
        )
        .await
    }
}

impl HostEntry for MadeAccept {
    async fn undo(
        &self,
        _: &Netlink,
        journal: &mut Journal,
        _: usize,
    ) -> Result<Outcome, NetError> {
        remove_accept(journal.interface(), Family::of_ipv6(self.ipv6)).await
    }

    fn describe(&self, interface: &str) -> String {
        let chain = forward_chain(Family::of_ipv6(self.ipv6));
        format!("the rules for {interface} in '{chain}'")
    }
}

/// Rules for packets to the client: apply `pass` to replies and to packets from hosts of `inbound`,
/// the latter through another tunnel only if `tunnels`.
pub(crate) fn closed(inbound: &[IpNetwork], tunnels: bool, pass: &str) -> Vec<String> {
    let mut rules = vec![format!("ct state established,related {pass}")];
    if !tunnels && !inbound.is_empty() {
        rules.push(format!("iifgroup {TUNNEL_GROUPS} drop"));
    }
    let beyond = matches(inbound, "saddr").into_iter();
    rules.extend(beyond.map(|beyond| format!("{beyond} {pass}")));
    rules.push("drop".to_owned());
    rules
}

/// One match per family for packets whose address at `side` is in `networks`.
pub(crate) fn matches(networks: &[IpNetwork], side: &str) -> Vec<String> {
    let mut matches = Vec::new();
    let (v4, v6): (Vec<_>, Vec<_>) = AddressSet::of(networks)
        .to_networks()
        .into_iter()
        .partition(IpNetwork::is_ipv4);
    for (joined, word, number) in [(v4, "ip", 4), (v6, "ip6", 6)] {
        match joined.as_slice() {
            [] => {}
            // Some versions of nft do not accept a set that contains everything.
            [all] if all.prefix() == 0 => matches.push(format!("meta nfproto ipv{number}")),
            _ => {
                let listed: Vec<String> = joined.iter().map(ToString::to_string).collect();
                matches.push(format!("{word} {side} {{ {} }}", listed.join(", ")));
            }
        }
    }
    matches
}

/// Limits the forwarding of the tunnel's packets to `networks`.
fn limit(text: &mut String, table: &str, interface: &str, networks: &[IpNetwork]) {
    text.push_str(&format!(
        "add chain {table} onward {{ type filter hook forward priority -200; policy accept; }}\n"
    ));
    let mut rule = |rule: &str| {
        add_rule(
            text,
            &format!("{table} onward iifname \"{interface}\" {rule}"),
        );
    };
    // Reverse path filtering (RFC 3704) of both families.
    rule("fib saddr . iif oif 0 drop");
    for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let listed: Vec<String> = networks
            .iter()
            .filter(|network| Family::of(network.ip()) == family)
            .map(ToString::to_string)
            .collect();
        if !listed.is_empty() {
            rule(&format!("{word} daddr {{ {} }} accept", listed.join(", ")));
        }
    }
    rule("drop");
}

/// Whether both matches can apply to one packet.
pub(in crate::host) fn same_family(one: &str, other: &str) -> bool {
    let is_ipv6 = |text: &str| text.starts_with("ip6 ") || text.ends_with("ipv6");
    is_ipv6(one) == is_ipv6(other)
}

pub(in crate::host) fn add_rule(text: &mut String, rule: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "add rule {rule}");
}

/// Makes the table.
async fn make_table(interface: &str, table: &FirewallTable) -> Result<(), NetError> {
    let commands = table.commands(interface)?;
    let nft = Nft::require()?;
    Ok(nft.apply("add the firewall table", &commands).await?)
}

/// Removes the table if it exists.
async fn remove_table(interface: &str) -> Result<Outcome, NetError> {
    let table = table_name(interface)?;
    let nft = Nft::require()?;
    let tables = nft
        .list("list the firewall tables", &["list", "tables"])
        .await?;
    if !tables
        .lines()
        .any(|line| line.trim() == format!("table {table}"))
    {
        return Ok(Outcome::Gone);
    }
    nft.apply(
        "remove the firewall table",
        &format!("delete table {table}\n"),
    )
    .await?;
    Ok(Outcome::Undone)
}

/// Inserts rules at the front that accept packets from the tunnel and replies to them.
async fn add_accept(interface: &str, family: Family) -> Result<(), NetError> {
    check_name(interface)?;
    let chain = forward_chain(family);
    let comment = comment(interface);
    let commands = format!(
        "insert rule {chain} oifname \"{interface}\" meta mark and {REPLY_MARK:#x} == {REPLY_MARK:#x} accept {comment}\n\
         insert rule {chain} iifname \"{interface}\" accept {comment}\n"
    );
    let nft = Nft::require()?;
    Ok(nft
        .apply("add rules to the forward chain", &commands)
        .await?)
}

/// Removes those rules if they exist.
async fn remove_accept(interface: &str, family: Family) -> Result<Outcome, NetError> {
    check_name(interface)?;
    let nft = Nft::require()?;
    let listed = match list_forward(&nft, family).await {
        Err(error) if error.is_absence() => return Ok(Outcome::Gone),
        other => other?,
    };
    let handles = handles_of(&listed, &comment(interface));
    if handles.is_empty() {
        return Ok(Outcome::Gone);
    }
    let mut commands = String::new();
    for handle in handles {
        // Writing to a String cannot fail.
        let _ = writeln!(
            commands,
            "delete rule {} handle {handle}",
            forward_chain(family)
        );
    }
    nft.apply("remove rules from the forward chain", &commands)
        .await?;
    Ok(Outcome::Undone)
}

/// The forward chain of iptables, in which hosts set a drop policy.
pub(crate) fn forward_chain(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip filter FORWARD",
        Family::V6 => "ip6 filter FORWARD",
    }
}

async fn list_forward(nft: &Nft, family: Family) -> Result<String, NftError> {
    let mut arguments = vec!["-a", "list", "chain"];
    arguments.extend(forward_chain(family).split(' '));
    nft.list("list the forward chain", &arguments).await
}

/// The handles of the rules that end in `comment` in nft's listing.
fn handles_of(listing: &str, comment: &str) -> Vec<u64> {
    listing
        .lines()
        .filter_map(|line| line.trim().rsplit_once(" # handle "))
        .filter(|(rule, _)| rule.trim_end().ends_with(comment))
        .filter_map(|(_, handle)| handle.parse().ok())
        .collect()
}

pub(crate) fn comment(interface: &str) -> String {
    format!("comment \"sshvpn {interface}\"")
}

pub(in crate::host) fn table_name(interface: &str) -> Result<String, NftError> {
    check_name(interface)?;
    Ok(format!("inet sshvpn_{interface}"))
}

/// The name is quoted in the rules, but not in the table's name.
fn check_name(interface: &str) -> Result<(), NftError> {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !interface.is_empty() && interface.chars().all(sound) {
        true => Ok(()),
        false => Err(NftError::Name(interface.to_owned())),
    }
}

#[cfg(test)]
mod tests;
