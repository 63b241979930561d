//! Devices of the remote host that exist beforehand, and what may be made of them.

use anyhow::Result;

use super::{ALL, NOPASSWD, Oddity, USUAL, Way};

const TUN: &[Way] = &[Way::Tun];

#[test]
fn a_name_taken_by_another_kind_of_device() -> Result<()> {
    Oddity {
        login: "alice",
        sudoers: NOPASSWD,
        made: "ip link add tun0 type veth peer name tap1; ip link add tun1 type bridge",
        says: &["tun2"],
        ..USUAL
    }
    .works(TUN)
}

#[test]
fn a_name_taken_by_another_kind_of_device_asked_for() -> Result<()> {
    Oddity {
        made: "ip link add tun3 type veth peer name tun4",
        options: &["--peer-unit", "3"],
        ..USUAL
    }
    .fails(TUN, &["tun3", "is no tun device", "--peer-unit"])
}

#[test]
fn a_name_taken_is_no_matter_to_root() -> Result<()> {
    Oddity {
        made: "ip link add tun0 type veth peer name tap0",
        ..USUAL
    }
    .works(ALL)
}

/// As made by `ip tuntap add … group vpn`.
#[test]
fn a_device_of_a_group() -> Result<()> {
    Oddity {
        login: "alice",
        made: "echo vpn:x:3000:alice >>/etc/group
            ip tuntap add dev tun5 mode tun group vpn
            echo 1 >/proc/sys/net/ipv6/conf/tun5/disable_ipv6
            ip address add 10.60.0.2 peer 10.60.0.1 dev tun5
            ip link set tun5 mtu 1400 up",
        ..USUAL
    }
    .works(TUN)
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
fn a_key_with_a_unit_and_sudo() -> Result<()> {
    Oddity {
        login: "alice",
        sudoers: NOPASSWD,
        made: KEY_WITH_UNIT,
        says: &["tun3"],
        ..USUAL
    }
    .works(TUN)
}

/// The unit of the key in use is not to be read: its device was made beforehand.
#[test]
fn a_key_with_a_unit_and_its_device_and_sudo() -> Result<()> {
    Oddity {
        login: "alice",
        sudoers: NOPASSWD,
        files: &[(
            "/etc/ssh/keys",
            "#!/bin/sh\nsed 's,^,tunnel=\"3\" ,' /etc/ssh/authorized_keys/alice\n",
        )],
        sshd: &[
            ("AuthorizedKeysCommand", "/etc/ssh/keys"),
            ("AuthorizedKeysCommandUser", "root"),
            ("AuthorizedKeysFile", "none"),
        ],
        made: "ip tuntap add dev tun3 mode tun user alice; echo 1 >/proc/sys/net/ipv6/conf/tun3/addr_gen_mode; ip link set tun3 up; ip link set tun3 down",
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

/// busybox's ip makes no device for a login.
#[test]
fn busybox_ip_and_sudo() -> Result<()> {
    Oddity {
        login: "alice",
        sudoers: NOPASSWD,
        busybox: &["ip"],
        ..USUAL
    }
    .fails(TUN, &["busybox", "iproute2", "root"])
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
