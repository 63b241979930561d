//! Opens files and sockets as the invoker: a sudo rule that allows sshvpn must not allow access to
//! root's or another user's files.
//!
//! Every path that the user of `up` or `-w` can name, in options, in ssh_config or in the
//! environment, is used in one of these ways:
//!
//! | named by | used by |
//! |---|---|
//! | `-F`, `~/.ssh/config`, `Include` (its pattern, too) | `ssh -G`, run by [`Invoker::command`]; without ssh [`Invoker::open`] and [`Invoker::act`] |
//! | `-i`, `IdentityFile`, `CertificateFile` | [`Invoker::open`] |
//! | `UserKnownHostsFile`, `GlobalKnownHostsFile`, `RevokedHostKeys` | [`Invoker::open`]; keys are added, and `~/.ssh` is made, by [`Invoker::act`] |
//! | `IdentityAgent`, `SSH_AUTH_SOCK` | [`Invoker::connect`] |
//! | `ProxyCommand`, `Match exec`, `SSH_ASKPASS`, `SHELL`, `PATH` of these | [`Invoker::command`] |
//! | `-E`, `ControlPath`, `-S`, sockets of `-L` and `-R` | [`Invoker::act`]; `-O` by [`Invoker::connect`] |
//! | `LocalCommand`, `KnownHostsCommand`, `PKCS11Provider`, `SecurityKeyProvider`, `XAuthLocation` | not supported, or without effect |
//! | `HOME`, `XDG_RUNTIME_DIR`, `TMPDIR`, `PATH` for nft and the like | not used under sudo |
//!
//! `netns-tests/tests/trust/sudo.rs` traces a run for each of them. The file options of `serve` and
//! the limits of `agent` are the administrator's own: a sudo rule must not let its user choose
//! these commands' arguments.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

use super::Invoker;

impl Invoker {
    /// Runs `work` as the invoker: under sudo in a new thread that has the invoker's ids and groups
    /// and no capabilities.
    pub fn act<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        if !self.via_sudo {
            return work();
        }
        let identity = self.identity();
        let as_invoker = || {
            identity.assume()?;
            work()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("invoker".to_owned());
            let ended = thread.spawn_scoped(scope, as_invoker)?.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("the thread of the invoker panicked")))
        })
    }

    /// Opens `path` for reading with the invoker's permissions.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.act(|| File::open(path))
            .map_err(|error| self.explained(error))
    }

    /// Adds the user whose permissions applied to an error of permissions.
    fn explained(&self, error: io::Error) -> io::Error {
        match self.via_sudo && error.raw_os_error() == Some(Errno::EACCES as i32) {
            true => io::Error::new(error.kind(), format!("{error} {}", self.reads_as())),
            false => error,
        }
    }

    /// For errors: names the user whose permissions apply under sudo, and the command to use root's
    /// own.
    pub(crate) fn reads_as(&self) -> String {
        format!(
            "(read as {}, the user who called sudo; to read it as root: env -u SUDO_UID -u DOAS_USER -u PKEXEC_UID sshvpn ...)",
            self.name
        )
    }

    /// Connects to the socket at `path` with the invoker's permissions: the listening process sees
    /// the invoker's ids. Under sudo that process must belong to the invoker. Blocks while the
    /// socket's queue is full.
    pub fn connect(&self, path: &Path) -> io::Result<UnixStream> {
        let stream = self.act(|| UnixStream::connect(path))?;
        if self.via_sudo {
            let listener = getsockopt(&stream, sockopt::PeerCredentials)?.uid();
            if listener != self.uid.as_raw() {
                let reason = format!("user {listener} listens on this socket, not {}", self.name);
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
            }
        }
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};

    use nix::unistd::geteuid;

    use super::*;
    use crate::config::ssh::tokens::tests::alice;

    #[test]
    fn under_sudo_only_what_the_invoker_may_read() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root runs on behalf of another user");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut invoker = alice();
        invoker.groups = vec![invoker.gid, 4321.into()];
        let (uid, gid) = (invoker.uid.as_raw(), invoker.gid.as_raw());
        for (index, (owner, group, mode, readable)) in [
            (uid, gid, 0o600, true),
            (0, gid, 0o640, true),
            (0, 4321, 0o640, true),
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
            let opened = invoker.open(&file);
            assert_eq!(opened.is_ok(), readable, "{index}");
            if let Err(error) = opened {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                let hint = format!("(read as {}, the user who called sudo; ", invoker.name);
                assert!(error.to_string().contains(&hint), "{error}");
            }
            // The process is root again afterwards.
            assert!(File::open(&file).is_ok());
        }
    }

    /// The credentials of a connecting process as its listener sees them.
    fn seen(listener: &std::os::unix::net::UnixListener) -> (u32, u32) {
        let (stream, _) = listener.accept().unwrap();
        let peer = getsockopt(&stream, sockopt::PeerCredentials).unwrap();
        (peer.uid(), peer.gid())
    }

    #[test]
    fn under_sudo_a_socket_sees_the_invoker_and_has_to_be_theirs() {
        use std::os::unix::net::UnixListener;
        if !geteuid().is_root() {
            eprintln!("skipped: only root runs on behalf of another user");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let invoker = alice();
        let path = directory.path().join("of-root");
        let listener = UnixListener::bind(&path).unwrap();
        for (mode, reason) in [
            (0o600, "Permission denied"),
            (0o666, "user 0 listens on this socket"),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = invoker.connect(&path).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(seen(&listener), (1000, 1000));
        chown(directory.path(), Some(1000), None).unwrap();
        let path = directory.path().join("own");
        let listener = invoker.act(|| UnixListener::bind(&path)).unwrap();
        invoker.connect(&path).unwrap();
        assert_eq!(seen(&listener), (1000, 1000));
        // Other threads are still root.
        assert!(geteuid().is_root());
        fs::write(directory.path().join("file"), "").unwrap();
    }
}
