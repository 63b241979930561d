//! A tunnel's firewall rules by iptables(8) and ip6tables(8), for hosts without nft.
//!
//! `firewall` uses a table of its own; these rules are in the host's tables, with a comment that
//! identifies them.

use std::fmt::Write;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Entry;
use super::kind::{HostChange, HostEntry, Outcome, ToUndo, record_and_make};
use crate::host::error::NetError;
use crate::host::journal::Journal;
use crate::host::netlink::Netlink;
use crate::host::program::{Program, ProgramError};
use crate::types::family::Family;

/// The tables that may contain our rules, in the order of removal.
const TABLES: [&str; 3] = ["filter", "nat", "mangle"];

/// Matches packets of an existing connection.
pub(in crate::host) const ANSWERS: &str = "-m conntrack --ctstate RELATED,ESTABLISHED";
/// The groups of all tunnel devices, as a number and a mask.
const TUNNEL_GROUPS: &str = "0x73760000/0xfffe0000";

/// The reason why the rules were not changed or read.
#[derive(Debug, Error)]
pub enum IptablesError {
    /// Neither program is installed.
    #[error("there is neither an 'nft' nor an '{0}' program on this host: install nftables")]
    Missing(&'static str),
    /// The program did not run or reported an error; it may have changed some of the tables.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The interface's name cannot be used in the rules.
    #[error(
        "cannot make firewall rules for the interface '{0}': choose a name of letters, digits, '_', '-' and '.'"
    )]
    Name(String),
}

impl IptablesError {
    /// Whether it is certain that nothing was changed.
    pub fn nothing_changed(&self) -> bool {
        !matches!(self, IptablesError::Program(_))
    }
}

/// The firewall rules of one family for a tunnel at the server's host. They always drop new
/// connections to the client, and limit TCP's segment size to the path's, both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRules {
    /// The family.
    pub family: Family,
    /// Networks whose hosts may open connections to the client; only those of this family apply.
    pub inbound: Vec<IpNetwork>,
    /// Whether hosts of those networks may send through another tunnel of this host.
    pub tunnels: bool,
    /// Source addresses of this family that this host replaces by its own address.
    pub masquerade: Vec<IpAddr>,
    /// Whether the FORWARD chain of the program that makes the rules drops packets from the tunnel
    /// or replies to them, so that they need accept rules.
    pub accept: bool,
    /// The only networks that the tunnel's packets may be forwarded to, those of this family; with
    /// a list, packets whose reply would not go into the tunnel are dropped too, also those for
    /// this host itself.
    pub limit: Option<Vec<IpNetwork>>,
}

/// The tunnel's firewall rules were made by iptables or ip6tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// For IPv6, else for IPv4.
    pub ipv6: bool,
}

impl Made {
    /// The entry for rules of this family.
    pub(in crate::host) fn entry(family: Family) -> Entry {
        Entry::FirewallRules(Self {
            ipv6: family == Family::V6,
        })
    }
}

impl HostChange for FirewallRules {
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let name = journal.interface().to_owned();
        record_and_make(journal, Made::entry(self.family), make(&name, self)).await
    }
}

impl HostEntry for Made {
    async fn undo(
        &self,
        _: &Netlink,
        journal: &mut Journal,
        _: usize,
    ) -> Result<Outcome, NetError> {
        remove(journal.interface(), Family::of_ipv6(self.ipv6)).await
    }

    fn describe(&self, interface: &str) -> String {
        let program = if self.ipv6 { "ip6tables" } else { "iptables" };
        format!("the {program} rules for {interface}")
    }

    fn add_needs(&self, needs: &mut ToUndo) {
        needs.iptables = true;
    }
}

/// A rule, for either program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its table.
    pub table: &'static str,
    /// `-A` to append the rule, `-I` to insert it at the front.
    pub command: &'static str,
    chain: &'static str,
    matches: String,
    target: String,
}

impl Rule {
    /// Accepts forwarded packets that match.
    pub(in crate::host) fn accept(matches: String) -> Self {
        Rule {
            table: "filter",
            command: "-I",
            chain: "FORWARD",
            matches,
            target: "ACCEPT".to_owned(),
        }
    }

    /// The chain and the rest of the command line, with or without the comment.
    pub(crate) fn text(&self, comment: Option<&str>) -> String {
        let (chain, matches, target) = (self.chain, &self.matches, &self.target);
        match comment {
            Some(comment) => format!("{chain} {matches} {comment} -j {target}"),
            None => format!("{chain} {matches} -j {target}"),
        }
    }
}

/// Replaces `source` by this host's own address in packets that leave this host.
pub(crate) fn masquerade(interface: &str, source: IpAddr) -> Rule {
    Rule {
        table: "nat",
        command: "-A",
        chain: "POSTROUTING",
        matches: format!("-s {source} ! -o {interface}"),
        target: "MASQUERADE".to_owned(),
    }
}

/// Limits TCP's segment size to the path's, both ways.
pub(crate) fn clamp(interface: &str) -> [Rule; 2] {
    ["-i", "-o"].map(|side| Rule {
        table: "mangle",
        command: "-A",
        chain: "FORWARD",
        matches: format!("{side} {interface} -p tcp --tcp-flags SYN,RST SYN"),
        target: "TCPMSS --clamp-mss-to-pmtu".to_owned(),
    })
}

/// Accepts packets from the tunnel, replies to them, and packets into the tunnel from hosts of
/// `inbound`, all of one family.
pub(crate) fn let_through(interface: &str, inbound: &[IpNetwork]) -> Vec<Rule> {
    let beyond = inbound.iter();
    let mut matches = vec![
        format!("-i {interface}"),
        format!("-o {interface} {ANSWERS}"),
    ];
    matches.extend(beyond.map(|network| format!("-s {network} -o {interface}")));
    matches.into_iter().map(Rule::accept).collect()
}

/// A chain of our own in the table `mangle`, and the rule that jumps to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Its name.
    pub name: String,
    /// Its rules, without the chain's name.
    pub rules: Vec<String>,
    /// The rule in a chain of the host that jumps to it.
    pub entrance: Rule,
}

impl Chain {
    /// The chain `name` for packets in `chain` that match `matches`; it drops every packet that
    /// none of `rules` returns.
    pub(in crate::host) fn dropping(
        name: String,
        chain: &'static str,
        matches: String,
        mut rules: Vec<String>,
    ) -> Self {
        rules.push("-j DROP".to_owned());
        let entrance = Rule {
            table: "mangle",
            command: "-I",
            chain,
            matches,
            target: name.clone(),
        };
        Chain {
            name,
            rules,
            entrance,
        }
    }

    /// The input of iptables-restore(8) that makes the chain; it fails if a chain of that name
    /// exists.
    pub(in crate::host) fn lines(&self) -> String {
        let name = &self.name;
        let mut lines = format!("-N {name}\n");
        for rule in &self.rules {
            let _ = writeln!(lines, "-A {name} {rule}");
        }
        lines
    }
}

/// Drops new connections to the client, except from hosts of `inbound`, all of one family; these
/// may use another tunnel only if `tunnels`.
pub(crate) fn closed(interface: &str, inbound: &[IpNetwork], tunnels: bool) -> Chain {
    let mut rules = vec![format!("{ANSWERS} -j RETURN")];
    if !tunnels && !inbound.is_empty() {
        rules.push(format!("-m devgroup --src-group {TUNNEL_GROUPS} -j DROP"));
    }
    let beyond = inbound.iter();
    rules.extend(beyond.map(|network| format!("-s {network} -j RETURN")));
    let matches = format!("-o {interface}");
    Chain::dropping(inbound_chain(interface), "FORWARD", matches, rules)
}

impl FirewallRules {
    /// Whether the tunnel must not run without the rules; else a failure to make them is tolerated.
    pub fn is_needed(&self) -> bool {
        self.limit.is_some() || !self.masquerade.is_empty() || self.accept
    }

    fn inbound(&self) -> Vec<IpNetwork> {
        let networks = self.inbound.iter().copied();
        networks
            .filter(|network| Family::of(network.ip()) == self.family)
            .collect()
    }

    fn closed(&self, interface: &str) -> Chain {
        closed(interface, &self.inbound(), self.tunnels)
    }

    /// The rules in the host's own chains.
    fn rules(&self, interface: &str) -> Vec<Rule> {
        let sources = self.masquerade.iter();
        let mut rules: Vec<Rule> = sources
            .map(|source| masquerade(interface, *source))
            .chain(clamp(interface))
            .collect();
        rules.push(self.closed(interface).entrance);
        if self.accept {
            rules.extend(let_through(interface, &self.inbound()));
        }
        if self.limit.is_some() {
            let first = |chain, matches, target| Rule {
                table: "mangle",
                command: "-I",
                chain,
                matches,
                target,
            };
            // Reverse path filtering (RFC 3704); its match works only before routing
            // (iptables-extensions(8), rpfilter). Neighbour discovery uses sources without a route,
            // which are never forwarded.
            let sources = match self.family {
                Family::V4 => "",
                Family::V6 => "! -s fe80::/10 ",
            };
            rules.push(first(
                "PREROUTING",
                format!("{sources}-i {interface} -m rpfilter --invert"),
                "DROP".to_owned(),
            ));
            rules.push(first(
                "FORWARD",
                format!("-i {interface}"),
                chain_name(interface),
            ));
        }
        rules
    }

    /// The input of iptables-restore(8) that makes the rules; it fails if a chain of our name
    /// exists.
    fn commands(&self, interface: &str) -> Result<String, IptablesError> {
        let comment = comment(interface)?;
        let mut chains = self.closed(interface).lines();
        if let Some(networks) = &self.limit {
            self.limit(&mut chains, interface, networks);
        }
        Ok(restore(&chains, &self.rules(interface), &comment))
    }

    /// A chain of our own that limits the forwarding of the tunnel's packets to `networks`.
    fn limit(&self, text: &mut String, interface: &str, networks: &[IpNetwork]) {
        let chain = chain_name(interface);
        let _ = writeln!(text, "-N {chain}");
        for network in networks {
            if Family::of(network.ip()) == self.family {
                let _ = writeln!(text, "-A {chain} -d {network} -j RETURN");
            }
        }
        let _ = writeln!(text, "-A {chain} -j DROP");
    }
}

/// The input of iptables-restore(8) that makes our own chains, then these rules, which jump to
/// them.
pub(in crate::host) fn restore(chains: &str, rules: &[Rule], comment: &str) -> String {
    let mut text = String::new();
    for table in TABLES {
        let mut lines = String::new();
        if table == "mangle" {
            lines.push_str(chains);
        }
        for rule in rules.iter().filter(|rule| rule.table == table) {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{} {}", rule.command, rule.text(Some(comment)));
        }
        if !lines.is_empty() {
            let _ = write!(text, "*{table}\n{lines}COMMIT\n");
        }
    }
    text
}

/// The programs for one family that were found on this host.
#[derive(Debug, Clone)]
pub struct Iptables {
    iptables: Program,
    restore: Program,
    ruleset: Ruleset,
}

/// The part of the kernel that a program changes: a host may have rules in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruleset {
    /// nf_tables.
    Nft,
    /// ip_tables.
    Legacy,
}

impl Iptables {
    /// The programs of this host: the default ones, and those for ip_tables where these are others.
    async fn all(family: Family) -> Vec<Self> {
        let name = name(family);
        let mut all = Vec::new();
        for kind in ["", "-legacy"] {
            let find = |what: &str| Program::find(&format!("{name}{kind}{what}"));
            let (Some(iptables), Some(restore)) = (find(""), find("-restore")) else {
                continue;
            };
            let version = iptables.run("tell its version", &["--version"], "").await;
            // Before 1.8 there was no other.
            let ruleset = match version {
                Ok(text) if text.contains("nf_tables") => Ruleset::Nft,
                Err(error) if is_without_kernel(&error) => Ruleset::Nft,
                _ => Ruleset::Legacy,
            };
            if all.iter().all(|other: &Self| other.ruleset != ruleset) {
                all.push(Self {
                    iptables,
                    restore,
                    ruleset,
                });
            }
        }
        all
    }

    /// The programs that make rules on this host: the default ones, if the kernel has what they
    /// need.
    pub async fn usable(family: Family) -> Option<Self> {
        for found in Self::all(family).await {
            let arguments = ["-w", "-S", "FORWARD"];
            let listed = found.iptables.run("list the forward chain", &arguments, "");
            match listed.await {
                Ok(_) => return Some(found),
                Err(error) => tracing::debug!(%error, "not used"),
            }
        }
        None
    }

    /// The programs for ip_tables.
    pub async fn legacy(family: Family) -> Option<Self> {
        let mut all = Self::all(family).await.into_iter();
        all.find(|found| found.ruleset == Ruleset::Legacy)
    }

    /// The part of the kernel that it changes.
    pub fn ruleset(&self) -> Ruleset {
        self.ruleset
    }

    /// Whether the table exists; listing one of ip_tables would make it.
    fn has(&self, family: Family, table: &str) -> bool {
        self.ruleset == Ruleset::Nft || legacy_tables(family).iter().any(|name| name == table)
    }

    /// The rules of a table, as the commands that make them; empty if the kernel has no such table.
    pub async fn list(&self, table: &str) -> Result<String, IptablesError> {
        let arguments = ["-w", "-t", table, "-S"];
        let listed = self.iptables.run("list the firewall rules", &arguments, "");
        match listed.await {
            Err(ProgramError::Refused { complaint, .. })
                if complaint.contains("does not exist") =>
            {
                Ok(String::new())
            }
            other => Ok(other?),
        }
    }

    async fn apply(&self, action: &'static str, commands: &str) -> Result<(), IptablesError> {
        let arguments = ["-w", "--noflush"];
        self.restore.run(action, &arguments, commands).await?;
        Ok(())
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// The tables of ip_tables or ip6_tables that exist; none if the module is not loaded.
pub(in crate::host) fn legacy_tables(family: Family) -> Vec<String> {
    let names = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    let text = std::fs::read_to_string(names).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

/// Makes the rules.
pub(in crate::host) async fn make(interface: &str, rules: &FirewallRules) -> Result<(), NetError> {
    apply(rules.family, &rules.commands(interface)?).await
}

/// Runs the output of [`restore`].
pub(in crate::host) async fn apply(family: Family, commands: &str) -> Result<(), NetError> {
    let iptables = Iptables::usable(family).await;
    let iptables = iptables.ok_or(IptablesError::Missing(name(family)))?;
    Ok(iptables.apply("add firewall rules", commands).await?)
}

/// Makes rules in ip_tables, whatever the host's default is.
pub(in crate::host) async fn apply_to_legacy(
    family: Family,
    commands: &str,
) -> Result<(), NetError> {
    let iptables = Iptables::legacy(family).await;
    let iptables = iptables.ok_or(IptablesError::Missing(name(family)))?;
    Ok(iptables.apply("add firewall rules", commands).await?)
}

/// Removes the rules that exist, from both rulesets.
async fn remove(interface: &str, family: Family) -> Result<Outcome, NetError> {
    comment(interface)?;
    let all = Iptables::all(family).await;
    if all.is_empty() {
        return Err(IptablesError::Missing(name(family)).into());
    }
    let mut outcome = Outcome::Gone;
    for iptables in &all {
        match remove_from(iptables, interface, family).await {
            Ok(Outcome::Gone) => {}
            Ok(done) => outcome = done,
            Err(IptablesError::Program(error)) if is_without_kernel(&error) => {
                tracing::debug!(%error, "no rules by this");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(outcome)
}

/// Whether the program says that the kernel has no nf_tables; without the right to ask it says
/// more.
fn is_without_kernel(error: &ProgramError) -> bool {
    matches!(error, ProgramError::Refused { complaint, .. }
        if ["Failed to initialize nft", "Could not fetch rule set generation id"]
            .into_iter()
            .any(|part| complaint.contains(part))
            && !complaint.contains("Permission denied")
            && !complaint.contains("not permitted"))
}

async fn remove_from(
    iptables: &Iptables,
    interface: &str,
    family: Family,
) -> Result<Outcome, IptablesError> {
    let mut commands = String::new();
    for table in TABLES {
        if !iptables.has(family, table) {
            continue;
        }
        let listed = iptables.list(table).await?;
        let lines = removal(&listed, interface)?;
        if !lines.is_empty() {
            let _ = write!(commands, "*{table}\n{lines}COMMIT\n");
        }
    }
    if commands.is_empty() {
        return Ok(Outcome::Gone);
    }
    iptables.apply("remove firewall rules", &commands).await?;
    Ok(Outcome::Undone)
}

/// The input that removes our rules and chains from a table with this listing.
fn removal(listed: &str, interface: &str) -> Result<String, IptablesError> {
    let comment = format!(" {} ", comment(interface)?);
    let mut lines = String::new();
    for line in listed.lines() {
        match line.strip_prefix("-A ") {
            Some(rule) if rule.contains(&comment) => {
                let _ = writeln!(lines, "-D {rule}");
            }
            _ => {}
        }
    }
    let chains = [
        chain_name(interface),
        inbound_chain(interface),
        outbound_chain(interface),
        onward_chain(interface),
    ];
    for chain in chains {
        if listed.lines().any(|line| line == format!("-N {chain}")) {
            let _ = write!(lines, "-F {chain}\n-X {chain}\n");
        }
    }
    Ok(lines)
}

// The names are unique for each interface, and none is longer than the 28 characters that iptables
// accepts.

fn chain_name(interface: &str) -> String {
    format!("sshvpn-{interface}")
}

/// Packets into the tunnel: to this host on a client, to the client on a server.
pub(in crate::host) fn inbound_chain(interface: &str) -> String {
    format!("sshvpnin-{interface}")
}

/// Packets that a client's host forwards into the tunnel.
pub(in crate::host) fn outbound_chain(interface: &str) -> String {
    format!("sshvpnout-{interface}")
}

/// Packets that a client's host forwards out of the tunnel.
pub(in crate::host) fn onward_chain(interface: &str) -> String {
    format!("sshvpnfwd-{interface}")
}

pub(in crate::host) fn comment(interface: &str) -> Result<String, IptablesError> {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !interface.is_empty() && interface.chars().all(sound) {
        true => Ok(format!("-m comment --comment \"sshvpn {interface}\"")),
        false => Err(IptablesError::Name(interface.to_owned())),
    }
}

#[cfg(test)]
mod tests;
