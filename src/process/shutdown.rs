//! The signals that end a session.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT: each requests an orderly end, unless the parent process has
/// it ignored (nohup, a shell's background job), as in ssh.
pub struct Shutdown {
    received: mpsc::Receiver<i32>,
}

impl Shutdown {
    /// Handles these signals from now on.
    pub fn listen() -> io::Result<Self> {
        let ignored = ignored_signals();
        let (sender, received) = mpsc::channel(1);
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ] {
            let number = kind.as_raw_value();
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            let mut signals = signal(kind)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    // One pending signal is enough.
                    let _ = sender.try_send(number);
                }
            });
        }
        Ok(Shutdown { received })
    }

    /// Waits for a signal; returns its number.
    pub async fn requested(&mut self) -> i32 {
        match self.received.recv().await {
            Some(number) => number,
            // Every signal is ignored.
            None => std::future::pending().await,
        }
    }
}

/// The signals that are ignored, bit N-1 for signal N (proc_pid_status(5), SigIgn).
pub(crate) fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
