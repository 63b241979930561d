//! Waiting for a condition: the one place where the lab lets time pass.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take that is expected to happen soon. Generous,
/// because two cores may run several labs; nothing waits this long unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Asks `probe` until it gives a value, which is returned, or `limit` has
/// passed, which is an error that names `what`.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(INTERVAL);
    }
}
