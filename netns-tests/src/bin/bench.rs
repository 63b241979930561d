//! Throughput of `sshvpn` beside that of `ssh`, one TCP stream each way, in
//! interleaved rounds, so that whatever the machine does besides hits all alike.
//!
//! ```text
//!   laptop 192.0.2.1 ── 192.0.2.2 bastion (the distribution's sshd)
//!   iperf3 -c ════════ tunnel ═════════ iperf3 -s
//! ```

use std::env;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::iperf3::{self, Direction, Flow};
use netns_tests::topology::{self, Direct};
use netns_tests::tunnel::{FAR, Tunnel};
use netns_tests::vpn::{self, Device};
use netns_tests::{Before, Child, Client, Host, child, traffic};
use nix::sys::signal::Signal;

/// The cipher that all use.
const CIPHER: &str = "Ciphers=aes128-gcm@openssh.com";
/// The MTU of the tunnels by `-w`.
const MTU: u32 = 1500;

/// One way to make a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `-w` at [`MTU`].
    Tunnel(Client),
    /// `sshvpn up` at its own MTU.
    Up,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Tunnel(Client::Ssh) => "ssh -w",
            Way::Tunnel(Client::Sshvpn) => "sshvpn -w",
            Way::Up => "sshvpn up",
        }
    }

    /// Opens it; gives the client, the far end's address and the MTU.
    fn open(self, lab: &Direct) -> Result<(Child, String, u32)> {
        match self {
            Way::Tunnel(client) => {
                let arguments = &["-o", CIPHER];
                let tunnel = Tunnel {
                    client,
                    mtu: MTU,
                    arguments,
                    ..Tunnel::default()
                };
                Ok((
                    tunnel.open(&lab.laptop, &lab.bastion)?,
                    FAR[0].to_owned(),
                    MTU,
                ))
            }
            Way::Up => {
                let child = vpn::up(&lab.laptop, &["-o", CIPHER, "bastion"])?;
                let device = Device::only(&lab.bastion)?;
                let address = device
                    .addresses
                    .first()
                    .context("the far end has no address")?;
                Ok((child, address.to_string(), device.mtu))
            }
        }
    }
}

/// The figures of one way, in Mbit/s.
struct Series {
    way: Way,
    mtu: u32,
    up: Vec<f64>,
    down: Vec<f64>,
}

fn main() -> Result<()> {
    child::print_nothing();
    let (rounds, seconds) = options()?;
    let mut ways = vec![Way::Tunnel(Client::Ssh)];
    match Client::Sshvpn.program() {
        Ok(_) => ways.extend([Way::Tunnel(Client::Sshvpn), Way::Up]),
        Err(error) => println!("bench: only ssh is measured: {error:#}"),
    }
    let lab = topology::direct()?;
    let series = |way: &Way| Series {
        way: *way,
        mtu: 0,
        up: Vec::new(),
        down: Vec::new(),
    };
    let mut table: Vec<Series> = ways.iter().map(series).collect();
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    for round in 1..=rounds {
        for series in &mut table {
            measure(&lab, series, seconds)?;
            before.is_back()?;
            let [up, down] = [&series.up, &series.down].map(|figures| figures.last().copied());
            println!(
                "bench: round {round} of {rounds}: {:<10} up {:>6.0}  down {:>6.0} Mbit/s",
                series.way.name(),
                up.unwrap_or_default(),
                down.unwrap_or_default(),
            );
        }
    }
    print_table(&table);
    Ok(())
}

fn options() -> Result<(u32, u32)> {
    let (mut rounds, mut seconds) = (5, 3);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let target = match word.as_str() {
            "--rounds" => &mut rounds,
            "--seconds" => &mut seconds,
            _ => bail!("'{word}' is not one of --rounds N, --seconds N"),
        };
        let value = words
            .next()
            .with_context(|| format!("{word} needs a number"))?;
        *target = value.parse().with_context(|| format!("{word} {value}"))?;
        ensure!(*target > 0, "{word} has to be at least 1");
    }
    Ok((rounds, seconds))
}

/// One round of one way: opened, measured both ways, closed.
fn measure(lab: &Direct, series: &mut Series, seconds: u32) -> Result<()> {
    let (client, address, mtu) = series.way.open(lab)?;
    series.mtu = mtu;
    traffic::ping(&lab.laptop, &address)?;
    for direction in [Direction::Up, Direction::Down] {
        let flow = Flow {
            direction,
            seconds,
            pace: None,
        };
        let wire = on_the_wire(&lab.laptop)?;
        let figures = iperf3::measure(&lab.laptop, &lab.bastion, &address, flow)
            .with_context(|| format!("over {}", series.way.name()))?;
        let wire = on_the_wire(&lab.laptop)? - wire;
        ensure!(
            wire > figures.bytes,
            "{} bytes, but {wire} on the wire",
            figures.bytes
        );
        let list = if direction == Direction::Up {
            &mut series.up
        } else {
            &mut series.down
        };
        list.push(figures.bits_per_second / 1e6);
    }
    client.end_with(Signal::SIGTERM)?;
    Ok(())
}

/// The bytes that have passed the laptop's cable, both ways: no figure may be larger.
fn on_the_wire(laptop: &Host) -> Result<u64> {
    let count = |name: &str| -> Result<u64> {
        Ok(laptop
            .read(&format!("/sys/class/net/wan/statistics/{name}"))?
            .trim()
            .parse()?)
    };
    Ok(count("tx_bytes")? + count("rx_bytes")?)
}

fn print_table(table: &[Series]) {
    println!(
        "\nTCP, one stream, {CIPHER}, Mbit/s: median (least to most), and how it compares to ssh\n"
    );
    println!("  {:<10} {:>6}  {:>24}  {:>24}", "", "MTU", "up", "down");
    let Some(ssh) = table.first() else { return };
    for series in table {
        println!(
            "  {:<10} {:>6}  {:>24}  {:>24}",
            series.way.name(),
            series.mtu,
            cell(&series.up, &ssh.up),
            cell(&series.down, &ssh.down),
        );
    }
}

fn cell(figures: &[f64], reference: &[f64]) -> String {
    let sorted = sorted(figures);
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
        return "-".into();
    };
    let (ours, theirs) = (median(figures), median(reference));
    format!("{ours:.0} ({least:.0} to {most:.0}) {:.2}x", ours / theirs)
}

/// The middle figure, or the mean of the two in the middle.
fn median(figures: &[f64]) -> f64 {
    let sorted = sorted(figures);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => f64::NAN,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => (sorted[middle - 1] + upper) / 2.0,
    }
}

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
