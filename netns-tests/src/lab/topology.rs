//! The networks of the scenarios.

use anyhow::Result;

use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::lab::link::{End, connect};
use crate::lab::sshd::{Sshd, authorize, introduce};

/// ```text
/// laptop wan 192.0.2.1/24        wan bastion (sshd)
///            2001:db8:2::1/64 ─────  192.0.2.2/24, 2001:db8:2::2/64
/// ```
pub struct Direct {
    /// The client's host.
    pub laptop: Host,
    /// The host of sshd; root of the laptop may log in as root.
    pub bastion: Host,
    /// The server.
    pub sshd: Child,
}

/// Makes [`Direct`] with the lab's usual sshd.
pub fn direct() -> Result<Direct> {
    direct_with(&Sshd::default())
}

/// Makes [`Direct`] with other sshd settings.
pub fn direct_with(sshd: &Sshd) -> Result<Direct> {
    direct_over(sshd, connect)
}

/// Makes [`Direct`], with its hosts joined by `join` in place of a cable.
pub fn direct_over(
    sshd: &Sshd,
    join: impl FnOnce(End<'_>, End<'_>) -> Result<()>,
) -> Result<Direct> {
    let laptop = Host::new("laptop")?;
    let bastion = Host::new("bastion")?;
    join(
        (&laptop, "wan", &["192.0.2.1/24", "2001:db8:2::1/64"]),
        (&bastion, "wan", &["192.0.2.2/24", "2001:db8:2::2/64"]),
    )?;
    introduce(&laptop, &bastion, &["192.0.2.2", "2001:db8:2::2"])?;
    authorize(&laptop, &bastion, "root")?;
    let sshd = sshd.start(&bastion)?;
    Ok(Direct {
        laptop,
        bastion,
        sshd,
    })
}

/// ```text
/// laptop wan ── wan bastion (sshd) lan 198.51.100.1/24        lan host
///                                      2001:db8:64::1/64 ──── 198.51.100.2/24, 2001:db8:64::2/64
/// ```
/// The bastion does not forward, and the LAN host has no route to the laptop.
pub struct Subnet {
    /// The laptop and the bastion.
    pub direct: Direct,
    /// The host behind the bastion.
    pub lan: Host,
}

/// Makes [`Subnet`] with the lab's usual sshd.
pub fn subnet() -> Result<Subnet> {
    subnet_with(&Sshd::default())
}

/// Makes [`Subnet`] with other sshd settings.
pub fn subnet_with(sshd: &Sshd) -> Result<Subnet> {
    let direct = direct_with(sshd)?;
    let lan = Host::new("lan")?;
    connect(
        (
            &direct.bastion,
            "lan",
            &["198.51.100.1/24", "2001:db8:64::1/64"],
        ),
        (&lan, "lan", &["198.51.100.2/24", "2001:db8:64::2/64"]),
    )?;
    Ok(Subnet { direct, lan })
}

/// ```text
/// laptop wan 192.0.2.1/24 ── 192.0.2.2/24 wan jump (sshd)
///                                             inner 203.0.113.1/24 ── 203.0.113.2/24 wan bastion (sshd)
/// ```
/// The laptop has no route to the bastion; the jump host does not forward.
pub struct Hops {
    /// The client's host.
    pub laptop: Host,
    /// The jump host.
    pub jump: Host,
    /// The destination.
    pub bastion: Host,
    /// The servers.
    pub sshd: [Child; 2],
}

/// Makes [`Hops`].
pub fn hops() -> Result<Hops> {
    let laptop = Host::new("laptop")?;
    let jump = Host::new("jump")?;
    let bastion = Host::new("bastion")?;
    connect(
        (&laptop, "wan", &["192.0.2.1/24"]),
        (&jump, "wan", &["192.0.2.2/24"]),
    )?;
    connect(
        (&jump, "inner", &["203.0.113.1/24"]),
        (&bastion, "wan", &["203.0.113.2/24"]),
    )?;
    introduce(&laptop, &jump, &["192.0.2.2"])?;
    introduce(&laptop, &bastion, &["203.0.113.2"])?;
    // The jump host resolves the bastion's name too, as a real one would.
    introduce(&jump, &bastion, &["203.0.113.2"])?;
    authorize(&laptop, &jump, "root")?;
    authorize(&laptop, &bastion, "root")?;
    let sshd = [
        Sshd::default().start(&jump)?,
        Sshd::default().start(&bastion)?,
    ];
    Ok(Hops {
        laptop,
        jump,
        bastion,
        sshd,
    })
}
