//! The remote host's firewall, as `firewall.sh` prints it, and the accept rules by which the
//! tunnel's packets pass it. The text is untrusted: unreadable lines are skipped, and programs are
//! taken from a list.

use std::collections::BTreeMap;

use super::facts::Privilege;
use super::script::{self, Script};
use super::{PROBE_TIMEOUT, RemoteShellError, in_time};
use crate::host::forward_path::{NftFamily, Obstacles, Ruleset, Rulesets};
use crate::ssh::client::connect::Connection;
use crate::types::family::Family;

/// The script that prints the rules. POSIX sh.
pub(super) const FIREWALL: &str = include_str!("firewall.sh");
/// Bytes that the script may print, at most: five listings.
const LIMIT: usize = 6 * 1024 * 1024;
/// The programs that the script may name.
const PROGRAMS: [&str; 6] = [
    "iptables",
    "iptables-nft",
    "iptables-legacy",
    "ip6tables",
    "ip6tables-nft",
    "ip6tables-legacy",
];

/// The firewall of a remote host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteFirewall {
    pub(crate) rulesets: Rulesets,
    /// The programs that change iptables-nft's and iptables-legacy's rules.
    nft: BTreeMap<Family, &'static str>,
    legacy: BTreeMap<Family, &'static str>,
}

/// Accept rules for the tunnel's packets of one family in a FORWARD chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptRules {
    /// The family.
    pub family: Family,
    /// The program that makes them; `None` for nft.
    pub program: Option<&'static str>,
}

/// Reads the firewall of the remote host. If that fails, no chain is known to drop.
pub async fn read(connection: &Connection, privilege: Privilege) -> RemoteFirewall {
    match listed(connection, privilege).await {
        Ok(text) => parse(&text),
        Err(error) => {
            tracing::debug!(%error, "the firewall there is not known");
            RemoteFirewall::default()
        }
    }
}

async fn listed(connection: &Connection, privilege: Privilege) -> Result<String, RemoteShellError> {
    let script = Script {
        name: "sshvpn-firewall",
        text: FIREWALL,
    };
    let by = match privilege {
        Privilege::Sudo => "sudo -n ",
        Privilege::Root | Privilege::None => "",
    };
    let command = script.command(by, &[]);
    let finished = in_time(connection, "read its firewall", PROBE_TIMEOUT, async {
        let run = connection.run("a shell", &command, script.input(), LIMIT);
        Ok(run.await?)
    })
    .await?;
    Ok(String::from_utf8_lossy(&finished.output).into_owned())
}

fn parse(text: &str) -> RemoteFirewall {
    let mut firewall = RemoteFirewall::default();
    let mut listings = BTreeMap::<(Ruleset, &str), String>::new();
    for line in script::output(text).unwrap_or(text).lines() {
        let mut words = line.splitn(5, ' ');
        let Some((key, second)) = words.next().zip(words.next()) else {
            continue;
        };
        if key == "json" {
            let json = line.strip_prefix("json ").unwrap_or_default();
            firewall.rulesets.add_nft(json);
            continue;
        }
        let family = match words.next() {
            Some("4") => Family::V4,
            Some("6") => Family::V6,
            _ => continue,
        };
        let (name, rest) = (words.next().unwrap_or_default(), words.next());
        match (key, second) {
            ("program", "nft" | "legacy") => {
                let known = PROGRAMS.into_iter().find(|known| *known == name);
                let programs = match second {
                    "nft" => &mut firewall.nft,
                    _ => &mut firewall.legacy,
                };
                programs.extend(known.map(|known| (family, known)));
            }
            ("rule", "nft" | "legacy") => {
                let table = ["filter", "mangle"].into_iter().find(|it| *it == name);
                let (Some(table), Some(rule)) = (table, rest) else {
                    continue;
                };
                let ruleset = match (second, family) {
                    ("legacy", _) => Ruleset::Legacy(family),
                    (_, Family::V4) => Ruleset::Nft(NftFamily::Ip),
                    (_, Family::V6) => Ruleset::Nft(NftFamily::Ip6),
                };
                let listing = listings.entry((ruleset, table)).or_default();
                listing.push_str(rule);
                listing.push('\n');
            }
            _ => {}
        }
    }
    for ((ruleset, table), listing) in listings {
        firewall.rulesets.add_iptables(ruleset, table, &listing);
    }
    firewall
}

impl RemoteFirewall {
    /// The rules by which packets pass these chains.
    pub(crate) fn accept(&self, obstacles: &Obstacles) -> Vec<AcceptRules> {
        let nft = obstacles.iptables.iter().map(|family| AcceptRules {
            family: *family,
            program: self.nft.get(family).copied(),
        });
        let legacy = obstacles.legacy.iter().filter_map(|family| {
            let program = Some(*self.legacy.get(family)?);
            let family = *family;
            Some(AcceptRules { family, program })
        });
        nft.chain(legacy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "Welcome\n\nsshvpn-begin\njson {\"nftables\": [{\"chain\": {\"family\": \"ip6\", \
        \"table\": \"filter\", \"name\": \"FORWARD\", \"hook\": \"forward\", \"policy\": \"drop\"}}]}\n\
        program nft 4 iptables\nprogram legacy 4 iptables-legacy\nprogram nft 6 rm\n\
        rule legacy 4 filter -P FORWARD ACCEPT\nrule legacy 4 filter -A FORWARD -j REJECT\nend\n";

    #[test]
    fn listings_and_programs_are_read() {
        let firewall = parse(TEXT);
        let mut rulesets = Rulesets::default();
        let listing = "-P FORWARD ACCEPT\n-A FORWARD -j REJECT\n";
        let json = TEXT.lines().find_map(|line| line.strip_prefix("json "));
        assert!(rulesets.add_nft(json.unwrap()));
        rulesets.add_iptables(Ruleset::Legacy(Family::V4), "filter", listing);
        assert_eq!(firewall.rulesets, rulesets);
        let obstacles = Obstacles {
            iptables: vec![Family::V4, Family::V6],
            legacy: vec![Family::V4, Family::V6],
            warnings: Vec::new(),
        };
        let rules = |family, program| AcceptRules { family, program };
        // A program that is not on the list is none; nft does without.
        assert_eq!(
            firewall.accept(&obstacles),
            [
                rules(Family::V4, Some("iptables")),
                rules(Family::V6, None),
                rules(Family::V4, Some("iptables-legacy")),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s).{0,300}", lines in proptest::collection::vec("(json|program|rule) (nft|legacy|\\{\"nftables\": \\[) [46] (filter|iptables|x)( -A FORWARD -j x)?", 0..20)) {
            parse(&text);
            parse(&lines.join("\n"));
        }
    }
}
