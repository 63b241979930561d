//! What a host looks like from outside: everything that a VPN client may
//! change, as text, to be compared before and after.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, bail};

use crate::host::Host;
use crate::wait::{PATIENCE, until};

/// Lists everything that does not change by itself.
const SNAPSHOT: &str = r#"
section() { echo "== $1"; shift; "$@" 2>/dev/null | sort; }
echo "== addresses"; ip -d address
section 'IPv4 routes' ip -4 route show table all
section 'IPv6 routes' ip -6 route show table all
section 'IPv4 rules' ip -4 rule
section 'IPv6 rules' ip -6 rule
section 'IPv4 settings' grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward
section 'IPv6 settings' grep -rs . /proc/sys/net/ipv6/conf
echo "== nftables"; nft list ruleset
for tool in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do
    echo "== $tool"; "$tool" 2>/dev/null | grep -v '^#' || true
done
section '/run/sshvpn' find /run/sshvpn -mindepth 1
section '/etc' find /etc -printf '%p %T@ %m %u %s\n'
section 'resolv.conf' cat /etc/resolv.conf
"#;

/// A snapshot.
#[derive(PartialEq, Eq)]
pub struct State(String);

impl State {
    /// Takes one of `host`.
    pub fn of(host: &Host) -> Result<Self> {
        let text = host.run(&["bash", "-c", SNAPSHOT])?.ok()?;
        let mut processes: Vec<String> = host
            .processes()?
            .into_iter()
            .map(|process| process.command)
            .collect();
        processes.sort();
        Ok(Self(format!(
            "{text}== processes\n{}",
            processes.join("\n")
        )))
    }

    /// Succeeds as soon as `host` looks like this again; an error names the lines that differ.
    pub fn wait_for(&self, host: &Host) -> Result<()> {
        let mut now = Self::of(host)?;
        let same = until("the state before", PATIENCE, || {
            now = Self::of(host).ok()?;
            (now == *self).then_some(())
        });
        if same.is_err() {
            bail!(
                "{} is not as it was (- before, + after):\n{}",
                host.name(),
                self.difference(&now)
            );
        }
        Ok(())
    }

    /// The lines that are in one but not in the other, with a sign in front.
    fn difference(&self, other: &Self) -> String {
        let lines =
            |state: &'_ Self| -> BTreeSet<String> { state.0.lines().map(str::to_owned).collect() };
        let (before, after) = (lines(self), lines(other));
        let gone = before.difference(&after).map(|line| format!("- {line}\n"));
        let new = after.difference(&before).map(|line| format!("+ {line}\n"));
        gone.chain(new).collect()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hosts and what they looked like at one moment.
pub struct Before<'a>(Vec<(&'a Host, State)>);

impl<'a> Before<'a> {
    /// Takes a snapshot of each of `hosts`.
    pub fn of(hosts: &[&'a Host]) -> Result<Self> {
        let take = |host: &&'a Host| Ok((*host, State::of(host)?));
        Ok(Self(hosts.iter().map(take).collect::<Result<_>>()?))
    }

    /// What is different now, a line each.
    pub fn differences(&self) -> Result<String> {
        let of_one = |(host, state): &(&Host, State)| Ok(state.difference(&State::of(host)?));
        self.0.iter().map(of_one).collect()
    }

    /// Succeeds as soon as each of the hosts looks as it did.
    pub fn is_back(&self) -> Result<()> {
        self.0
            .iter()
            .try_for_each(|(host, state)| state.wait_for(host))
    }
}
