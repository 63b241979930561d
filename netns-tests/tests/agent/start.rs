//! `sshvpn up` starts an agent on the remote host, or reports why it cannot.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   sshvpn up  sshvpn0 ═════ SSH ═════ sshd ─► sshvpn agent  sshvpn0
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{Privilege, Sshd, add_account, authorize};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::carrier::{INSTALLED, install};
use netns_tests::program::vpn::{self, Device};
use netns_tests::{Before, Child, Host, PATIENCE, traffic};
use nix::sys::signal::Signal;

/// The line about a tunnel by an agent.
const BY_AGENT: &str = "by agent: sshvpn ";

/// Brings a tunnel up with `arguments`, checks that packets pass and that a line with `why` reports
/// the carrier, and runs `look` meanwhile. Afterwards both hosts have to be as before.
fn goes_up(
    lab: &Direct,
    arguments: &[&str],
    why: &str,
    look: impl FnOnce(&Child) -> Result<()>,
) -> Result<()> {
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, arguments)?;
    ensure!(up.stderr().contains(why), "not '{why}': {}", up.stderr());
    for address in Device::only(&lab.bastion)?.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    look(&up)?;
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0 && output.stdout.is_empty(), "{output:?}");
    before.is_back()
}

/// Whether the stream goes over a socket; its folder has to be gone.
fn by_socket(host: &Host) -> Result<bool> {
    let left = host.sh("ls -d /run/sshvpn-agent.* 2>/dev/null || true")?;
    ensure!(left.trim().is_empty(), "still there: {left}");
    let sockets = host.sh("cat /proc/net/unix")?;
    let connected = |line: &str| {
        let mut words = line.split_whitespace().skip(5);
        words.next() == Some("03") && line.contains("/run/sshvpn-agent.")
    };
    Ok(sockets.lines().any(connected))
}

/// The command line of the agent that runs on `host`.
fn agent(host: &Host) -> Result<String> {
    let processes = host.processes()?;
    let mut commands = processes.into_iter().map(|process| process.command);
    // Without the shell that started it.
    let runs = |command: &String| !command.starts_with("sh") && command.contains("sshvpn agent");
    commands.find(runs).context("no agent runs")
}

fn fails(lab: &Direct, arguments: &[&str], parts: &[&str]) -> Result<()> {
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let output = lab.laptop.run(&vpn::command(arguments)?)?;
    vpn::fails_clearly(&output, Some(255), parts)?;
    before.is_back()
}

/// An sshd with this line for the subsystem.
fn subsystem(command: &str) -> Result<Direct> {
    topology::direct_with(&Sshd::default().set("Subsystem", &format!("sshvpn {command}")))
}

#[test]
fn a_subsystem_comes_first() -> Result<()> {
    let lab = subsystem("/run/lab/sshvpn agent --max-mtu 1400")?;
    install(&lab.bastion)?;
    lab.bastion.sh(&format!("cp {INSTALLED} /run/lab/sshvpn"))?;
    goes_up(&lab, &["bastion"], BY_AGENT, |_| {
        let agent = agent(&lab.bastion)?;
        ensure!(
            agent == "/run/lab/sshvpn agent --max-mtu 1400",
            "another agent: {agent}"
        );
        ensure!(by_socket(&lab.bastion)?, "not by its socket");
        ensure!(Device::only(&lab.bastion)?.mtu == 1400);
        Ok(())
    })
}

#[test]
fn one_in_the_path_is_found() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    goes_up(&lab, &["bastion"], BY_AGENT, |_| {
        let agent = agent(&lab.bastion)?;
        ensure!(agent == format!("{INSTALLED} agent"), "{agent}");
        Ok(())
    })
}

/// The line in sshd_config names a program that does not exist; sshd does not pass a subsystem's
/// standard error on.
#[test]
fn a_broken_subsystem_is_passed_over() -> Result<()> {
    let lab = subsystem("/nowhere/sshvpn agent")?;
    fails(
        &lab,
        &["--via", "agent", "bastion"],
        &["the subsystem 'sshvpn' started no agent", "code 127"],
    )?;
    goes_up(&lab, &["bastion"], "by tun: bastion: the subsystem", |_| {
        Ok(())
    })?;
    install(&lab.bastion)?;
    goes_up(&lab, &["bastion"], BY_AGENT, |_| Ok(()))
}

/// The line in sshd_config names a program that stays silent beyond the time limit, and does not
/// end with its input.
#[test]
fn a_silent_subsystem_is_passed_over() -> Result<()> {
    let lab = subsystem("sleep 15")?;
    let reason = "by tun: bastion: cannot start an agent there as the subsystem 'sshvpn': \
        no answer in 10 seconds";
    goes_up(&lab, &["bastion"], reason, |_| Ok(()))?;
    install(&lab.bastion)?;
    goes_up(&lab, &["bastion"], BY_AGENT, |_| Ok(()))
}

#[test]
fn sudo_makes_it_root() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    add_account(&lab.bastion, "alice", Privilege::Sudo)?;
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    goes_up(&lab, &["alice@bastion"], BY_AGENT, |up| {
        let stderr = up.stderr();
        ensure!(stderr.contains("the agent runs as root"), "{stderr}");
        ensure!(by_socket(&lab.bastion)?, "not by its socket");
        Ok(())
    })
}

/// sudo permits only this command.
#[test]
fn a_sudoers_line_for_the_agent_is_enough() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    add_account(&lab.bastion, "alice", Privilege::None)?;
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    lab.bastion.sh(&format!(
        "echo 'alice ALL=(root) NOPASSWD: {INSTALLED} agent' >/etc/sudoers.d/alice; \
         chmod 440 /etc/sudoers.d/alice"
    ))?;
    goes_up(&lab, &["alice@bastion"], BY_AGENT, |_| Ok(()))
}

/// The login is not root, but the program has the capability.
#[test]
fn a_capability_is_enough() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    add_account(&lab.bastion, "alice", Privilege::None)?;
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    lab.bastion
        .sh(&format!("setcap cap_net_admin+ep {INSTALLED}"))?;
    goes_up(&lab, &["alice@bastion"], BY_AGENT, |up| {
        let stderr = up.stderr();
        ensure!(stderr.contains("the agent runs as alice"), "{stderr}");
        Ok(())
    })
}

#[test]
fn a_login_that_may_do_nothing_is_told_so() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    add_account(&lab.bastion, "alice", Privilege::None)?;
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    fails(
        &lab,
        &["--via", "agent", "alice@bastion"],
        &["bastion", "CAP_NET_ADMIN"],
    )?;
    // sshd's forwarding is not possible either; both reasons are reported.
    fails(
        &lab,
        &["alice@bastion"],
        &["by tun: ", "CAP_NET_ADMIN", "alice"],
    )
}

#[test]
fn a_command_of_the_users_own_starts_it() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    let command = format!("{INSTALLED} agent --device-prefix vpn --max-mtu 1300");
    let arguments = ["--agent-command", &command, "bastion"];
    goes_up(&lab, &arguments, BY_AGENT, |_| {
        let device = Device::only(&lab.bastion)?;
        ensure!(
            (device.name.as_str(), device.mtu) == ("vpn0", 1300),
            "{device:?}"
        );
        Ok(())
    })
}

#[test]
fn without_any_it_goes_by_tun() -> Result<()> {
    let lab = topology::direct()?;
    goes_up(&lab, &["bastion"], "by tun: no sshvpn at bastion", |_| {
        Ok(())
    })?;
    fails(
        &lab,
        &["--via", "agent", "bastion"],
        &["no sshvpn at bastion", "--push"],
    )?;
    fails(
        &lab,
        &["--agent-command", "sshvpn agent", "bastion"],
        &["'sshvpn agent' started no agent", "not found"],
    )
}

#[test]
fn tun_is_taken_when_asked_for() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    goes_up(
        &lab,
        &["--via", "tun", "bastion"],
        "by tun: as requested",
        |_| {
            ensure!(agent(&lab.bastion).is_err(), "an agent was started");
            ensure!(Device::only(&lab.bastion)?.name == "tun0");
            Ok(())
        },
    )
}

/// The login shell's startup file prints text first, without a line end.
#[test]
fn what_a_startup_file_prints_is_passed_over() -> Result<()> {
    let lab = subsystem("/usr/local/sbin/sshvpn agent")?;
    install(&lab.bastion)?;
    lab.bastion.write(
        "/run/home/root/.bashrc",
        "printf 'Welcome!\\r\\n\\0\\377\\n'; seq 1000; echo 'to you' >&2; printf 'last login: now '\n",
    )?;
    goes_up(&lab, &["bastion"], BY_AGENT, |_| Ok(()))
}

#[test]
fn an_sshd_that_forbids_tunnels_is_enough() -> Result<()> {
    let lab = topology::direct_with(
        &Sshd::default()
            .set("PermitTunnel", "no")
            .set("DisableForwarding", "yes"),
    )?;
    fails(&lab, &["bastion"], &["by tun: no sshvpn", "PermitTunnel"])?;
    install(&lab.bastion)?;
    fails(&lab, &["--via", "tun", "bastion"], &["PermitTunnel"])?;
    goes_up(&lab, &["bastion"], BY_AGENT, |_| {
        ensure!(!by_socket(&lab.bastion)?, "by its socket");
        Ok(())
    })
}

/// The folder of an agent that was killed before a client connected.
#[test]
fn a_folder_left_behind_is_removed_by_the_next() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    let agent = (lab.bastion).spawn(&["sh", "-c", &format!("sleep 60 | {INSTALLED} agent")])?;
    agent.wait_for_line("sshvpn-agent/1", PATIENCE)?;
    let folders = || (lab.bastion).sh("ls -d /run/sshvpn-agent.* 2>/dev/null || true");
    let left = folders()?;
    ensure!(left.trim().lines().count() == 1, "{left}");
    // Another login cannot enter it.
    add_account(&lab.bastion, "mallory", Privilege::None)?;
    let look = format!("su mallory -s /bin/sh -c 'ls {}'", left.trim());
    ensure!(lab.bastion.sh(&look).is_err(), "mallory can enter");
    lab.bastion.sh("kill -9 $(pidof sshvpn)")?;
    ensure!(folders()? == left, "already gone");
    goes_up(&lab, &["bastion"], BY_AGENT, |_| {
        ensure!(by_socket(&lab.bastion)?, "not by its socket");
        Ok(())
    })
}

/// The key permits only the agent with these limits.
#[test]
fn a_forced_command_is_the_agent() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    let file = "/etc/ssh/authorized_keys/root";
    let key = lab.bastion.read(file)?;
    let line = format!("restrict,command=\"{INSTALLED} agent --max-mtu 1350\" {key}");
    lab.bastion.write(file, &line)?;
    goes_up(&lab, &["bastion"], BY_AGENT, |_| {
        ensure!(Device::only(&lab.bastion)?.mtu == 1350);
        Ok(())
    })
}
