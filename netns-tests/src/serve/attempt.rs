//! Attempts of the distribution's ssh at `sshvpn serve`, and their expected results.

use anyhow::{Result, ensure};

use crate::lab::child::Output;
use crate::lab::host::Host;
use crate::program::client::Client;
use crate::serve::Server;

/// The expected result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A tunnel, with this device of the server.
    Tunnel(&'static str),
    /// A login, but no tunnel.
    NoTunnel,
    /// No login.
    NoLogin,
}

/// Runs `ssh ARGUMENTS` on `local` and waits for its end.
pub fn ssh(local: &Host, arguments: &[&str]) -> Result<Output> {
    local.run(&Client::Ssh.command(arguments)?)
}

/// Requests `units` of `destination`, and checks ssh's messages and the audit log for `expected`.
pub fn tunnel(
    server: &Server<'_>,
    local: &Host,
    destination: &str,
    units: &str,
    expected: Outcome,
) -> Result<()> {
    let before = server.audit()?.len();
    let arguments = ["-v", "-N", "-w", units, "-o", "ExitOnForwardFailure=yes"];
    let command = Client::Ssh.command(&[&arguments[..], &[destination]].concat())?;
    let is_tunnel = |record: &serde_json::Value| record["request"] == "tunnel";
    if let Outcome::Tunnel(device) = expected {
        let child = local.spawn(&command)?;
        server.wait_for_record(before, "tunnel-up", |record| record["device"] == device)?;
        child.end_with(nix::sys::signal::Signal::SIGTERM)?;
        server.wait_for_record(before, "session", |record| {
            record["tunnels"][0]["device"] == device
        })?;
        return Ok(());
    }
    let output = local.run(&command)?;
    ensure!(output.code() == 255, "{output:?}");
    if expected == Outcome::NoLogin {
        ensure!(
            output.stderr.contains("Permission denied (publickey)"),
            "{output:?}"
        );
        server.wait_for_record(before, "login-denied", |_| true)?;
    } else {
        ensure!(
            output.stderr.contains("Tunnel forwarding failed"),
            "{output:?}"
        );
        // The reason comes as a debug message, as sshd's does.
        ensure!(output.stderr.contains("Remote: "), "{output:?}");
        server.wait_for_record(before, "request-refused", is_tunnel)?;
        server.wait_for_record(before, "session", |_| true)?;
    }
    Ok(())
}
