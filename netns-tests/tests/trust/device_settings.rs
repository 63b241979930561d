//! A tunnel's device takes no configuration from the peer: no router advertisements, no redirects,
//! no source routes. Each scenario advertises a router at one end, and the host at the other end
//! does not change.
//!
//! ```text
//!   laptop wan 192.0.2.1 ─────────── 192.0.2.2 wan bastion
//!   sshvpn … DEVICE ══════ SSH ══════ DEVICE sshd, sshvpn agent or sshvpn serve
//!            ◄── router advertisement ──►
//! ```

use anyhow::{Result, ensure};
use netns_tests::attack::router;
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::carrier::{INSTALLED, install};
use netns_tests::program::tunnel::{LOCAL, Mode, REMOTE, Tunnel};
use netns_tests::program::vpn::{self, Device};
use netns_tests::serve::Serve;
use netns_tests::serve::lab::ServeLab;
use netns_tests::{Before, Carrier, Child, Client, Host, traffic, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    both_ends_of_a_tunnel,
    both_ends_of_an_ethernet_tunnel,
    both_ends_without_ipv6,
    a_device_made_beforehand_gets_its_settings_back,
);

/// The settings of every device made for a tunnel.
const SETTINGS: [(&str, &str); 7] = [
    ("ipv4", "accept_redirects=0"),
    ("ipv4", "send_redirects=0"),
    ("ipv4", "accept_source_route=0"),
    ("ipv6", "accept_ra=0"),
    ("ipv6", "accept_redirects=0"),
    ("ipv6", "autoconf=0"),
    ("ipv6", "accept_source_route=-1"),
];
const IPV6_OFF: &str = "disable_ipv6=1";
const IPV6_ON: &str = "disable_ipv6=0";
const IPV4_ALONE: [&str; 4] = ["--address", "10.50.0.1", "--peer-address", "10.50.0.2"];

fn setting(host: &Host, family: &str, device: &str, leaf: &str) -> Result<String> {
    let path = format!("/proc/sys/net/{family}/conf/{device}/{leaf}");
    Ok(host.sh(&format!("cat {path}"))?.trim().to_owned())
}

/// Checks that `device` of `host` has all of [`SETTINGS`], and IPv6 on or off.
fn is_set(host: &Host, device: &str, ipv6: &str) -> Result<()> {
    let wanted = SETTINGS.into_iter().chain([("ipv6", ipv6)]);
    let mut wrong = Vec::new();
    for (family, wanted) in wanted {
        let (leaf, _) = wanted.split_once('=').unwrap_or((wanted, ""));
        let found = setting(host, family, device, leaf)?;
        if format!("{leaf}={found}") != wanted {
            wrong.push(format!("{family} {leaf}={found}"));
        }
    }
    // The reverse path filter is the host's default.
    let reverse_path = setting(host, "ipv4", device, "rp_filter")?;
    ensure!(reverse_path == setting(host, "ipv4", "default", "rp_filter")?);
    ensure!(wrong.is_empty(), "{device} of {}: {wrong:?}", host.name());
    Ok(())
}

/// A device of a host, and the peer's address.
struct End<'a> {
    host: &'a Host,
    device: &'a str,
    other: String,
}

/// Advertises a router from `from`, and checks that `to` does not change.
fn learns_nothing(from: &End<'_>, to: &End<'_>, mode: Mode) -> Result<()> {
    let before = Before::of(&[to.host])?;
    router::advertise(from.host, from.device, mode)?;
    // A later ping has passed, so the advertisement has arrived.
    traffic::ping(from.host, &from.other)?;
    let learned = before.differences()?;
    ensure!(learned.is_empty(), "{} learned:\n{learned}", to.host.name());
    Ok(())
}

/// Checks both directions of the only tunnel of both hosts.
fn neither_learns(local: &Host, remote: &Host, mode: Mode, ipv6: &str) -> Result<()> {
    let (here, there) = (Device::only(local)?, Device::only(remote)?);
    let address = |device: &Device| device.addresses[0].to_string();
    let local = End {
        host: local,
        device: &here.name,
        other: address(&there),
    };
    let remote = End {
        host: remote,
        device: &there.name,
        other: address(&here),
    };
    for end in [&local, &remote] {
        traffic::ping(end.host, &end.other)?;
    }
    learns_nothing(&remote, &local, mode)?;
    learns_nothing(&local, &remote, mode)?;
    is_set(local.host, local.device, ipv6)?;
    is_set(remote.host, remote.device, ipv6)
}

fn ends_clean(up: Child, before: &Before<'_>) -> Result<()> {
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(
        output.code() == 0 && !output.stderr.contains("warning"),
        "{output:?}"
    );
    before.is_back()
}

fn both_ends(carrier: Carrier, mode: Mode, arguments: &[&str], ipv6: &str) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = carrier.up(&lab.laptop, &[arguments, &["bastion"]].concat())?;
    neither_learns(&lab.laptop, &lab.bastion, mode, ipv6)?;
    ends_clean(up, &before)
}

fn both_ends_of_a_tunnel(carrier: Carrier) -> Result<()> {
    both_ends(carrier, Mode::PointToPoint, &[], IPV6_ON)
}

fn both_ends_of_an_ethernet_tunnel(carrier: Carrier) -> Result<()> {
    both_ends(carrier, Mode::Ethernet, &["--tap"], IPV6_ON)
}

/// If one host has no IPv6, the other's device has none either.
fn both_ends_without_ipv6(carrier: Carrier) -> Result<()> {
    for without in 0..2 {
        let lab = topology::direct()?;
        carrier.prepare(&lab.bastion)?;
        let host = [&lab.laptop, &lab.bastion][without];
        host.sh("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")?;
        let before = Before::of(&[&lab.laptop, &lab.bastion])?;
        let up = carrier.up(&lab.laptop, &["bastion"])?;
        neither_learns(&lab.laptop, &lab.bastion, Mode::PointToPoint, IPV6_OFF)?;
        ends_clean(up, &before)?;
    }
    Ok(())
}

/// Premade devices have the settings while the tunnel is up, and get their own back.
fn a_device_made_beforehand_gets_its_settings_back(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    for host in [&lab.laptop, &lab.bastion] {
        host.sh("ip tuntap add dev tun5 mode tun
             ip link set dev tun5 up addrgenmode none; ip link set dev tun5 down
             echo 2 >/proc/sys/net/ipv6/conf/tun5/accept_ra
             echo 1 >/proc/sys/net/ipv4/conf/tun5/rp_filter")?;
    }
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let arguments = ["--device", "tun5", "--peer-unit", "5", "bastion"];
    let up = carrier.up(&lab.laptop, &arguments)?;
    for host in [&lab.laptop, &lab.bastion] {
        ensure!(setting(host, "ipv4", "tun5", "rp_filter")? == "1");
        ensure!(setting(host, "ipv6", "tun5", "accept_ra")? == "0");
        ensure!(setting(host, "ipv6", "tun5", "accept_redirects")? == "0");
        ensure!(setting(host, "ipv4", "tun5", "accept_source_route")? == "0");
    }
    ends_clean(up, &before)
}

/// A login that is limited to an agent without forwarding cannot configure its host.
#[test]
fn a_restricted_login_configures_nothing() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    let keys = "/etc/ssh/authorized_keys/root";
    let key = lab.bastion.read(keys)?;
    let command = format!("{INSTALLED} agent --no-forward --no-nat --allow-address 10.0.0.0/8");
    let line = format!("restrict,command=\"{command}\" {key}");
    lab.bastion.write(keys, &line)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = Carrier::Agent.up(&lab.laptop, &[&IPV4_ALONE[..], &["bastion"]].concat())?;
    neither_learns(&lab.laptop, &lab.bastion, Mode::PointToPoint, IPV6_OFF)?;
    ends_clean(up, &before)
}

#[test]
fn both_ends_of_a_tunnel_to_a_server() -> Result<()> {
    for (mode, arguments) in [
        (Mode::PointToPoint, &["bastion"][..]),
        (Mode::Ethernet, &["--tap", "bastion"]),
    ] {
        let lab = ServeLab::with_tunnels()?;
        let _server = Serve::default().start(&lab.bastion)?;
        let before = Before::of(&[&lab.laptop, &lab.bastion])?;
        let up = vpn::up(&lab.laptop, arguments)?;
        neither_learns(&lab.laptop, &lab.bastion, mode, IPV6_ON)?;
        ends_clean(up, &before)?;
    }
    Ok(())
}

/// A client with addresses of one family has no other.
#[test]
fn both_ends_of_a_tunnel_to_a_server_without_ipv6() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let config = "[network]\npool = [\"10.99.0.0/24\"]\n";
    let _server = Serve::default().config(config).start(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, &["bastion"])?;
    neither_learns(&lab.laptop, &lab.bastion, Mode::PointToPoint, IPV6_OFF)?;
    ends_clean(up, &before)
}

/// `-w` leaves the addresses of both families to the user; its device takes none from the peer.
fn by_w(lab: &Direct, mode: Mode) -> Result<()> {
    let tunnel = Tunnel {
        client: Client::Sshvpn,
        mode,
        ..Tunnel::default()
    };
    let _client = tunnel.open(&lab.laptop, &lab.bastion)?;
    let (here, there) = tunnel.devices();
    let local = End {
        host: &lab.laptop,
        device: &here,
        other: REMOTE[0].to_owned(),
    };
    let remote = End {
        host: &lab.bastion,
        device: &there,
        other: LOCAL[0].to_owned(),
    };
    for end in [&local, &remote] {
        traffic::ping(end.host, &end.other)?;
    }
    learns_nothing(&remote, &local, mode)?;
    is_set(&lab.laptop, &here, IPV6_ON)
}

#[test]
fn the_device_of_w_takes_nothing_from_the_remote_end() -> Result<()> {
    by_w(&topology::direct()?, Mode::PointToPoint)?;
    by_w(&topology::direct()?, Mode::Ethernet)
}
