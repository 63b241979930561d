//! What the service manager is told (sd_notify(3)), and what it asks of us
//! (sd_watchdog_enabled(3)). Without one that listens, all of it is nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// The server listens and takes clients; also the end of a reload.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// A reload begins; [`ready`] ends it, whether or not it went well.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // systemd wants both in one message (sd_notify(3), RELOADING=1).
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("the monotonic clock: {error}"),
    }
}

/// The server ends, and `status` says why or how far it is.
pub fn stopping(status: &str) {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status(&one_line(status)),
    ]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(&one_line(text))]);
}

/// Shows the service manager that this process's runtime still runs, twice in
/// each time that it allows (`WatchdogSec=`). Never returns.
pub async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(half(limit));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Half of the time, at least a millisecond.
fn half(limit: Duration) -> Duration {
    (limit / 2).max(Duration::from_millis(1))
}

/// A newline would begin another field of the message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn tell(state: &[NotifyState<'_>]) {
    // A manager that cannot be told is not a reason to serve nobody.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("the service manager was not told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_forge_a_field() {
        assert_eq!(one_line("3 clients\nMAINPID=1"), "3 clients MAINPID=1");
    }

    #[test]
    fn a_watchdog_of_any_length_has_a_pace() {
        assert_eq!(half(Duration::from_secs(60)), Duration::from_secs(30));
        assert_eq!(half(Duration::from_micros(1)), Duration::from_millis(1));
    }
}
