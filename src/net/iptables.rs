//! A tunnel's firewall rules by iptables(8) and ip6tables(8), for hosts without
//! nft: what `firewall` does in a table of its own stands in the tables of the
//! host here, with a comment by which it is found again.

use std::fmt::Write;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::address_range::Family;
use super::error::NetError;
use super::program::{Program, ProgramError};
use super::undo::Outcome;

/// The tables that may hold our rules, in the order in which they are removed.
const TABLES: [&str; 3] = ["filter", "nat", "mangle"];

/// Why the rules were not changed or read.
#[derive(Debug, Error)]
pub enum IptablesError {
    /// Not installed.
    #[error(
        "there is neither an 'nft' nor an '{0}' program on this host: install nftables here, or do without NAT (--no-nat)"
    )]
    Missing(&'static str),
    /// It did not run, or said no; a part may have been done, table by table.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// An interface with a name that the rules cannot hold.
    #[error(
        "no firewall rules can be made for the interface '{0}': choose a name of letters, digits, '_', '-' and '.'"
    )]
    Name(String),
}

impl IptablesError {
    /// Whether it is certain that nothing was changed.
    pub fn nothing_changed(&self) -> bool {
        !matches!(self, IptablesError::Program(_))
    }
}

/// What a tunnel asks of one family's tables. TCP's segment size is held to
/// what the path carries, always and both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRules {
    /// The family.
    pub family: Family,
    /// Addresses of it whose packets leave this host with its own address.
    pub masquerade: Vec<IpAddr>,
    /// Whether the host's forward chain drops, so that what comes out of the
    /// tunnel, and what answers it, has to be let through.
    pub accept: bool,
    /// Networks that the tunnel's packets may go on to, of which those of this
    /// family count; with a list, packets whose answer would not go into the
    /// tunnel are held off too, also from this host itself.
    pub limit: Option<Vec<IpNetwork>>,
}

/// A rule, for whichever program of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its table.
    pub table: &'static str,
    /// `-A` behind the others, `-I` in front of them.
    pub command: &'static str,
    chain: &'static str,
    matches: String,
    target: String,
}

impl Rule {
    /// The chain and what follows it on a command line, with a comment or without.
    pub(crate) fn text(&self, comment: Option<&str>) -> String {
        let (chain, matches, target) = (self.chain, &self.matches, &self.target);
        match comment {
            Some(comment) => format!("{chain} {matches} {comment} -j {target}"),
            None => format!("{chain} {matches} -j {target}"),
        }
    }
}

/// Lets what comes from `source` leave with this host's own address.
pub(crate) fn masquerade(interface: &str, source: IpAddr) -> Rule {
    Rule {
        table: "nat",
        command: "-A",
        chain: "POSTROUTING",
        matches: format!("-s {source} ! -o {interface}"),
        target: "MASQUERADE".to_owned(),
    }
}

/// Holds TCP's segment size to what the path carries, both ways.
pub(crate) fn clamp(interface: &str) -> [Rule; 2] {
    ["-i", "-o"].map(|side| Rule {
        table: "mangle",
        command: "-A",
        chain: "FORWARD",
        matches: format!("{side} {interface} -p tcp --tcp-flags SYN,RST SYN"),
        target: "TCPMSS --clamp-mss-to-pmtu".to_owned(),
    })
}

/// Lets through what comes out of the tunnel, and what answers it.
pub(crate) fn let_through(interface: &str) -> [Rule; 2] {
    let answers = "-m conntrack --ctstate RELATED,ESTABLISHED";
    [
        format!("-i {interface}"),
        format!("-o {interface} {answers}"),
    ]
    .map(|matches| Rule {
        table: "filter",
        command: "-I",
        chain: "FORWARD",
        matches,
        target: "ACCEPT".to_owned(),
    })
}

impl FirewallRules {
    /// Its rules in the host's own chains.
    fn rules(&self, interface: &str) -> Vec<Rule> {
        let sources = self.masquerade.iter();
        let mut rules: Vec<Rule> = sources
            .map(|source| masquerade(interface, *source))
            .chain(clamp(interface))
            .collect();
        if self.accept {
            rules.extend(let_through(interface));
        }
        if self.limit.is_some() {
            let first = |chain, matches, target| Rule {
                table: "mangle",
                command: "-I",
                chain,
                matches,
                target,
            };
            // Reverse path filtering (RFC 3704), for which there is a match in front
            // of the routing alone (iptables-extensions(8), rpfilter). Neighbour
            // discovery has sources without a route, which are never forwarded.
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

    /// What makes them, for iptables-restore(8); it fails where there is a chain
    /// of our name.
    fn commands(&self, interface: &str) -> Result<String, IptablesError> {
        let comment = comment(interface)?;
        let rules = self.rules(interface);
        let mut text = String::new();
        for table in TABLES {
            let mut lines = String::new();
            if let (Some(networks), "mangle") = (&self.limit, table) {
                self.limit(&mut lines, interface, networks);
            }
            for rule in rules.iter().filter(|rule| rule.table == table) {
                // Writing to a String cannot fail.
                let _ = writeln!(lines, "{} {}", rule.command, rule.text(Some(&comment)));
            }
            if !lines.is_empty() {
                let _ = write!(text, "*{table}\n{lines}COMMIT\n");
            }
        }
        Ok(text)
    }

    /// A chain of our own: what comes out of the tunnel goes on to `networks` alone.
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

/// The programs for one family, as found on this host.
#[derive(Debug, Clone)]
pub struct Iptables {
    iptables: Program,
    restore: Program,
}

impl Iptables {
    /// Looks for them.
    pub fn find(family: Family) -> Option<Self> {
        let (iptables, restore) = match family {
            Family::V4 => ("iptables", "iptables-restore"),
            Family::V6 => ("ip6tables", "ip6tables-restore"),
        };
        Some(Self {
            iptables: Program::find(iptables)?,
            restore: Program::find(restore)?,
        })
    }

    fn require(family: Family) -> Result<Self, IptablesError> {
        let missing = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        Self::find(family).ok_or(IptablesError::Missing(missing))
    }

    /// Whether the host's forward chain drops what no rule lets through (hosts
    /// with Docker, for instance).
    pub async fn forward_drops(&self) -> bool {
        let arguments = ["-w", "-S", "FORWARD"];
        let listed = self.iptables.run("list the forward chain", &arguments, "");
        listed
            .await
            .is_ok_and(|text| text.lines().any(|line| line == "-P FORWARD DROP"))
    }

    /// The rules of a table, as commands that would make them; none where the
    /// kernel has no such table.
    async fn list(&self, table: &str) -> Result<String, IptablesError> {
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

/// Makes the rules.
pub(super) async fn make(interface: &str, rules: &FirewallRules) -> Result<(), NetError> {
    let commands = rules.commands(interface)?;
    let iptables = Iptables::require(rules.family)?;
    Ok(iptables.apply("add firewall rules", &commands).await?)
}

/// Removes the rules, as far as they are there.
pub(super) async fn remove(interface: &str, family: Family) -> Result<Outcome, NetError> {
    comment(interface)?;
    let iptables = Iptables::require(family)?;
    let mut commands = String::new();
    for table in TABLES {
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

/// What removes our rules and our chain from a table that is listed so.
fn removal(listed: &str, interface: &str) -> Result<String, IptablesError> {
    let (comment, chain) = (format!(" {} ", comment(interface)?), chain_name(interface));
    let mut lines = String::new();
    for line in listed.lines() {
        match line.strip_prefix("-A ") {
            Some(rule) if rule.contains(&comment) => {
                let _ = writeln!(lines, "-D {rule}");
            }
            _ => {}
        }
    }
    if listed.lines().any(|line| line == format!("-N {chain}")) {
        let _ = write!(lines, "-F {chain}\n-X {chain}\n");
    }
    Ok(lines)
}

fn chain_name(interface: &str) -> String {
    format!("sshvpn-{interface}")
}

fn comment(interface: &str) -> Result<String, IptablesError> {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !interface.is_empty() && interface.chars().all(sound) {
        true => Ok(format!("-m comment --comment \"sshvpn {interface}\"")),
        false => Err(IptablesError::Name(interface.to_owned())),
    }
}

#[cfg(test)]
#[path = "iptables_tests.rs"]
mod tests;
