//! `sshvpn serve`: the assignment of tunnel units. A unit in a grant belongs to that client; a
//! premade device is used if a grant names it.

use anyhow::{Context, Result, ensure};
use netns_tests::program::client::Client;
use netns_tests::program::tunnel::{Mode, Tunnel as LocalTunnel};
use netns_tests::serve::attempt::{self, Outcome};
use netns_tests::serve::joined::Joined;
use netns_tests::serve::lab::ServeLab;
use netns_tests::serve::{NO_PENALTIES, Serve};
use netns_tests::{Host, PATIENCE, until};

/// The state of the premade devices, by `ip`.
fn premade(bastion: &Host) -> Result<String> {
    bastion.sh("ip -d address show dev tun5; ip -d address show dev tap6; ip address show dev tun8")
}

#[test]
fn a_unit_is_the_client_s_whose_grant_names_it() -> Result<()> {
    use Outcome::{NoTunnel, Tunnel};
    let lab = ServeLab::new()?;
    lab.bastion.sh(
        "ip tuntap add dev tun5 mode tun; ip address add 10.55.0.1/24 dev tun5
         ip link set tun5 up; ip link set tun5 down
         ip tuntap add dev tap6 mode tap; ip link add tun8 type bridge",
    )?;
    let before = premade(&lab.bastion)?;
    lab.authorize(&[
        (&lab.laptop, "tunnel=\"any\""),
        (&lab.phone, "tunnel=\"9\""),
    ])?;
    // A rule for a third client.
    let rule = "[[client]]\ncertificate = \"printer\"\ntunnel = [\"point-to-point\"]\nunit = 0\n";
    let server = Serve::default()
        .config(&[NO_PENALTIES, rule].concat())
        .start(&lab.bastion)?;
    let ethernet = |units: &'static str| ["-o", "Tunnel=ethernet", "-w", units];
    for (units, expected) in [
        ("3:5", NoTunnel),
        ("3:8", NoTunnel),
        ("3:9", NoTunnel),
        ("3:0", NoTunnel),
        ("3:any", Tunnel("tun1")),
        ("3:7", Tunnel("tun7")),
        ("3:6", Tunnel("tun6")),
    ] {
        attempt::tunnel(&server, &lab.laptop, "alice@bastion", units, expected).context(units)?;
    }
    for units in ["3:6", "3:9", "3:0"] {
        let arguments = ["-N", "-o", "ExitOnForwardFailure=yes", "alice@bastion"];
        let output = attempt::ssh(&lab.laptop, &[&ethernet(units)[..], &arguments].concat())?;
        ensure!(
            output.stderr.contains("Tunnel forwarding failed"),
            "{units}: {output:?}"
        );
    }
    for units in ["3:9", "3:any"] {
        attempt::tunnel(&server, &lab.phone, "bob@bastion", units, Tunnel("tun9"))?;
    }
    ensure!(premade(&lab.bastion)? == before);
    // If a grant names it, the premade device is used, and its settings are kept.
    lab.authorize(&[
        (&lab.laptop, "tunnel=\"any\""),
        (&lab.phone, "tunnel=\"5\""),
    ])?;
    server.reload()?;
    attempt::tunnel(&server, &lab.phone, "bob@bastion", "3:any", Tunnel("tun5"))?;
    until("tun5 is as before", PATIENCE, || {
        (premade(&lab.bastion).ok()? == before).then_some(())
    })?;
    attempt::tunnel(&server, &lab.laptop, "alice@bastion", "3:5", NoTunnel)
}

/// A reload that gives a unit to one client takes it from another.
#[test]
fn a_unit_that_is_given_to_another_is_given_up() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let alice = LocalTunnel {
        client: Client::Ssh,
        mode: Mode::PointToPoint,
        units: "3:7",
        mtu: 1500,
        arguments: &[],
        destination: "alice@bastion",
    };
    let laptop = Joined::open(&server, &lab.laptop, &alice)?;
    laptop.pings(&lab.laptop)?;
    lab.authorize(&[
        (&lab.laptop, "tunnel=\"any\""),
        (&lab.phone, "tunnel=\"8\""),
    ])?;
    server.reload()?;
    laptop.pings(&lab.laptop)?;
    lab.authorize(&[
        (&lab.laptop, "tunnel=\"any\""),
        (&lab.phone, "tunnel=\"7\""),
    ])?;
    server.reload()?;
    let record = server.wait_for_record(0, "access-withdrawn", |_| true)?;
    let reason = record["reason"].to_string();
    ensure!(
        reason.contains("the unit of tun7 is not granted any more"),
        "{record:#}"
    );
    ensure!(laptop.child.wait(PATIENCE)?.code() == 255);
    let bob = LocalTunnel {
        units: "3:any",
        destination: "bob@bastion",
        ..alice
    };
    let phone = Joined::open(&server, &lab.phone, &bob)?;
    ensure!(phone.remote == "tun7", "{}", phone.remote);
    phone.pings(&lab.phone)?;
    Ok(())
}
