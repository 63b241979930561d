//! `sshvpn up` to remote hosts with ordinary oddities. A host is described by an [`Oddity`]: a
//! report of a new one takes a row in the file of its kind.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1 ── 198.51.100.2 lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ tunN  sshd with the oddity
//! ```

mod devices;
mod ipv6;
mod startup;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{Privilege, Sshd, add_account, authorize};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::vpn::{self, Device};
use netns_tests::{Before, Carrier, Host, Output, traffic};
use nix::sys::signal::Signal;

/// What is odd about the remote host, or about the client's; [`USUAL`] is as Debian installs it.
#[derive(Debug, Clone, Copy)]
struct Oddity {
    /// The login: root or alice.
    login: &'static str,
    /// Lines of sudoers(5) for alice.
    sudoers: &'static str,
    /// Its login shell.
    shell: &'static str,
    /// Files and their texts, below the login's home unless the path is absolute. One that begins
    /// with `#!` is executable.
    files: &'static [(&'static str, &'static str)],
    /// Applets of busybox that are first in PATH there.
    busybox: &'static [&'static str],
    /// Lines of sshd_config.
    sshd: &'static [(&'static str, &'static str)],
    /// Settings below /proc/sys.
    sysctls: &'static [(&'static str, &'static str)],
    /// A shell line that makes the rest: mounts, devices, accounts.
    made: &'static str,
    /// The same on the client's host.
    made_here: &'static str,
    /// Further options of `up`.
    options: &'static [&'static str],
    /// Whether the route leads to the network behind the host.
    beyond: bool,
    /// Texts that `up` has to print besides.
    says: &'static [&'static str],
}

const USUAL: Oddity = Oddity {
    login: "root",
    sudoers: "",
    shell: "",
    files: &[],
    busybox: &[],
    sshd: &[],
    sysctls: &[],
    made: "",
    made_here: "",
    options: &[],
    beyond: false,
    says: &[],
};

/// A sudo right without a password.
const NOPASSWD: &str = "alice ALL=(ALL) NOPASSWD: ALL\n";

/// Where busybox's applets are.
const APPLETS: &str = "/run/busybox";

/// How `up` gets to the remote host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tun,
    Agent,
    Push,
}

const ALL: &[Way] = &[Way::Tun, Way::Agent, Way::Push];

impl Oddity {
    /// A tunnel comes up, carries packets, and leaves both hosts as they were.
    fn works(self, ways: &[Way]) -> Result<()> {
        for way in ways {
            self.tunnel(*way)
                .with_context(|| format!("{way:?}, {self:?}"))?;
        }
        Ok(())
    }

    /// No tunnel comes up; the message has all `parts`, and both hosts are as they were.
    fn fails(self, ways: &[Way], parts: &[&str]) -> Result<()> {
        for way in ways {
            self.refused(*way, parts)
                .with_context(|| format!("{way:?}, {self:?}"))?;
        }
        Ok(())
    }

    fn tunnel(self, way: Way) -> Result<()> {
        let lab = self.lab(way)?;
        let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
        let before = Before::of(&[laptop, bastion, &lab.lan])?;
        let known = Device::all(bastion)?;
        let up = vpn::up(laptop, &self.arguments(way))?;
        let devices = Device::all(bastion)?;
        let device = devices.iter().find(|device| !known.contains(device));
        let device = device.or(devices.first()).context("no device there")?;
        ensure!(!device.addresses.is_empty(), "{device:?}");
        for address in &device.addresses {
            traffic::ping(laptop, &address.to_string())?;
        }
        if self.beyond {
            traffic::ping(laptop, "198.51.100.2")?;
        }
        let ended = up.end_with(Signal::SIGINT)?;
        ensure!(ended.code() == 0, "{ended:?}");
        said(&ended, self.says)?;
        before.is_back()
    }

    fn refused(self, way: Way, parts: &[&str]) -> Result<()> {
        let lab = self.lab(way)?;
        let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
        let before = Before::of(&[laptop, bastion])?;
        let output = laptop.run(&vpn::command(&self.arguments(way))?)?;
        vpn::fails_clearly(&output, None, &[parts, self.says].concat())?;
        before.is_back()
    }

    fn arguments(self, way: Way) -> Vec<&'static str> {
        let via: &[&str] = match way {
            Way::Tun => &["--via", "tun"],
            Way::Agent => &["--via", "agent"],
            Way::Push => &["--via", "agent", "--push"],
        };
        let beyond: &[&str] = match self.beyond {
            true => &["--route", "198.51.100.0/24"],
            false => &[],
        };
        let user: &[&str] = &["-l", self.login, "bastion"];
        [via, self.options, beyond, user].concat()
    }

    /// The hosts, with all that is odd about them.
    fn lab(self, way: Way) -> Result<Subnet> {
        let path = format!("PATH={APPLETS}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let mut sshd = Sshd::default();
        if !self.busybox.is_empty() {
            sshd = sshd.set("SetEnv", &path);
        }
        for (name, value) in self.sshd {
            sshd = sshd.set(name, value);
        }
        let lab = topology::subnet_with(&sshd)?;
        let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
        self.login_of(laptop, bastion)?;
        if way == Way::Agent {
            Carrier::Agent.prepare(bastion)?;
        }
        for (file, text) in self.files {
            self.file(bastion, file, text)?;
        }
        for applet in self.busybox {
            bastion.sh(&format!(
                "install -d {APPLETS}; ln -s \"$(command -v busybox)\" {APPLETS}/{applet}"
            ))?;
        }
        for (key, value) in self.sysctls {
            bastion.sh(&format!("echo {value} >/proc/sys/{key}"))?;
        }
        bastion.sh(self.made)?;
        laptop.sh(self.made_here)?;
        Ok(lab)
    }

    fn login_of(self, laptop: &Host, bastion: &Host) -> Result<()> {
        if self.login != "root" {
            add_account(bastion, self.login, Privilege::None)?;
            authorize(laptop, bastion, self.login)?;
        }
        if !self.sudoers.is_empty() {
            bastion.write("/etc/sudoers.d/odd", self.sudoers)?;
            bastion.sh("chmod 440 /etc/sudoers.d/odd")?;
        }
        if !self.busybox.is_empty() && !self.sudoers.is_empty() {
            let line = format!("Defaults secure_path={APPLETS}:/usr/sbin:/usr/bin:/sbin:/bin\n");
            bastion.append("/etc/sudoers.d/odd", &line)?;
        }
        if !self.shell.is_empty() {
            bastion.sh(&format!(
                "sed -i 's,^\\({}:.*:\\)[^:]*$,\\1{},' /etc/passwd",
                self.login, self.shell
            ))?;
        }
        Ok(())
    }

    fn file(self, bastion: &Host, file: &str, text: &str) -> Result<()> {
        let path = match file.starts_with('/') {
            true => file.to_owned(),
            false => format!("/run/home/{}/{file}", self.login),
        };
        bastion.write(&path, text)?;
        let mode = if text.starts_with("#!") { 755 } else { 644 };
        bastion.sh(&format!("chmod {mode} {path}"))?;
        Ok(())
    }
}

fn said(output: &Output, texts: &[&str]) -> Result<()> {
    for text in texts {
        ensure!(
            output.stderr.contains(text),
            "'{text}' is missing: {output:?}"
        );
    }
    Ok(())
}
