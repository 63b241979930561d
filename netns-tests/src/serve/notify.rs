//! The service manager's side of sd_notify(3), for a program of a host.

use std::collections::VecDeque;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::wait::{PATIENCE, until};

/// How often the receiving thread checks whether it has to end.
const LOOK: Duration = Duration::from_millis(100);
/// The receive buffer in bytes; longer than any message.
const LONGEST: usize = 4096;

/// Messages that were not waited for yet.
type Messages = Mutex<VecDeque<String>>;

/// A socket whose messages are read at once, since the kernel keeps only few unread ones.
pub struct NotifySocket {
    messages: Arc<Messages>,
    path: String,
}

impl NotifySocket {
    /// Makes it at `path` of `host`, for programs of any user.
    pub fn new(host: &Host, path: &str) -> Result<Self> {
        let there = host.path(path);
        let socket = UnixDatagram::bind(&there).with_context(|| format!("binding {path}"))?;
        set_permissions(&there, Permissions::from_mode(0o777))?;
        socket.set_read_timeout(Some(LOOK))?;
        let messages = Arc::new(Messages::default());
        let taker = Arc::downgrade(&messages);
        thread::spawn(move || {
            let mut buffer = [0; LONGEST];
            while taker.strong_count() > 0 {
                // After a timeout, the next round reads the message.
                if let (Ok(length), Some(messages)) = (socket.recv(&mut buffer), taker.upgrade()) {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    lock(&messages).push_back(text);
                }
            }
        });
        Ok(Self {
            messages,
            path: path.to_owned(),
        })
    }

    /// The environment variable for it, `NAME=VALUE`.
    pub fn variable(&self) -> String {
        format!("NOTIFY_SOCKET={}", self.path)
    }

    /// Waits for a message of `child` with the line `wanted`; returns the whole message, and drops
    /// those before it.
    pub fn wait_for(&self, wanted: &str, child: &Child) -> Result<String> {
        let mut before = Vec::new();
        let found = until(wanted, PATIENCE, || {
            // Checked before the messages, so that the last ones are read.
            let runs = child.is_running();
            while let Some(message) = lock(&self.messages).pop_front() {
                if message.lines().any(|line| line == wanted) {
                    return Some(Some(message));
                }
                before.push(message);
            }
            (!runs).then_some(None)
        });
        match found {
            Ok(Some(message)) => Ok(message),
            Ok(None) => bail!("it ended without {wanted}: {before:?}\n{}", child.stderr()),
            Err(error) => Err(error.context(format!("{before:?}\n{}", child.stderr()))),
        }
    }
}

fn lock(messages: &Messages) -> std::sync::MutexGuard<'_, VecDeque<String>> {
    messages.lock().unwrap_or_else(PoisonError::into_inner)
}
