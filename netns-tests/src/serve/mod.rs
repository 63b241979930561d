//! Runs `sshvpn serve` on a host: starts, queries, reloads and stops it; and clients' tunnels to
//! it.

pub mod attempt;
pub mod joined;
pub mod lab;
pub mod notify;
pub mod station;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::child::{Child, Output};
use crate::lab::host::Host;
use crate::program::client::Client;
use crate::wait::{PATIENCE, until};

use notify::NotifySocket;

/// The server's default configuration file.
pub const CONFIG: &str = "/etc/sshvpn/serve.toml";
/// The server's default file of authorized keys.
pub const AUTHORIZED_KEYS: &str = "/etc/sshvpn/authorized_keys";
/// The host key that clients of the lab know (see [`crate::lab::sshd::introduce`]).
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
const AUDIT_LOG: &str = "/run/lab/audit.jsonl";
/// A configuration without penalties, for scenarios with failing logins.
pub const NO_PENALTIES: &str = "[login]\nper-source-penalties = false\n";
const NOTIFY: &str = "/run/lab/notify";

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Serve {
    arguments: Vec<String>,
    config: Option<String>,
    prefix: Vec<String>,
}

impl Default for Serve {
    /// At port 22 with the host key that the lab's clients know, and an audit log.
    fn default() -> Self {
        Self::bare().with(&[
            "--listen",
            "[::]:22",
            "--host-key",
            HOST_KEY,
            "--audit-log",
            AUDIT_LOG,
        ])
    }
}

impl Serve {
    /// Without arguments.
    pub fn bare() -> Self {
        Self {
            arguments: Vec::new(),
            config: None,
            prefix: Vec::new(),
        }
    }

    /// Adds arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Adds an audit log.
    pub fn audited(self) -> Self {
        self.with(&["--audit-log", AUDIT_LOG])
    }

    /// Sets the text of the configuration file.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// Starts it by another program, which execs its arguments.
    pub fn behind(mut self, command: &[&str]) -> Self {
        self.prefix = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start<'a>(&self, host: &'a Host) -> Result<Server<'a>> {
        self.start_with(host, |command| host.spawn(command))
    }

    /// Starts it with a listening `socket` of the service manager, and waits until it is ready.
    pub fn start_activated<'a>(&self, host: &'a Host, socket: OwnedFd) -> Result<Server<'a>> {
        self.start_with(host, |command| {
            // LISTEN_PID has to be the pid of the program that exec runs.
            let activate = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
            let mut line = ["bash", "-c", activate, "activate"]
                .map(str::to_owned)
                .to_vec();
            line.extend_from_slice(command);
            host.spawn_with_input(&line, socket)
        })
    }

    fn start_with<'a>(
        &self,
        host: &'a Host,
        spawn: impl FnOnce(&[String]) -> Result<Child>,
    ) -> Result<Server<'a>> {
        if let Some(text) = &self.config {
            host.write(CONFIG, text)?;
        }
        host.sh(&format!("rm -f {NOTIFY}"))?;
        let notify = NotifySocket::new(host, NOTIFY)?;
        let mut command = vec!["env".to_owned(), notify.variable()];
        command.extend_from_slice(&self.prefix);
        command.extend(Client::Sshvpn.command(&["serve"])?);
        command.extend_from_slice(&self.arguments);
        let child = spawn(&command)?;
        notify.wait_for("READY=1", &child)?;
        Ok(Server {
            host,
            child,
            notify,
        })
    }
}

/// A running server. When dropped, it is killed.
pub struct Server<'a> {
    host: &'a Host,
    /// Its process.
    pub child: Child,
    notify: NotifySocket,
}

impl Server<'_> {
    /// Its host.
    pub fn host(&self) -> &Host {
        self.host
    }

    /// Its directory in /proc in the test process's namespace.
    pub fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.child.pid()))
    }

    /// Has it reload its settings, and waits until that is done.
    pub fn reload(&self) -> Result<()> {
        self.child.signal(Signal::SIGHUP)?;
        let begun = self.notify.wait_for("RELOADING=1", &self.child)?;
        ensure!(
            begun
                .lines()
                .any(|line| line.starts_with("MONOTONIC_USEC=")),
            "no time of the reload: {begun:?}"
        );
        self.notify.wait_for("READY=1", &self.child)?;
        Ok(())
    }

    /// Stops it and waits for its end; returns its output.
    pub fn stop(self) -> Result<Output> {
        self.child.signal(Signal::SIGTERM)?;
        self.notify.wait_for("STOPPING=1", &self.child)?;
        let output = self.child.wait(PATIENCE)?;
        ensure!(output.code() == 0, "{output:?}");
        Ok(output)
    }

    /// Waits for a message of its watchdog.
    pub fn watchdog(&self) -> Result<()> {
        self.notify.wait_for("WATCHDOG=1", &self.child)?;
        Ok(())
    }

    /// The records of its audit log so far.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = self.host.read(AUDIT_LOG).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| serde_json::from_str(line).with_context(|| line.to_owned());
        complete.lines().map(parse).collect()
    }

    /// Waits for the first record of `event` after the first `skipped` ones that matches; returns
    /// it.
    pub fn wait_for_record(
        &self,
        skipped: usize,
        event: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let found = until(&format!("a record of {event}"), PATIENCE, || {
            let records = self.audit().ok()?;
            let mut records = records.into_iter().skip(skipped);
            records.find(|record| record["event"] == event && fits(record))
        });
        found.with_context(|| format!("in the audit log: {:#?}", self.audit()))
    }

    /// The output of `sshvpn serve --status --json` on its host.
    pub fn status(&self) -> Result<Value> {
        let command = Client::Sshvpn.command(&["serve", "--status", "--json"])?;
        let text = self.host.run(&command)?.ok()?;
        serde_json::from_str(&text).with_context(|| text)
    }
}
