//! The audit log in the systemd journal, by its native protocol: one datagram per
//! record, with fields `NAME=value`; a value with line breaks is sent as `NAME`, its
//! length and its bytes. A record too large for a datagram is sent as a sealed memory
//! file (systemd, docs/JOURNAL_NATIVE_PROTOCOL.md).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde_json::Value;

use super::event::{Event, Record};

/// The socket at which journald accepts records.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// How long to wait for a busy journal. After one timeout there is no further wait until
/// the journal accepts a record.
const PATIENCE: Duration = Duration::from_millis(200);
/// The longest field name that journald accepts, in bytes.
const LONGEST_NAME: usize = 64;

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
    waits: bool,
}

impl Journal {
    /// `None` if there is no journal.
    pub fn open(path: &Path) -> Option<Self> {
        if !path.exists() {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Self {
            path: path.to_owned(),
            socket,
            waits: true,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends one record. Connects by path each time, since journald may have restarted.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let datagram = datagram(record)?;
        let sent = match self.socket.send_to(&datagram, &self.path) {
            Err(error) if is_too_long(&error) => self.send_file(&datagram),
            sent => sent.map(drop),
        };
        if sent.is_ok() != self.waits {
            self.waits = sent.is_ok();
            self.socket.set_nonblocking(!self.waits)?;
        }
        sent
    }

    /// Sends `fields` in a sealed memory file, as journald requires.
    fn send_file(&self, fields: &[u8]) -> io::Result<()> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"sshvpn-record", flags)?);
        file.write_all(fields)?;
        let seals = SealFlag::F_SEAL_SEAL
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_WRITE;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let journal = UnixAddr::new(&self.path)?;
        sendmsg(
            self.socket.as_raw_fd(),
            &[],
            &[ControlMessage::ScmRights(&[file.as_raw_fd()])],
            MsgFlags::MSG_NOSIGNAL,
            Some(&journal),
        )?;
        Ok(())
    }
}

/// Whether the kernel refused the datagram because of its length.
fn is_too_long(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMSGSIZE | Errno::ENOBUFS)
    )
}

fn datagram(record: &Record) -> io::Result<Vec<u8>> {
    let mut datagram = Vec::with_capacity(1024);
    push(&mut datagram, "MESSAGE", &record.event.to_string());
    push(&mut datagram, "PRIORITY", priority(&record.event));
    push(&mut datagram, "SYSLOG_IDENTIFIER", "sshvpn");
    if let Value::Object(members) = serde_json::to_value(record)? {
        for (name, value) in &members {
            push_value(&mut datagram, &format!("SSHVPN_{name}"), value);
        }
    }
    Ok(datagram)
}

/// The priority as in syslog(3).
fn priority(event: &Event) -> &'static str {
    const WARNING: &str = "4";
    const NOTICE: &str = "5";
    const INFO: &str = "6";
    match event {
        Event::RecordsLost { .. } => WARNING,
        Event::ConnectionRefused { .. }
        | Event::LoginDenied { .. }
        | Event::LoginFailed { .. }
        | Event::RequestRefused { .. }
        | Event::AccessWithdrawn { .. } => NOTICE,
        _ => INFO,
    }
}

/// Each member of an object becomes a field, and each item of a list a field with the
/// list's name; an object in a list becomes one field, as JSON.
fn push_value(datagram: &mut Vec<u8>, name: &str, value: &Value) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                push_value(datagram, &format!("{name}_{member}"), value);
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(_) => push(datagram, name, &item.to_string()),
                    other => push_value(datagram, name, other),
                }
            }
        }
        Value::Null => {}
        Value::String(text) => push(datagram, name, text),
        Value::Bool(_) | Value::Number(_) => push(datagram, name, &value.to_string()),
    }
}

fn push(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let name = name.bytes().take(LONGEST_NAME).map(|byte| match byte {
        b'a'..=b'z' => byte.to_ascii_uppercase(),
        b'A'..=b'Z' | b'0'..=b'9' => byte,
        _ => b'_',
    });
    datagram.extend(name);
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}
