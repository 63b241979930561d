//! Devices of the remote host that exist beforehand, and what may be made of them.

use anyhow::Result;

use super::{ALL, NOPASSWD, Oddity, USUAL, Way};

const TUN: &[Way] = &[Way::Tun];

#[test]
fn a_name_taken_is_no_matter_to_root() -> Result<()> {
    Oddity {
        made: "ip link add tun0 type veth peer name tap0",
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn a_device_of_a_group_of_others() -> Result<()> {
    Oddity {
        login: "alice",
        made: "echo vpn:x:3000: >>/etc/group
            ip tuntap add dev tun5 mode tun user alice group vpn
            ip address add 10.60.0.2 peer 10.60.0.1 dev tun5
            ip link set tun5 up",
        options: &["--peer-unit", "5"],
        ..USUAL
    }
    .fails(TUN, &["tun5", "alice"])
}

const KEY_WITH_UNIT: &str = "sed -i 's,^,tunnel=\"3\" ,' /etc/ssh/authorized_keys/*";

#[test]
fn a_key_with_a_unit() -> Result<()> {
    Oddity {
        made: KEY_WITH_UNIT,
        says: &["tun3"],
        ..USUAL
    }
    .works(TUN)
}

#[test]
fn no_tunnels_permitted() -> Result<()> {
    Oddity {
        login: "alice",
        sudoers: NOPASSWD,
        sshd: &[("PermitTunnel", "no")],
        ..USUAL
    }
    .fails(TUN, &["PermitTunnel"])
}

#[test]
fn no_link_local_address_on_taps() -> Result<()> {
    Oddity {
        sysctls: &[("net/ipv6/conf/default/addr_gen_mode", "1")],
        options: &["--tap"],
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn busybox_ip() -> Result<()> {
    Oddity {
        busybox: &["ip"],
        beyond: true,
        ..USUAL
    }
    .works(ALL)?;
    Oddity {
        busybox: &["ip"],
        options: &["--tap"],
        ..USUAL
    }
    .works(ALL)
}
