//! asyncssh and paramiko as clients of `sshvpn serve`: their scripts beside this file do the
//! talking and the judging.
//!
//! ```text
//!   laptop: a script ══ SSH ══ bastion: sshvpn serve ── lan host: echo.py
//!           echo.py
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::serve::Serve;
use netns_tests::serve::lab::ServeLab;
use netns_tests::{Child, Host, PATIENCE};

const ECHO: &str = include_str!("echo.py");
const ASYNCSSH: &str = include_str!("asyncssh_client.py");
const PARAMIKO: &str = include_str!("paramiko_client.py");

/// How long one script may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The command line of a script that is written to `host`.
pub fn python<'a>(host: &Host, script: &str, arguments: &[&'a str]) -> Result<Vec<&'a str>> {
    const FILE: &str = "/run/lab/script.py";
    host.write(FILE, script)?;
    Ok([&["/usr/bin/python3", "-W", "ignore", FILE], arguments].concat())
}

/// Starts the echo service on `host`.
pub fn echo(host: &Host) -> Result<Child> {
    let service = host.spawn(&python(host, ECHO, &["9000"])?)?;
    service.wait_for_line("listening", PATIENCE)?;
    Ok(service)
}

/// Runs `scenario` of `script`. The server has to survive it: nothing of it stays.
fn run(script: &str, scenario: &str) -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "port-forwarding")])?;
    let server = Serve::default().start(&lab.bastion)?;
    let _services = [echo(&lab.lan)?, echo(&lab.laptop)?];
    let command = python(&lab.laptop, script, &[scenario])?;
    let output = lab.laptop.spawn(&command)?.wait(LIMIT)?;
    ensure!(output.stdout.ends_with("done\n"), "{}", output.stderr);
    ensure!(output.code() == 0, "{output:?}");
    netns_tests::until("the end of all sessions", PATIENCE, || {
        let status = server.status().ok()?;
        status["sessions"].as_array()?.is_empty().then_some(())
    })?;
    let stopped = server.stop()?;
    ensure!(!stopped.stderr.contains("panicked"), "{}", stopped.stderr);
    Ok(())
}

/// Makes a test of each scenario of a script.
macro_rules! scenarios {
    ($library:ident, $script:expr, $($name:ident),* $(,)?) => {
        mod $library {
            $(#[test] fn $name() -> anyhow::Result<()> {
                super::run($script, stringify!($name))
            })*
        }
    };
}

scenarios!(
    asyncssh,
    super::ASYNCSSH,
    local,
    many,
    remote,
    dynamic,
    rekey,
    keepalive,
    algorithms,
    requests,
    hostile,
);

scenarios!(
    paramiko,
    super::PARAMIKO,
    local,
    remote,
    rekey,
    keepalive,
    requests,
);
