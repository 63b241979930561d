//! A stock sshd with one hardened or unusual setting at a time, each a row of a table with the
//! expected outcome of every way in: the tunnel is up, or the sentence that is printed.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──── 192.0.2.2 wan bastion
//!   sshvpn ═══════════════ SSH ═══════════════ sshd with the setting
//! ```

use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::lab::dropbear;
use netns_tests::lab::host::Process;
use netns_tests::lab::link::has_device;
use netns_tests::lab::sshd::{Sshd, make_key};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::vpn::{Device, fails_clearly};
use netns_tests::{Before, Carrier, Client, Host, PATIENCE, traffic, until};
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
    /// What is done before, in a lab of its own.
    prepare: Option<fn(&Direct) -> Result<()>>,
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
    prepare: None,
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
        if let Some(prepare) = self.prepare {
            prepare(&lab)?;
        }
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
            // -w after the options: the first setting of Tunnel counts.
            "-w" => {
                let fatal = ["-N", "-o", "ExitOnForwardFailure=yes"];
                self.command(&[&fatal[..], self.options, &["-w", "any:any"]].concat())?
            }
            carrier => self.command(&["up", "--via", carrier])?,
        };
        match outcome {
            Skip => return Ok(()),
            Says(text) => return fails_clearly(&lab.laptop.run(&command)?, Some(255), &[text]),
            Up => {}
        }
        let made = |lab: &Direct| {
            ["tun0", "tap0"]
                .iter()
                .any(|name| has_device(&lab.bastion, name))
        };
        let client = lab.laptop.spawn(&command)?;
        if way == "-w" {
            until("a device there", PATIENCE, || {
                (client.has_ended() || made(lab)).then_some(())
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
        let result = match row.prepare {
            None => row.run(&shared),
            Some(_) => row.lab().and_then(|lab| row.run(&lab)),
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

/// Gives the key of root a command.
const FORCED: &str = "sed -i 's,^,command=\"/usr/local/sbin/sshvpn agent\" ,' \
    /etc/ssh/authorized_keys/root";

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
        Row {
            prepare: Some(|lab| on(&lab.bastion, FORCED)),
            // The agent takes the place of the shell.
            tun: Skip,
            ..always(&[("PermitRootLogin", "forced-commands-only")])
        },
        never(&[("AllowUsers", "alice")], DENIED),
        never(&[("DenyUsers", "root")], DENIED),
        never(&[("AllowGroups", "staff")], DENIED),
        always(&[("AllowGroups", "root")]),
        always(&[("LoginGraceTime", "5")]),
        Row {
            prepare: Some(|lab| on(&lab.bastion, "chmod 777 /etc/ssh/authorized_keys")),
            ..never(&[("StrictModes", "yes")], DENIED)
        },
        Row {
            prepare: Some(|lab| on(&lab.bastion, "chmod 755 /etc/ssh/authorized_keys")),
            ..always(&[("StrictModes", "yes")])
        },
    ])
}

/// Runs shell commands on `host`.
fn on(host: &Host, line: &str) -> Result<()> {
    host.sh(line).map(drop)
}

/// Starts an ssh-agent with five keys that may not log in.
const FULL_AGENT: &str = "ssh-agent -a /run/lab/agent >/dev/null
    for n in 1 2 3 4 5; do
        ssh-keygen -q -t ed25519 -N '' -f /run/lab/key$n
        SSH_AUTH_SOCK=/run/lab/agent ssh-add -q /run/lab/key$n
    done";

/// Gives the laptop a second key that may log in.
fn second_key(lab: &Direct) -> Result<()> {
    let key = "/run/home/root/.ssh/id_ecdsa";
    make_key(&lab.laptop, key, "ecdsa")?;
    let public = lab.laptop.read(&format!("{key}.pub"))?;
    lab.bastion.append("/etc/ssh/authorized_keys/root", &public)
}

/// Gives root of the bastion a password, and the laptop a program that knows it.
fn password(lab: &Direct) -> Result<()> {
    dropbear::set_password(&lab.bastion, "root", "open-sesame")?;
    let program = "#!/bin/sh\necho open-sesame\n";
    lab.laptop.write("/run/lab/askpass", program)?;
    on(&lab.laptop, "chmod 755 /run/lab/askpass")
}

/// The variables for a login by [`password`].
const ASKPASS: &[&str] = &["SSH_ASKPASS=/run/lab/askpass", "SSH_ASKPASS_REQUIRE=force"];

/// The laptop's key may log in by a certificate alone, whose authority is an ed25519 key.
fn certificate(lab: &Direct) -> Result<()> {
    let key = "/run/home/root/.ssh/id_ed25519";
    make_key(&lab.laptop, "/run/lab/ca", "ed25519")?;
    on(
        &lab.laptop,
        &format!("ssh-keygen -q -s /run/lab/ca -I laptop -n root {key}.pub"),
    )?;
    let authority = lab.laptop.read("/run/lab/ca.pub")?;
    lab.bastion.write("/etc/ssh/user_ca.pub", &authority)?;
    on(&lab.bastion, "rm /etc/ssh/authorized_keys/root")
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
        Row {
            prepare: Some(second_key),
            ..always(&[("AuthenticationMethods", "publickey,publickey")])
        },
        Row {
            prepare: Some(password),
            variables: ASKPASS,
            ..always(BY_KEY_AND_ANSWER)
        },
        Row {
            options: &["-o", "BatchMode=yes"],
            ..never(
                BY_KEY_AND_ANSWER,
                "root@bastion: Permission denied (keyboard-interactive)",
            )
        },
        Row {
            prepare: Some(certificate),
            ..always(&[
                ("TrustedUserCAKeys", "/etc/ssh/user_ca.pub"),
                ("CASignatureAlgorithms", "ssh-ed25519"),
            ])
        },
        Row {
            prepare: Some(certificate),
            ..never(
                &[
                    ("TrustedUserCAKeys", "/etc/ssh/user_ca.pub"),
                    ("CASignatureAlgorithms", "rsa-sha2-512"),
                ],
                DENIED,
            )
        },
        // The agent offers five other keys first.
        Row {
            prepare: Some(|lab| on(&lab.laptop, FULL_AGENT)),
            variables: &["SSH_AUTH_SOCK=/run/lab/agent"],
            ..never(&[("MaxAuthTries", "1")], "too many keys")
        },
        always(&[("MaxAuthTries", "1")]),
    ])
}

/// A key, and then an answer to PAM's question.
const BY_KEY_AND_ANSWER: &[(&str, &str)] = &[
    ("AuthenticationMethods", "publickey,keyboard-interactive"),
    ("KbdInteractiveAuthentication", "yes"),
    ("PermitRootLogin", "yes"),
    ("UsePAM", "yes"),
];

/// The one connection that may be without a login is taken, and then free again.
#[test]
fn max_startups() -> Result<()> {
    const SETTING: &[(&str, &str)] = &[("MaxStartups", "1:100:1")];
    let refused = never(SETTING, "it said 'Exceeded MaxStartups'");
    let lab = refused.lab()?;
    let sshd = Sshd::default()
        .set("MaxStartups", "1:100:1")
        .start(&lab.bastion)?;
    let place = ("192.0.2.2", 22);
    let held = lab.laptop.in_network(|| Ok(TcpStream::connect(place)?))?;
    sshd.wait_for_line("Connection from 192.0.2.1", PATIENCE)?;
    for way in ["tun", "agent", "-w"] {
        refused.way(&lab, way, refused.tun)?;
    }
    drop(held);
    sshd.wait_for_line("by 192.0.2.1 port", PATIENCE)?;
    always(SETTING).way(&lab, "agent", Up)
}

/// The user takes longer to answer than LoginGraceTime permits.
#[test]
fn login_grace_time() -> Result<()> {
    let row = Row {
        variables: ASKPASS,
        options: &["-o", "PubkeyAuthentication=no"],
        ..ROW
    };
    let lab = row.lab()?;
    password(&lab)?;
    let late = "#!/bin/sh\nuntil [ -e /run/lab/go ]; do sleep 0.1; done; echo open-sesame\n";
    lab.laptop.write("/run/lab/askpass", late)?;
    let sshd = Sshd::default()
        .set("LoginGraceTime", "1")
        .set("KbdInteractiveAuthentication", "yes")
        .set("PermitRootLogin", "yes")
        .set("UsePAM", "yes")
        .start(&lab.bastion)?;
    let client = lab.laptop.spawn(&row.command(&["up", "--via", "agent"])?)?;
    sshd.wait_for_line("Postponed keyboard-interactive", PATIENCE)?;
    // sshd logs nothing when the time has run out.
    until("the end of the login's process", PATIENCE, || {
        let processes = lab.bastion.processes().ok()?;
        let serves = |process: &Process| process.command.starts_with("sshd: root");
        (!processes.iter().any(serves)).then_some(())
    })?;
    on(&lab.laptop, "touch /run/lab/go")?;
    fails_clearly(&client.wait(PATIENCE)?, Some(255), &["LoginGraceTime"])
}

/// A client that stands still for longer than sshd waits is told so when it goes on, and undoes
/// its part.
#[test]
fn client_alive() -> Result<()> {
    let lab = ROW.lab()?;
    let _sshd = Sshd::default()
        .set("ClientAliveInterval", "1")
        .set("ClientAliveCountMax", "1")
        .start(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    for carrier in [Carrier::Tun, Carrier::Agent] {
        let up = carrier.up(&lab.laptop, &["bastion"])?;
        up.signal(Signal::SIGSTOP)?;
        until("no device there", PATIENCE, || {
            Device::all(&lab.bastion).ok()?.is_empty().then_some(())
        })?;
        up.signal(Signal::SIGCONT)?;
        let ended = up.wait(PATIENCE)?;
        fails_clearly(&ended, Some(255), &["bastion"])?;
    }
    before.is_back()
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
        Row {
            options: &["-o", "Tunnel=ethernet"],
            tun: Skip,
            agent: Skip,
            ..always(&[("PermitTunnel", "ethernet")])
        },
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
            tun: Says("the login runs no commands as given: it ended with code 1"),
            agent: Says("the login runs no commands as given: it ended with code 1"),
            ..always(&[("ForceCommand", "/bin/false")])
        },
        Row {
            tun: Skip,
            ..always(&[("ForceCommand", "/usr/local/sbin/sshvpn agent")])
        },
        Row {
            prepare: Some(|lab| on(&lab.bastion, "mkdir -m 755 /run/chroot")),
            tun: Says("/bin/bash: No such file or directory"),
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
            prepare: Some(|lab| on(&lab.bastion, "seq 2000 >/etc/banner")),
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
