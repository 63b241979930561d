//! The congestion control of the TCP connection under SSH (tcp(7), TCP_CONGESTION).
//!
//! Without a request the host's own choice stays: its administrator's sysctl, or a route's
//! `congctl`. docs/speed.md says why.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use thiserror::Error;

use super::client::prompt::terminal_text;
use crate::config::congestion::CongestionControl;

/// The kernel did not take a congestion control.
#[derive(Debug, Error)]
pub enum CongestionError {
    /// It does not have it, or cannot load it.
    #[error(
        "this kernel does not have the congestion control {name}, only {available}; 'modprobe tcp_{name}' may add it"
    )]
    Unknown {
        /// The name.
        name: CongestionControl,
        /// What there is.
        available: String,
    },
    /// Only root may use it.
    #[error(
        "the congestion control {name} needs CAP_NET_ADMIN, unless net.ipv4.tcp_allowed_congestion_control \
         names it; permitted are {allowed}"
    )]
    NotPermitted {
        /// The name.
        name: CongestionControl,
        /// What others may use.
        allowed: String,
    },
    /// Any other failure.
    #[error("cannot use the congestion control {name}: {source}")]
    Other {
        /// The name.
        name: CongestionControl,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Has `socket` use `name`. With CAP_NET_ADMIN the kernel loads its module if need be.
pub(in crate::ssh) fn set(
    socket: &impl AsFd,
    name: &CongestionControl,
) -> Result<(), CongestionError> {
    let value = OsString::from(name.as_str());
    setsockopt(socket, sockopt::TcpCongestion, &value).map_err(|errno| match errno {
        Errno::ENOENT => CongestionError::Unknown {
            name: name.clone(),
            available: listed("available"),
        },
        Errno::EPERM => CongestionError::NotPermitted {
            name: name.clone(),
            allowed: listed("allowed"),
        },
        errno => CongestionError::Other {
            name: name.clone(),
            source: errno.into(),
        },
    })
}

/// Whether this process can use `name`.
pub fn try_out(name: &CongestionControl) -> Result<(), CongestionError> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    let socket = socket.map_err(|source| CongestionError::Other {
        name: name.clone(),
        source,
    })?;
    set(&socket, name)
}

/// The name of what `socket` uses, for messages.
pub(in crate::ssh) fn in_use(socket: &impl AsFd) -> String {
    match getsockopt(socket, sockopt::TcpCongestion) {
        Ok(name) => terminal_text::line(name.to_string_lossy().trim_end_matches('\0')),
        Err(errno) => format!("unknown ({errno})"),
    }
}

/// The kernel's list of what is available or allowed.
fn listed(which: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/tcp_{which}_congestion_control");
    match fs::read_to_string(&path) {
        Ok(text) => text.split_whitespace().collect::<Vec<_>>().join(", "),
        Err(_) => format!("those in {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> CongestionControl {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_asked_for_is_in_use() {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        set(&socket, &name("reno")).unwrap();
        assert_eq!(in_use(&socket), "reno");
        try_out(&name("reno")).unwrap();
    }

    #[test]
    fn what_the_kernel_has_not_is_an_error_with_what_it_has() {
        let error = try_out(&name("no_such")).unwrap_err().to_string();
        assert!(
            error.contains("no_such") && error.contains("reno"),
            "{error}"
        );
    }
}
