//! Removes a pushed program as soon as it runs, after checks that the file is its own, in a folder
//! made for it alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};
use thiserror::Error;

use super::login_of_sudo;

/// The prefix of the folder's name; mktemp(1) adds the rest.
pub const FOLDER_PREFIX: &str = "sshvpn-push.";

/// Why the program was not removed.
#[derive(Debug, Error)]
pub enum RemoveSelfError {
    /// It is not in a folder made by a push.
    #[error("{0} is not in a private folder named {FOLDER_PREFIX}…: not removed")]
    NotPushed(PathBuf),
    /// It cannot be removed.
    #[error("cannot remove {path}: {source}")]
    Io {
        /// The program or its folder.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Removes the running program and its folder.
pub fn remove_self() -> Result<(), RemoveSelfError> {
    let program = std::env::current_exe().map_err(|source| RemoveSelfError::Io {
        path: PathBuf::from("/proc/self/exe"),
        source,
    })?;
    // Under sudo the folder may belong to the login.
    remove(
        &program,
        &[Some(Uid::effective().as_raw()), login_of_sudo()],
    )
}

/// `owners` are the user ids that may own the folder.
fn remove(program: &Path, owners: &[Option<u32>]) -> Result<(), RemoveSelfError> {
    let not_pushed = || RemoveSelfError::NotPushed(program.to_owned());
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RemoveSelfError::Io { path, source }
    };
    let folder = program.parent().ok_or_else(not_pushed)?;
    let file_name = program.file_name().ok_or_else(not_pushed)?;
    let named = folder
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix(FOLDER_PREFIX))
        .is_some_and(|rest| rest.len() >= 6 && rest.chars().all(|c| c.is_ascii_alphanumeric()));
    if !named {
        return Err(not_pushed());
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(folder)
        .map_err(failed(folder))?;
    let found = opened.metadata().map_err(failed(folder))?;
    if found.mode() & 0o7777 != 0o700 || !owners.contains(&Some(found.uid())) {
        return Err(not_pushed());
    }
    unlinkat(&opened, file_name, UnlinkatFlags::NoRemoveDir)
        .map_err(|errno| failed(program)(errno.into()))?;
    // The kernel removes only an empty folder.
    fs::remove_dir(folder).map_err(failed(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Pushed {
        parent: tempfile::TempDir,
        program: PathBuf,
    }

    fn pushed(folder: &str, mode: u32) -> Pushed {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(folder);
        fs::create_dir(&folder).unwrap();
        let program = folder.join("sshvpn");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        Pushed { parent, program }
    }

    fn us() -> Option<u32> {
        Some(Uid::effective().as_raw())
    }

    #[test]
    fn a_pushed_program_goes_with_its_folder() {
        let Pushed { parent, program } = pushed("sshvpn-push.aB3xYz", 0o700);
        remove(&program, &[us()]).unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn any_other_stays() {
        for (folder, mode, owner) in [
            ("bin", 0o700, us()),
            ("sshvpn-push.", 0o700, us()),
            ("sshvpn-push.a.b.cd", 0o700, us()),
            ("sshvpn-push.aB3xYz", 0o755, us()),
            ("sshvpn-push.aB3xYz", 0o1700, us()),
            ("sshvpn-push.aB3xYz", 0o700, us().map(|uid| uid + 1)),
            ("sshvpn-push.aB3xYz", 0o700, None),
        ] {
            let pushed = pushed(folder, mode);
            let error = remove(&pushed.program, &[owner, None]).unwrap_err();
            assert!(matches!(error, RemoveSelfError::NotPushed(_)), "{error}");
            assert!(pushed.program.exists());
        }
    }

    #[test]
    fn a_link_is_not_followed_and_other_files_stay() {
        let real = pushed("sshvpn-push.aB3xYz", 0o700);
        let link = real.parent.path().join("sshvpn-push.linked");
        symlink(real.program.parent().unwrap(), &link).unwrap();
        assert!(remove(&link.join("sshvpn"), &[us()]).is_err());
        assert!(real.program.exists());
        let other = real.program.with_file_name("other");
        fs::write(&other, "").unwrap();
        assert!(remove(&real.program, &[us()]).is_err());
        assert!(!real.program.exists() && other.exists());
    }
}
