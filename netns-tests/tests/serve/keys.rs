//! `sshvpn serve`: logins and entitlements by authorized_keys and certificates, with the
//! distribution's ssh.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::link::has_device;
use netns_tests::program::client::Client;
use netns_tests::program::tunnel::{Mode, Tunnel as LocalTunnel};
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::serve::attempt::{self, Outcome};
use netns_tests::serve::joined::Joined;
use netns_tests::serve::lab::{KEY, LAN, ServeLab};
use netns_tests::serve::{AUTHORIZED_KEYS, NO_PENALTIES, Serve, Server};
use netns_tests::traffic::Counted;
use netns_tests::{Child, Host, PATIENCE, until};
use nix::sys::signal::Signal;

/// Each option of a key, allowed and denied.
#[test]
fn options_of_a_key() -> Result<()> {
    use Outcome::{NoLogin, NoTunnel, Tunnel};
    let lab = ServeLab::new()?;
    lab.authorize(&[])?;
    let server = Serve::default().config(NO_PENALTIES).start(&lab.bastion)?;
    for (options, units, expected) in [
        ("", "3:7", NoTunnel),
        ("", "3:any", NoTunnel),
        ("tunnel=\"any\"", "3:7", Tunnel("tun7")),
        ("tunnel=\"5\"", "3:5", Tunnel("tun5")),
        ("tunnel=\"5\"", "3:any", Tunnel("tun5")),
        ("tunnel=\"5\"", "3:6", NoTunnel),
        ("restrict", "3:7", NoTunnel),
        ("restrict,tunnel=\"7\"", "3:7", Tunnel("tun7")),
        ("TUNNEL=\"7\",no-pty", "3:7", Tunnel("tun7")),
        ("tunnel=\"7\",from=\"192.0.2.0/24\"", "3:7", Tunnel("tun7")),
        ("tunnel=\"7\",from=\"192.0.2.?\"", "3:7", Tunnel("tun7")),
        ("tunnel=\"7\",from=\"198.51.100.0/24\"", "3:7", NoLogin),
        ("tunnel=\"7\",from=\"!192.0.2.1,*\"", "3:7", NoLogin),
        ("tunnel=\"7\",expiry-time=\"20200101Z\"", "3:7", NoLogin),
        (
            "tunnel=\"7\",expiry-time=\"20990101Z\"",
            "3:7",
            Tunnel("tun7"),
        ),
        // A line with an unsupported option denies the login.
        ("tunnel=\"7\",command=\"true\"", "3:7", NoLogin),
        ("tunnel=\"7\",environment=\"A=B\"", "3:7", NoLogin),
        ("tunnel=\"7\",verify-required", "3:7", NoLogin),
        ("tunnel=\"7\",no-such-option", "3:7", NoLogin),
        ("cert-authority,tunnel=\"7\"", "3:7", NoLogin),
    ] {
        lab.authorize(&[(&lab.laptop, options)])?;
        server.reload()?;
        attempt::tunnel(&server, &lab.laptop, "alice@bastion", units, expected)
            .with_context(|| format!("'{options}', {units}"))?;
    }
    Ok(())
}

/// Waits until the server has disconnected `client` with a message, and until its device is gone;
/// the log has the reason `why`, which the client does not get.
fn is_sent_away(server: &Server<'_>, client: Joined, why: &str) -> Result<()> {
    let record = server.wait_for_record(0, "access-withdrawn", |record| {
        record["reason"].to_string().contains(why)
    })?;
    ensure!(record["user"] == "alice", "{record:#}");
    let output = client.child.wait(PATIENCE)?;
    ensure!(output.code() == 255, "{output:?}");
    ensure!(output.stderr.contains("access was withdrawn"), "{output:?}");
    ensure!(
        !output.stderr.contains(why),
        "it got the reason: {output:?}"
    );
    let session = server.wait_for_record(0, "session", |session| {
        session["connection"] == record["connection"]
    })?;
    ensure!(session["reason"] == "access was withdrawn", "{session:#}");
    until("its device is gone", PATIENCE, || {
        (!has_device(server.host(), &client.remote)).then_some(())
    })
}

const ALICE: LocalTunnel<'static> = LocalTunnel {
    client: Client::Ssh,
    mode: Mode::PointToPoint,
    units: "3:7",
    mtu: 1500,
    arguments: &[],
    destination: "alice@bastion",
};

/// A reload disconnects clients that may no longer log in or lose an entitlement in use; other
/// clients are not affected.
#[test]
fn a_reload_ends_who_may_not_be_there_any_more() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let bob = LocalTunnel {
        destination: "bob@bastion",
        units: "3:8",
        ..ALICE
    };
    let bob = Joined::open(&server, &lab.phone, &bob)?;
    bob.pings(&lab.phone)?;
    let local = (&lab.phone, &*bob.v4()?);
    let remote = (&lab.bastion, &*bob.server[0].to_string());
    let (counted, ()) = Counted::during(local, remote, || {
        for (options, why) in [
            (None, "is in no authorized_keys file"),
            (
                Some("tunnel=\"9\""),
                "the unit of tun7 is not granted any more",
            ),
            (Some("restrict"), "tun7 is not granted any more"),
            (
                Some("tunnel=\"7\",from=\"198.51.100.1\""),
                "does not permit",
            ),
            (
                Some("tunnel=\"7\",expiry-time=\"20200101Z\""),
                "expiry-time= is over",
            ),
        ] {
            let phone = (&lab.phone, "tunnel=\"any\"");
            lab.authorize(&[phone, (&lab.laptop, "tunnel=\"any\"")])?;
            server.reload()?;
            let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
            alice.pings(&lab.laptop)?;
            // A line that still permits its login and its tunnel.
            lab.authorize(&[phone, (&lab.laptop, "restrict,tunnel=\"7\"")])?;
            server.reload()?;
            alice.pings(&lab.laptop)?;
            match options {
                Some(options) => lab.authorize(&[phone, (&lab.laptop, options)])?,
                None => lab.authorize(&[phone])?,
            }
            server.reload()?;
            is_sent_away(&server, alice, why).with_context(|| format!("{options:?}"))?;
        }
        Ok(())
    })?;
    ensure!(
        counted.lost.is_empty() && counted.reordered == 0,
        "{} of {} lost",
        counted.lost.len(),
        counted.sent
    );
    let records = server.audit()?;
    ensure!(
        !records
            .iter()
            .any(|record| record["event"] == "access-withdrawn" && record["user"] == "bob")
    );
    Ok(())
}

/// The server does not wait for a client that does not read.
#[test]
fn a_reload_ends_a_frozen_client() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.pings(&lab.laptop)?;
    alice.child.signal(Signal::SIGSTOP)?;
    // Fill its connection with unread data.
    let client = alice.v4()?;
    let _flood = lab
        .bastion
        .spawn(&["ping", "-q", "-f", "-s", "1400", &client])?;
    lab.authorize(&[(&lab.phone, "tunnel=\"any\"")])?;
    server.reload()?;
    server.wait_for_record(0, "session", |session| {
        session["reason"] == "access was withdrawn"
    })?;
    until("its device is gone", PATIENCE, || {
        (!has_device(&lab.bastion, &alice.remote)).then_some(())
    })
}

/// Revocation reaches sshvpn's client, by its stream, and a client with only a forward.
#[test]
fn a_reload_ends_streams_and_forwards_too() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let _echo = echo(&lab.lan, 8080)?;
    let place = format!("{LAN}:8080");
    let phone = format!("permitopen=\"{place}\"");
    lab.authorize(&[(&lab.laptop, "tunnel=\"any\""), (&lab.phone, &phone)])?;
    let server = Serve::default().start(&lab.bastion)?;
    let up = vpn::up(&lab.laptop, &["bastion"])?;
    let forward = format!("9000:{place}");
    let client = forwarding(&lab.phone, &["-L", &forward], 9000)?;
    // A connection that stays open.
    let open = lab
        .phone
        .spawn(&["socat", "TCP:127.0.0.1:9000", "EXEC:cat"])?;
    server.wait_for_record(0, "request-granted", |record| record["request"] == "open")?;
    lab.authorize(&[
        (&lab.laptop, ""),
        (&lab.phone, "permitopen=\"198.51.100.2:8081\""),
    ])?;
    server.reload()?;
    for (child, why) in [
        (up, "is not granted any more"),
        (client, "198.51.100.2:8080"),
    ] {
        let output = child.wait(PATIENCE)?;
        ensure!(
            output.code() == 255 && output.stderr.contains("access was withdrawn"),
            "{output:?}"
        );
        server.wait_for_record(0, "access-withdrawn", |record| {
            record["reason"].to_string().contains(why)
        })?;
    }
    open.wait(PATIENCE)?;
    Ok(())
}

/// A certificate that is revoked while its holder is connected. As in sshd, expiry is only checked
/// at login, and at a reload.
#[test]
fn a_reload_ends_a_revoked_certificate() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    sign(&lab.laptop, "-n alice -V +1h")?;
    let authority = lab.laptop.read("/run/lab/ca.pub")?;
    let line = format!("cert-authority,tunnel=\"7\" {authority}");
    lab.bastion.write(AUTHORIZED_KEYS, &line)?;
    lab.bastion.write("/etc/sshvpn/revoked", "")?;
    let server = Serve::default()
        .config("revoked-keys = \"/etc/sshvpn/revoked\"\n")
        .start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    server.reload()?;
    alice.pings(&lab.laptop)?;
    let key = lab.laptop.read(&format!("{KEY}.pub"))?;
    lab.bastion.write("/etc/sshvpn/revoked", &key)?;
    server.reload()?;
    is_sent_away(&server, alice, "revoked")
}

/// The key file's real directory is checked: a user who can write there could add a key.
#[test]
fn a_link_to_where_others_write_is_not_followed() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let bastion = &lab.bastion;
    bastion.sh(&format!(
        "mkdir /run/lab/keys; mv {AUTHORIZED_KEYS} /run/lab/keys/; \
         ln -s /run/lab/keys/authorized_keys {AUTHORIZED_KEYS}"
    ))?;
    let server = Serve::default().start(bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    bastion.sh("chmod 777 /run/lab/keys")?;
    let said = ["/run/lab/keys", "no other user may write to it"];
    server.reload()?;
    for part in said {
        server.child.wait_for_line(part, PATIENCE)?;
    }
    alice.pings(&lab.laptop)?;
    server.stop()?;
    let output = bastion.run(&Client::Sshvpn.command(&["serve", "--check"])?)?;
    fails_clearly(&output, Some(2), &said)
}

/// Starts a server on `port` of `host` that echoes every line.
fn echo(host: &Host, port: u16) -> Result<Child> {
    let child = host.spawn(&[
        "socat",
        &format!("TCP-LISTEN:{port},fork,reuseaddr"),
        "EXEC:cat",
    ])?;
    listens(host, port)?;
    Ok(child)
}

fn listens(host: &Host, port: u16) -> Result<()> {
    until(&format!("port {port} of {}", host.name()), PATIENCE, || {
        let list = host.sh(&format!("ss -Hltn sport = :{port}")).ok()?;
        (!list.trim().is_empty()).then_some(())
    })
}

/// The answer of `place`, a socat address, to a line.
fn answer(host: &Host, place: &str) -> Result<String> {
    let line = format!("echo hello | timeout 5 socat -t 5 - {place} 2>/dev/null || true");
    Ok(host.sh(&line)?.trim().to_owned())
}

/// Starts a client with `forward` and waits for its login, which the local port 9000 shows.
fn forwarding(local: &Host, forward: &[&str], port: u16) -> Result<Child> {
    let options = ["-N", "-o", "ExitOnForwardFailure=yes"];
    let arguments = [&options[..], forward, &["bastion"]].concat();
    let child = local.spawn(&Client::Ssh.command(&arguments)?)?;
    listens(local, port)?;
    Ok(child)
}

/// Waits until the log has `expected` refusals more than `before`: the record follows the answer.
fn refused_since(server: &Server<'_>, request: &str, before: usize, expected: usize) -> Result<()> {
    let what = format!("{expected} refusals of '{request}' in the log");
    until(&what, PATIENCE, || {
        let found = refusals(server, request).ok()? - before;
        (found >= expected).then_some(())
    })?;
    let found = refusals(server, request)? - before;
    ensure!(found == expected, "{found} refusals of '{request}'");
    Ok(())
}

fn refusals(server: &Server<'_>, request: &str) -> Result<usize> {
    let records = server.audit()?;
    let refused = records
        .iter()
        .filter(|record| record["event"] == "request-refused" && record["request"] == request);
    Ok(refused.count())
}

#[test]
fn forwards_from_here_are_for_who_may() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[])?;
    let _echo = [echo(&lab.lan, 8080)?, echo(&lab.lan, 8081)?];
    let server = Serve::default().start(&lab.bastion)?;
    let place = format!("{LAN}:8080");
    let permit = format!("permitopen=\"{place}\"");
    for (options, first, second) in [
        ("", false, false),
        ("tunnel=\"any\"", false, false),
        ("port-forwarding", true, true),
        (&permit, true, false),
        ("permitopen=\"*:8081\"", false, true),
        ("restrict", false, false),
        ("restrict,port-forwarding", true, true),
        (&format!("{permit},no-port-forwarding"), false, false),
        (&format!("restrict,port-forwarding,{permit}"), true, false),
        ("permitlisten=\"8080\"", false, false),
    ] {
        lab.authorize(&[(&lab.laptop, options)])?;
        server.reload()?;
        let before = refusals(&server, "open")?;
        let _client = forwarding(
            &lab.laptop,
            &[
                "-L",
                &format!("9000:{place}"),
                "-L",
                &format!("9001:{LAN}:8081"),
                "-D",
                "1080",
            ],
            1080,
        )?;
        let by_socks = format!("SOCKS4:127.0.0.1:{LAN}:8080,socksport=1080");
        for (place, granted) in [
            ("TCP:127.0.0.1:9000", first),
            (&by_socks, first),
            ("TCP:127.0.0.1:9001", second),
        ] {
            let expected = if granted { "hello" } else { "" };
            let found = answer(&lab.laptop, place)?;
            ensure!(found == expected, "'{options}': {place}: '{found}'");
        }
        let refused = 2 * usize::from(!first) + usize::from(!second);
        refused_since(&server, "open", before, refused).context(options.to_owned())?;
    }
    Ok(())
}

/// A permission to connect to anywhere does not include another client, unless it is named.
#[test]
fn forwards_to_another_client() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.phone, "tunnel=\"any\"")])?;
    let _echo = echo(&lab.phone, 8080)?;
    let server = Serve::default().start(&lab.bastion)?;
    let tunnel = LocalTunnel {
        client: Client::Ssh,
        mode: Mode::PointToPoint,
        units: "3:8",
        mtu: 1500,
        arguments: &[],
        destination: "bob@bastion",
    };
    let bob = Joined::open(&server, &lab.phone, &tunnel)?;
    bob.pings(&lab.phone)?;
    let place = format!("{}:8080", bob.v4()?);
    for (options, expected) in [
        ("port-forwarding", ""),
        ("permitopen=\"*:8080\"", ""),
        (&format!("permitopen=\"{place}\""), "hello"),
    ] {
        lab.authorize(&[(&lab.phone, "tunnel=\"any\""), (&lab.laptop, options)])?;
        server.reload()?;
        let before = refusals(&server, "open")?;
        let forward = format!("9000:{place}");
        let _client = forwarding(&lab.laptop, &["-L", &forward], 9000)?;
        let found = answer(&lab.laptop, "TCP:127.0.0.1:9000")?;
        ensure!(found == expected, "'{options}': '{found}'");
        let refused = usize::from(expected.is_empty());
        refused_since(&server, "open", before, refused).context(options.to_owned())?;
    }
    bob.pings(&lab.phone)
}

#[test]
fn listeners_there_are_for_who_may() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[])?;
    let _echo = echo(&lab.laptop, 9000)?;
    let server = Serve::default().start(&lab.bastion)?;
    for (options, granted) in [
        ("", false),
        ("tunnel=\"any\"", false),
        ("port-forwarding", true),
        ("permitlisten=\"8080\"", true),
        ("permitlisten=\"localhost:8080\"", true),
        ("permitlisten=\"8081\"", false),
        ("permitopen=\"*:*\"", false),
        ("restrict", false),
        ("restrict,port-forwarding", true),
        ("no-port-forwarding,permitlisten=\"8080\"", false),
    ] {
        lab.authorize(&[(&lab.laptop, options)])?;
        server.reload()?;
        let before = refusals(&server, "listen")?;
        let forward = ["-R", "8080:127.0.0.1:9000"];
        if granted {
            let arguments = [&["-N"][..], &forward, &["bastion"]].concat();
            let _client = lab.laptop.spawn(&Client::Ssh.command(&arguments)?)?;
            listens(&lab.bastion, 8080).context(options.to_owned())?;
            let found = answer(&lab.bastion, "TCP:127.0.0.1:8080")?;
            ensure!(found == "hello", "'{options}': '{found}'");
            let at = lab.bastion.sh("ss -Hltn sport = :8080")?;
            ensure!(at.contains("127.0.0.1:8080"), "to everybody: {at}");
        } else {
            let exit = ["-N", "-o", "ExitOnForwardFailure=yes"];
            let output = attempt::ssh(&lab.laptop, &[&exit[..], &forward, &["bastion"]].concat())?;
            ensure!(
                output.code() == 255 && output.stderr.contains("remote port forwarding failed"),
                "'{options}': {output:?}"
            );
            refused_since(&server, "listen", before, 1).context(options.to_owned())?;
        }
        // The next client needs the port.
        until("the port is free", PATIENCE, || {
            let list = lab.bastion.sh("ss -Hltn sport = :8080").ok()?;
            list.trim().is_empty().then_some(())
        })?;
    }
    Ok(())
}

/// Signs the laptop's key, with these arguments of ssh-keygen.
fn sign(local: &Host, arguments: &str) -> Result<()> {
    local.sh(&format!(
        "[ -e /run/lab/ca ] || ssh-keygen -q -t ed25519 -N '' -f /run/lab/ca; \
         rm -f {KEY}-cert.pub; ssh-keygen -q -s /run/lab/ca -I laptop-7 -z 42 {arguments} {KEY}.pub"
    ))?;
    Ok(())
}

/// Certificates of a cert-authority line of authorized_keys, with that line's options.
#[test]
fn certificates_of_a_line_with_options() -> Result<()> {
    use Outcome::{NoLogin, NoTunnel, Tunnel};
    let lab = ServeLab::new()?;
    sign(&lab.laptop, "-n alice -V +1h")?;
    let authority = lab.laptop.read("/run/lab/ca.pub")?;
    lab.authorize(&[])?;
    let server = Serve::default().config(NO_PENALTIES).start(&lab.bastion)?;
    let tunnel = "cert-authority,tunnel=\"7\"";
    let named = "cert-authority,tunnel=\"7\",principals=\"staff,alice\"";
    for (options, arguments, user, expected) in [
        (tunnel, "-n alice -V +1h", "alice", Tunnel("tun7")),
        ("cert-authority", "-n alice -V +1h", "alice", NoTunnel),
        (tunnel, "-n alice -V +1h", "bob", NoLogin),
        (named, "-n staff -V +1h", "bob", Tunnel("tun7")),
        (named, "-n others -V +1h", "bob", NoLogin),
        (tunnel, "-V +1h", "alice", NoLogin),
        (tunnel, "-n alice -V 20200101:20210101", "alice", NoLogin),
        (tunnel, "-n alice -V +1d:+2d", "alice", NoLogin),
        (tunnel, "-h -n alice -V +1h", "alice", NoLogin),
        (
            tunnel,
            "-n alice -O source-address=192.0.2.0/24",
            "alice",
            Tunnel("tun7"),
        ),
        (
            tunnel,
            "-n alice -O source-address=198.51.100.0/24",
            "alice",
            NoLogin,
        ),
        (tunnel, "-n alice -O force-command=true", "alice", NoLogin),
        (tunnel, "-n alice -O critical:new=1", "alice", NoLogin),
        ("", "-n alice -V +1h", "alice", NoLogin),
    ] {
        sign(&lab.laptop, arguments)?;
        lab.bastion.write(
            AUTHORIZED_KEYS,
            format!("{options} {authority}").trim_start(),
        )?;
        server.reload()?;
        let destination = format!("{user}@bastion");
        attempt::tunnel(&server, &lab.laptop, &destination, "3:7", expected)
            .with_context(|| format!("'{options}', {arguments}, {user}"))?;
    }
    let records = server.audit()?;
    let login = records
        .iter()
        .find(|record| record["event"] == "login")
        .context("no login")?;
    // The SSH library refuses such a certificate itself; the log still has a record.
    ensure!(records.iter().any(|record| {
        record["event"] == "login-denied"
            && record["certificate"]["key_id"] == "laptop-7"
            && record["reason"].to_string().contains("has expired")
    }));
    ensure!(
        login["certificate"]["key_id"] == "laptop-7" && login["certificate"]["serial"] == 42,
        "{login:#}"
    );
    Ok(())
}
