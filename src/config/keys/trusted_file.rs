//! Reads files that grant rights, only if no other user can have written or placed them (sshd's
//! `StrictModes`).

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Uid;
use thiserror::Error;

/// The mode bits for writing by group and others (inode(7)).
pub(crate) const OTHERS_WRITE: u32 = 0o022;
/// The sticky bit of a directory: only an entry's owner may remove it (inode(7)).
pub(crate) const STICKY: u32 = 0o1000;

/// The limit of symbolic links in one path (path_resolution(7)).
pub(crate) const MOST_LINKS: usize = 40;

/// The reason why a file is not trusted.
#[derive(Debug, Error)]
pub enum TrustedFileError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Other users can write the file or one of its directories.
    #[error(
        "{path} must belong to {owner} and no other user may write to it (chown {owner} {path}; chmod go-w {path})",
        path = path.display()
    )]
    Unsafe {
        /// The file or the directory.
        path: PathBuf,
        /// The required owner.
        owner: String,
    },
    /// Other users can create entries in the directory of a file for appending.
    #[error(
        "other users can write to {}: put the file into a directory that only root or the server's user can write to",
        path.display()
    )]
    SharedDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The file exceeds the size limit.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
}

/// The trusted owners of files.
#[derive(Debug, Clone, Copy)]
pub struct TrustedOwners<'a>(pub &'a [Uid]);

impl TrustedOwners<'_> {
    /// Reads a file of at most `limit` bytes; `None` if it is missing from a trusted directory.
    pub fn read(self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TrustedFileError> {
        let Some(file) = self.open(path)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(unreadable(path))?;
        if content.len() as u64 > limit {
            let path = path.to_owned();
            return Err(TrustedFileError::TooLarge { path, limit });
        }
        Ok(Some(content))
    }

    /// Opens a file for reading; `None` if it is missing.
    pub fn open(self, path: &Path) -> Result<Option<File>, TrustedFileError> {
        let Some(real) = self.resolve(path)? else {
            return Ok(None);
        };
        // O_NONBLOCK: opening a pipe or a device does not block. O_NOFOLLOW: the path was resolved,
        // so a link there is new.
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(&real);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(unreadable(path))?,
        };
        let found = file.metadata().map_err(unreadable(path))?;
        if !found.is_file() {
            let error = io::Error::other("it is not a regular file");
            return Err(unreadable(path)(error));
        }
        self.require_safe(&real, &found, 0)?;
        Ok(Some(file))
    }

    /// Resolves the links of `path` and checks each directory on the way: a user who can write a
    /// directory can replace its entries. `None` if the path does not exist.
    fn resolve(self, path: &Path) -> Result<Option<PathBuf>, TrustedFileError> {
        let absolute = std::path::absolute(path).map_err(unreadable(path))?;
        let mut ahead: Vec<OsString> = reversed(&absolute);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            let directory = here.metadata().map_err(unreadable(path))?;
            let next = here.join(&name);
            let found = match next.symlink_metadata() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let entry = Entry::of(false, ahead.is_empty());
                    self.require_safe_directory(&here, &directory, entry)?;
                    return Ok(None);
                }
                Err(error) => return Err(unreadable(path)(error)),
            };
            let entry = Entry::of(found.is_symlink(), ahead.is_empty());
            self.require_safe_directory(&here, &directory, entry)?;
            if !found.is_symlink() {
                here = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(unreadable(path)(Errno::ELOOP.into()));
            }
            let target = next.read_link().map_err(unreadable(path))?;
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            ahead.extend(reversed(&target));
        }
        Ok(Some(here))
    }

    /// The file's own directory must belong to the owners; the others may belong to root too. In a
    /// sticky directory like /tmp other users cannot remove a directory, but could have placed a
    /// file or a link.
    fn require_safe_directory(
        self,
        directory: &Path,
        found: &Metadata,
        entry: Entry,
    ) -> Result<(), TrustedFileError> {
        let with_root: Vec<Uid> = [self.0, &[Uid::from_raw(0)]].concat();
        let with_root = TrustedOwners(&with_root);
        match entry {
            Entry::File => self.require_safe(directory, found, 0),
            Entry::Link => with_root.require_safe(directory, found, 0),
            Entry::Directory => with_root.require_safe(directory, found, STICKY),
        }
    }

    /// `excuse` is a mode bit that makes a writable directory acceptable.
    fn require_safe(
        self,
        path: &Path,
        found: &Metadata,
        excuse: u32,
    ) -> Result<(), TrustedFileError> {
        let owned = self.0.contains(&Uid::from_raw(found.uid()));
        let mode = found.mode();
        if owned && (mode & OTHERS_WRITE == 0 || mode & excuse != 0) {
            return Ok(());
        }
        Err(self.unsafe_path(path))
    }

    /// The error that `path` does not have the required owner or mode.
    pub(crate) fn unsafe_path(self, path: &Path) -> TrustedFileError {
        let owner = self.0.first().map_or(0, |owner| owner.as_raw());
        TrustedFileError::Unsafe {
            path: path.to_owned(),
            owner: match owner {
                0 => "root".to_owned(),
                other => other.to_string(),
            },
        }
    }
}

/// The kind of entry that a directory on the way is searched for.
#[derive(Debug, Clone, Copy)]
enum Entry {
    File,
    Link,
    Directory,
}

impl Entry {
    fn of(is_link: bool, is_last: bool) -> Self {
        match (is_link, is_last) {
            (true, _) => Entry::Link,
            (false, true) => Entry::File,
            (false, false) => Entry::Directory,
        }
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> TrustedFileError {
    let path = path.to_owned();
    move |source| TrustedFileError::Unreadable { path, source }
}

/// The path's components, the first one last.
pub(crate) fn reversed(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev();
    let names = parts.filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn read(path: &Path) -> Result<Option<Vec<u8>>, TrustedFileError> {
        TrustedOwners(&[Uid::effective()]).read(path, 8)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_far_above_counts_too() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let path = inner.join("file");
        fs::write(&path, "text").unwrap();
        assert_eq!(read(&path).unwrap(), Some(b"text".to_vec()));
        set_mode(directory.path(), 0o777);
        let error = read(&path).unwrap_err();
        assert!(matches!(error, TrustedFileError::Unsafe { .. }), "{error}");
        set_mode(directory.path(), 0o1777);
        assert!(read(&path).is_ok());
        // A file directly in such a directory could be another user's.
        assert!(read(&directory.path().join("none")).is_err());
    }

    #[test]
    fn a_link_is_judged_by_where_it_leads() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::write(open.join("file"), "text").unwrap();
        let link = directory.path().join("link");
        symlink(&open, &link).unwrap();
        assert!(read(&link.join("file")).is_ok());
        set_mode(&open, 0o777);
        assert!(read(&link.join("file")).is_err());
    }

    #[test]
    fn every_directory_on_the_way_through_links_counts() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["config", "middle", "keys"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("keys/file"), "text").unwrap();
        symlink("../keys/file", at("middle/link")).unwrap();
        symlink(at("middle/link"), at("config/file")).unwrap();
        let path = at("config/file");
        assert_eq!(read(&path).unwrap(), Some(b"text".to_vec()));
        for name in ["config", "middle", "keys"] {
            // The sticky bit does not help here.
            for mode in [0o775, 0o757, 0o1777] {
                set_mode(&at(name), mode);
                let error = read(&path).unwrap_err();
                let TrustedFileError::Unsafe { path, .. } = &error else {
                    panic!("{error}");
                };
                assert_eq!(*path, at(name).canonicalize().unwrap());
            }
            set_mode(&at(name), 0o755);
        }
        set_mode(&at("keys/file"), 0o664);
        assert!(read(&path).is_err());
        fs::remove_file(at("keys/file")).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        fs::remove_dir(at("keys")).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        symlink("keys", at("keys")).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("symbolic links"), "{error}");
    }

    #[test]
    fn what_is_no_file_or_too_large_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(read(&path).unwrap(), None);
        assert_eq!(read(&directory.path().join("no/file")).unwrap(), None);
        fs::write(&path, "123456789").unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            matches!(error, TrustedFileError::TooLarge { .. }),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("regular file"), "{error}");
    }
}
