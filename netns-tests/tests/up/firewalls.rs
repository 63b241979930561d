//! `sshvpn up --route` past the firewall of the forwarding host, each a row of a table, by each
//! way to a remote host: what can be mended is, and the other chains are named with the command
//! that mends them.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1   ── 198.51.100.2  lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ tunN  with a firewall  2001:db8:64::1 ── 2001:db8:64::2
//! ```

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::vpn::{self, cleanup};
use netns_tests::serve::Serve;
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::{Before, Carrier, Child, Host, PATIENCE, connect, traffic};
use nix::sys::signal::Signal;

const LAN4: &str = "198.51.100.0/24";
const LAN6: &str = "2001:db8:64::/64";
const HOSTS: [&str; 2] = ["198.51.100.2", "2001:db8:64::2"];
/// What a program runs under that has no nf_tables.
const WITHOUT_NF_TABLES: [&str; 3] = ["perl", "-e", include_str!("without_nf_tables.pl")];

/// A firewall of the bastion: the commands that make it.
#[derive(Debug, Clone, Copy)]
struct Firewall {
    set: &'static str,
    /// What the warning contains, where the firewall is not mended.
    warning: &'static [&'static str],
}

const LEGACY_POLICY: Firewall = Firewall {
    set: "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP",
    warning: &[],
};
/// The images of Oracle's cloud.
const LEGACY_REJECT: Firewall = Firewall {
    set: "for four in iptables-legacy ip6tables-legacy; do
              $four -A FORWARD -m conntrack --ctstate INVALID -j DROP
              $four -A FORWARD -j REJECT
          done",
    warning: &[],
};
const IPTABLES_REJECT: Firewall = Firewall {
    set: "for four in iptables-nft ip6tables-nft; do
              $four -N DOCKER-USER
              $four -A FORWARD -j DOCKER-USER
              $four -A DOCKER-USER -m comment --comment 'sub \"chain\"' -j RETURN
              $four -A FORWARD -j REJECT
          done",
    warning: &[],
};
/// Both rulesets at once.
const BOTH: Firewall = Firewall {
    set: "for kind in legacy nft; do
              iptables-$kind -P FORWARD DROP; ip6tables-$kind -P FORWARD DROP
          done",
    warning: &[],
};
const ADMIN_TABLE: Firewall = Firewall {
    set: "nft 'add table inet filter
               add chain inet filter forward { type filter hook forward priority filter; policy drop; }
               add rule inet filter forward ct state vmap { established : accept, related : accept, invalid : drop }'",
    warning: &[
        "chain 'forward' of nftables' table 'inet filter' drops the tunnel's IPv4 packets",
        "chain 'forward' of nftables' table 'inet filter' drops the tunnel's IPv6 packets",
    ],
};

/// firewalld itself, with its usual zone.
const FIREWALLD: Firewall = Firewall {
    set: "mkdir -p /run/dbus /run/firewalld
          dbus-daemon --system --fork --nopidfile
          firewalld --nofork --nopid >/dev/null 2>&1 &
          until firewall-cmd --state >/dev/null 2>&1; do sleep 0.1; done",
    warning: &[
        "chain 'filter_FORWARD' of nftables' table 'inet firewalld' drops the tunnel's IPv4 packets",
        "chain 'filter_FORWARD' of nftables' table 'inet firewalld' drops the tunnel's IPv6 packets",
    ],
};

/// How `up` gets to the bastion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tun,
    Agent,
    Push,
}

impl Way {
    fn prepare(self, bastion: &Host) -> Result<()> {
        match self {
            Way::Tun | Way::Push => Ok(()),
            Way::Agent => Carrier::Agent.prepare(bastion),
        }
    }

    fn up(self, laptop: &Host, arguments: &[&str]) -> Result<Child> {
        let (carrier, more): (_, &[&str]) = match self {
            Way::Tun => (Carrier::Tun, &[]),
            Way::Agent => (Carrier::Agent, &[]),
            Way::Push => (Carrier::Agent, &["--push"]),
        };
        carrier.up(laptop, &[more, arguments].concat())
    }
}

const ARGUMENTS: [&str; 5] = ["bastion", "--route", LAN4, "--route", LAN6];

fn state(lab: &Subnet) -> Result<Before<'_>> {
    Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])
}

/// The LAN host answers, by ping and by TCP.
fn answers(laptop: &Host, lan: &Host, address: &str) -> Result<()> {
    traffic::ping(laptop, address)?;
    ensure!(
        traffic::opens(laptop, lan, address.parse()?)?,
        "no TCP connection to {address}"
    );
    Ok(())
}

/// Runs the commands of the warnings, each once.
fn run_advice(bastion: &Host, said: &str) -> Result<()> {
    let lines = said.lines().filter_map(|line| line.split_once("pass: "));
    let commands: BTreeSet<&str> = lines.map(|(_, command)| command).collect();
    for command in commands {
        bastion.sh(command)?;
    }
    Ok(())
}

/// Makes the firewall, runs a tunnel, and checks that the firewall is as before.
fn passes(way: Way, firewall: Firewall) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    way.prepare(bastion)?;
    bastion.sh(firewall.set)?;
    let before = state(&lab)?;
    let up = way.up(laptop, &ARGUMENTS)?;
    let said = up.stderr();
    for part in firewall.warning {
        ensure!(
            said.lines()
                .any(|line| line.starts_with("warning: bastion: ") && line.contains(part)),
            "no warning of '{part}': {said}"
        );
    }
    if firewall.warning.is_empty() {
        ensure!(!said.contains("warning"), "{said}");
    } else {
        // Nothing passes, and the commands of the warnings let it pass.
        traffic::no_ping(laptop, HOSTS[0])?;
        run_advice(bastion, &said)?;
    }
    for address in HOSTS {
        answers(laptop, &lab.lan, address)?;
    }
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    if firewall.warning.is_empty() {
        before.is_back()?;
    }
    Ok(())
}

macro_rules! rows {
    ($($way:ident: $variant:expr => [$($name:ident $firewall:expr),* $(,)?];)*) => {
        $(mod $way {
            use super::*;
            $(#[test] fn $name() -> Result<()> {
                passes($variant, $firewall)
            })*
        })*
    };
}

rows! {
    tun: Way::Tun => [
        legacy_policy LEGACY_POLICY,
        legacy_reject LEGACY_REJECT,
        iptables_reject IPTABLES_REJECT,
        both_rulesets BOTH,
        an_admins_table ADMIN_TABLE,
        firewalld FIREWALLD,
    ];
    agent: Way::Agent => [
        legacy_policy LEGACY_POLICY,
        legacy_reject LEGACY_REJECT,
        iptables_reject IPTABLES_REJECT,
        both_rulesets BOTH,
        an_admins_table ADMIN_TABLE,
        firewalld FIREWALLD,
    ];
    push: Way::Push => [
        legacy_reject LEGACY_REJECT,
        an_admins_table ADMIN_TABLE,
    ];
}

/// The kernel has no nf_tables, so that nft and iptables-nft fail, and iptables-legacy has to do.
fn without_nf_tables(way: Way) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    way.prepare(bastion)?;
    let [perl, option, script] = WITHOUT_NF_TABLES;
    bastion.write("/run/lab/without.pl", script)?;
    bastion.write(
        "/run/lab/shell",
        &format!("#!/bin/sh\nexec {perl} /run/lab/without.pl /bin/bash \"$@\"\n"),
    )?;
    bastion.sh(
        "chmod 755 /run/lab/shell; sed -i 's,^\\(root:.*:\\)[^:]*$,\\1/run/lab/shell,' /etc/passwd",
    )?;
    let refused = bastion.run(&[perl, option, script, "nft", "list", "ruleset"])?;
    ensure!(refused.code() != 0, "nft works: {refused:?}");
    // The tables exist once iptables-legacy was used.
    bastion.sh("for four in iptables-legacy ip6tables-legacy; do
             $four -A FORWARD -j REJECT; $four -t nat -S; $four -t mangle -S
         done")?;
    let before = state(&lab)?;
    let up = way.up(laptop, &ARGUMENTS)?;
    for address in HOSTS {
        answers(laptop, &lab.lan, address)?;
    }
    ensure!(
        bastion
            .sh("iptables-legacy -t nat -S")?
            .contains("MASQUERADE"),
        "no rule of iptables-legacy was made"
    );
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()
}

#[test]
fn tun_without_nf_tables() -> Result<()> {
    without_nf_tables(Way::Tun)
}

#[test]
fn agent_without_nf_tables() -> Result<()> {
    without_nf_tables(Way::Agent)
}

/// Two LANs behind the bastion, and one route that covers both.
fn two_lans(way: Way) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    way.prepare(bastion)?;
    let second = Host::new("second")?;
    connect(
        (bastion, "lan2", &["198.51.101.1/24", "2001:db8:65::1/64"]),
        (&second, "lan", &["198.51.101.2/24", "2001:db8:65::2/64"]),
    )?;
    bastion.sh(LEGACY_REJECT.set)?;
    let before = state(&lab)?;
    let routes = ["--route", "198.51.100.0/23", "--route", "2001:db8:64::/47"];
    let up = way.up(laptop, &[&["bastion"], &routes[..]].concat())?;
    for address in HOSTS {
        answers(laptop, &lab.lan, address)?;
    }
    for address in ["198.51.101.2", "2001:db8:65::2"] {
        answers(laptop, &second, address)?;
    }
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()
}

#[test]
fn tun_reaches_two_lans_by_one_route() -> Result<()> {
    two_lans(Way::Tun)
}

#[test]
fn agent_reaches_two_lans_by_one_route() -> Result<()> {
    two_lans(Way::Agent)
}

/// The process that made the rules is killed; the next one there takes them away.
fn killed(way: Way, firewall: Firewall) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    way.prepare(bastion)?;
    bastion.sh(firewall.set)?;
    let before = state(&lab)?;
    let up = way.up(laptop, &ARGUMENTS)?;
    answers(laptop, &lab.lan, HOSTS[0])?;
    let process = match way {
        Way::Tun => "sh -c",
        Way::Agent | Way::Push => "/usr/local/sbin/sshvpn agent",
    };
    bastion.kill(process)?;
    up.signal(Signal::SIGINT)?;
    up.wait(PATIENCE)?;
    ensure!(
        before.differences()?.contains("ACCEPT"),
        "nothing was left to undo"
    );
    match way {
        Way::Tun => drop(way.up(laptop, &["bastion"])?.end_with(Signal::SIGINT)?),
        Way::Agent | Way::Push => cleanup(bastion)?,
    }
    before.is_back()
}

#[test]
fn tun_killed_with_rules_of_legacy() -> Result<()> {
    killed(Way::Tun, LEGACY_POLICY)
}

#[test]
fn tun_killed_with_rules_of_iptables() -> Result<()> {
    killed(Way::Tun, IPTABLES_REJECT)
}

#[test]
fn agent_killed_with_rules_of_legacy() -> Result<()> {
    killed(Way::Agent, LEGACY_POLICY)
}

#[test]
fn agent_killed_with_rules_of_iptables() -> Result<()> {
    killed(Way::Agent, IPTABLES_REJECT)
}

/// The rules of every program, without counters.
fn rules(host: &Host) -> Result<String> {
    host.sh("nft -s list ruleset; iptables-legacy -S; ip6tables-legacy -S; iptables -S")
}

/// The same by a server, which is reloaded, and then stopped or killed.
fn served(firewall: Firewall, kill: bool) -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let (laptop, bastion) = (&lab.laptop, &lab.bastion);
    bastion.sh(firewall.set)?;
    let before = rules(bastion)?;
    let config = "[network]\npool = [\"10.99.0.0/24\"]\nroute = [\"198.51.100.0/24\"]\n";
    let server = Serve::default().config(config).start(bastion)?;
    let up = vpn::up(laptop, &["--via", "serve", "--accept-routes", "bastion"])?;
    let said = server.child.stderr();
    for part in firewall.warning.iter().take(1) {
        ensure!(said.contains(part), "no warning of '{part}': {said}");
        run_advice(bastion, &said)?;
    }
    answers(laptop, &lab.lan, LAN)?;
    server.reload()?;
    answers(laptop, &lab.lan, LAN)?;
    up.end_with(Signal::SIGINT)?;
    if kill {
        server.child.signal(Signal::SIGKILL)?;
        server.child.wait(PATIENCE)?;
        ensure!(rules(bastion)? != before, "nothing was left to undo");
        cleanup(bastion)?;
    } else {
        server.stop()?;
    }
    let after = rules(bastion)?;
    ensure!(
        after == before || !firewall.warning.is_empty(),
        "before:\n{before}after:\n{after}"
    );
    Ok(())
}

mod serve {
    use super::*;

    #[test]
    fn legacy_policy() -> Result<()> {
        served(LEGACY_POLICY, false)
    }

    #[test]
    fn iptables_reject() -> Result<()> {
        served(IPTABLES_REJECT, false)
    }

    #[test]
    fn both_rulesets_killed() -> Result<()> {
        served(BOTH, true)
    }

    #[test]
    fn an_admins_table() -> Result<()> {
        served(ADMIN_TABLE, false)
    }

    #[test]
    fn firewalld() -> Result<()> {
        served(FIREWALLD, false)
    }
}
