//! `sshvpn serve --check` finds what would keep a server from starting, and what would keep clients
//! from working, each in a line of its own.

use anyhow::{Result, ensure};
use netns_tests::lab::child::Output;
use netns_tests::program::vpn::fails_clearly;
use netns_tests::serve::lab::{ServeLab, in_group};
use netns_tests::serve::{CONFIG, Serve};
use netns_tests::{Client, Host, PATIENCE, until};

/// A configuration that a server starts with.
const GOOD: &str = "listen = [\"[::]:2222\"]\nhost-key = [\"/etc/sshvpn/host\"]\n";

fn check(host: &Host, config: &str) -> Result<Output> {
    host.write(CONFIG, &format!("{GOOD}{config}"))?;
    host.run(&Client::Sshvpn.command(&["serve", "--check"])?)
}

/// The server does not start with the configuration either.
fn does_not_start(host: &Host) -> Result<()> {
    let output = host.run(&Client::Sshvpn.command(&["serve"])?)?;
    fails_clearly(&output, Some(1), &[])
}

#[test]
fn each_obstacle_to_a_start_is_found() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let bastion = &lab.bastion;
    let output = check(bastion, "")?;
    ensure!(output.code() == 0, "{output:?}");
    let taken = bastion.spawn(&["socat", "TCP-LISTEN:9100,bind=127.0.0.1,fork", "EXEC:cat"])?;
    until("port 9100", PATIENCE, || {
        let list = bastion.sh("ss -Hltn sport = :9100").ok()?;
        (!list.trim().is_empty()).then_some(())
    })?;
    let obstacles = [
        ("[network]\nbridge = \"br9\"\n", "br9"),
        (
            "[audit]\nfile = \"/run/nowhere/audit.jsonl\"\n",
            "cannot open the audit log /run/nowhere/audit.jsonl",
        ),
        (
            "[metrics]\nlisten = \"127.0.0.1:9100\"\n",
            "cannot listen at 127.0.0.1:9100 for metrics",
        ),
    ];
    for (config, said) in obstacles {
        fails_clearly(&check(bastion, config)?, Some(2), &[said])?;
        does_not_start(bastion)?;
    }
    // All of them at once, one line each.
    let all = obstacles.map(|(config, _)| config).concat();
    bastion.sh("ssh-keygen -q -t ed25519 -N '' -f /etc/sshvpn/open; chmod 644 /etc/sshvpn/open")?;
    let open_key = GOOD.replace("/etc/sshvpn/host", "/etc/sshvpn/open");
    bastion.write(CONFIG, &format!("{open_key}{all}"))?;
    let output = bastion.run(&Client::Sshvpn.command(&["serve", "--check"])?)?;
    let mut parts = obstacles.map(|(_, said)| said).to_vec();
    parts.push("permissions 0644 are too open");
    fails_clearly(&output, Some(2), &parts)?;
    ensure!(output.stderr.lines().count() == parts.len(), "{output:?}");
    does_not_start(bastion)?;
    drop(taken);
    Ok(())
}

#[test]
fn a_pool_that_is_the_hosts_own_network_is_found() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let bastion = &lab.bastion;
    let pool = |network: &str| format!("[network]\npool = [\"{network}\"]\n");
    for network in ["198.51.100.0/24", "198.51.0.0/16", "198.51.100.128/25"] {
        let said = format!("the pool {network} overlaps 198.51.100.0/24");
        fails_clearly(&check(bastion, &pool(network))?, Some(2), &[&said])?;
    }
    // A route to all of 10.0.0.0/8 leaves room for a pool in it.
    bastion.sh("ip route add 10.0.0.0/8 via 198.51.100.2")?;
    let output = check(bastion, &pool("10.99.0.0/24"))?;
    ensure!(output.code() == 0, "{output:?}");
    // A running server has its own addresses and networks.
    let server = Serve::bare().start(bastion)?;
    let output = check(bastion, &pool("10.99.0.0/24"))?;
    ensure!(output.code() == 0, "{output:?}");
    server.stop()?;
    Ok(())
}

#[test]
fn a_rule_for_every_login_is_warned_of() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let rules = [
        in_group(&lab.laptop, "office")?,
        "[[client]]\ntunnel = [\"point-to-point\"]\n".to_owned(),
    ];
    let output = check(&lab.bastion, &rules.concat())?;
    ensure!(output.code() == 0, "{output:?}");
    let said = "warning: /etc/sshvpn/serve.toml: [[client]] number 2 has no key, user, certificate \
                or authority: every login gets a tunnel";
    ensure!(output.stderr.contains(said), "{output:?}");
    let server = Serve::bare().start(&lab.bastion)?;
    ensure!(
        server.child.stderr().contains(said),
        "{}",
        server.child.stderr()
    );
    server.stop()?;
    Ok(())
}
