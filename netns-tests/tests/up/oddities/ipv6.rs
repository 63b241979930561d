//! Hosts without IPv6: IPv4 comes up, and one line says why IPv6 is left out.

use anyhow::Result;

use super::{ALL, Oddity, USUAL};

const OFF_THERE: &[&str] = &["IPv6 is left out: it is disabled at bastion"];
const OFF_HERE: &[&str] = &["IPv6 is left out: it is disabled on this host"];

#[test]
fn disabled_for_new_devices_there() -> Result<()> {
    Oddity {
        sysctls: &[("net/ipv6/conf/default/disable_ipv6", "1")],
        says: OFF_THERE,
        beyond: true,
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn disabled_there() -> Result<()> {
    Oddity {
        sysctls: &[("net/ipv6/conf/all/disable_ipv6", "1")],
        says: OFF_THERE,
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn disabled_for_new_devices_here() -> Result<()> {
    Oddity {
        made_here: "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6",
        says: OFF_HERE,
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn disabled_here() -> Result<()> {
    Oddity {
        made_here: "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6",
        says: OFF_HERE,
        ..USUAL
    }
    .works(ALL)
}

/// As after `ipv6.disable=1` at boot.
#[test]
fn no_settings_of_ipv6_there() -> Result<()> {
    Oddity {
        made: "mount -t tmpfs none /proc/sys/net/ipv6",
        says: OFF_THERE,
        beyond: true,
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn no_settings_of_ipv6_here() -> Result<()> {
    Oddity {
        made_here: "mount -t tmpfs none /proc/sys/net/ipv6",
        says: OFF_HERE,
        ..USUAL
    }
    .works(ALL)
}
