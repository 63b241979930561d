//! Cables between hosts, bridges, addresses and routes.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::lab::host::{Host, PATH};
use crate::wait::{PATIENCE, until};

/// One end of a cable: the host, the device's name and its addresses with prefix lengths.
pub type End<'a> = (&'a Host, &'a str, &'a [&'a str]);

/// Connects two hosts by a veth pair and adds the addresses.
pub fn connect(one: End<'_>, other: End<'_>) -> Result<()> {
    let pid = other.0.init_pid().to_string();
    // Not by Host::run: the pid has to be of this process's namespace.
    let output = one.0.in_network(|| {
        let mut ip = Command::new("ip");
        ip.args([
            "link", "add", one.1, "type", "veth", "peer", "name", other.1, "netns", &pid,
        ]);
        Ok(ip.env_clear().env("PATH", PATH).output()?)
    })?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "making a veth pair {} to {}: {message}",
        one.1,
        other.1
    );
    bring_up(one)?;
    bring_up(other)?;
    settled(one.0, one.1)?;
    settled(other.0, other.1)
}

/// Makes a bridge `name` on `host` of the devices in `ports`.
pub fn bridge(host: &Host, name: &str, ports: &[&str]) -> Result<()> {
    host.sh(&format!(
        "ip link add name {name} type bridge; ip link set dev {name} up"
    ))?;
    for port in ports {
        host.sh(&format!("ip link set dev {port} master {name}"))?;
    }
    Ok(())
}

fn bring_up((host, device, addresses): End<'_>) -> Result<()> {
    add_addresses(host, device, addresses)?;
    host.sh(&format!("ip link set dev {device} up"))?;
    Ok(())
}

/// Waits until `device` is running and has its link-local address, the kernel's last change by
/// itself.
fn settled(host: &Host, device: &str) -> Result<()> {
    until(
        &format!("{device} of {} runs", host.name()),
        PATIENCE,
        || {
            let state = host
                .read(&format!("/sys/class/net/{device}/operstate"))
                .ok()?;
            let addresses = host.read("/proc/1/net/if_inet6").ok()?;
            let is_local = |line: &str| line.starts_with("fe80") && line.ends_with(device);
            (state.trim() == "up" && addresses.lines().any(is_local)).then_some(())
        },
    )
}

/// Adds addresses to `device` of `host`.
pub fn add_addresses(host: &Host, device: &str, addresses: &[&str]) -> Result<()> {
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        host.sh(&format!("ip address add {address} dev {device} {nodad}"))?;
    }
    Ok(())
}

/// Whether `host` has a device of that name.
pub fn has_device(host: &Host, device: &str) -> bool {
    host.path(&format!("/sys/class/net/{device}"))
        .symlink_metadata()
        .is_ok()
}
