//! The networks that are measured over.
//!
//! ```text
//!   plain        laptop wan ─────────────────────────────────── wan bastion
//!   bottleneck   laptop wan ── left  middle, a bridge    right ── wan bastion
//!                              └ 100 Mbit/s, 50 ms of queue ┘
//!   distant      laptop wan ── left  middle, an emulator right ── wan bastion
//!                              └ 20 ms each way, loss at will ┘
//! ```

use std::time::Duration;

use anyhow::{Context, Result};

use crate::emulator::Emulator;
use crate::lab::host::Host;
use crate::lab::link::{End, bridge, connect};
use crate::lab::sshd::Sshd;
use crate::lab::topology::{Direct, direct_over};
use crate::program::client::Client;

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A cable.
    Plain,
    /// A cable of 100 Mbit/s with a queue of 50 ms at either end.
    Bottleneck,
    /// A cable of 40 ms there and back.
    Distant,
}

/// An address of the bastion that the laptop reaches only where something
/// takes its connections: there is a route, but nobody at its end.
pub const BEYOND: &str = "10.77.0.2";

/// How the bottleneck is made: a token bucket each way (tc-tbf(8)).
const BOTTLENECK: &str = "for port in left right; do \
    tc qdisc add dev $port root tbf rate 100mbit burst 16kb latency 50ms; done";
/// One way of the distant network.
const DISTANCE: Duration = Duration::from_millis(20);
/// Room for what is on its way of one connection, in bytes: the usual maximum of
/// 4 MiB to be sent ends at some 600 Mbit/s over such a distance.
const WINDOWS: &str = "sysctl -q -w net.ipv4.tcp_wmem='4096 16384 67108864' \
    net.ipv4.tcp_rmem='4096 131072 67108864'";
/// The super-frames that leave the cable whole while nothing is lost on it.
const WHOLE: u32 = 65536;
/// None: the kernel cuts each into its segments behind the cable, so that they
/// are lost one at a time. Not at the hosts' own devices: TCP would make single
/// segments from the start, which costs the sender ten times as much.
const SEGMENTS: u32 = 500;

/// Two hosts and what is between them.
pub struct Network {
    /// Held for its threads; first, so that they end before their devices do.
    _emulator: Option<Emulator>,
    /// The hosts.
    pub lab: Direct,
    middle: Host,
}

impl Network {
    /// Makes one. The bastion's sshd starts the agent, should a client ask for it.
    pub fn new(kind: Kind) -> Result<Self> {
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

    /// Lets so many of ten thousand packets, but not all, be lost from now on,
    /// either way, by chance: each as the hosts receive it. For the distant network.
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

/// Two cables that meet at `middle`, which has no addresses.
fn connect_through(middle: &Host, laptop: End<'_>, bastion: End<'_>) -> Result<()> {
    connect(laptop, (middle, "left", &[]))?;
    connect((middle, "right", &[]), bastion)?;
    middle.sh(
        "for port in left right; do echo 1 >/proc/sys/net/ipv6/conf/$port/disable_ipv6; done",
    )?;
    Ok(())
}
