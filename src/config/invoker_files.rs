//! Files opened with the invoker's permissions: a sudo rule that allows sshvpn
//! is not to be one that allows reading root's keys and files.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

use super::invoker::Invoker;

impl Invoker {
    /// Opens `path` for reading, as the invoker could. Under sudo, groups other
    /// than the invoker's first one do not count.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        if !self.via_sudo {
            return File::open(path);
        }
        let file = {
            let _as_invoker = FileSystemIds::assume(self.uid, self.gid);
            File::open(path)?
        };
        // The process still is in root's groups; those are not the invoker's.
        let found = file.metadata()?;
        let own = found.uid() == self.uid.as_raw() || found.gid() == self.gid.as_raw();
        if own || found.mode() & 0o004 != 0 {
            Ok(file)
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

/// While it lives, the kernel checks this thread's access to files as if it
/// were someone else's (setfsuid(2)), without root's capabilities.
struct FileSystemIds;

impl FileSystemIds {
    fn assume(uid: Uid, gid: Gid) -> Self {
        setfsgid(gid);
        setfsuid(uid);
        Self
    }
}

impl Drop for FileSystemIds {
    fn drop(&mut self) {
        setfsuid(geteuid());
        setfsgid(getegid());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;
    use crate::config::ssh_tokens::tests::alice;

    #[test]
    fn under_sudo_only_what_the_invoker_may_read() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root runs on behalf of someone else");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let invoker = alice();
        let (uid, gid) = (invoker.uid.as_raw(), invoker.gid.as_raw());
        for (index, (owner, group, mode, readable)) in [
            (uid, gid, 0o600, true),
            (0, gid, 0o640, true),
            (0, 0, 0o644, true),
            (0, 0, 0o600, false),
            (0, 0, 0o640, false),
            (uid, gid, 0o040, false),
        ]
        .into_iter()
        .enumerate()
        {
            let file = directory.path().join(index.to_string());
            fs::write(&file, "x").unwrap();
            chown(&file, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(invoker.open(&file).is_ok(), readable, "{index}");
            // Afterwards the process is root again.
            assert!(File::open(&file).is_ok());
        }
    }
}
