//! `sshvpn up` to an account other than root.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1 ── 198.51.100.2 lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ tunN  sshd, alice
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{Privilege, add_account, authorize};
use netns_tests::lab::topology;
use netns_tests::program::vpn::{self, Device};
use netns_tests::{Before, Carrier, traffic, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(sudo_is_enough, two_hops, proxy_command);

/// `sudo -n` makes the device first and does the other steps, or starts the agent.
fn sudo_is_enough(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    add_account(bastion, "alice", Privilege::Sudo)?;
    authorize(laptop, bastion, "alice")?;
    carrier.prepare(bastion)?;
    let before = Before::of(&[laptop, bastion, &lab.lan])?;
    let up = carrier.up(laptop, &["alice@bastion", "--route", "198.51.100.0/24"])?;
    traffic::ping(laptop, "198.51.100.2")?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// The administrator has made the device with an address: no step is left to do there.
#[test]
fn a_device_made_beforehand_is_enough() -> Result<()> {
    let lab = topology::direct()?;
    add_account(&lab.bastion, "alice", Privilege::None)?;
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    lab.bastion.sh("ip tuntap add dev tun5 mode tun user alice
         echo 1 >/proc/sys/net/ipv6/conf/tun5/disable_ipv6
         ip address add 10.60.0.2 peer 10.60.0.1 dev tun5
         ip link set tun5 up")?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let unit = ["-o", "TunnelDevice=any:5", "alice@bastion"];
    let addresses = [
        "--address",
        "10.60.0.1",
        "--peer-address",
        "10.60.0.2",
        "--mtu",
        "1500",
    ];
    let up = vpn::up(&lab.laptop, &[&unit[..], &addresses].concat())?;
    traffic::ping(&lab.laptop, "10.60.0.2")?;
    traffic::ping(&lab.bastion, "10.60.0.1")?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// Without options, the device, its addresses and its MTU are found.
#[test]
fn a_device_made_beforehand_is_found() -> Result<()> {
    let lab = topology::direct()?;
    add_account(&lab.bastion, "alice", Privilege::None)?;
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    lab.bastion.sh("ip tuntap add dev tun5 mode tun user alice
         echo 1 >/proc/sys/net/ipv6/conf/tun5/disable_ipv6
         ip address add 10.60.0.2 peer 10.60.0.1 dev tun5
         ip link set tun5 mtu 1400 up")?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, &["alice@bastion"])?;
    let device = Device::only(&lab.laptop)?;
    ensure!(
        lab.laptop
            .sh(&format!("cat /sys/class/net/{}/mtu", device.name))?
            .trim()
            == "1400"
    );
    traffic::ping(&lab.laptop, "10.60.0.2")?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

fn two_hops(carrier: Carrier) -> Result<()> {
    let lab = topology::hops()?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.jump, &lab.bastion])?;
    let up = carrier.up(&lab.laptop, &["-J", "jump", "bastion"])?;
    for address in Device::only(&lab.bastion)?.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

fn proxy_command(carrier: Carrier) -> Result<()> {
    let lab = topology::hops()?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.jump, &lab.bastion])?;
    let up = carrier.up(
        &lab.laptop,
        &["-o", "ProxyCommand=ssh -W %h:%p jump", "bastion"],
    )?;
    for address in Device::only(&lab.bastion)?.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}
