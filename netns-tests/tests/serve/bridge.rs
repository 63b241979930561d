//! `sshvpn serve --bridge` with clients that claim other identities: another host of the network,
//! the gateway, another client. Also, how clients without a bridge reach each other.
//!
//! ```text
//!   laptop tap3 ══ SSH ══╗           ┌ br0 ┐
//!                        ╠═ tap7,8 ──┤     ├── lan host
//!   phone  tap3 ══ SSH ══╝           └─────┘ bastion: sshvpn serve
//! ```

use anyhow::{Result, ensure};
use netns_tests::program::tunnel::{Mode, Tunnel};
use netns_tests::serve::Serve;
use netns_tests::serve::joined::Joined;
use netns_tests::serve::lab::{LAN, ServeLab, in_group};
use netns_tests::serve::station::{BASTION, Station, lab, link_local, mac, serve};
use netns_tests::traffic::capture::Capture;
use netns_tests::{Host, PATIENCE, traffic, until};

fn refused(dropped: &serde_json::Value) -> u64 {
    dropped["source not allowed"].as_u64().unwrap_or(0)
}

#[test]
fn a_client_is_no_station_that_is_somebody_elses() -> Result<()> {
    let lab = lab()?;
    let server = serve(&lab, "")?;
    let phone = Station::open(&server, &lab.phone, "bob", "true")?;
    traffic::ping(&lab.phone, BASTION)?;
    let victims = [
        mac(&lab.lan, "lan")?,
        mac(&lab.bastion, "br0")?,
        mac(&lab.bastion, "wan")?,
        mac(&lab.phone, "tap3")?,
    ];
    for victim in victims {
        let known = |host: &Host| host.sh(&format!("bridge fdb show br br0 | grep -i ^{victim}"));
        let before = known(&lab.bastion).unwrap_or_default();
        let like_it = format!("ip link set tap3 address {victim}");
        let laptop = Station::open(&server, &lab.laptop, "alice", &like_it)?;
        traffic::no_ping(laptop.host, BASTION)?;
        traffic::no_ping(laptop.host, LAN)?;
        // The traffic of the other hosts still goes to them.
        traffic::ping(&lab.lan, BASTION)?;
        traffic::ping(&lab.phone, BASTION)?;
        ensure!(
            known(&lab.bastion).unwrap_or_default() == before,
            "{victim}"
        );
        let dropped = laptop.leave(&server)?;
        ensure!(refused(&dropped) > 0, "{victim}: {dropped}");
    }
    // With its own address it gets in, and keeps it.
    let laptop = Station::open(&server, &lab.laptop, "alice", "true")?;
    traffic::ping(laptop.host, LAN)?;
    let (own, lans) = (mac(laptop.host, "tap3")?, mac(&lab.lan, "lan")?);
    let another = "ip link set tap3 address 02:00:00:00:77:77";
    laptop.host.sh(another)?;
    traffic::no_ping(laptop.host, BASTION)?;
    laptop.host.sh(&format!("ip link set tap3 address {own}"))?;
    traffic::ping(laptop.host, BASTION)?;
    // Until a host of the network appears with that address.
    lab.lan.sh(&format!("ip link set lan address {own}"))?;
    traffic::ping(&lab.lan, BASTION)?;
    traffic::no_ping(laptop.host, BASTION)?;
    traffic::ping(&lab.lan, BASTION)?;
    lab.lan.sh(&format!("ip link set lan address {lans}"))?;
    traffic::no_ping(laptop.host, BASTION)?;
    // Then the client loses it, and may take another.
    laptop.host.sh(another)?;
    traffic::ping(laptop.host, BASTION)?;
    ensure!(refused(&laptop.leave(&server)?) > 0);
    phone.leave(&server)?;
    let left = lab
        .bastion
        .sh("bridge fdb show br br0 | grep -c tap || true")?;
    ensure!(left.trim() == "0", "{left}");
    Ok(())
}

/// Checks that the neighbour table of `host` has `address` at `mac`.
fn neighbour(host: &Host, device: &str, address: &str, mac: &str) -> Result<()> {
    let shown = host.sh(&format!("ip -6 neigh show {address} dev {device}"))?;
    ensure!(shown.contains(mac), "{address} is not {mac}: {shown}");
    Ok(())
}

#[test]
fn a_client_has_no_link_local_address_that_is_somebody_elses() -> Result<()> {
    let lab = lab()?;
    let server = serve(&lab, "")?;
    let (lan, bastion) = (
        link_local(&lab.lan, "lan")?,
        link_local(&lab.bastion, "br0")?,
    );
    let (lan_mac, bastion_mac) = (mac(&lab.lan, "lan")?, mac(&lab.bastion, "br0")?);
    let laptop = Station::open(&server, &lab.laptop, "alice", "true")?;
    traffic::ping(laptop.host, BASTION)?;
    let own = link_local(laptop.host, "tap3")?;
    let own_mac = mac(laptop.host, "tap3")?;
    // It may use its own address, and others learn it.
    until("the bastion knows the laptop", PATIENCE, || {
        let _ = laptop.host.sh(&format!("ping -n -c1 -W1 {bastion}%tap3"));
        neighbour(&lab.bastion, "br0", &own, &own_mac).ok()
    })?;
    for (victim, at, from, device) in [
        (&lan, &lan_mac, &lab.bastion, "br0"),
        (&bastion, &bastion_mac, &lab.lan, "lan"),
    ] {
        traffic::ping(from, &format!("{victim}%{device}"))?;
        // Solicitations from that address, and answers for it, which would move it.
        laptop.host.sh(&format!(
            "ip address add {victim}/64 dev tap3 nodad
             for to in {lan} {bastion} fe80::9; do
                 ping -n -q -c4 -i0.3 -W1 -I {victim} $to%tap3 || true
             done"
        ))?;
        neighbour(from, device, victim, at)?;
        traffic::ping(from, &format!("{victim}%{device}"))?;
        neighbour(from, device, victim, at)?;
        laptop
            .host
            .sh(&format!("ip address del {victim}/64 dev tap3"))?;
    }
    let dropped = laptop.leave(&server)?;
    ensure!(refused(&dropped) >= 2, "{dropped}");
    // The entry of a client that has left is gone.
    ensure!(neighbour(&lab.bastion, "br0", &own, &own_mac).is_err());
    Ok(())
}

#[test]
fn clients_of_a_bridge_hear_each_other_in_a_group_alone() -> Result<()> {
    let lab = lab()?;
    let office = in_group(&lab.laptop, "office")?;
    for (phones, together) in [("", false), ("lab", false), ("office", true)] {
        let config = match phones {
            "" => String::new(),
            group => [&office, &*in_group(&lab.phone, group)?].concat(),
        };
        let server = serve(&lab, &config)?;
        let phone = Station::open(&server, &lab.phone, "bob", "true")?;
        traffic::ping(phone.host, BASTION)?;
        let heard = Capture::start(phone.host, "tap3")?;
        let laptop = Station::open(&server, &lab.laptop, "alice", "true")?;
        // Broadcast requests, and answers.
        laptop.host.sh("ip neigh flush dev tap3")?;
        traffic::ping(laptop.host, BASTION)?;
        let mac = mac(laptop.host, "tap3")?;
        match together {
            true => traffic::ping(laptop.host, &phone.address)?,
            false => {
                traffic::no_ping(laptop.host, &phone.address)?;
                // Also if it already has the neighbour's address.
                let there = self::mac(phone.host, "tap3")?;
                laptop.host.sh(&format!(
                    "ip neigh replace {} lladdr {there} dev tap3",
                    phone.address
                ))?;
                traffic::no_ping(laptop.host, &phone.address)?;
            }
        }
        let heard = heard.end()?.matching(&format!("ether src {mac}"))?;
        ensure!(heard.is_empty() != together, "{phones}: {heard:#?}");
        laptop.leave(&server)?;
        phone.leave(&server)?;
        server.stop()?;
    }
    Ok(())
}

/// Two ethernet clients, and one of each mode, by both families.
#[test]
fn clients_on_no_bridge_reach_each_other_in_a_group() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let config = [in_group(&lab.laptop, "lab")?, in_group(&lab.phone, "lab")?];
    let server = Serve::default()
        .config(&config.concat())
        .start(&lab.bastion)?;
    let ethernet = Tunnel {
        mode: Mode::Ethernet,
        units: "3:7",
        destination: "alice@bastion",
        ..Tunnel::default()
    };
    for mode in [Mode::Ethernet, Mode::PointToPoint] {
        let other = Tunnel {
            mode,
            units: "3:8",
            destination: "bob@bastion",
            ..ethernet
        };
        let laptop = Joined::open(&server, &lab.laptop, &ethernet)?;
        let phone = Joined::open(&server, &lab.phone, &other)?;
        if mode == Mode::PointToPoint {
            let to: Vec<String> = laptop.addresses.iter().map(ToString::to_string).collect();
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            phone.route(&lab.phone, &to)?;
        }
        ensure!(laptop.addresses.len() == 2, "{:?}", laptop.addresses);
        for address in &phone.addresses {
            traffic::ping(&lab.laptop, &address.to_string())?;
        }
        for address in &laptop.addresses {
            traffic::ping(&lab.phone, &address.to_string())?;
        }
        laptop.leave()?;
        phone.leave()?;
        until("no proxy neighbour", PATIENCE, || {
            let left = lab.bastion.sh("ip -6 neigh show proxy").ok()?;
            left.is_empty().then_some(())
        })?;
    }
    Ok(())
}
