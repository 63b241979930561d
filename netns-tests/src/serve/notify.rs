//! The service manager's end of sd_notify(3), for a program of a host.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::child::Child;
use crate::host::Host;
use crate::wait::PATIENCE;

/// How often it is looked at whether the program still runs.
const LOOK: Duration = Duration::from_millis(100);
/// More than any message has, in bytes.
const LONGEST: usize = 4096;

/// A socket that takes what the program says.
pub struct NotifySocket {
    socket: UnixDatagram,
    path: String,
}

impl NotifySocket {
    /// Makes it at `path` of `host`.
    pub fn new(host: &Host, path: &str) -> Result<Self> {
        let there = host.path(path);
        let socket = UnixDatagram::bind(&there).with_context(|| format!("binding {path}"))?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }

    /// The variable that names it, `NAME=VALUE`.
    pub fn variable(&self) -> String {
        format!("NOTIFY_SOCKET={}", self.path)
    }

    /// Waits for a message of `child` with the line `wanted`, and returns all of
    /// it; those before it are dropped.
    pub fn wait_for(&self, wanted: &str, child: &Child) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        while Instant::now() < deadline {
            // Looked at before the messages, so that the last ones are read.
            let runs = child.is_running();
            match self.next()? {
                Some(message) if message.lines().any(|line| line == wanted) => return Ok(message),
                Some(message) => before.push(message),
                None => ensure!(
                    runs,
                    "it ended without {wanted}: {before:?}\n{}",
                    child.stderr()
                ),
            }
        }
        bail!("no {wanted} in {PATIENCE:?}: {before:?}")
    }

    fn next(&self) -> Result<Option<String>> {
        let mut buffer = [0; LONGEST];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Ok(Some(
                String::from_utf8_lossy(&buffer[..length]).into_owned(),
            )),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error).context("what the program says"),
        }
    }
}
