//! The networks of the benchmark.
//!
//! ```text
//!   plain        laptop wan ─────────────────────────────────── wan bastion
//!   bottleneck   laptop wan ── left  middle, a bridge    right ── wan bastion
//!                              └ 100 Mbit/s, 50 ms of queue ┘
//!   distant      laptop wan ── left  middle, an emulator right ── wan bastion
//!                              └ 20 ms each way, settable loss ┘
//! ```

use std::time::Duration;

use anyhow::{Context, Result};

use crate::emulator::Emulator;
use crate::lab::host::Host;
use crate::lab::link::{End, bridge, connect};
use crate::lab::sshd::Sshd;
use crate::lab::topology::{Direct, direct_over};
use crate::program::client::Client;

/// The kind of network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A cable.
    Plain,
    /// A cable of 100 Mbit/s with a queue of 50 ms at each end.
    Bottleneck,
    /// A cable with a round-trip time of 40 ms.
    Distant,
}

/// An address of the bastion that the laptop reaches only if a program takes the connections over:
/// its route leads to no host.
pub const BEYOND: &str = "10.77.0.2";

/// Makes the bottleneck: a token bucket in each direction (tc-tbf(8)).
const BOTTLENECK: &str = "for port in left right; do \
    tc qdisc add dev $port root tbf rate 100mbit burst 16kb latency 50ms; done";
/// The one-way delay of the distant network.
const DISTANCE: Duration = Duration::from_millis(20);
/// Larger TCP buffers, in bytes: the default maximum of 4 MiB for sending limits a connection to
/// about 600 Mbit/s over this distance.
const WINDOWS: &str = "sysctl -q -w net.ipv4.tcp_wmem='4096 16384 67108864' \
    net.ipv4.tcp_rmem='4096 131072 67108864'";
/// The gso_max_size behind a cable without loss: super-frames stay whole.
const WHOLE: u32 = 65536;
/// The gso_max_size behind a cable with loss: the kernel segments each super-frame behind the
/// cable, so that segments are lost one at a time. Not set on the hosts' own devices: TCP would
/// make single segments from the start, which costs the sender ten times as much.
const SEGMENTS: u32 = 500;

/// Two hosts and the link between them.
pub struct Network {
    /// Held for its threads; the first field, so that they end before their devices.
    _emulator: Option<Emulator>,
    /// The hosts.
    pub lab: Direct,
    middle: Host,
}

impl Network {
    /// Makes one, with this congestion control. The bastion's sshd has the agent as a subsystem.
    pub fn new(kind: Kind, congestion: Option<&str>) -> Result<Self> {
        let mut sshd = Sshd::default();
        if let Ok(program) = Client::Sshvpn.program() {
            sshd = sshd.set("Subsystem", &format!("sshvpn {program} agent"));
        }
        let middle = Host::new("middle")?;
        let lab = direct_over(&sshd, |laptop, bastion| match kind {
            Kind::Plain => connect(laptop, bastion),
            Kind::Bottleneck | Kind::Distant => connect_through(&middle, laptop, bastion),
        })?;
        let mut emulator = None;
        match kind {
            Kind::Plain => {}
            Kind::Bottleneck => {
                bridge(&middle, "joined", &["left", "right"])?;
                middle.sh(BOTTLENECK)?;
            }
            Kind::Distant => {
                lab.laptop.sh(WINDOWS)?;
                lab.bastion.sh(WINDOWS)?;
                emulator = Some(Emulator::join(&middle, "left", "right", DISTANCE)?);
            }
        }
        for host in [&lab.laptop, &lab.bastion] {
            set_congestion(host, congestion)?;
        }
        lab.bastion
            .sh(&format!("ip address add {BEYOND}/32 dev lo"))?;
        lab.laptop
            .sh(&format!("ip route add {BEYOND}/32 via 192.0.2.99"))?;
        Ok(Self {
            _emulator: emulator,
            lab,
            middle,
        })
    }

    /// Sets the random loss of the distant network, in packets of ten thousand (fewer than all), in
    /// each direction; packets are dropped as the hosts receive them.
    pub fn set_loss(&self, of_ten_thousand: u32) -> Result<()> {
        let mut rules = "table netdev loss {}\ndelete table netdev loss\n".to_owned();
        let mut largest = WHOLE;
        if of_ten_thousand > 0 {
            largest = SEGMENTS;
            rules += &format!(
                "table netdev loss {{ chain in {{\n\
                 type filter hook ingress device wan priority 0\n\
                 numgen random mod 10000 < {of_ten_thousand} drop\n\
                 }}\n}}\n"
            );
        }
        self.middle.sh(&format!(
            "for port in left right; do ip link set dev $port gso_max_size {largest}; done"
        ))?;
        for host in [&self.lab.laptop, &self.lab.bastion] {
            host.write("/run/lab/loss.nft", &rules)?;
            host.sh("nft -f /run/lab/loss.nft")
                .context("losing packets")?;
        }
        Ok(())
    }
}

/// Has the TCP connections of `host` use this congestion control, if one is named.
pub fn set_congestion(host: &Host, name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        return Ok(());
    };
    host.sh(&format!(
        "sysctl -q -w net.ipv4.tcp_congestion_control={name} && \
         [ $(cat /proc/sys/net/ipv4/tcp_congestion_control) = {name} ]"
    ))
    .with_context(|| {
        format!(
            "--congestion {name}: a namespace has only what this machine permits; add it: \
             modprobe tcp_{name}; sysctl -w net.ipv4.tcp_allowed_congestion_control=\"$(cat \
             /proc/sys/net/ipv4/tcp_allowed_congestion_control) {name}\""
        )
    })?;
    Ok(())
}

/// Connects the hosts by two cables that meet at `middle`, which has no addresses.
fn connect_through(middle: &Host, laptop: End<'_>, bastion: End<'_>) -> Result<()> {
    connect(laptop, (middle, "left", &[]))?;
    connect((middle, "right", &[]), bastion)?;
    middle.sh(
        "for port in left right; do echo 1 >/proc/sys/net/ipv6/conf/$port/disable_ipv6; done",
    )?;
    Ok(())
}
