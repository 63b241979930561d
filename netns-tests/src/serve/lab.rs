//! The network of the scenarios of `sshvpn serve`, and its clients' keys.

use anyhow::{Context, Result};

use super::AUTHORIZED_KEYS;
use crate::lab::host::Host;
use crate::lab::link::connect;
use crate::lab::sshd::{introduce, make_key};

/// ```text
///   laptop wan 192.0.2.1/24 ─────── 192.0.2.2/24 wan
///              2001:db8:2::1/64 ─ 2001:db8:2::2/64   bastion lan 198.51.100.1/24 ── 198.51.100.2/24 lan host
///   phone  wan 203.0.113.1/24 ─── 203.0.113.2/24 side
/// ```
/// Both clients have a key and know the bastion's host key at port 22. The
/// bastion does not forward, and the LAN host has no routes to other networks.
pub struct ServeLab {
    /// A client.
    pub laptop: Host,
    /// Another client.
    pub phone: Host,
    /// The server's host.
    pub bastion: Host,
    /// The host behind it.
    pub lan: Host,
}

/// An address of the LAN host.
pub const LAN: &str = "198.51.100.2";

/// The private key that each client's ssh tries by default.
pub const KEY: &str = "/run/home/root/.ssh/id_ed25519";

/// The configuration rule that puts a client into a group.
pub fn in_group(client: &Host, group: &str) -> Result<String> {
    let shown = client.sh(&format!("ssh-keygen -l -f {KEY}.pub"))?;
    let key = shown.split_whitespace().nth(1).context("no fingerprint")?;
    Ok(format!(
        "[[client]]\nkey = \"{key}\"\ngroup = [\"{group}\"]\n"
    ))
}

impl ServeLab {
    /// Makes the network; no key is authorized yet.
    pub fn new() -> Result<Self> {
        let lab = Self {
            laptop: Host::new("laptop")?,
            phone: Host::new("phone")?,
            bastion: Host::new("bastion")?,
            lan: Host::new("lan")?,
        };
        connect(
            (&lab.laptop, "wan", &["192.0.2.1/24", "2001:db8:2::1/64"]),
            (&lab.bastion, "wan", &["192.0.2.2/24", "2001:db8:2::2/64"]),
        )?;
        connect(
            (&lab.phone, "wan", &["203.0.113.1/24"]),
            (&lab.bastion, "side", &["203.0.113.2/24"]),
        )?;
        connect(
            (&lab.bastion, "lan", &["198.51.100.1/24"]),
            (&lab.lan, "lan", &["198.51.100.2/24"]),
        )?;
        introduce(&lab.laptop, &lab.bastion, &["192.0.2.2"])?;
        introduce(&lab.phone, &lab.bastion, &["203.0.113.2"])?;
        for client in [&lab.laptop, &lab.phone] {
            make_key(client, KEY, "ed25519")?;
        }
        Ok(lab)
    }

    /// Makes the network, with a tunnel of any unit for both clients.
    pub fn with_tunnels() -> Result<Self> {
        let lab = Self::new()?;
        lab.authorize(&[
            (&lab.laptop, "tunnel=\"any\""),
            (&lab.phone, "tunnel=\"any\""),
        ])?;
        Ok(lab)
    }

    /// Authorizes only the keys of these clients, each with its options.
    pub fn authorize(&self, clients: &[(&Host, &str)]) -> Result<()> {
        let mut text = String::new();
        for (client, options) in clients {
            let public = client.read(&format!("{KEY}.pub"))?;
            text.push_str(format!("{options} {public}").trim_start());
        }
        self.bastion.write(AUTHORIZED_KEYS, &text)
    }
}
