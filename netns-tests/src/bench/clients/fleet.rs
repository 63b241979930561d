//! Many clients of one server on one host, each with its own key, connection, device and address.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bench::network::Network;
use crate::bench::opened::CIPHER;
use crate::bench::served::{self, PORT};
use crate::bench::usage;
use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::program::client::Client;
use crate::serve::Server;
use crate::wait::until;

/// Limit for all of them to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(180);
/// The directory of their keys.
const KEYS: &str = "/run/lab/keys";
/// Lets the server take all logins at once; its default limit is measured elsewhere.
const NO_STARTUP_LIMIT: &str =
    "[login]\nmax-startups = \"1000:30:1000\"\nper-source-penalties = false\n";

/// A client with a tunnel.
pub struct Member {
    child: Child,
    /// Its device.
    pub device: String,
    /// Its address.
    pub address: String,
}

/// The clients and their server.
pub struct Fleet<'a> {
    /// The clients' host.
    pub laptop: &'a Host,
    server: Server<'a>,
    /// The clients.
    pub members: Vec<Member>,
    /// The server's address in all tunnels.
    pub address: String,
    /// The time until all had a tunnel.
    pub connected: Duration,
    /// The server's CPU time for their logins.
    pub login_time: Duration,
    /// The server's memory before the first login, in bytes.
    pub memory_before: u64,
}

/// Makes `count` keys on `laptop`, and turns rp_filter off there.
pub fn prepare(laptop: &Host, count: usize) -> Result<()> {
    laptop.sh(&format!(
        "mkdir -p {KEYS}; cd {KEYS}; for i in $(seq 0 {}); do \
         [ -e $i ] || ssh-keygen -q -t ed25519 -N '' -C lab -f $i; done; \
         for name in all default; do echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter; done",
        count - 1
    ))?;
    Ok(())
}

impl<'a> Fleet<'a> {
    /// Starts a server and `count` clients at once, and waits until each has a tunnel and an
    /// address.
    pub fn open(network: &'a Network, count: usize) -> Result<Self> {
        let (laptop, bastion) = (&network.lab.laptop, &network.lab.bastion);
        let keys = laptop.sh(&format!(
            "cd {KEYS}; for i in $(seq 0 {}); do cat $i.pub; done",
            count - 1
        ))?;
        let lines = keys.lines().map(|key| format!("tunnel=\"any\" {key}\n"));
        let server = served::start(bastion, &lines.collect::<String>(), NO_STARTUP_LIMIT)?;
        let told_before = server.audit()?.len();
        let (memory_before, cpu_before) = (memory(&server)?, cpu(&server)?);
        let begun = Instant::now();
        let children = (0..count)
            .map(|number| laptop.spawn(&command(number)?))
            .collect::<Result<Vec<_>>>()?;
        until("all have their device", CONNECT_LIMIT, || {
            (devices(bastion).ok()? >= count).then_some(())
        })?;
        let connected = begun.elapsed();
        let login_time = cpu(&server)?.saturating_sub(cpu_before);
        let members = members(&server, told_before, children)?;
        let mut fleet = Self {
            laptop,
            server,
            members,
            address: String::new(),
            connected,
            login_time,
            memory_before,
        };
        fleet.address = fleet.server_address()?;
        fleet.set_up()?;
        Ok(fleet)
    }

    fn server_address(&self) -> Result<String> {
        let list = self
            .server
            .host()
            .sh("ip -o -4 address show | grep -o 'tun.* inet [0-9.]*'")?;
        let line = list.lines().next().context("no tunnel has an address")?;
        let address = line.rsplit(' ').next().context("an address is a word")?;
        Ok(address.to_owned())
    }

    fn set_up(&self) -> Result<()> {
        let mut batch = String::new();
        for member in &self.members {
            let (device, address) = (&member.device, &member.address);
            let _ = writeln!(batch, "link set {device} mtu 1500 up");
            let _ = writeln!(
                batch,
                "address add {address} peer {} dev {device}",
                self.address
            );
        }
        self.laptop.write("/run/lab/batch", &batch)?;
        self.laptop.sh("ip -batch /run/lab/batch")?;
        Ok(())
    }

    /// The server's host.
    pub fn bastion(&self) -> &Host {
        self.server.host()
    }

    /// The server's resident memory, in bytes.
    pub fn memory(&self) -> Result<u64> {
        memory(&self.server)
    }

    /// The CPU time that the server has used.
    pub fn cpu(&self) -> Result<Duration> {
        cpu(&self.server)
    }

    /// Ends the clients, all of which must still run, and the server.
    pub fn close(self) -> Result<()> {
        for member in &self.members {
            ensure!(member.child.is_running(), "{} has ended", member.device);
            member.child.signal(Signal::SIGTERM)?;
        }
        drop(self.members);
        self.server.stop()?;
        Ok(())
    }
}

fn command(number: usize) -> Result<Vec<String>> {
    let (key, units) = (format!("{KEYS}/{number}"), format!("{number}:any"));
    let destination = format!("c{number}@bastion");
    let own = ["-N", "-i", &key, "-w", &units];
    let options = [
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "ExitOnForwardFailure=yes",
        "-o",
        CIPHER,
    ];
    Client::Ssh.command(&[&own[..], &options, &PORT, &[&destination]].concat())
}

/// The number of tunnel devices of `host`.
fn devices(host: &Host) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(host.path("/sys/class/net"))? {
        count += usize::from(entry?.file_name().as_encoded_bytes().starts_with(b"tun"));
    }
    Ok(count)
}

/// The clients with their leases, from the audit log after the first `skipped` records.
fn members(server: &Server<'_>, skipped: usize, children: Vec<Child>) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    let count = children.len();
    let records = until("the audit log has all tunnels", CONNECT_LIMIT, || {
        let mut records = server.audit().ok()?.split_off(skipped);
        records.retain(|record| record["event"] == "tunnel-up");
        (records.len() == count).then_some(records)
    })?;
    for (number, child) in children.into_iter().enumerate() {
        let user = format!("c{number}");
        let is_its = |record: &&Value| record["user"] == *user;
        let record = records.iter().find(is_its).context(user.clone())?;
        let address = record["addresses"][0].as_str().context("no address")?;
        members.push(Member {
            child,
            device: format!("tun{number}"),
            address: address.to_owned(),
        });
    }
    Ok(members)
}

fn memory(server: &Server<'_>) -> Result<u64> {
    usage::resident(&fs::read_to_string(server.proc().join("status"))?)
}

fn cpu(server: &Server<'_>) -> Result<Duration> {
    usage::cpu_time(&fs::read_to_string(server.proc().join("stat"))?)
}
