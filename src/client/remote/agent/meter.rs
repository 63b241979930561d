//! Shows on a terminal how much of the pushed program is sent.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The time between two updates.
const UPDATE: Duration = Duration::from_millis(200);

/// One line on the terminal, replaced as it changes and removed at the end.
pub(super) struct Meter {
    host: String,
    total: u64,
    sent: u64,
    start: Instant,
    /// The time of the last update; `None` if nothing is shown.
    updated: Option<Instant>,
}

impl Meter {
    /// For `total` bytes to `host`; `wanted` is false under `-q`.
    pub fn new(host: &str, total: u64, wanted: bool) -> Self {
        let now = Instant::now();
        Meter {
            host: host.to_owned(),
            total,
            sent: 0,
            start: now,
            updated: (wanted && io::stderr().is_terminal()).then_some(now),
        }
    }

    /// Counts `bytes` more.
    pub fn add(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
        let now = Instant::now();
        if self
            .updated
            .is_some_and(|then| now.duration_since(then) >= UPDATE)
        {
            self.updated = Some(now);
            let line = line(&self.host, self.sent, self.total, now - self.start);
            // A closed terminal does not end the push.
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.updated.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(host: &str, sent: u64, total: u64, time: Duration) -> String {
    let percent = sent.saturating_mul(100) / total.max(1);
    let rate = sent as f64 / time.as_secs_f64().max(0.001) / 1e6;
    format!("{host}: {percent} % sent, {rate:.1} MB/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_and_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line("b", 1_500_000, 6_000_000, second),
            "b: 25 % sent, 1.5 MB/s"
        );
        assert_eq!(line("b", 0, 0, Duration::ZERO), "b: 0 % sent, 0.0 MB/s");
    }
}
