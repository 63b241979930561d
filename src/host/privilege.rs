//! Checks whether this process may make a tunnel: CAP_NET_ADMIN and /dev/net/tun.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use thiserror::Error;

use crate::config::invoker::elevation;

/// The device node by which the kernel lets processes make tun and tap devices.
pub const TUN_DEVICE: &str = "/dev/net/tun";
/// The number of CAP_NET_ADMIN (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// The reason why this process cannot make a tunnel.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// Not root, and no file capability.
    #[error(
        "changing this host's network needs root or CAP_NET_ADMIN: run it with sudo, or give the program to a group: chgrp vpn, chmod 0750, setcap cap_net_admin+ep (sshvpn(1), SUDO AND CAPABILITIES; in a container: --cap-add NET_ADMIN)"
    )]
    NoNetAdmin,
    /// The capabilities are from the program file, so any user who can run it may have them.
    #[error(
        "'{0}' does not run with file capabilities (setcap), which are for the callers' own tunnels: start it as root or, as packaging/sshvpn-serve.service does, with ambient capabilities and a program file without any"
    )]
    Borrowed(&'static str),
    /// The capabilities could not be read.
    #[error("cannot read this process's capabilities from {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The tun device node or its driver is missing.
    #[error(
        "{path} is missing: load the driver with 'sudo modprobe tun' (in a container: --device /dev/net/tun --cap-add NET_ADMIN)"
    )]
    NoTun {
        /// The device node.
        path: PathBuf,
    },
    /// The device node cannot be opened.
    #[error(
        "{path} cannot be opened: {source}; its usual mode is 0666: sudo chmod 0666 {path} (in a container: --device /dev/net/tun)"
    )]
    TunClosed {
        /// The device node.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Whether CAP_NET_ADMIN is effective in this process.
pub fn has_net_admin() -> Result<bool, PrivilegeError> {
    let path = Path::new("/proc/thread-self/status");
    let unreadable = |reason: String| PrivilegeError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let status = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let effective = effective_capabilities(&status)
        .ok_or_else(|| unreadable("there is no CapEff line".to_owned()))?;
    Ok(effective >> CAP_NET_ADMIN & 1 == 1)
}

/// Returns an error if CAP_NET_ADMIN is missing.
pub fn require_net_admin() -> Result<(), PrivilegeError> {
    if has_net_admin()? {
        Ok(())
    } else {
        Err(PrivilegeError::NoNetAdmin)
    }
}

/// Returns an error if this process has its capabilities from the program file; `command` is the
/// caller's command.
pub fn require_own_rights(command: &'static str) -> Result<(), PrivilegeError> {
    match elevation::by_file_capabilities() {
        true => Err(PrivilegeError::Borrowed(command)),
        false => Ok(()),
    }
}

/// Returns an error if /dev/net/tun cannot be opened. Opening it makes no device.
pub fn require_tun() -> Result<(), PrivilegeError> {
    require_tun_at(Path::new(TUN_DEVICE))
}

fn require_tun_at(path: &Path) -> Result<(), PrivilegeError> {
    let Err(source) = OpenOptions::new().read(true).write(true).open(path) else {
        return Ok(());
    };
    let path = path.to_owned();
    let errno = source.raw_os_error().map(Errno::from_raw);
    Err(match errno {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::ENOTDIR) => {
            PrivilegeError::NoTun { path }
        }
        _ => PrivilegeError::TunClosed { path, source },
    })
}

/// The `CapEff` mask of a /proc/PID/status (proc(5)).
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\nCapBnd:\t0\n";
        assert_eq!(effective_capabilities(status), Some(1 << CAP_NET_ADMIN));
        assert_eq!(effective_capabilities("CapPrm:\t1\n"), None);
        assert_eq!(effective_capabilities("CapEff:\tnonsense\n"), None);
    }

    #[test]
    fn a_missing_device_says_what_to_do() {
        let error = require_tun_at(Path::new("/dev/net/none")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("modprobe tun") && text.contains("--device /dev/net/tun"));
    }
}
