//! The directory where running tunnels keep their journals: private to its
//! owner, opened once, and never left by a symbolic link.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::{self, Mode, SFlag};
use nix::unistd::{self, Uid, UnlinkatFlags};
use thiserror::Error;

/// Root's directory.
const SYSTEM: &str = "/run/sshvpn";

/// Why there is no place for a journal, or a file in it cannot be used.
#[derive(Debug, Error)]
pub enum RuntimeDirError {
    /// Cannot be made, opened or used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Somebody else could put files there.
    #[error(
        "{path} is not a private directory of this user: it has to be owned by uid {uid} with mode 0700, not by uid {owner} with mode {mode:04o}; fix that or remove it"
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Who we are.
        uid: u32,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
}

/// An open, private directory.
#[derive(Debug, Clone)]
pub struct RuntimeDir {
    path: PathBuf,
    directory: Arc<OwnedFd>,
}

impl RuntimeDir {
    /// The directory of this user: /run/sshvpn for root; else the session's
    /// runtime directory, /run/user/UID, or one in /tmp.
    ///
    /// `session` is the value of `XDG_RUNTIME_DIR`.
    pub fn of_user(session: Option<&OsStr>) -> Result<Self, RuntimeDirError> {
        let uid = Uid::effective();
        let system = Self::at(Path::new(SYSTEM));
        if uid.is_root() || system.is_ok() {
            return system;
        }
        let session = session.map(Path::new).filter(|path| path.is_absolute());
        let user = PathBuf::from(format!("/run/user/{uid}"));
        let first = [session, Some(user.as_path())]
            .into_iter()
            .flatten()
            .find_map(|parent| Self::at(&parent.join("sshvpn")).ok());
        match first {
            Some(directory) => Ok(directory),
            None => Self::at(Path::new(&format!("/tmp/sshvpn-{uid}"))),
        }
    }

    /// The directory at `path`, made with mode 0700 where there is none; its
    /// parent has to be there.
    pub fn at(path: &Path) -> Result<Self, RuntimeDirError> {
        let failed = |action| {
            move |errno: Errno| RuntimeDirError::Io {
                action,
                path: path.to_owned(),
                source: errno.into(),
            }
        };
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = loop {
            match unistd::mkdir(path, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed("make the directory")(errno)),
            }
            match fcntl::open(path, flags, Mode::empty()) {
                // The last tunnel that used it took it away in between.
                Err(Errno::ENOENT) => continue,
                opened => break opened.map_err(failed("open the directory"))?,
            }
        };
        let found = stat::fstat(&directory).map_err(failed("look at"))?;
        let (uid, mode) = (Uid::effective().as_raw(), found.st_mode & 0o7777);
        if found.st_uid != uid || mode & 0o077 != 0 {
            return Err(RuntimeDirError::NotPrivate {
                path: path.to_owned(),
                uid,
                owner: found.st_uid,
                mode,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            directory: Arc::new(directory),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory with its lock, made anew where the last tunnel that used it
    /// took it away meanwhile.
    pub(super) fn lock_linked(&self) -> Result<(Self, File), RuntimeDirError> {
        let mut directory = self.clone();
        loop {
            let lock = directory.lock()?;
            let found = stat::fstat(&lock)
                .map_err(|errno| directory.failed("look at", "", errno.into()))?;
            if found.st_nlink > 0 {
                return Ok((directory, lock));
            }
            directory = Self::at(&self.path)?;
        }
    }

    /// Removes the directory unless something is in it. Whoever waits for its
    /// lock makes another.
    pub fn remove_if_empty(&self) -> Result<(), RuntimeDirError> {
        let (directory, _lock) = self.lock_linked()?;
        match fs::remove_dir(&directory.path) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(directory.failed("remove", "", error))
            }
            _ => Ok(()),
        }
    }

    /// Keeps every other process from making, renewing or judging a journal
    /// here until the lock is dropped; the kernel drops it with the process.
    /// It is held for a few system calls only.
    pub(super) fn lock(&self) -> Result<File, RuntimeDirError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = fcntl::openat(&self.directory, ".", flags, Mode::empty())
            .map(File::from)
            .map_err(io::Error::from);
        let locked = directory.and_then(|directory| {
            loop {
                match directory.lock() {
                    Ok(()) => return Ok(directory),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        });
        locked.map_err(|source| self.failed("lock", "", source))
    }

    /// The names of the files here that end in `suffix`, sorted.
    pub(super) fn names(&self, suffix: &str) -> Result<Vec<String>, RuntimeDirError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            let entries = match fs::read_dir(&self.path) {
                // Taken away as empty.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
                other => other?,
            };
            for entry in entries {
                if let Ok(name) = entry?.file_name().into_string()
                    && name.ends_with(suffix)
                {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        };
        read().map_err(|source| self.failed("list", "", source))
    }

    /// Opens a regular file of this user for reading; none where there is no
    /// such file, or where it is a link or somebody else's.
    pub(super) fn open(&self, name: &str) -> Result<Option<File>, RuntimeDirError> {
        // O_NONBLOCK: a FIFO put here must not hang us.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match fcntl::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            Err(errno) => return Err(self.failed("open", name, errno.into())),
        };
        let found = stat::fstat(file.as_fd())
            .map_err(|errno| self.failed("look at", name, errno.into()))?;
        let regular = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        let ours = found.st_uid == Uid::effective().as_raw();
        Ok((regular && ours).then_some(file))
    }

    /// Makes a new file of mode 0600.
    pub(super) fn create(&self, name: &str) -> Result<File, RuntimeDirError> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        fcntl::openat(&self.directory, name, flags, mode)
            .map(File::from)
            .map_err(|errno| self.failed("make", name, errno.into()))
    }

    /// Whether something has that name, whatever it is.
    pub(super) fn has(&self, name: &str) -> bool {
        stat::fstatat(&self.directory, name, fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Gives a file another name, in place of what has it, and waits until
    /// the disk knows.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), RuntimeDirError> {
        fcntl::renameat(&self.directory, from, &self.directory, to)
            .and_then(|()| unistd::fsync(&self.directory))
            .map_err(|errno| self.failed("write", to, errno.into()))
    }

    /// Removes a file; one that is not there is fine.
    pub(super) fn remove(&self, name: &str) -> Result<(), RuntimeDirError> {
        match unistd::unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove", name, errno.into())),
        }
    }

    /// The error of something that was tried on `name`.
    pub(crate) fn failed(
        &self,
        action: &'static str,
        name: &str,
        source: io::Error,
    ) -> RuntimeDirError {
        RuntimeDirError::Io {
            action,
            path: self.path.join(name),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn is_made_private_and_refused_where_it_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("sshvpn");
        RuntimeDir::at(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = RuntimeDir::at(&path).unwrap_err();
        assert!(matches!(
            refused,
            RuntimeDirError::NotPrivate { mode: 0o755, .. }
        ));
    }

    #[test]
    fn one_that_was_taken_away_is_made_again_under_its_lock() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("sshvpn");
        let ours = RuntimeDir::at(&path).unwrap();
        let theirs = RuntimeDir::at(&path).unwrap();
        theirs.remove_if_empty().unwrap();
        assert!(!path.exists());
        let (made, lock) = ours.lock_linked().unwrap();
        made.create("a.json").unwrap();
        drop(lock);
        assert_eq!(made.names("").unwrap(), ["a.json"]);
        made.remove_if_empty().unwrap();
        assert!(path.join("a.json").exists(), "it is not empty");
    }

    #[test]
    fn one_that_comes_and_goes_is_no_error() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("sshvpn");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let directory = RuntimeDir::at(&path).unwrap();
                        assert!(directory.names("").unwrap().is_empty());
                        directory.remove_if_empty().unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn a_link_to_a_directory_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let (real, link) = (parent.path().join("real"), parent.path().join("link"));
        RuntimeDir::at(&real).unwrap();
        symlink(&real, &link).unwrap();
        assert!(RuntimeDir::at(&link).is_err());
    }

    #[test]
    fn only_regular_files_of_this_user_are_opened() {
        let parent = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::at(&parent.path().join("sshvpn")).unwrap();
        directory.create("real").unwrap();
        symlink(directory.path().join("real"), directory.path().join("link")).unwrap();
        unistd::mkfifo(&directory.path().join("fifo"), Mode::S_IRWXU).unwrap();
        fs::write(directory.path().join("foreign"), "").unwrap();
        std::os::unix::fs::chown(directory.path().join("foreign"), Some(65534), None).unwrap();
        assert!(directory.open("real").unwrap().is_some());
        for name in ["link", "fifo", "foreign", "absent"] {
            assert!(directory.open(name).unwrap().is_none(), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_taken_is_not_written_over() {
        let parent = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::at(&parent.path().join("sshvpn")).unwrap();
        directory.create("a").unwrap();
        assert!(directory.create("a").is_err());
        assert!(directory.has("a"));
        directory.remove("a").unwrap();
        directory.remove("a").unwrap();
        assert!(!directory.has("a"));
    }
}
