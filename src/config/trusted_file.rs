//! Files that decide what others may do: read only if nobody else can have
//! written them or put them there, as sshd's `StrictModes` has it.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::Uid;
use thiserror::Error;

/// The bits of a mode by which others than the owner may write (inode(7)).
const OTHERS_WRITE: u32 = 0o022;
/// Only the owner of an entry may remove it from the directory (inode(7)).
const STICKY: u32 = 0o1000;

/// Why a file cannot be relied on.
#[derive(Debug, Error)]
pub enum TrustedFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Others can write it, or a directory that it is in.
    #[error(
        "{path} has to belong to {owner} and be writable by nobody else (chown {owner} {path}; chmod go-w {path})",
        path = path.display()
    )]
    Unsafe {
        /// The file or the directory.
        path: PathBuf,
        /// Whose it has to be.
        owner: String,
    },
    /// Larger than any such file.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
}

/// Whose files are relied on.
#[derive(Debug, Clone, Copy)]
pub struct TrustedOwners<'a>(pub &'a [Uid]);

impl TrustedOwners<'_> {
    /// Reads a file of up to `limit` bytes; `None` where there is none, in a
    /// directory that may be relied on.
    pub fn read(self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TrustedFileError> {
        let unreadable = |source| TrustedFileError::Unreadable {
            path: path.to_owned(),
            source,
        };
        self.require_safe_directories(path)?;
        // A pipe or a device is not waited for.
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(unreadable)?,
        };
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() {
            return Err(unreadable(io::Error::other("it is not a regular file")));
        }
        self.require_safe(path, &found, 0)?;
        let mut content = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(unreadable)?;
        if content.len() as u64 > limit {
            let path = path.to_owned();
            return Err(TrustedFileError::TooLarge { path, limit });
        }
        Ok(Some(content))
    }

    /// Who can write a directory could take away what is in it. The one that the
    /// file is in has to belong to the owners, those above may be root's too;
    /// and in one like /tmp nobody can take away what is not theirs.
    fn require_safe_directories(self, path: &Path) -> Result<(), TrustedFileError> {
        let parent = match path.parent() {
            Some(parent) if parent == Path::new("") => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        // One that is not there, or not for us to see, says so when the file is opened.
        let Ok(parent) = parent.canonicalize() else {
            return Ok(());
        };
        for (height, directory) in parent.ancestors().enumerate() {
            let Ok(found) = directory.metadata() else {
                continue;
            };
            if height == 0 {
                self.require_safe(directory, &found, 0)?;
                continue;
            }
            let with_root: Vec<Uid> = [self.0, &[Uid::from_raw(0)]].concat();
            TrustedOwners(&with_root).require_safe(directory, &found, STICKY)?;
        }
        Ok(())
    }

    /// `excuse` is a bit of the mode with which it does not matter who may write.
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
        let owner = self.0.first().map_or(0, |owner| owner.as_raw());
        Err(TrustedFileError::Unsafe {
            path: path.to_owned(),
            owner: match owner {
                0 => "root".to_owned(),
                other => other.to_string(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

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
        // A file straight in such a directory could be one that somebody put there.
        assert!(read(&directory.path().join("none")).is_err());
    }

    #[test]
    fn a_link_is_judged_by_where_it_leads() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::write(open.join("file"), "text").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(read(&link.join("file")).is_ok());
        set_mode(&open, 0o777);
        assert!(read(&link.join("file")).is_err());
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
