//! The rows into `sshvpn serve` on the bastion; the server runs before the client starts.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::bench::network::Network;
use crate::bench::opened::{CIPHER, Opened};
use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::program::client::Client;
use crate::program::tunnel::Tunnel;
use crate::program::vpn::Device;
use crate::serve::joined::Joined;
use crate::serve::lab::KEY;
use crate::serve::{Serve, Server};
use crate::wait::PATIENCE;

/// The directory of the server's files, outside of the compared state.
pub const DIRECTORY: &str = "/run/lab/serve";
/// The server's port (sshd has 22), as arguments of its clients.
pub const PORT: [&str; 4] = ["-p", "2222", "-o", "HostKeyAlias=bastion"];

/// Checks that this sshvpn has `serve`.
pub fn is_available() -> Result<()> {
    let command = Client::Sshvpn.command(&["serve", "--help"])?;
    let (program, arguments) = command.split_first().context("an empty command")?;
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "this sshvpn has no serve");
    Ok(())
}

/// Starts a server on `host` for the keys of `authorized`, with `more` configuration lines.
pub fn start<'a>(host: &'a Host, authorized: &str, more: &str) -> Result<Server<'a>> {
    host.sh(&format!("install -d -m 700 {DIRECTORY}"))?;
    host.write(&format!("{DIRECTORY}/authorized_keys"), authorized)?;
    let config = format!("{DIRECTORY}/serve.toml");
    host.write(
        &config,
        &format!(
            "listen = [\"[::]:2222\"]\n\
             host-key = [\"/etc/ssh/ssh_host_ed25519_key\"]\n\
             authorized-keys = [\"{DIRECTORY}/authorized_keys\"]\n\
             {more}\n\
             [network]\npool = [\"10.99.0.0/16\"]\nmtu = 1500\nleases = \"{DIRECTORY}/leases.json\"\n"
        ),
    )?;
    Serve::bare()
        .audited()
        .with(&["--config", &config])
        .start(host)
}

/// A server for the laptop's own key.
fn start_for_laptop(network: &Network) -> Result<Server<'_>> {
    let key = network.lab.laptop.read(&format!("{KEY}.pub"))?;
    start(&network.lab.bastion, &format!("tunnel=\"any\" {key}"), "")
}

/// `-w` at MTU 1500.
pub fn tunnel(client: Client, network: &Network) -> Result<Opened> {
    let server = start_for_laptop(network)?;
    let arguments = [&PORT[..], &["-o", CIPHER]].concat();
    let tunnel = Tunnel {
        client,
        arguments: &arguments,
        ..Tunnel::default()
    };
    let started = Instant::now();
    let joined = Joined::open(&server, &network.lab.laptop, &tunnel)?;
    let children = vec![joined.child, server.child];
    opened(children, network, started)
}

/// `sshvpn up`.
pub fn up(network: &Network) -> Result<Opened> {
    let server = start_for_laptop(network)?;
    let way = ["up", "--via", "serve", "-o", CIPHER];
    let command = Client::Sshvpn.command(&[&way[..], &PORT, &["bastion"]].concat())?;
    let started = Instant::now();
    let client = network.lab.laptop.spawn(&command)?;
    client.wait_for_line("up:", PATIENCE)?;
    opened(vec![client, server.child], network, started)
}

/// The open row, between the addresses that the server has chosen.
fn opened(children: Vec<Child>, network: &Network, started: Instant) -> Result<Opened> {
    let address = |host: &Host| -> Result<String> {
        let addresses = Device::only(host)?.addresses;
        Ok(addresses.first().context("no address")?.to_string())
    };
    let (local, remote) = (
        address(&network.lab.laptop)?,
        address(&network.lab.bastion)?,
    );
    Opened::tunnel_between(children, network, started, [&local, &remote])
}
