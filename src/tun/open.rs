//! Opens a tun or tap device, or attaches to an existing one; its errors tell the user
//! what to do.

use std::ffi::c_int;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::stat::Mode as Permissions;
use nix::unistd::getuid;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Device, sys};
use crate::config::invoker::elevation;
use crate::packet::offload::virtio::Offload;
use crate::sandbox::capabilities;
use crate::types::{DevicePrefix, InterfaceName, Mode, UnitRequest};

/// The events to wait for: packets, room, and the device's deletion.
const INTEREST: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::ERROR);

/// The requested device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceRequest {
    /// Named as by ssh's `-w`: `tunN`, `tapN`, or the first free one.
    Unit(UnitRequest),
    /// The device of this name.
    Named(InterfaceName),
    /// The first free one of PREFIX0, PREFIX1, … (the kernel's `%d`).
    FirstFree(DevicePrefix),
}

impl DeviceRequest {
    /// The name of the device, if the request gives it.
    pub fn name(&self, mode: Mode) -> Option<InterfaceName> {
        match self {
            DeviceRequest::Unit(UnitRequest::Unit(unit)) => unit.device_name(mode).parse().ok(),
            DeviceRequest::Named(name) => Some(name.clone()),
            DeviceRequest::Unit(UnitRequest::Any) | DeviceRequest::FirstFree(_) => None,
        }
    }

    /// The name to request of the kernel, which replaces `%d` by a number.
    fn pattern(&self, mode: Mode) -> String {
        match self {
            DeviceRequest::Unit(UnitRequest::Unit(unit)) => unit.device_name(mode),
            DeviceRequest::Unit(UnitRequest::Any) => format!("{}%d", mode.prefix()),
            DeviceRequest::Named(name) => name.as_str().to_owned(),
            DeviceRequest::FirstFree(prefix) => format!("{prefix}%d"),
        }
    }
}

/// Why the device could not be opened. The text says what to do.
#[derive(Debug, Error)]
pub enum OpenError {
    /// `/dev/net/tun` does not exist.
    #[error(
        "/dev/net/tun is missing on this host: load the module (modprobe tun), or in a container \
         pass the device in (--device /dev/net/tun)"
    )]
    Missing,
    /// No permission to make the device or to attach to it.
    #[error(
        "no permission to open {name} on this host: run with sudo, or make the device for your user beforehand \
         (ip tuntap add dev {name} mode {kind} user $USER)"
    )]
    Permission {
        /// The requested device.
        name: String,
        /// `tun` or `tap`.
        kind: &'static str,
    },
    /// Another process uses it.
    #[error("{0} is in use by another process on this host: choose another unit, or 'any'")]
    Busy(String),
    /// Another process uses the device that was asked for by its name.
    #[error("{0} is in use by another process on this host: name another device, or none")]
    BusyName(String),
    /// A new device was required, and this one exists.
    #[error(
        "{0} exists on this host already, and only a new device may be used: choose another unit, \
         or 'any'"
    )]
    Exists(String),
    /// A name that other programs may take for another kind of interface.
    #[error(
        "no device {0} is made with file capabilities (setcap): choose sshvpn, tun or tap with a number, or run it as root"
    )]
    ForeignName(String),
    /// An interface of that name exists that is not a tun or tap device of this mode.
    #[error("{name} exists on this host and is not a {kind} device: choose another name")]
    WrongKind {
        /// The requested device.
        name: String,
        /// `tun` or `tap`.
        kind: &'static str,
    },
    /// Any other failure.
    #[error("cannot open {name} on this host: {source}")]
    Other {
        /// The requested device.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Device {
    /// Opens the device, or attaches to it if it exists and is persistent (without
    /// privilege if it belongs to the user). Call it inside a tokio runtime.
    pub fn open(request: &DeviceRequest, mode: Mode) -> Result<Self, OpenError> {
        let pattern = request.pattern(mode);
        let preexisting = !pattern.contains('%') && interface_exists(&pattern);
        match (Self::open_as(&pattern, mode, preexisting, 0), request) {
            (Err(OpenError::Busy(name)), DeviceRequest::Named(_)) => Err(OpenError::BusyName(name)),
            (opened, _) => opened,
        }
    }

    /// Makes a device; fails if an interface of that name exists.
    pub fn create(request: &DeviceRequest, mode: Mode) -> Result<Self, OpenError> {
        let pattern = request.pattern(mode);
        match Self::open_as(&pattern, mode, false, libc::IFF_TUN_EXCL) {
            Err(OpenError::Busy(name)) => Err(OpenError::Exists(name)),
            opened => opened,
        }
    }

    fn open_as(
        pattern: &str,
        mode: Mode,
        preexisting: bool,
        flags: c_int,
    ) -> Result<Self, OpenError> {
        // A persistent device keeps its offloads, and the next program that opens it may
        // not support them.
        let headers = !preexisting;
        // Without this flag a device made meanwhile would be attached to.
        let new = flags | libc::IFF_TUN_EXCL;
        let opened = match elevation::by_file_capabilities() {
            true if preexisting => {
                as_the_caller(|| open_nonblocking(pattern, mode, headers, flags))
            }
            true if !has_usual_name(pattern) => {
                return Err(OpenError::ForeignName(pattern.to_owned()));
            }
            true => open_nonblocking(pattern, mode, headers, new).and_then(become_the_callers),
            false => open_nonblocking(pattern, mode, headers, flags),
        };
        let (fd, name) = opened.map_err(|error| explain(error, pattern, mode, preexisting))?;
        let offload = match headers {
            true => sys::enable_offload(&fd)
                .map_err(|error| explain(error, pattern, mode, preexisting))?,
            false => Offload::NONE,
        };
        // SAFETY: an OwnedFd keeps one open descriptor until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(Arc::new(fd), INTEREST) };
        let fd = fd.map_err(|error| OpenError::Other {
            name: name.to_string(),
            source: error.into(),
        })?;
        Ok(Device {
            fd,
            name,
            mode,
            preexisting,
            headers,
            offload,
        })
    }
}

/// Whether firewalls treat a device of that name as a tunnel: a usual prefix, and then a
/// number or the kernel's `%d`.
fn has_usual_name(pattern: &str) -> bool {
    let default = DevicePrefix::default();
    let usual = [
        default.as_str(),
        Mode::PointToPoint.prefix(),
        Mode::Ethernet.prefix(),
    ];
    let is_number =
        |rest: &str| rest == "%d" || !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_digit());
    usual
        .iter()
        .filter_map(|prefix| pattern.strip_prefix(prefix))
        .any(is_number)
}

/// Opens a device without the file capability, so that the kernel checks the caller's own
/// permission.
fn as_the_caller<T: Send>(open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let opening = || {
        // Capabilities belong to a thread, and this one ends here.
        capabilities::clear_effective()?;
        open()
    };
    thread::scope(|scope| {
        let ended = thread::Builder::new().spawn_scoped(scope, opening)?.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Makes the caller the owner of a new device.
fn become_the_callers<T>((fd, name): (OwnedFd, T)) -> io::Result<(OwnedFd, T)> {
    sys::set_owner(&fd, getuid())?;
    Ok((fd, name))
}

/// Looks in the network namespace of the calling thread, which may not be that of /sys.
fn interface_exists(name: &str) -> bool {
    if_nametoindex(name).is_ok()
}

/// The caller sets addresses, MTU and state through netlink; `-w` sets none.
fn open_nonblocking(
    pattern: &str,
    mode: Mode,
    headers: bool,
    flags: c_int,
) -> io::Result<(OwnedFd, InterfaceName)> {
    let kind = match mode {
        Mode::PointToPoint => libc::IFF_TUN,
        Mode::Ethernet => libc::IFF_TAP,
    };
    let headers = if headers { libc::IFF_VNET_HDR } else { 0 };
    let flags = kind | libc::IFF_NO_PI | headers | flags;
    let access = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = open("/dev/net/tun", access, Permissions::empty())?;
    // The kernel's field has 16 bits.
    let name = sys::set_interface(&fd, pattern, flags as i16)?;
    let name = name.parse().map_err(io::Error::other)?;
    Ok((fd, name))
}

fn explain(source: io::Error, pattern: &str, mode: Mode, preexisting: bool) -> OpenError {
    let name = pattern.to_owned();
    let kind = mode.prefix();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => OpenError::Missing,
        Some(Errno::EPERM | Errno::EACCES) => OpenError::Permission { name, kind },
        Some(Errno::EBUSY) => OpenError::Busy(name),
        Some(Errno::EINVAL) if preexisting => OpenError::WrongKind { name, kind },
        _ => OpenError::Other { name, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_ssh_uses() {
        let unit = DeviceRequest::Unit("3".parse().unwrap());
        assert_eq!(unit.pattern(Mode::PointToPoint), "tun3");
        assert_eq!(unit.pattern(Mode::Ethernet), "tap3");
        let any = DeviceRequest::Unit(UnitRequest::Any);
        assert_eq!(any.pattern(Mode::Ethernet), "tap%d");
        assert_eq!(
            DeviceRequest::FirstFree(DevicePrefix::default()).pattern(Mode::PointToPoint),
            "sshvpn%d"
        );
    }

    #[test]
    fn a_usual_name_is_a_prefix_and_a_number() {
        for usual in ["tun0", "tap12", "sshvpn3", "tun%d", "tap%d", "sshvpn%d"] {
            assert!(has_usual_name(usual), "{usual}");
        }
        for other in [
            "tunl0", "tunnel-x", "tun", "tap", "tun0a", "tun%d0", "tap-1", "sshvpn", "vpn0",
            "docker0",
        ] {
            assert!(!has_usual_name(other), "{other}");
        }
    }

    #[test]
    fn the_kernels_reasons_become_advice() {
        let explain = |errno: Errno, there| {
            explain(
                io::Error::from_raw_os_error(errno as i32),
                "tun0",
                Mode::PointToPoint,
                there,
            )
        };
        assert!(matches!(explain(Errno::ENOENT, false), OpenError::Missing));
        assert!(matches!(explain(Errno::EBUSY, true), OpenError::Busy(_)));
        assert!(matches!(
            explain(Errno::EPERM, false),
            OpenError::Permission { .. }
        ));
        assert!(matches!(
            explain(Errno::EINVAL, true),
            OpenError::WrongKind { .. }
        ));
        assert!(matches!(
            explain(Errno::EINVAL, false),
            OpenError::Other { .. }
        ));
    }
}
