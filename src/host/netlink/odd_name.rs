//! Links whose names are not UTF-8, as the kernel permits. The netlink library can read no message
//! about them, and a request for one would wait without end, so they are asked for by ioctl. No
//! tunnel uses them; their networks count.

use std::ffi::CStr;

use nix::net::if_::if_nameindex;

use crate::host::plan::facts::{InterfaceIndex, LinkFacts};

/// Those of this network namespace.
pub(super) fn links() -> Vec<LinkFacts> {
    let Ok(all) = if_nameindex() else {
        return Vec::new();
    };
    let odd = all.iter().filter(|link| link.name().to_str().is_err());
    odd.map(|link| facts(link.index(), link.name())).collect()
}

/// The link with that number, if its name is not UTF-8.
pub(super) fn link(index: InterfaceIndex) -> Option<LinkFacts> {
    links().into_iter().find(|link| link.index == index)
}

fn facts(index: u32, name: &CStr) -> LinkFacts {
    LinkFacts {
        index: InterfaceIndex(index),
        name: name.to_string_lossy().into_owned(),
        kind: None,
        mtu: 0,
        // Unknown; a network of a link that is down counts too much rather than not.
        up: true,
        loopback: false,
        tx_queue_length: 0,
        gso_max_size: None,
        address_generation: None,
        master: None,
        group: 0,
    }
}
