//! The file that remembers which key had which address, so that the key gets it again
//! after a restart. JSON, replaced as a whole.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::lease_key::LeaseKey;

/// The version of the format.
const VERSION: u32 = 1;
/// Size limit of the file, in bytes; a larger one was not written by this program.
const SIZE_LIMIT: u64 = 16 << 20;

/// An address and its last holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct Remembered {
    pub(in crate::server) address: IpAddr,
    pub(in crate::server) key: LeaseKey,
}

/// The contents of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    /// In the order of use; the latest is the last.
    leases: Vec<Remembered>,
}

/// Reads the file; a missing file counts as empty.
pub(in crate::server) fn read(path: &Path) -> io::Result<Vec<Remembered>> {
    // O_NONBLOCK: a FIFO put here must not hang us.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut text = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(io::Error::other(format!(
            "it is larger than {SIZE_LIMIT} bytes"
        )));
    }
    let document: Document = serde_json::from_slice(&text)?;
    match document.version {
        VERSION => Ok(document.leases),
        other => Err(io::Error::other(format!(
            "its format has version {other}, this program knows {VERSION}"
        ))),
    }
}

/// Writes a temporary file, syncs it and renames it. Only this user can read the file,
/// and the directory if it is created here.
pub(in crate::server) fn write(path: &Path, leases: Vec<Remembered>) -> io::Result<()> {
    let document = Document {
        version: VERSION,
        leases,
    };
    let mut text = serde_json::to_vec(&document)?;
    text.push(b'\n');
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let unfinished = beside(path, ".new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

/// Renames a file that cannot be used, and returns the new name.
pub(in crate::server) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, ".broken");
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn leases() -> Vec<Remembered> {
        ["10.0.0.2", "fd00::2"]
            .map(|address| Remembered {
                address: address.parse().unwrap(),
                key: LeaseKey::from_text("SHA256:a \"key\"\n"),
            })
            .to_vec()
    }

    #[test]
    fn what_was_written_is_read_back_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/leases.json");
        assert!(read(&path).unwrap().is_empty());
        write(&path, leases()).unwrap();
        write(&path, leases()).unwrap();
        assert_eq!(read(&path).unwrap(), leases());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_such_file_is_an_error_and_can_be_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.json");
        for broken in [
            "",
            "{",
            "[]",
            r#"{"version":2,"leases":[]}"#,
            r#"{"version":1,"leases":[{"address":"10.0.0.256","key":"a"}]}"#,
            r#"{"version":1,"leases":[],"more":1}"#,
        ] {
            fs::write(&path, broken).unwrap();
            assert!(read(&path).is_err(), "{broken}");
        }
        let aside = set_aside(&path).unwrap();
        assert!(aside.exists() && read(&path).unwrap().is_empty());
        symlink(&aside, &path).unwrap();
        assert!(read(&path).is_err(), "a link is not followed");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&path).is_err(), "a pipe without a writer is refused");
    }
}
