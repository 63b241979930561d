//! The other register of shared settings on a host: the one that sshvpn's shell
//! program keeps there for tunnels whose remote end is no agent
//! (src/session/far_end/hold.sh). A folder `held/SETTING` with the value from
//! before, in the journals' directory and under its lock. Whoever of both kinds
//! lets go last has to give the value back, so each looks at the other's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::change::shared_setting::IPV6_INTERFACES;
use crate::host::change::sysctl::SysctlKey;
use crate::types::InterfaceName;

/// The record of one setting.
pub(in crate::host) struct ShellRecord {
    folder: PathBuf,
}

impl ShellRecord {
    /// The record of a setting that shell programs hold, if they do.
    pub(in crate::host) fn find(directory: &Path, key: &SysctlKey) -> Option<Self> {
        let folder = directory.join("held").join(key.as_str().replace('/', ","));
        // Written last: the others are there.
        folder.join("ours").exists().then_some(Self { folder })
    }

    /// The value from before, and the interfaces that stood on the wanted value then.
    pub(in crate::host) fn read(&self) -> io::Result<(String, Vec<InterfaceName>)> {
        let before = fs::read_to_string(self.folder.join("before"))?;
        let others = fs::read_to_string(self.folder.join("others"))?;
        let names = others.lines().filter_map(|path| {
            let interface = path.strip_prefix(IPV6_INTERFACES)?.strip_prefix('/')?;
            interface.strip_suffix("/forwarding")?.parse().ok()
        });
        Ok((before.trim_end().to_owned(), names.collect()))
    }

    /// Leaves it to the shell programs to give back what was before.
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
            // A server's own user: the shell programs have taken the value from its
            // journal.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }
}
