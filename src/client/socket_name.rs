//! Unix sockets that this process listens at, made and removed as the invoker.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;

use crate::config::invoker::Invoker;

/// The name of a socket; removed when this is dropped, also where the task that serves the socket
/// ends later.
pub(super) struct SocketName {
    path: PathBuf,
    invoker: Invoker,
}

/// Listens at `path`, with the file mode bits of `mask` cleared. A socket for which `replace` says
/// so is replaced; any other file stays, and is an error.
pub(super) fn listen(
    path: &Path,
    mask: u32,
    replace: impl Fn(&Path) -> bool + Send + Sync,
    invoker: &Invoker,
) -> io::Result<(UnixListener, SocketName)> {
    let mask = Mode::from_bits_truncate(mask);
    let listener = invoker.act(|| {
        let found = std::fs::symlink_metadata(path);
        if found.is_ok_and(|file| file.file_type().is_socket()) && replace(path) {
            std::fs::remove_file(path)?;
        }
        let before = umask(mask);
        let listener = StdUnixListener::bind(path);
        umask(before);
        listener
    })?;
    listener.set_nonblocking(true)?;
    let name = SocketName {
        path: path.to_owned(),
        invoker: invoker.clone(),
    };
    Ok((UnixListener::from_std(listener)?, name))
}

impl Drop for SocketName {
    fn drop(&mut self) {
        // A name that the invoker cannot remove stays.
        let _ = self.invoker.act(|| std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ssh::test_settings::invoker;

    #[tokio::test]
    async fn a_socket_has_the_mask_and_is_replaced_only_if_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listen = |replace: bool| super::listen(&path, 0o177, |_| replace, &invoker());
        let (_listener, name) = listen(false).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(listen(false).is_err());
        let (_other, other_name) = listen(true).unwrap();
        drop((name, other_name));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn no_other_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "secret").unwrap();
        assert!(listen(&path, 0o177, |_| true, &invoker()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret");
    }
}
