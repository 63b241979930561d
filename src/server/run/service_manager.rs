//! Messages to the service manager (sd_notify(3)), and its watchdog
//! (sd_watchdog_enabled(3)). Does nothing without a manager that listens; a manager that
//! does not read delays nothing for long.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// The variable with the manager's socket: a path, or an abstract name after `@`.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How long to wait for a manager that has not read earlier messages, with a message that
/// it needs. The kernel queues about ten messages.
const WAIT: Duration = Duration::from_secs(1);

/// The server listens and accepts clients; also ends a reload.
pub fn ready(status: &str) {
    tell(
        &[NotifyState::Ready, NotifyState::Status(&one_line(status))],
        WAIT,
    );
}

/// A reload begins; [`ready`] ends it, whether or not it succeeded.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // systemd needs both in one message (sd_notify(3), RELOADING=1).
        Ok(now) => tell(&[NotifyState::Reloading, now], WAIT),
        Err(error) => tracing::debug!("the monotonic clock: {error}"),
    }
}

/// The server stops; `status` is the reason or the progress.
pub fn stopping(status: &str) {
    let status = one_line(status);
    tell(&[NotifyState::Stopping, NotifyState::Status(&status)], WAIT);
}

/// Sets the status line of `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(&one_line(text))], Duration::ZERO);
}

/// Tells the service manager twice per watchdog interval (`WatchdogSec=`) that the
/// runtime is alive. Never returns.
pub async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(half(limit));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog], Duration::ZERO);
    }
}

/// Half of the interval, at least 1 ms.
fn half(limit: Duration) -> Duration {
    (limit / 2).max(Duration::from_millis(1))
}

/// Removes line breaks, since a newline would begin another field of the message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn tell(states: &[NotifyState<'_>], wait: Duration) {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    // The server keeps running if the manager cannot be reached.
    if let Err(error) = send(&socket, states, wait) {
        tracing::debug!("the service manager was not told: {error}");
    }
}

fn send(to: &OsStr, states: &[NotifyState<'_>], wait: Duration) -> io::Result<()> {
    let mut message = String::new();
    for state in states {
        let _ = writeln!(message, "{state}");
    }
    let address = match to.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(to)?,
    };
    let socket = UnixDatagram::unbound()?;
    match wait {
        Duration::ZERO => socket.set_nonblocking(true)?,
        wait => socket.set_write_timeout(Some(wait))?,
    }
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_forge_a_field() {
        assert_eq!(one_line("3 clients\nMAINPID=1"), "3 clients MAINPID=1");
    }

    #[test]
    fn a_manager_is_told_by_path_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@{}", path.display());
        let by_name = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        for (manager, socket) in [
            (UnixDatagram::bind(&path), path.as_os_str()),
            (UnixDatagram::bind_addr(&by_name), OsStr::new(&name)),
        ] {
            let manager = manager.unwrap();
            send(socket, &[NotifyState::Ready, NotifyState::Watchdog], WAIT).unwrap();
            let mut buffer = [0; 100];
            let length = manager.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nWATCHDOG=1\n");
        }
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let tell = |wait| send(path.as_os_str(), &[NotifyState::Watchdog], wait);
        let full = (0..10_000)
            .find_map(|_| tell(Duration::ZERO).err())
            .unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(tell(Duration::from_millis(1)).is_err());
    }

    #[test]
    fn a_watchdog_of_any_length_has_a_pace() {
        assert_eq!(half(Duration::from_secs(60)), Duration::from_secs(30));
        assert_eq!(half(Duration::from_micros(1)), Duration::from_millis(1));
    }
}
