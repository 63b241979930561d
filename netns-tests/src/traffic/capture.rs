//! Captures the packets of a device, by tcpdump.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::wait::{PATIENCE, until};

/// A running tcpdump.
pub struct Capture<'a> {
    host: &'a Host,
    file: String,
    tcpdump: Child,
}

impl<'a> Capture<'a> {
    /// Starts to capture all packets of `device` of `host`.
    pub fn start(host: &'a Host, device: &str) -> Result<Self> {
        let file = format!("/run/lab/{device}.pcap");
        // As root, since the file's directory belongs to root; each packet is
        // written at once, or the last ones would be lost.
        // A short snapshot length: tcpdump's buffer has 2 MiB for packets of full
        // length, so it would lose packets of a burst.
        let options = ["-Z", "root", "--immediate-mode", "-U", "-s", "4096"];
        let command = [&["tcpdump"][..], &options, &["-i", device, "-w", &file]].concat();
        let tcpdump = host.spawn(&command)?;
        tcpdump.wait_for_line("listening on", PATIENCE)?;
        Ok(Self {
            host,
            file,
            tcpdump,
        })
    }

    /// Waits for a packet that matches `filter`. Earlier packets stay in the capture.
    pub fn wait_for(&self, filter: &str) -> Result<()> {
        until(&format!("a packet: {filter}"), PATIENCE, || {
            let read = ["tcpdump", "-nn", "-r", &self.file, filter];
            let output = self.host.run(&read).ok()?;
            (!output.stdout.is_empty()).then_some(())
        })
    }

    /// Ends the capture.
    pub fn end(self) -> Result<Captured<'a>> {
        self.tcpdump.end_with(Signal::SIGINT)?.ok()?;
        Ok(Captured {
            host: self.host,
            file: self.file,
        })
    }
}

/// A finished capture.
pub struct Captured<'a> {
    host: &'a Host,
    file: String,
}

impl Captured<'_> {
    /// The packets that match `filter` (pcap-filter(7)), one per line.
    pub fn matching(&self, filter: &str) -> Result<Vec<String>> {
        let text = self
            .host
            .run(&["tcpdump", "-nn", "-r", &self.file, filter])?
            .ok()?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Checks that the capture has SSH, and besides it only address resolution: ARP, neighbour
    /// discovery (RFC 4861, types 133 to 137) and its multicast listener reports (RFC 3810, after
    /// a hop-by-hop header).
    pub fn shows_only_ssh(&self) -> Result<()> {
        let ssh = self.matching("tcp port 22")?;
        ensure!(
            ssh.len() > 10,
            "the capture missed the SSH connection: {ssh:?}"
        );
        let others = self.matching(
            "not tcp port 22 and not arp \
             and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137) and not ip6[6] == 0",
        )?;
        ensure!(others.is_empty(), "not SSH: {others:#?}");
        Ok(())
    }
}
