//! Starts `sshvpn up`, waits for it, and reads the devices that it made.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use crate::lab::child::{Child, Output};
use crate::lab::host::Host;
use crate::program::client::Client;
use crate::wait::PATIENCE;

/// The command line `sshvpn up ARGUMENTS`.
pub fn command(arguments: &[&str]) -> Result<Vec<String>> {
    let mut words = vec!["up"];
    words.extend(arguments);
    Client::Sshvpn.command(&words)
}

/// Starts `sshvpn up ARGUMENTS` on `host` and waits until it is up.
pub fn up(host: &Host, arguments: &[&str]) -> Result<Child> {
    let child = host.spawn(&command(arguments)?)?;
    child.wait_for_line("up:", PATIENCE)?;
    Ok(child)
}

/// Runs `sshvpn cleanup` on `host`, which has to succeed.
pub fn cleanup(host: &Host) -> Result<()> {
    host.run(&Client::Sshvpn.command(&["cleanup"])?)?.ok()?;
    Ok(())
}

/// Checks that `output` is a clear failure: with exit code `code`, if one is given, a message that
/// contains each of `parts`, and no panic.
pub fn fails_clearly(output: &Output, code: Option<i32>, parts: &[&str]) -> Result<()> {
    ensure!(output.code() != 0, "it did not fail: {output:?}");
    ensure!(
        output.code() < 256 && output.code() != 101,
        "a panic's exit code: {output:?}"
    );
    ensure!(!output.stderr.contains("panicked"), "a panic: {output:?}");
    if let Some(code) = code {
        ensure!(
            output.code() == code,
            "the exit code is not {code}: {output:?}"
        );
    }
    for part in parts {
        ensure!(
            output.stderr.contains(part),
            "'{part}' is missing: {output:?}"
        );
    }
    Ok(())
}

/// A tun or tap device of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// Its addresses of global scope, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

impl Device {
    /// The only tun or tap device of `host`.
    pub fn only(host: &Host) -> Result<Self> {
        let mut devices = Self::all(host)?;
        ensure!(
            devices.len() == 1,
            "{} does not have exactly one tunnel device: {devices:?}",
            host.name()
        );
        devices.pop().context("one device")
    }

    /// The tun and tap devices of `host`.
    pub fn all(host: &Host) -> Result<Vec<Self>> {
        let names = host.sh("cd /sys/class/net; ls -d */tun_flags 2>/dev/null || true")?;
        let devices = names
            .lines()
            .filter_map(|line| line.strip_suffix("/tun_flags"));
        devices.map(|name| Self::named(host, name)).collect()
    }

    fn named(host: &Host, name: &str) -> Result<Self> {
        let mtu = host
            .read(&format!("/sys/class/net/{name}/mtu"))?
            .trim()
            .parse()?;
        let list = host.sh(&format!("ip -o address show dev {name} scope global"))?;
        let mut addresses = Vec::new();
        for line in list.lines() {
            let address = line
                .split_whitespace()
                .nth(3)
                .context("a line without address")?;
            let bare = address.split_once('/').map_or(address, |(bare, _)| bare);
            addresses.push(bare.parse().with_context(|| format!("in {line}"))?);
        }
        addresses.sort();
        Ok(Self {
            name: name.to_owned(),
            mtu,
            addresses,
        })
    }
}
