//! Opens files for appending, and creates them, only in directories that other users cannot change:
//! a link there could lead the writer to any file of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{AccessFlags, Uid, faccessat};

use super::trusted_file::{
    MOST_LINKS, OTHERS_WRITE, STICKY, TrustedFileError, TrustedOwners, reversed,
};

/// Flags for opening a directory of the path; a symbolic link fails.
const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
/// Flags for opening the file. O_NONBLOCK: opening a pipe without a reader does not block.
const FILE: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

impl TrustedOwners<'_> {
    /// Opens a file for appending; creates it with mode 0600 if it is missing.
    ///
    /// Its directory must belong to the owners or root, and no other user may write to it. A
    /// directory further up may be group-writable (as /var/log on some systems) or sticky like
    /// /tmp, if the next component is not a link but a directory that no other user can write. Each
    /// directory stays open while the next is opened, so that none can be exchanged.
    pub fn append(self, path: &Path) -> io::Result<File> {
        self.open_last(path, OFlag::O_CREAT)
    }

    /// Fails if [`append`](Self::append) would; creates nothing.
    pub fn check_append(self, path: &Path) -> io::Result<()> {
        match self.open_last(path, OFlag::empty()) {
            Err(error) if is_missing_file(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    fn open_last(self, path: &Path, create: OFlag) -> io::Result<File> {
        let absolute = std::path::absolute(path)?;
        let mut ahead: Vec<OsString> = reversed(&absolute);
        let mut here = Directory::root()?;
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            let next = match ahead.is_empty() && name != ".." {
                true => {
                    self.require(&here, here.is_closed())?;
                    match here.open_file(&name, create) {
                        Ok(file) => return self.checked(file, &here.path.join(&name)),
                        Err(Errno::ENOENT) => return Err(here.without_file()),
                        Err(errno) => Err(errno),
                    }
                }
                false => here.open_directory(&name),
            };
            match next {
                Ok(next) => {
                    let allowed = here.is_closed() || here.is_shared() && next.is_closed();
                    self.require(&here, allowed)?;
                    self.require(&next, next.is_closed() || next.is_shared())?;
                    here = next;
                }
                // If it is not a directory, it may be a link.
                Err(errno @ (Errno::ELOOP | Errno::ENOTDIR)) => {
                    let target = readlinkat(&here.fd, name.as_os_str()).map_err(|_| errno)?;
                    self.require(&here, here.is_closed())?;
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    let target = PathBuf::from(target);
                    if target.is_absolute() {
                        here = Directory::root()?;
                    }
                    ahead.extend(reversed(&target));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Errno::EISDIR.into())
    }

    /// The directory must be `allowed`, and belong to a trusted owner or root.
    fn require(self, directory: &Directory, allowed: bool) -> io::Result<()> {
        let owner = directory.found.uid();
        match allowed && (owner == 0 || self.0.contains(&Uid::from_raw(owner))) {
            true => Ok(()),
            // No advice to change the mode: other programs may need it (/var/log is rsyslog's on
            // Ubuntu).
            false => Err(io::Error::other(TrustedFileError::SharedDirectory {
                path: directory.path.clone(),
            })),
        }
    }

    /// Accepts pipes and devices: writing to them changes no file.
    fn checked(self, file: File, path: &Path) -> io::Result<File> {
        let found = file.metadata()?;
        let owned = self.0.contains(&Uid::from_raw(found.uid()));
        match !found.is_file() || owned && found.mode() & OTHERS_WRITE == 0 {
            true => Ok(file),
            false => Err(io::Error::other(self.unsafe_path(path))),
        }
    }
}

/// The file alone is missing, and can be created.
#[derive(Debug, thiserror::Error)]
#[error("there is no such file")]
struct MissingFile;

fn is_missing_file(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<MissingFile>())
}

/// An open directory of the path.
struct Directory {
    fd: OwnedFd,
    found: Metadata,
    /// The path, for errors.
    path: PathBuf,
}

impl Directory {
    fn root() -> io::Result<Self> {
        let fd = open("/", DIRECTORY, Mode::empty())?;
        Ok(Self::of(fd, PathBuf::from("/"))?)
    }

    fn of(fd: OwnedFd, path: PathBuf) -> nix::Result<Self> {
        let file = File::from(fd);
        let found = file.metadata().map_err(|_| Errno::last())?;
        let fd = OwnedFd::from(file);
        Ok(Self { fd, found, path })
    }

    fn open_directory(&self, name: &OsStr) -> nix::Result<Self> {
        let fd = openat(&self.fd, name, DIRECTORY, Mode::empty())?;
        Self::of(fd, self.path.join(name))
    }

    /// Links in /proc are followed: they are the kernel's own and lead to open files (as
    /// /dev/stdout does).
    fn open_file(&self, name: &OsStr, create: OFlag) -> nix::Result<File> {
        let in_proc = fstatfs(&self.fd)?.filesystem_type() == PROC_SUPER_MAGIC;
        let flags = match in_proc {
            true => FILE,
            false => FILE.union(create).union(OFlag::O_NOFOLLOW),
        };
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        openat(&self.fd, name, flags, mode).map(File::from)
    }

    /// The error for a file that is missing here: whether it could be created.
    fn without_file(&self) -> io::Error {
        match faccessat(&self.fd, ".", AccessFlags::W_OK, AtFlags::AT_EACCESS) {
            Ok(()) => io::Error::new(io::ErrorKind::NotFound, MissingFile),
            Err(errno) => errno.into(),
        }
    }

    /// Whether only its owner can write it.
    fn is_closed(&self) -> bool {
        self.found.mode() & OTHERS_WRITE == 0
    }

    /// Whether it is at most group-writable, or sticky, so that users can remove only their own
    /// entries.
    fn is_shared(&self) -> bool {
        let mode = self.found.mode();
        mode & STICKY != 0 || mode & OTHERS_WRITE & 0o007 == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::unistd::geteuid;

    use super::*;

    fn append(path: &Path) -> io::Result<()> {
        TrustedOwners(&[geteuid()])
            .append(path)?
            .write_all(b"line\n")
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path, named: &Path) {
        let error = append(path).unwrap_err().to_string();
        let place = named.display();
        let of_directory =
            format!("other users can write to {place}: put the file into a directory");
        let of_file = format!("{place} must belong to ");
        assert!(
            error.starts_with(&of_directory) || error.starts_with(&of_file),
            "{error}"
        );
    }

    #[test]
    fn a_file_is_made_once_and_then_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        append(&path).unwrap();
        append(&directory.path().join("./x/../log")).unwrap_err();
        append(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\nline\n");
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        set_mode(&path, 0o620);
        refused(&path, &path);
        assert!(append(directory.path()).is_err(), "a directory");
        assert!(append(&directory.path().join("no/log")).is_err());
    }

    #[test]
    fn where_others_can_write_nothing_is_made_and_no_link_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("shared")).unwrap();
        fs::create_dir(at("shared/own")).unwrap();
        fs::write(at("secret"), "").unwrap();
        symlink(at("secret"), at("shared/link")).unwrap();
        symlink(directory.path(), at("shared/folder")).unwrap();
        append(&at("shared/link")).unwrap();
        append(&at("shared/folder/secret")).unwrap();
        for mode in [0o1777, 0o775] {
            set_mode(&at("shared"), mode);
            for name in ["shared/new", "shared/link", "shared/folder/secret"] {
                refused(&at(name), &at("shared"));
            }
            append(&at("shared/own/log")).unwrap();
            set_mode(&at("shared/own"), mode);
            refused(&at("shared/own/log"), &at("shared"));
            set_mode(&at("shared/own"), 0o755);
        }
        set_mode(&at("shared"), 0o777);
        refused(&at("shared/own/log"), &at("shared"));
        assert_eq!(fs::read_to_string(at("secret")).unwrap(), "line\nline\n");
        assert!(!at("shared/new").exists());
    }

    #[test]
    fn links_of_the_owners_are_followed_but_not_in_circles() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink("target", at("link")).unwrap();
        append(&at("link")).unwrap();
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "line\n");
        symlink("circle", at("circle")).unwrap();
        assert!(append(&at("circle")).is_err());
        append(Path::new("/dev/null")).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
        append(Path::new(&format!("/proc/self/fd/{number}"))).unwrap();
        drop(writer);
        assert_eq!(io::read_to_string(reader).unwrap(), "line\n");
    }

    #[test]
    fn a_directory_of_another_user_is_not_relied_on() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root has files of others");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("folder");
        fs::create_dir(&folder).unwrap();
        append(&folder.join("log")).unwrap();
        std::os::unix::fs::chown(&folder, Some(1000), None).unwrap();
        refused(&folder.join("log"), &folder);
    }
}
