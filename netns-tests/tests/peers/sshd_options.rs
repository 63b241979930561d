//! A stock sshd with one hardened or unusual setting at a time, each a row of a table with the
//! expected outcome of every way in: the tunnel is up, or the sentence that is printed.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──── 192.0.2.2 wan bastion
//!   sshvpn ═══════════════ SSH ═══════════════ sshd with the setting
//! ```

use anyhow::{Context, Result, bail, ensure};
use netns_tests::lab::link::has_device;
use netns_tests::lab::sshd::Sshd;
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::vpn::{Device, fails_clearly};
use netns_tests::{Carrier, Client, PATIENCE, traffic, until};
use nix::sys::signal::Signal;

/// What a way in has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A tunnel.
    Up,
    /// A failure whose message has this text.
    Says(&'static str),
    /// Another row shows it.
    Skip,
}
use Outcome::{Says, Skip, Up};

/// A setting and what comes of it.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// Lines of sshd_config.
    sshd: &'static [(&'static str, &'static str)],
    /// Shell commands on the bastion before, in a lab of its own.
    bastion: &'static str,
    /// Shell commands on the laptop before, in a lab of its own.
    laptop: &'static str,
    /// Options of the client.
    options: &'static [&'static str],
    /// The variables of the client.
    variables: &'static [&'static str],
    /// `sshvpn up --via tun`.
    tun: Outcome,
    /// `sshvpn up --via agent`, with sshvpn installed there.
    agent: Outcome,
    /// `sshvpn -N -w any:any`.
    w: Outcome,
}

/// A row whose outcome is a tunnel by every way.
const ROW: Row = Row {
    sshd: &[],
    bastion: "",
    laptop: "",
    options: &[],
    variables: &[],
    tun: Up,
    agent: Up,
    w: Up,
};

/// A row with the same failure by every way.
const fn never(sshd: &'static [(&'static str, &'static str)], text: &'static str) -> Row {
    Row {
        sshd,
        tun: Says(text),
        agent: Says(text),
        w: Says(text),
        ..ROW
    }
}

/// A row that is up by every way.
const fn always(sshd: &'static [(&'static str, &'static str)]) -> Row {
    Row { sshd, ..ROW }
}

impl Row {
    /// Makes the row's lab: the hosts, prepared, with sshvpn installed on the bastion. Its sshd is
    /// stopped.
    fn lab(&self) -> Result<Direct> {
        let lab = topology::direct()?;
        lab.sshd.signal(Signal::SIGTERM)?;
        Carrier::Agent.prepare(&lab.bastion)?;
        lab.laptop.sh(self.laptop)?;
        lab.bastion.sh(self.bastion)?;
        Ok(lab)
    }

    /// Runs all ways in; returns what came out otherwise.
    fn run(&self, lab: &Direct) -> Result<()> {
        let mut sshd = Sshd::default();
        for (name, value) in self.sshd {
            sshd = sshd.set(name, value);
        }
        let sshd = sshd.start(&lab.bastion)?;
        let ways = [("tun", self.tun), ("agent", self.agent), ("-w", self.w)];
        let mut wrong = Vec::new();
        for (way, outcome) in ways {
            if let Err(error) = self.way(lab, way, outcome) {
                wrong.push(format!("by {way}: {error:#}"));
            }
        }
        let ended = sshd.end_with(Signal::SIGTERM)?;
        ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), ended.stderr);
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Result<Vec<String>> {
        let arguments = [words, self.options, &["bastion"]].concat();
        let mut command = vec!["env".to_owned()];
        command.extend(self.variables.iter().map(|word| (*word).to_owned()));
        command.extend(Client::Sshvpn.command(&arguments)?);
        Ok(command)
    }

    fn way(&self, lab: &Direct, way: &str, outcome: Outcome) -> Result<()> {
        let command = match way {
            "-w" => self.command(&["-N", "-w", "any:any", "-o", "ExitOnForwardFailure=yes"])?,
            carrier => self.command(&["up", "--via", carrier])?,
        };
        match outcome {
            Skip => return Ok(()),
            Says(text) => return fails_clearly(&lab.laptop.run(&command)?, Some(255), &[text]),
            Up => {}
        }
        let client = lab.laptop.spawn(&command)?;
        if way == "-w" {
            until("a device there", PATIENCE, || {
                (client.has_ended() || has_device(&lab.bastion, "tun0")).then_some(())
            })?;
            ensure!(client.is_running(), "{}", client.stderr());
        } else {
            client.wait_for_line("up:", PATIENCE)?;
            let device = Device::only(&lab.bastion)?;
            let address = device.addresses.first().context("no address")?;
            traffic::ping(&lab.laptop, &address.to_string())?;
        }
        client.end_with(Signal::SIGINT)?;
        until("no device there", PATIENCE, || {
            Device::all(&lab.bastion).ok()?.is_empty().then_some(())
        })
    }
}

/// Runs `rows`, all of them, those without preparations in one lab.
fn table(rows: &[Row]) -> Result<()> {
    let shared = ROW.lab()?;
    let mut wrong = Vec::new();
    for row in rows {
        let result = match (row.bastion, row.laptop) {
            ("", "") => row.run(&shared),
            _ => row.lab().and_then(|lab| row.run(&lab)),
        };
        if let Err(error) = result {
            wrong.push(format!("{:?} {:?}: {error:#}", row.sshd, row.options));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n\n"));
    }
    Ok(())
}

const DENIED: &str = "root@bastion: Permission denied (publickey)";

#[test]
fn who_may_log_in() -> Result<()> {
    table(&[
        never(&[("PermitRootLogin", "no")], DENIED),
        always(&[("PermitRootLogin", "prohibit-password")]),
        // sshd ends the connection after it has accepted such a login.
        never(
            &[("PermitRootLogin", "forced-commands-only")],
            "Connection to bastion",
        ),
        never(&[("AllowUsers", "alice")], DENIED),
        never(&[("DenyUsers", "root")], DENIED),
        never(&[("AllowGroups", "staff")], DENIED),
        always(&[("AllowGroups", "root")]),
        always(&[("LoginGraceTime", "5")]),
        Row {
            bastion: "chmod 777 /etc/ssh/authorized_keys",
            ..never(&[("StrictModes", "yes")], DENIED)
        },
        Row {
            bastion: "chmod 755 /etc/ssh/authorized_keys",
            ..always(&[("StrictModes", "yes")])
        },
    ])
}

#[test]
fn how_to_log_in() -> Result<()> {
    table(&[
        never(
            &[("PubkeyAuthentication", "no")],
            "root@bastion: the server offers no method of login",
        ),
        never(
            &[(
                "PubkeyAcceptedAlgorithms",
                "rsa-sha2-512,ecdsa-sha2-nistp256",
            )],
            DENIED,
        ),
        always(&[("PubkeyAcceptedAlgorithms", "ssh-ed25519")]),
        never(&[("AuthenticationMethods", "publickey,publickey")], DENIED),
        // The agent offers five other keys first.
        Row {
            laptop: "ssh-agent -a /run/lab/agent >/dev/null
                for n in 1 2 3 4 5; do
                    ssh-keygen -q -t ed25519 -N '' -f /run/lab/key$n
                    SSH_AUTH_SOCK=/run/lab/agent ssh-add -q /run/lab/key$n
                done",
            variables: &["SSH_AUTH_SOCK=/run/lab/agent"],
            ..never(&[("MaxAuthTries", "1")], "too many keys")
        },
        always(&[("MaxAuthTries", "1")]),
    ])
}

#[test]
fn what_is_forwarded() -> Result<()> {
    table(&[
        Row {
            tun: Says("set 'PermitTunnel point-to-point' (or yes) in its sshd_config"),
            w: Says("set 'PermitTunnel point-to-point' (or yes) in its sshd_config"),
            ..always(&[("PermitTunnel", "no")])
        },
        always(&[("PermitTunnel", "point-to-point")]),
        Row {
            tun: Says("set 'PermitTunnel point-to-point' (or yes) in its sshd_config"),
            w: Says("set 'PermitTunnel point-to-point' (or yes) in its sshd_config"),
            ..always(&[("PermitTunnel", "ethernet")])
        },
        always(&[
            ("AllowTcpForwarding", "no"),
            ("AllowStreamLocalForwarding", "no"),
        ]),
        always(&[
            ("AllowTcpForwarding", "local"),
            ("AllowStreamLocalForwarding", "remote"),
        ]),
        always(&[
            ("AllowTcpForwarding", "remote"),
            ("AllowStreamLocalForwarding", "local"),
        ]),
        // Before OpenSSH 10.4 it forbids no tunnels.
        always(&[("DisableForwarding", "yes")]),
        always(&[("PermitOpen", "none"), ("PermitListen", "none")]),
        always(&[
            ("AllowAgentForwarding", "no"),
            ("X11Forwarding", "yes"),
            ("GatewayPorts", "yes"),
        ]),
    ])
}

#[test]
fn sessions_and_what_runs_in_them() -> Result<()> {
    table(&[
        Row {
            tun: Says("does the server's MaxSessions permit one more?"),
            agent: Says("does the server's MaxSessions permit one more?"),
            ..always(&[("MaxSessions", "0")])
        },
        always(&[("MaxSessions", "1")]),
        always(&[
            ("PermitTTY", "no"),
            ("PermitUserRC", "no"),
            ("PrintMotd", "yes"),
        ]),
        always(&[("PermitUserEnvironment", "yes"), ("AcceptEnv", "*")]),
        Row {
            tun: Says("(it printed nothing): use a login with a POSIX shell"),
            agent: Says("'sshvpn agent' started no agent: it ended with code 1"),
            ..always(&[("ForceCommand", "/bin/false")])
        },
        Row {
            tun: Skip,
            ..always(&[("ForceCommand", "/usr/local/sbin/sshvpn agent")])
        },
        Row {
            bastion: "mkdir -m 755 /run/chroot",
            tun: Says("; /bin/bash: No such file or directory): use a login with a POSIX shell"),
            agent: Says("/bin/bash: No such file or directory"),
            ..always(&[("ChrootDirectory", "/run/chroot")])
        },
        always(&[("ChrootDirectory", "/")]),
        always(&[("Subsystem", "sshvpn /usr/local/sbin/sshvpn agent")]),
        always(&[("Subsystem", "sshvpn /nowhere/sshvpn agent")]),
        always(&[("Subsystem", "sshvpn internal-sftp")]),
    ])
}

#[test]
fn the_connection() -> Result<()> {
    table(&[
        always(&[("ClientAliveInterval", "1"), ("ClientAliveCountMax", "3")]),
        always(&[("RekeyLimit", "1M 5")]),
        always(&[("Compression", "no"), ("UseDNS", "yes")]),
        Row {
            options: &["-o", "Compression=yes"],
            ..always(&[("Compression", "yes")])
        },
        always(&[("IPQoS", "none"), ("TCPKeepAlive", "no")]),
        Row {
            bastion: "seq 2000 >/etc/banner",
            ..always(&[("Banner", "/etc/banner")])
        },
        always(&[(
            "VersionAddendum",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        )]),
        always(&[("AddressFamily", "inet6")]),
        Row {
            options: &["-4"],
            ..never(
                &[("AddressFamily", "inet6")],
                "connect to host bastion port 22: Connection refused",
            )
        },
        Row {
            options: &["-p", "2222"],
            ..always(&[("Port", "2222"), ("ListenAddress", "192.0.2.2")])
        },
    ])
}
