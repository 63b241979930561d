//! `sshvpn up` to `sshvpn serve`: takes of the server's offer what the user accepts, including name
//! servers, and undoes it at the end.
//!
//! ```text
//!   laptop: sshvpn up ══ SSH ══ bastion: sshvpn serve ── lan host 198.51.100.2
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology;
use netns_tests::program::vpn::{self, Device, fails_clearly};
use netns_tests::serve::lab::{LAN, ServeLab, in_group};
use netns_tests::serve::{Serve, Server};
use netns_tests::{Before, Child, Host, PATIENCE, traffic};
use nix::sys::signal::Signal;

const LAN_NETWORK: &str = "198.51.100.0/24";
/// A server with a route to the LAN and a name server there.
const CONFIG: &str = r#"
[network]
pool = ["10.99.0.0/24", "fd99::/64"]
route = ["198.51.100.0/24"]
dns-server = ["198.51.100.2"]
dns-search = ["corp.example"]
"#;
const RESOLVER: &str = "/etc/resolv.conf";
const RESOLVER_BEFORE: &str = "search home.lan\nnameserver 192.0.2.53";

fn serve() -> Serve {
    Serve::default().config(CONFIG)
}

/// Checks that both hosts reach each other, by either family.
fn reach_each_other(server: &Server<'_>, local: &Host) -> Result<(Device, Device)> {
    let (here, there) = (Device::only(local)?, Device::only(server.host())?);
    ensure!(here.addresses.len() == 2, "{here:?}");
    for address in &there.addresses {
        traffic::ping(local, &address.to_string())?;
    }
    for address in &here.addresses {
        traffic::ping(server.host(), &address.to_string())?;
    }
    Ok((here, there))
}

/// Runs `sshvpn up`, which has to fail clearly.
fn refused(local: &Host, arguments: &[&str], parts: &[&str]) -> Result<()> {
    let output = local.run(&vpn::command(arguments)?)?;
    fails_clearly(&output, Some(255), parts)
}

#[test]
fn a_tunnel_comes_up_as_the_server_says_and_goes_without_a_trace() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = serve().start(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, &["bastion"])?;
    let (here, there) = reach_each_other(&server, &lab.laptop)?;
    ensure!((here.mtu, there.mtu) == (1500, 1500), "{here:?} {there:?}");
    let said = up.stderr();
    for part in [
        "by serve: sshvpn",
        "offers routes 198.51.100.0/24: --accept-routes takes them",
        "offers the name servers 198.51.100.2 for corp.example: --accept-dns takes them",
    ] {
        ensure!(said.contains(part), "'{part}' is missing: {said}");
    }
    traffic::no_ping(&lab.laptop, LAN)?;
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(
        output.code() == 0 && !output.stderr.contains("warning"),
        "{output:?}"
    );
    before.is_back()
}

#[test]
fn routes_are_taken_as_asked_for() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let _server = serve().start(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop])?;
    for allowed in [
        ["--accept-routes", "--via", "serve"].as_slice(),
        &["--accept-route", LAN_NETWORK],
        &["--route", LAN_NETWORK],
        &["--route", "198.51.100.2/32"],
    ] {
        let up = vpn::up(&lab.laptop, &[allowed, &["bastion"]].concat())?;
        traffic::ping(&lab.laptop, LAN)?;
        let said = up.stderr();
        let narrower = allowed.contains(&"198.51.100.2/32");
        ensure!(
            said.contains("offers routes") == narrower,
            "{allowed:?}: {said}"
        );
        ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
        before.is_back()?;
    }
    let parts = [
        "does not offer the whole of 10.0.0.0/8 (--route)",
        "it offers 198.51.100.0/24",
    ];
    let routes = ["--route", "10.0.0.0/8", "--route", LAN_NETWORK];
    refused(&lab.laptop, &[&routes[..], &["bastion"]].concat(), &parts)?;
    before.is_back()
}

/// Clients of one group are offered the networks of each other, and of no other client.
#[test]
fn clients_of_a_group_get_routes_to_each_other() -> Result<()> {
    const POOL: &str = "10.99.0.0/24";
    let lab = ServeLab::with_tunnels()?;
    let before = Before::of(&[&lab.laptop, &lab.phone])?;
    let member = |client: &Host, group: &str| in_group(client, group);
    for (phones, together) in [("office", true), ("lab", false)] {
        let rules = [member(&lab.laptop, "office")?, member(&lab.phone, phones)?].concat();
        let server = Serve::default()
            .config(&format!("{CONFIG}{rules}"))
            .start(&lab.bastion)?;
        for way in [["--accept-routes"].as_slice(), &["--route", POOL]] {
            let arguments = [way, &["--inbound", "bastion"]].concat();
            let laptop = vpn::up(&lab.laptop, &arguments)?;
            let phone = vpn::up(&lab.phone, &arguments)?;
            let address = Device::only(&lab.phone)?.addresses[0].to_string();
            match together {
                true => traffic::ping(&lab.laptop, &address)?,
                false => traffic::no_ping(&lab.laptop, &address)?,
            }
            for up in [laptop, phone] {
                ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
            }
            before.is_back()?;
        }
        server.stop()?;
    }
    // Without a group nothing of the pool is offered, and --route is refused.
    let server = serve().start(&lab.bastion)?;
    let parts = ["does not offer the whole of 10.99.0.0/24 (--route)"];
    refused(&lab.laptop, &["--route", POOL, "bastion"], &parts)?;
    server.stop()?;
    before.is_back()
}

/// On an Ethernet link the pool is the link's own network.
#[test]
fn an_ethernet_client_of_a_group_may_name_the_pool() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let rules = [in_group(&lab.laptop, "lab")?, in_group(&lab.phone, "lab")?].concat();
    let _server = Serve::default()
        .config(&format!("{CONFIG}{rules}"))
        .start(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.phone])?;
    let arguments = ["--tap", "--route", "10.99.0.0/24", "--inbound", "bastion"];
    let laptop = vpn::up(&lab.laptop, &arguments)?;
    let phone = vpn::up(&lab.phone, &arguments)?;
    let address = Device::only(&lab.phone)?.addresses[0].to_string();
    traffic::ping(&lab.laptop, &address)?;
    for up in [laptop, phone] {
        ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    }
    before.is_back()
}

#[test]
fn the_users_words_go_with_the_question() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = serve().start(&lab.bastion)?;
    let asked = ["--mtu", "1400", "--address", "10.99.0.77", "bastion"];
    let up = vpn::up(&lab.laptop, &asked)?;
    let (here, there) = reach_each_other(&server, &lab.laptop)?;
    ensure!((here.mtu, there.mtu) == (1400, 1400), "{here:?} {there:?}");
    ensure!(here.addresses.contains(&"10.99.0.77".parse()?), "{here:?}");
    // The server's address is in use on this host.
    refused(
        &lab.laptop,
        &["bastion"],
        &["10.99.0.1/32 is in use on this host"],
    )?;
    reach_each_other(&server, &lab.laptop)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    let other = ["--address", "10.98.0.1", "bastion"];
    refused(&lab.laptop, &other, &["not the requested 10.98.0.1"])?;
    let up = vpn::up(&lab.laptop, &["--no-nat", "bastion"])?;
    ensure!(
        up.stderr().contains("--no-nat: without effect"),
        "{}",
        up.stderr()
    );
    Ok(())
}

#[test]
fn an_ethernet_tunnel_carries_frames() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = serve().start(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, &["--tap", "--accept-routes", "bastion"])?;
    reach_each_other(&server, &lab.laptop)?;
    traffic::ping(&lab.laptop, LAN)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

#[test]
fn other_carriers_are_refused_with_the_way_out() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let _server = serve().start(&lab.bastion)?;
    for carrier in [
        ["--via", "tun"],
        ["--via", "agent"],
        ["--agent-command", "x"],
    ] {
        let arguments = [&carrier[..], &["bastion"]].concat();
        refused(
            &lab.laptop,
            &arguments,
            &["bastion is an sshvpn server", "'--via serve'"],
        )?;
    }
    drop(lab);
    let stock = topology::direct()?;
    let parts = [
        "no 'sshvpn serve' there, but OpenSSH_",
        "leave out '--via serve'",
    ];
    refused(&stock.laptop, &["--via", "serve", "bastion"], &parts)
}

#[test]
fn a_key_without_a_tunnel_is_told_so() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "")])?;
    let server = serve().start(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop])?;
    refused(
        &lab.laptop,
        &["bastion"],
        &["bastion", "not granted a tunnel"],
    )?;
    server.wait_for_record(0, "request-refused", |record| record["request"] == "tunnel")?;
    before.is_back()
}

#[test]
fn a_server_that_stops_says_so_and_one_that_dies_is_noticed() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let before = Before::of(&[&lab.laptop])?;
    let server = serve().start(&lab.bastion)?;
    let up = vpn::up(&lab.laptop, &["--accept-routes", "bastion"])?;
    server.stop()?;
    fails_clearly(
        &up.wait(PATIENCE)?,
        Some(255),
        &["bastion ended the tunnel"],
    )?;
    before.is_back()?;
    let server = serve().start(&lab.bastion)?;
    let up = vpn::up(&lab.laptop, &["--accept-routes", "bastion"])?;
    server.child.signal(Signal::SIGKILL)?;
    fails_clearly(&up.wait(PATIENCE)?, Some(255), &["bastion"])?;
    before.is_back()
}

/// The content and kind of the resolver's file.
fn resolver(host: &Host) -> Result<String> {
    host.sh(&format!(
        "stat -c '%F %a %u %g %N' {RESOLVER}; cat {RESOLVER}; ls -A /etc | grep sshvpn || true"
    ))
}

fn with_name_servers(lab: &ServeLab) -> Result<Child> {
    let arguments = ["--accept-routes", "--accept-dns", "bastion"];
    let up = vpn::up(&lab.laptop, &arguments)?;
    let text = lab.laptop.read(RESOLVER)?;
    let first = text.lines().find(|line| line.starts_with("nameserver"));
    ensure!(first == Some("nameserver 198.51.100.2"), "{text}");
    ensure!(text.contains("\nsearch corp.example"), "{text}");
    Ok(up)
}

/// A file, a symbolic link, and no file: each is restored, however the tunnel ends.
#[test]
fn name_servers_come_and_go_with_the_tunnel() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let _server = serve().start(&lab.bastion)?;
    lab.laptop.write("/run/lab/resolver", RESOLVER_BEFORE)?;
    for make in [
        "cp /run/lab/resolver /etc/resolv.conf; chmod 640 /etc/resolv.conf",
        "ln -sf /run/lab/resolver /etc/resolv.conf",
        "mount --bind /run/lab/resolver /etc/resolv.conf",
    ] {
        lab.laptop.sh(&format!(
            "umount {RESOLVER} 2>/dev/null || true; rm -f {RESOLVER}; : >{RESOLVER}; {make}"
        ))?;
        let before = resolver(&lab.laptop)?;
        let up = with_name_servers(&lab)?;
        let output = up.end_with(Signal::SIGINT)?;
        ensure!(
            output.code() == 0 && !output.stderr.contains("warning"),
            "{output:?}"
        );
        ensure!(
            resolver(&lab.laptop)? == before,
            "{make}: {}",
            resolver(&lab.laptop)?
        );
        let up = with_name_servers(&lab)?;
        up.end_with(Signal::SIGKILL)?;
        ensure!(
            resolver(&lab.laptop)? != before,
            "a dead process restored it"
        );
        vpn::cleanup(&lab.laptop)?;
        ensure!(
            resolver(&lab.laptop)? == before,
            "{make}: {}",
            resolver(&lab.laptop)?
        );
    }
    Ok(())
}

/// Name servers that a tunnel left before a reboot of the host, which removed the journal.
#[test]
fn name_servers_that_stayed_over_a_reboot_go_at_the_next_start() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let _server = serve().start(&lab.bastion)?;
    lab.laptop.write(RESOLVER, RESOLVER_BEFORE)?;
    let before = resolver(&lab.laptop)?;
    with_name_servers(&lab)?.end_with(Signal::SIGKILL)?;
    let boot = "s/\"boot\":\"[^\"]*\"/\"boot\":\"an-earlier-one\"/";
    lab.laptop
        .sh(&format!("rm -rf /run/sshvpn; sed -i '{boot}' {RESOLVER}"))?;
    vpn::cleanup(&lab.laptop)?;
    ensure!(
        resolver(&lab.laptop)? == before,
        "{}",
        resolver(&lab.laptop)?
    );
    Ok(())
}

/// If systemd-resolved answers, it is configured, and the file stays unchanged.
#[test]
fn resolved_is_told_where_it_answers() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let _server = serve().start(&lab.bastion)?;
    let laptop = &lab.laptop;
    laptop.sh("mount -t tmpfs -o mode=755 tmpfs /usr/local/sbin")?;
    let program = "/usr/local/sbin/resolvectl";
    laptop.write(program, "#!/bin/sh\necho \"$@\" >>/run/lab/told\n")?;
    laptop.sh(&format!("chmod 755 {program}"))?;
    laptop.write(RESOLVER, "nameserver 127.0.0.53\n")?;
    let before = resolver(laptop)?;
    let up = vpn::up(laptop, &["--accept-routes", "--accept-dns", "bastion"])?;
    ensure!(resolver(laptop)? == before);
    let said = up.stderr();
    ensure!(said.contains("asked about these names alone"), "{said}");
    let told = laptop.read("/run/lab/told")?;
    let expected = "dns sshvpn0\ndns sshvpn0 198.51.100.2\ndomain sshvpn0 corp.example\n\
                    default-route sshvpn0 no\n";
    ensure!(told == expected, "{told}");
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    let told = laptop.read("/run/lab/told")?;
    ensure!(told == format!("{expected}revert sshvpn0\n"), "{told}");
    Ok(())
}
