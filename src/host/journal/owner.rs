//! Identifies the process that made changes: number, start time, boot and network namespace.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process;

use serde::{Deserialize, Serialize};

/// The kernel's identifier of the running boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The network namespace of the calling thread (namespaces(7)), not of the process: its netlink
/// socket and its /proc/sys/net belong to that one.
const NETWORK_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The process that made the changes in a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Process number.
    pub pid: u32,
    /// When that process started, in clock ticks since the boot; distinguishes it from a later
    /// process with the same number.
    pub start_time: u64,
    /// The boot in which it ran.
    pub boot_id: String,
    /// The inode of its network namespace.
    pub network_namespace: u64,
}

impl Owner {
    /// This process, in the network namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        let pid = process::id();
        let start_time = start_time(pid)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat is unreadable")
        })?;
        Ok(Self {
            pid,
            start_time,
            boot_id: fs::read_to_string(BOOT_ID)?.trim().to_owned(),
            network_namespace: network_namespace()?,
        })
    }

    /// Whether both were in one network namespace of one boot.
    pub fn shares_namespace(&self, other: &Owner) -> bool {
        self.boot_id == other.boot_id && self.network_namespace == other.network_namespace
    }

    /// Whether that process still runs.
    pub fn is_running(&self) -> bool {
        matches!(start_time(self.pid), Ok(Some(time)) if time == self.start_time)
            && fs::read_to_string(BOOT_ID).is_ok_and(|boot| boot.trim() == self.boot_id)
    }
}

/// The inode of the network namespace of the calling thread.
pub fn network_namespace() -> io::Result<u64> {
    Ok(fs::metadata(NETWORK_NAMESPACE)?.ino())
}

/// Field 22 of /proc/PID/stat (proc(5)); `None` if the format is unknown.
pub(in crate::host) fn start_time(pid: u32) -> io::Result<Option<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(start_time_in(&stat))
}

/// The command in field 2 may contain spaces and brackets, so counting starts after the last
/// bracket.
fn start_time_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_mislead() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b (c) S {}", fields.join(" "));
        assert_eq!(start_time_in(&stat), Some(22));
        assert_eq!(start_time_in("7 (sh) S 1 2"), None);
        assert_eq!(start_time_in(""), None);
    }

    #[test]
    fn this_process_runs_and_one_of_another_time_does_not() {
        let owner = Owner::current().unwrap();
        assert!(owner.is_running());
        let earlier = Owner {
            start_time: owner.start_time + 1,
            ..owner.clone()
        };
        assert!(!earlier.is_running());
        let other_boot = Owner {
            boot_id: "another".to_owned(),
            ..owner
        };
        assert!(!other_boot.is_running());
    }
}
