//! Waits for a condition: the only place where the lab sleeps.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The limit for an expected event. Generous, because two cores may run several labs; only a
/// failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often a condition is checked.
const INTERVAL: Duration = Duration::from_millis(10);

/// Calls `probe` until it returns a value; fails after `limit` with an error that names `what`.
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
