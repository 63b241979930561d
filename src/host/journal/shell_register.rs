//! The register of shared settings that sshvpn's shell program keeps on a host for tunnels without
//! an agent at the server (hold.sh).
//!
//! A folder `held/SETTING` holds the value from before, in the journals' directory and under its
//! lock. The last holder of either kind restores the value, so each kind checks the other's
//! register.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::change::shared_setting::IPV6_INTERFACES;
use crate::host::change::sysctl::SysctlKey;
use crate::types::InterfaceName;

/// The shell programs' record of one setting.
pub(in crate::host) struct ShellRecord {
    folder: PathBuf,
}

impl ShellRecord {
    /// Finds the record of a setting that shell programs hold.
    pub(in crate::host) fn find(directory: &Path, key: &SysctlKey) -> Option<Self> {
        let folder = directory.join("held").join(key.as_str().replace('/', ","));
        // The shell program writes this file last: the others exist.
        folder.join("ours").exists().then_some(Self { folder })
    }

    /// The value from before, and the interfaces that had the wanted value then.
    pub(in crate::host) fn read(&self) -> io::Result<(String, Vec<InterfaceName>)> {
        let before = fs::read_to_string(self.folder.join("before"))?;
        let others = fs::read_to_string(self.folder.join("others"))?;
        let names = others.lines().filter_map(|path| {
            let interface = path.strip_prefix(IPV6_INTERFACES)?.strip_prefix('/')?;
            interface.strip_suffix("/forwarding")?.parse().ok()
        });
        Ok((before.trim_end().to_owned(), names.collect()))
    }

    /// Leaves it to the shell programs to restore the value from before.
    pub(in crate::host) fn hand_over(
        &self,
        before: &str,
        same_before: &[InterfaceName],
    ) -> io::Result<()> {
        let others = same_before
            .iter()
            .map(|interface| format!("{IPV6_INTERFACES}/{interface}/forwarding\n"));
        let written = fs::write(self.folder.join("others"), others.collect::<String>())
            .and_then(|()| fs::write(self.folder.join("before"), format!("{before}\n")));
        match written {
            // A server's own user: the shell programs have taken the value from its journal.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }
}
