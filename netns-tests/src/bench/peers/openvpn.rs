//! openvpn, point to point over UDP: TLS with certificates checked by fingerprint, AES-128-GCM.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::bench::network::Network;
use crate::bench::opened::Opened;
use crate::bench::peers::program;
use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::program::tunnel::{LOCAL, REMOTE};
use crate::wait::PATIENCE;

const MAKE_CERTIFICATE: &str = "cd /run/lab
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -subj /CN=lab -keyout openvpn.key -out openvpn.crt 2>/dev/null
    openssl x509 -noout -fingerprint -sha256 -in openvpn.crt";
const OPTIONS: &str = "--dev tun0 --dev-type tun --proto udp --verb 3 --ping 10 \
    --cert /run/lab/openvpn.crt --key /run/lab/openvpn.key \
    --data-ciphers AES-128-GCM --cipher AES-128-GCM";

/// Opens it.
pub fn open(network: &Network) -> Result<Opened> {
    let (laptop, bastion) = (&network.lab.laptop, &network.lab.bastion);
    let (ours, theirs) = (fingerprint(laptop)?, fingerprint(bastion)?);
    let (local, remote) = (LOCAL[0], REMOTE[0]);
    let started = Instant::now();
    let server = start(
        bastion,
        &format!(
            "--tls-server --dh none --local 192.0.2.2 --port 1194 \
             --peer-fingerprint {ours} --ifconfig {remote} {local}"
        ),
    )?;
    let client = start(
        laptop,
        &format!(
            "--tls-client --remote 192.0.2.2 1194 --nobind \
             --peer-fingerprint {theirs} --ifconfig {local} {remote}"
        ),
    )?;
    client.wait_for_line("Initialization Sequence Completed", PATIENCE)?;
    Opened::tunnel(vec![client, server], network, started)
}

fn start(host: &Host, role: &str) -> Result<Child> {
    let program = program("openvpn")?;
    let words = OPTIONS.split_whitespace().chain(role.split_whitespace());
    let command: Vec<&str> = [program.as_str()].into_iter().chain(words).collect();
    host.spawn(&command)
}

/// Makes a certificate of `host`; returns its fingerprint.
fn fingerprint(host: &Host) -> Result<String> {
    let line = host.sh(MAKE_CERTIFICATE)?;
    let (_, fingerprint) = line.trim().split_once('=').context("no fingerprint")?;
    Ok(fingerprint.to_owned())
}
