//! Checks the TCP forwards that a client has opened through `sshvpn serve`.
//!
//! ```text
//!   laptop: a client ══ SSH ══ bastion: sshvpn serve ── lan host
//! ```

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::serve::{Serve, Server};
use netns_tests::traffic::transfer::exchange;
use netns_tests::{Child, Host, PATIENCE, until};

/// The port of the service on the LAN host, and of that on the laptop.
pub const SERVICE: u16 = 9000;

/// The service on the LAN host.
pub const FAR: &str = "198.51.100.2:9000";

/// What a client asks of the service: megabytes each way.
const MEGABYTES: usize = 5;

/// The server.
pub fn serve(lab: &ServeLab) -> Result<Server<'_>> {
    Serve::default().start(&lab.bastion)
}

/// A service that listens at `address` of `host`.
pub struct Service(TcpListener);

impl Service {
    /// On the LAN host.
    pub fn on_lan(lab: &ServeLab) -> Result<Self> {
        let place: SocketAddr = format!("{LAN}:{SERVICE}").parse()?;
        Ok(Self(lab.lan.in_network(|| Ok(TcpListener::bind(place)?))?))
    }

    /// On the laptop, at its loopback address.
    pub fn on_laptop(lab: &ServeLab) -> Result<Self> {
        let bind = || Ok(TcpListener::bind(("127.0.0.1", SERVICE))?);
        Ok(Self(lab.laptop.in_network(bind)?))
    }

    /// Takes the connection that `local` is forwarded to, and checks both.
    fn checks(&self, local: TcpStream) -> Result<()> {
        self.0.set_nonblocking(true)?;
        let (remote, _) = until("a forwarded connection", PATIENCE, || self.0.accept().ok())?;
        remote.set_nonblocking(false)?;
        carries(local, remote)
    }

    /// Connects to `port` of `host`, where a client or the server listens for a forward to this
    /// service, and checks that the connection carries data.
    pub fn behind(&self, host: &Host, port: u16) -> Result<()> {
        let connected = connect(host, port)?;
        self.checks(connected)
    }

    /// The same through the SOCKS server at `port` of `host`.
    pub fn behind_socks(&self, host: &Host, port: u16) -> Result<()> {
        let mut stream = connect(host, port)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // RFC 1928: version 5, no authentication; connect to an IPv4 address.
        stream.write_all(&[5, 1, 0])?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer)?;
        ensure!(answer == [5, 0], "{answer:?}");
        let SocketAddr::V4(place) = FAR.parse()? else {
            anyhow::bail!("not IPv4")
        };
        let mut request = vec![5, 1, 0, 1];
        request.extend(place.ip().octets());
        request.extend(place.port().to_be_bytes());
        stream.write_all(&request)?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer)?;
        ensure!(answer[..2] == [5, 0], "{answer:?}");
        self.checks(stream)
    }
}

/// Connects to loopback `port` of `host` once it listens.
fn connect(host: &Host, port: u16) -> Result<TcpStream> {
    until(&format!("port {port} of {}", host.name()), PATIENCE, || {
        let connect = || Ok(TcpStream::connect(("127.0.0.1", port))?);
        host.in_network(connect).ok()
    })
}

/// Data passes in both directions unchanged, and after the end of one direction the other one
/// still does.
fn carries(mut local: TcpStream, mut remote: TcpStream) -> Result<()> {
    exchange(&local, &remote, MEGABYTES)?;
    local.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    remote.read_to_end(&mut rest).context("no end of data")?;
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    remote.write_all(b"the rest")?;
    drop(remote);
    local.read_to_end(&mut rest).context("after a half-close")?;
    ensure!(rest == b"the rest", "{rest:?}");
    Ok(())
}

/// Starts a listener at port 8001 of `host`, whose first connection `netcat` gets as its standard
/// streams.
pub fn netcat(host: &Host, command: &str) -> Result<Child> {
    const SCRIPT: &str = "/run/lab/netcat";
    host.write(SCRIPT, &format!("#!/bin/sh\nexec {command}\n"))?;
    host.sh(&format!("chmod 755 {SCRIPT}"))?;
    let exec = format!("EXEC:{SCRIPT}");
    // -t: how long the other direction may go on after the end of one.
    host.spawn(&["socat", "-t", "20", "TCP-LISTEN:8001,reuseaddr", &exec])
}
