//! The directory of the journals of running tunnels: private to its owner, opened once, without
//! following symbolic links.
//!
//! If a server runs as a user of its own, root's directory has a part that belongs to that user,
//! and the user's group may read the rest:
//!
//! ```text
//!   /run/sshvpn         root:GROUP 0750   root's journals; the lock of both parts
//!   /run/sshvpn/server  USER:GROUP 0755   the server's
//! ```
//!
//! Each of the two users reads the journals of both parts and undoes only its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::{self, Mode, SFlag};
use nix::unistd::{self, Gid, Uid, UnlinkatFlags};
use thiserror::Error;

/// Root's directory.
const SYSTEM: &str = "/run/sshvpn";
/// Root's directory where /run is read-only; it too loses its files when the host restarts.
const SPARE: &str = "/dev/shm/sshvpn";

/// The reason why no journal can be kept, or a file of the directory cannot be used.
#[derive(Debug, Error)]
pub enum RuntimeDirError {
    /// The directory or a file cannot be made, opened or used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The attempted action.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Another user could create files in the directory.
    #[error(
        "{path} is not a private directory of this user: it must be owned by uid {uid} with mode 0700, not by uid {owner} with mode {mode:04o}; fix that or remove it"
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// The user of this process.
        uid: u32,
        /// The directory's owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
}

impl RuntimeDirError {
    /// Whether the file system is read-only.
    fn is_read_only(&self) -> bool {
        matches!(self, RuntimeDirError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem)
    }
}

/// The part of root's directory that belongs to a server's user.
const SERVERS_PART: &str = "server";
/// The mode of root's directory that has such a part.
const WITH_PART: u32 = 0o750;
/// The mode of that part; root's directory keeps other users out of it.
const PART: u32 = 0o755;

/// An open directory of this user, and the directory whose lock it uses.
#[derive(Debug, Clone)]
pub struct RuntimeDir {
    path: PathBuf,
    directory: Arc<OwnedFd>,
    /// Root's directory, if this is a server's part of it.
    whole: Option<Arc<OwnedFd>>,
    /// Whether users who can enter the directory may read the files.
    readable: bool,
}

impl RuntimeDir {
    /// The directory of this user: /run/sshvpn for root; else the session's
    /// runtime directory, /run/user/UID, or one in /tmp.
    ///
    /// `session` is the value of `XDG_RUNTIME_DIR`.
    pub fn of_user(session: Option<&OsStr>) -> Result<Self, RuntimeDirError> {
        let uid = Uid::effective();
        let system = Self::at(Path::new(SYSTEM));
        if let (false, Some(part)) = (uid.is_root(), Self::part_of(Path::new(SYSTEM))) {
            return Ok(part);
        }
        if uid.is_root() {
            return system.or_else(|error| match error.is_read_only() {
                true => Self::at(Path::new(SPARE)).map_err(|_| error),
                false => Err(error),
            });
        }
        if system.is_ok() {
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

    /// For root: the directory that a process used while /run was read-only, if this is another one.
    pub fn spare(&self) -> Option<Self> {
        let spare = Path::new(SPARE);
        let left = Uid::effective().is_root() && self.path != spare && spare.exists();
        left.then(|| Self::at(spare).ok()).flatten()
    }

    /// Makes the part of root's directory for a server's user, and lets the user's group read the
    /// rest; makes missing directories. For root only.
    pub fn share_with(uid: Uid, gid: Gid) -> Result<(), RuntimeDirError> {
        Self::share_at(Path::new(SYSTEM), uid, gid)
    }

    fn share_at(path: &Path, uid: Uid, gid: Gid) -> Result<(), RuntimeDirError> {
        let whole = Self::at(path)?;
        let (whole, _lock) = whole.lock_linked()?;
        let share = || -> nix::Result<()> {
            match stat::mkdirat(&whole.directory, SERVERS_PART, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            let part = open_directory(&whole.directory, SERVERS_PART)?;
            unistd::fchown(&part, Some(uid), Some(gid))?;
            stat::fchmod(&part, Mode::from_bits_retain(PART))?;
            unistd::fchown(&whole.directory, None, Some(gid))?;
            stat::fchmod(&whole.directory, Mode::from_bits_retain(WITH_PART))
        };
        share().map_err(|errno| whole.failed("share", "", errno.into()))
    }

    /// This user's part of root's directory at `path`, if there is one.
    fn part_of(path: &Path) -> Option<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let whole = fcntl::open(path, flags, Mode::empty()).ok()?;
        let found = stat::fstat(&whole).ok()?;
        let part = open_directory(&whole, SERVERS_PART).ok()?;
        let ours = stat::fstat(&part).ok()?;
        let roots = found.st_uid == 0 && found.st_mode & 0o027 == 0;
        let private = ours.st_uid == Uid::effective().as_raw() && ours.st_mode & 0o022 == 0;
        (roots && private).then(|| Self {
            path: path.join(SERVERS_PART),
            directory: Arc::new(part),
            whole: Some(Arc::new(whole)),
            readable: true,
        })
    }

    /// The other user's directory, for reading: root's for a server's user, that user's for root.
    pub(in crate::host) fn other_side(&self) -> Option<Self> {
        let (path, directory) = match &self.whole {
            Some(whole) => (self.path.parent()?.to_owned(), Arc::clone(whole)),
            None if self.readable => {
                let part = open_directory(&self.directory, SERVERS_PART).ok()?;
                (self.path.join(SERVERS_PART), Arc::new(part))
            }
            None => return None,
        };
        Some(Self {
            path,
            directory,
            whole: None,
            readable: false,
        })
    }

    /// The path of root's directory if this is a part of it; else the path of this one.
    pub(in crate::host) fn whole_path(&self) -> &Path {
        let whole = self.path.parent().filter(|_| self.whole.is_some());
        whole.unwrap_or(&self.path)
    }

    /// Whether this is the part that root made for a server's user.
    pub fn is_servers_part(&self) -> bool {
        self.whole.is_some()
    }

    /// For root: the server's user that has a part of this directory.
    pub fn servers_user(&self) -> Option<Uid> {
        let part = self.other_side().filter(|_| self.whole.is_none())?;
        let found = stat::fstat(&part.directory).ok()?;
        Some(Uid::from_raw(found.st_uid))
    }

    /// The directory at `path`, made with mode 0700 if it is missing; its parent must exist.
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
                // The last tunnel that used it removed it meanwhile.
                Err(Errno::ENOENT) => continue,
                opened => break opened.map_err(failed("open the directory"))?,
            }
        };
        let found = stat::fstat(&directory).map_err(failed("examine"))?;
        let (uid, mode) = (Uid::effective().as_raw(), found.st_mode & 0o7777);
        let with_part = uid == 0 && mode == WITH_PART;
        if found.st_uid != uid || mode & 0o077 != 0 && !with_part {
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
            whole: None,
            readable: with_part,
        })
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the directory; makes it again if the last tunnel that used it removed it meanwhile.
    pub(in crate::host) fn lock_linked(&self) -> Result<(Self, File), RuntimeDirError> {
        let mut directory = self.clone();
        loop {
            let lock = directory.lock()?;
            let found = stat::fstat(&lock)
                .map_err(|errno| directory.failed("examine", "", errno.into()))?;
            if found.st_nlink > 0 {
                return Ok((directory, lock));
            }
            directory = Self::at(&self.path)?;
        }
    }

    /// Removes the directory if it is empty. A process that waits for its lock makes another. A
    /// server's part stays, and root's directory with it.
    pub fn remove_if_empty(&self) -> Result<(), RuntimeDirError> {
        if self.whole.is_some() {
            return Ok(());
        }
        let (directory, _lock) = self.lock_linked()?;
        match fs::remove_dir(&directory.path) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(directory.failed("remove", "", error))
            }
            _ => Ok(()),
        }
    }

    /// Locks the directory: until the lock is dropped, no other process creates, renews or reads a
    /// journal here. The kernel releases the lock with the process. Hold it for a few system calls
    /// only.
    pub(in crate::host) fn lock(&self) -> Result<File, RuntimeDirError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let whole = self.whole.as_ref().unwrap_or(&self.directory);
        let directory = fcntl::openat(whole, ".", flags, Mode::empty())
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
    pub(in crate::host) fn names(&self, suffix: &str) -> Result<Vec<String>, RuntimeDirError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            let entries = match fs::read_dir(&self.path) {
                // The directory was removed because it was empty.
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

    /// Opens a regular file of this user for reading; `None` if it is missing, a link, or another
    /// user's.
    pub(in crate::host) fn open(&self, name: &str) -> Result<Option<File>, RuntimeDirError> {
        let opened = self.look_at(name)?;
        Ok(opened.and_then(|(file, owner)| (owner == Uid::effective()).then_some(file)))
    }

    /// Opens a regular file of any user for reading, not for undoing; also returns its owner.
    pub(in crate::host) fn look_at(
        &self,
        name: &str,
    ) -> Result<Option<(File, Uid)>, RuntimeDirError> {
        // O_NONBLOCK: opening a FIFO must not block.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match fcntl::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            Err(errno) => return Err(self.failed("open", name, errno.into())),
        };
        let found = stat::fstat(file.as_fd())
            .map_err(|errno| self.failed("examine", name, errno.into()))?;
        let regular = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        Ok(regular.then(|| (file, Uid::from_raw(found.st_uid))))
    }

    /// Makes a new file of mode 0600; 0644 if the other user has to read it.
    pub(in crate::host) fn create(&self, name: &str) -> Result<File, RuntimeDirError> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let made = fcntl::openat(&self.directory, name, flags, mode).and_then(|file| {
            if self.readable {
                // Independent of the umask.
                stat::fchmod(&file, mode | Mode::S_IRGRP | Mode::S_IROTH)?;
            }
            Ok(File::from(file))
        });
        made.map_err(|errno| self.failed("make", name, errno.into()))
    }

    /// Whether a file of any type has that name.
    pub(in crate::host) fn has(&self, name: &str) -> bool {
        stat::fstatat(&self.directory, name, fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Renames a file, replaces an existing one, and syncs the directory to the disk.
    pub(in crate::host) fn rename(&self, from: &str, to: &str) -> Result<(), RuntimeDirError> {
        fcntl::renameat(&self.directory, from, &self.directory, to)
            .and_then(|()| unistd::fsync(&self.directory))
            .map_err(|errno| self.failed("write", to, errno.into()))
    }

    /// Removes a file; a missing file is not an error.
    pub(in crate::host) fn remove(&self, name: &str) -> Result<(), RuntimeDirError> {
        match unistd::unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove", name, errno.into())),
        }
    }

    /// The error of an action on `name`.
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

/// Opens a directory by its name in `directory`.
fn open_directory(directory: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    fcntl::openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_servers_part_is_looked_at_and_left_alone() {
        if !Uid::effective().is_root() {
            eprintln!("skipped: only root shares its directory");
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("sshvpn");
        let (uid, gid) = (Uid::from_raw(4321), Gid::from_raw(4322));
        let private = RuntimeDir::at(&path).unwrap();
        assert!(private.other_side().is_none() && private.servers_user().is_none());
        for _ in 0..2 {
            RuntimeDir::share_at(&path, uid, gid).unwrap();
        }
        let whole = RuntimeDir::at(&path).unwrap();
        let seen = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777)
        };
        assert_eq!(seen(&path), (0, 4322, WITH_PART));
        assert_eq!(seen(&path.join(SERVERS_PART)), (4321, 4322, PART));
        assert_eq!(whole.servers_user(), Some(uid));
        whole.create("a.json").unwrap();
        assert_eq!(seen(&path.join("a.json")).2, 0o644);
        // Root sees the server's files, but does not open them for undoing.
        let theirs = path.join(SERVERS_PART).join("b.json");
        fs::write(&theirs, "").unwrap();
        std::os::unix::fs::chown(&theirs, Some(4321), None).unwrap();
        let other = whole.other_side().unwrap();
        assert_eq!(other.names(".json").unwrap(), ["b.json"]);
        assert!(other.open("b.json").unwrap().is_none());
        assert_eq!(other.look_at("b.json").unwrap().unwrap().1, uid);
        symlink("/etc/passwd", path.join(SERVERS_PART).join("c.json")).unwrap();
        assert!(other.look_at("c.json").unwrap().is_none());
        whole.remove("a.json").unwrap();
        whole.remove_if_empty().unwrap();
        assert!(path.exists());
        // This process does not run as that user.
        assert!(RuntimeDir::part_of(&path).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(RuntimeDir::at(&path).is_err());
    }

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
