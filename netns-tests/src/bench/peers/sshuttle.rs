//! sshuttle: takes TCP connections to an address of the bastion over on the laptop, and makes them
//! anew on the bastion.

use anyhow::{Result, ensure};

use crate::bench::network::{BEYOND, Network};
use crate::bench::opened::{CIPHER, Opened};
use crate::bench::peers::{once_up, program};

/// Opens it.
pub fn open(network: &Network) -> Result<Opened> {
    let ssh = format!("/usr/bin/ssh -o {CIPHER}");
    let command = [
        program("sshuttle")?,
        "--method=nft".into(),
        "--disable-ipv6".into(),
        "--python=/usr/bin/python3".into(),
        format!("--ssh-cmd={ssh}"),
        "--remote=root@bastion".into(),
        format!("{BEYOND}/32"),
    ];
    let laptop = &network.lab.laptop;
    let child = laptop.spawn(&command)?;
    once_up(&child, || {
        let rules = laptop.sh("nft list ruleset")?;
        ensure!(rules.contains(BEYOND), "sshuttle has no rules");
        Ok(())
    })?;
    Ok(Opened {
        children: vec![child],
        local: "192.0.2.1".into(),
        connect: BEYOND.into(),
        serve: BEYOND.into(),
        mtu: 0,
        start: None,
    })
}
