//! Forwards of connections: -L, -R, -D, -W, and -O on a connection that is up, with ssh and with
//! sshvpn in its place.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1 ── 198.51.100.2 lan host
//!   client ═════════ SSH ═════════ sshd                               web server
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::child::Child;
use netns_tests::lab::host::Host;
use netns_tests::lab::sshd::Sshd;
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::{Client, PATIENCE, until, with_each_client};

with_each_client!(
    local_forwards_of_each_form,
    remote_forwards_of_each_form,
    a_local_proxy,
    standard_input_and_output,
    a_listener_that_fails,
    a_target_that_fails,
    much_data_and_half_closed_connections,
    a_connection_without_a_tunnel,
);

/// A web server on `host` that says where it is.
fn web(host: &Host) -> Result<Child> {
    let name = host.name().to_owned();
    host.sh(&format!(
        "mkdir -p /run/www; echo from {name} >/run/www/index.html"
    ))?;
    let server = host.spawn(&["busybox", "httpd", "-f", "-p", "80", "-h", "/run/www"])?;
    until("the web server", PATIENCE, || {
        fetch(host, &["http://127.0.0.1/"]).ok()
    })?;
    Ok(server)
}

/// The page that `curl` gets.
fn fetch(host: &Host, arguments: &[&str]) -> Result<String> {
    let words = ["curl", "-s", "--max-time", "10", "--noproxy", ""];
    let words = [&words[..], arguments].concat();
    Ok(host.run(&words)?.ok()?.trim().to_owned())
}

/// Waits until `curl` gets the page of the host `from`.
fn fetches(host: &Host, arguments: &[&str], from: &str) -> Result<()> {
    until(&format!("{arguments:?}"), PATIENCE, || {
        let page = fetch(host, arguments).ok()?;
        (page == format!("from {from}")).then_some(())
    })
}

struct Lab {
    subnet: Subnet,
    _web: [Child; 2],
}

impl Lab {
    fn new(sshd: &Sshd) -> Result<Self> {
        let subnet = topology::subnet_with(sshd)?;
        subnet
            .direct
            .bastion
            .sh("echo 198.51.100.2 inner >>/etc/hosts")?;
        let web = [web(&subnet.lan)?, web(&subnet.direct.laptop)?];
        Ok(Lab { subnet, _web: web })
    }

    fn laptop(&self) -> &Host {
        &self.subnet.direct.laptop
    }

    fn bastion(&self) -> &Host {
        &self.subnet.direct.bastion
    }

    fn start(&self, client: Client, arguments: &[&str]) -> Result<Child> {
        let words = client.command(&[arguments, &["bastion"]].concat())?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.laptop().spawn(&words)
    }

    fn run(&self, client: Client, arguments: &[&str]) -> Result<netns_tests::lab::child::Output> {
        let words = client.command(arguments)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.laptop().run(&words)
    }
}

fn local_forwards_of_each_form(client: Client) -> Result<()> {
    let lab = Lab::new(&Sshd::default())?;
    let _client = lab.start(
        client,
        &[
            "-N",
            "-L8080:inner:80",
            "-L",
            "[::1]:8081:[2001:db8:64::2]:80",
            "-L*:8082:198.51.100.2:80",
            "-L/run/l.sock:inner:80",
        ],
    )?;
    let laptop = lab.laptop();
    for (arguments, from) in [
        (&["http://127.0.0.1:8080/"][..], "lan"),
        (&["http://[::1]:8080/"], "lan"),
        (&["http://[::1]:8081/"], "lan"),
        (&["--unix-socket", "/run/l.sock", "http://x/"], "lan"),
    ] {
        fetches(laptop, arguments, from)?;
    }
    let mode = laptop.sh("stat -c %a /run/l.sock")?;
    ensure!(mode.trim() == "600", "{mode}");
    // Without GatewayPorts a listener without an address is at loopback alone.
    fetches(lab.bastion(), &["http://192.0.2.1:8082/"], "lan")?;
    ensure!(fetch(lab.bastion(), &["http://192.0.2.1:8080/"]).is_err());
    Ok(())
}

fn remote_forwards_of_each_form(client: Client) -> Result<()> {
    let lab = Lab::new(&Sshd::default().set("GatewayPorts", "clientspecified"))?;
    let client = lab.start(
        client,
        &[
            "-N",
            "-v",
            "-R9090:127.0.0.1:80",
            "-R*:9091:localhost:80",
            "-R/run/r.sock:127.0.0.1:80",
            "-R1080",
            "-R0:127.0.0.1:80",
        ],
    )?;
    let bastion = lab.bastion();
    for arguments in [
        &["http://127.0.0.1:9090/"][..],
        &["--unix-socket", "/run/r.sock", "http://x/"],
        &["--socks5-hostname", "127.0.0.1:1080", "http://localhost/"],
        &["--socks4a", "127.0.0.1:1080", "http://192.0.2.1/"],
    ] {
        fetches(bastion, arguments, "laptop")?;
    }
    fetches(&lab.subnet.lan, &["http://198.51.100.1:9091/"], "laptop")?;
    let line = client.wait_for_line("llocated port", PATIENCE)?;
    let port = line
        .split("llocated port ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let port = port.context(line.clone())?;
    fetches(bastion, &[&format!("http://127.0.0.1:{port}/")], "laptop")
}

fn a_local_proxy(client: Client) -> Result<()> {
    let lab = Lab::new(&Sshd::default())?;
    let _client = lab.start(client, &["-N", "-D1080"])?;
    let laptop = lab.laptop();
    fetches(
        laptop,
        &["--socks5-hostname", "127.0.0.1:1080", "http://inner/"],
        "lan",
    )?;
    for arguments in [
        &["--socks4a", "[::1]:1080", "http://inner/"][..],
        &["--socks4", "127.0.0.1:1080", "http://198.51.100.2/"],
        &["--socks5", "127.0.0.1:1080", "http://[2001:db8:64::2]/"],
    ] {
        fetches(laptop, arguments, "lan")?;
    }
    if client == Client::Sshvpn {
        let proxy = ["--proxytunnel", "-x", "http://127.0.0.1:1080"];
        fetches(laptop, &[&proxy[..], &["http://inner/"]].concat(), "lan")?;
        let refused = laptop.run(&[
            "curl",
            "-sv",
            "--max-time",
            "10",
            "--socks5-hostname",
            "127.0.0.1:1080",
            "http://inner:81/",
        ])?;
        ensure!(refused.code() == 97, "{refused:?}");
    }
    // Bytes that are no greeting end the connection, and nothing else.
    laptop.sh("printf 'SSH-2.0-x\\r\\n\\r\\n' | socat -t5 - TCP:127.0.0.1:1080 >/dev/null")?;
    fetches(
        laptop,
        &["--socks4a", "127.0.0.1:1080", "http://inner/"],
        "lan",
    )
}

fn standard_input_and_output(client: Client) -> Result<()> {
    let lab = Lab::new(&Sshd::default())?;
    let client = client.command(&["-W", "inner:80", "bastion"])?.join(" ");
    let page = lab.laptop().sh(&format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {client}; echo exit $?"
    ))?;
    ensure!(
        page.contains("from lan") && page.contains("exit 0"),
        "{page}"
    );
    Ok(())
}

fn a_listener_that_fails(client: Client) -> Result<()> {
    let lab = Lab::new(&Sshd::default())?;
    for forward in ["-L80:inner:80", "-D80", "-R22:inner:80"] {
        let strict = ["-oExitOnForwardFailure=yes", forward, "bastion", "true"];
        let failed = lab.run(client, &strict)?;
        ensure!(failed.code() == 255, "{forward}: {failed:?}");
        let goes_on = lab.run(client, &[forward, "bastion", "exit 7"])?;
        ensure!(goes_on.code() == 7, "{forward}: {goes_on:?}");
        ensure!(goes_on.stderr.contains("forward") || goes_on.stderr.contains("listen"));
    }
    Ok(())
}

fn a_target_that_fails(client: Client) -> Result<()> {
    let lab = Lab::new(&Sshd::default().set("PermitOpen", "inner:80 inner:81"))?;
    let running = lab.start(
        client,
        &[
            "-N",
            "-L8080:inner:80",
            "-L8081:inner:81",
            "-L8022:inner:22",
        ],
    )?;
    let laptop = lab.laptop();
    fetches(laptop, &["http://127.0.0.1:8080/"], "lan")?;
    for port in ["8081", "8022"] {
        ensure!(fetch(laptop, &[&format!("http://127.0.0.1:{port}/")]).is_err());
        running.wait_for_line("open failed", PATIENCE)?;
    }
    fetches(laptop, &["http://127.0.0.1:8080/"], "lan")
}

fn much_data_and_half_closed_connections(client: Client) -> Result<()> {
    let lab = Lab::new(&Sshd::default())?;
    // The service answers only once its client has ended its direction.
    let _service = lab.subnet.lan.spawn(&[
        "socat",
        "-t60",
        "TCP-LISTEN:7000,fork,reuseaddr",
        "SYSTEM:sha256sum; head -c 30000000 /dev/zero",
    ])?;
    let _client = lab.start(client, &["-N", "-L7000:inner:7000"])?;
    let sum = until("the sum", PATIENCE, || {
        let line = "head -c 30000000 /dev/zero | socat -t60 - TCP:127.0.0.1:7000 | \
                    { head -n1; wc -c; }";
        let said = lab.laptop().sh(line).ok()?;
        said.contains("30000000").then_some(said)
    })?;
    let expected = lab.laptop().sh("head -c 30000000 /dev/zero | sha256sum")?;
    ensure!(sum.starts_with(expected.trim()), "{sum} {expected}");
    Ok(())
}

fn a_connection_without_a_tunnel(client: Client) -> Result<()> {
    let lab = Lab::new(&Sshd::default())?;
    let said = lab.run(client, &["bastion", "echo here; echo there >&2; exit 3"])?;
    ensure!(
        said.code() == 3 && said.stdout == "here\n" && said.stderr.contains("there"),
        "{said:?}"
    );
    // The connection stays for the forwarded connection that is open, and takes others meanwhile.
    let _service = lab.subnet.lan.spawn(&[
        "socat",
        "-t9",
        "TCP-LISTEN:7001,fork,reuseaddr",
        "SYSTEM:read line; echo late",
    ])?;
    lab.bastion().sh("mkfifo /run/stays")?;
    let words = client.command(&["-L7001:inner:7001", "bastion", "echo ready; cat /run/stays"])?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let running = lab.laptop().spawn(&words)?;
    running.wait_for_line("ready", PATIENCE)?;
    lab.laptop().sh("mkfifo /run/first")?;
    let connect = "exec 3<>/run/first; head -n1 <&3 | socat -t9 - TCP:127.0.0.1:7001";
    let first = lab.laptop().spawn(&["bash", "-c", connect])?;
    until("the connection", PATIENCE, || {
        runs(&lab.subnet.lan, "read line").then_some(())
    })?;
    lab.bastion().sh("echo >/run/stays")?;
    until("the end of the command", PATIENCE, || {
        (!runs(lab.bastion(), "cat /run/stays")).then_some(())
    })?;
    ensure!(running.is_running());
    let second = lab.laptop().sh("echo | socat -t9 - TCP:127.0.0.1:7001")?;
    ensure!(second.trim() == "late", "{second}");
    lab.laptop().sh("echo >/run/first")?;
    ensure!(first.wait(PATIENCE)?.stdout.trim() == "late");
    ensure!(running.wait(PATIENCE)?.code() == 0);
    Ok(())
}

/// Whether a process of `host` has `words` in its command line.
fn runs(host: &Host, words: &str) -> bool {
    let processes = host.processes().unwrap_or_default();
    let of_service = |command: &str| command.contains(words) && !command.starts_with("socat");
    processes.iter().any(|process| of_service(&process.command))
}

/// A control path that names another file leaves that file alone.
#[test]
fn a_control_path_that_is_no_socket() -> Result<()> {
    let lab = Lab::new(&Sshd::default())?;
    lab.laptop().write("/run/key", "secret")?;
    let said = lab.run(Client::Sshvpn, &["-MS/run/key", "bastion", "echo there"])?;
    ensure!(
        said.stdout == "there\n" && said.stderr.contains("no control socket"),
        "{said:?}"
    );
    ensure!(lab.laptop().sh("cat /run/key")? == "secret");
    Ok(())
}

/// Each program controls its own connections and the other's.
#[test]
fn commands_to_a_connection_that_is_up() -> Result<()> {
    let lab = Lab::new(&Sshd::default())?;
    let laptop = lab.laptop();
    for (master, commander) in [
        (Client::Sshvpn, Client::Sshvpn),
        (Client::Sshvpn, Client::Ssh),
        (Client::Ssh, Client::Sshvpn),
    ] {
        let send = |command: &str, more: &[&str]| {
            lab.run(
                commander,
                &[&["-S/run/c", "-O", command][..], more, &["bastion"]].concat(),
            )
        };
        let absent = send("check", &[])?;
        ensure!(absent.code() == 255, "{absent:?}");
        lab.run(master, &["-MS/run/c", "-fN", "bastion"])?.ok()?;
        let check = send("check", &[])?;
        ensure!(
            check.code() == 0 && check.stderr.contains("Master running (pid="),
            "{check:?}"
        );
        for (kind, forward) in [("-L", "8080:inner:80"), ("-L", "/run/f.sock:inner:80")] {
            send("forward", &[kind, forward])?.ok()?;
        }
        fetches(laptop, &["http://127.0.0.1:8080/"], "lan")?;
        fetches(
            laptop,
            &["--unix-socket", "/run/f.sock", "http://x/"],
            "lan",
        )?;
        send("forward", &["-R", "9090:127.0.0.1:80"])?.ok()?;
        fetches(lab.bastion(), &["http://127.0.0.1:9090/"], "laptop")?;
        send("cancel", &["-L", "8080:inner:80"])?.ok()?;
        send("cancel", &["-R", "9090:127.0.0.1:80"])?.ok()?;
        ensure!(fetch(laptop, &["http://127.0.0.1:8080/"]).is_err());
        ensure!(fetch(lab.bastion(), &["http://127.0.0.1:9090/"]).is_err());
        let again = send("cancel", &["-L", "8080:inner:80"])?;
        ensure!(!again.stderr.is_empty(), "{again:?}");
        send("exit", &[])?.ok()?;
        until("the end of the connection", PATIENCE, || {
            (send("check", &[]).ok()?.code() == 255).then_some(())
        })?;
        laptop.sh("rm -f /run/f.sock")?;
    }
    Ok(())
}
