//! A socket beside standard input and output, for the near end to have sshd
//! connect to: through it, much more goes between two switches of processes than
//! through the pipes that sshd makes. It is there from the agent's first words
//! until the near end's.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::mkdtemp;
use tokio::net::{UnixListener, UnixStream};

use crate::frame::control::SOCKET_LINE;

/// Where the folder with the socket may be; any login can get into these.
const PARENTS: [&str; 2] = ["/run", "/tmp"];
/// How its name begins.
const FOLDER_PREFIX: &str = "sshvpn-agent.";
/// The socket in it.
const SOCKET: &str = "socket";
/// Bytes that wait in the socket for sshd: unlike a pipe it wakes who writes only
/// when three quarters have gone.
const SEND_BUFFER: usize = 1024 * 1024;

/// The socket, as long as nobody has come in. Dropping it leaves nothing behind.
pub(super) struct Door {
    folder: PathBuf,
    listener: UnixListener,
    /// Who may come in: the user ids of this process, and of who called sudo.
    guests: Vec<u32>,
    /// Held by who is alive.
    _lock: Flock<File>,
}

impl Door {
    /// One in the first place where that is possible, for `login` too.
    pub(super) fn open(login: Option<u32>) -> io::Result<Self> {
        let own = nix::unistd::Uid::effective().as_raw();
        let mut result = Err(io::ErrorKind::NotFound.into());
        for parent in PARENTS.map(Path::new) {
            remove_stale(parent, own);
            result = Self::in_folder_of(parent, own, login);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn in_folder_of(parent: &Path, own: u32, login: Option<u32>) -> io::Result<Self> {
        let folder = mkdtemp(&parent.join(format!("{FOLDER_PREFIX}XXXXXX")))?;
        match Self::in_folder(&folder, own, login) {
            Ok(door) => Ok(door),
            Err(error) => {
                remove(&folder);
                Err(error)
            }
        }
    }

    /// Until the last step, nobody else gets into the folder.
    fn in_folder(folder: &Path, own: u32, login: Option<u32>) -> io::Result<Self> {
        let lock = lock(folder)?;
        let socket = folder.join(SOCKET);
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        let guests = [Some(own), login].into_iter().flatten().collect();
        let door = Door {
            folder: folder.to_owned(),
            listener,
            guests,
            _lock: lock,
        };
        if let Some(login) = login.filter(|login| *login != own) {
            lchown(&socket, Some(login), None)?;
            fs::set_permissions(folder, Permissions::from_mode(0o711))?;
        }
        Ok(door)
    }

    /// What the near end is told of it.
    pub(super) fn announcement(&self) -> Bytes {
        let socket = self.folder.join(SOCKET);
        [
            SOCKET_LINE.as_bytes(),
            socket.as_os_str().as_bytes(),
            b"\r\n",
        ]
        .concat()
        .into()
    }

    /// Waits for the first who may come in.
    pub(super) async fn guest(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let uid = stream.peer_cred()?.uid();
            if self.guests.contains(&uid) {
                widen(&stream);
                return Ok(stream);
            }
            tracing::warn!(uid, "somebody else came to the agent's socket");
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// More than the host's limit needs a privilege; as much as that is fine too.
fn widen(stream: &UnixStream) {
    let socket = stream.as_fd();
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER);
    }
}

fn lock(folder: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(folder)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| errno.into())
}

fn remove(folder: &Path) {
    let _ = fs::remove_file(folder.join(SOCKET));
    if let Err(error) = fs::remove_dir(folder) {
        tracing::debug!(%error, "{} stays", folder.display());
    }
}

/// Removes what agents of this user left that were killed.
fn remove_stale(parent: &Path, own: u32) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let ours = name.as_bytes().starts_with(FOLDER_PREFIX.as_bytes())
            && (entry.metadata()).is_ok_and(|found| found.is_dir() && found.uid() == own);
        if ours && lock(&entry.path()).is_ok() {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn door(parent: &Path) -> Door {
        let own = nix::unistd::Uid::effective().as_raw();
        Door::in_folder_of(parent, own, None).unwrap()
    }

    fn path(door: &Door) -> PathBuf {
        let line = String::from_utf8(door.announcement().to_vec()).unwrap();
        let path = line.trim_end().strip_prefix(SOCKET_LINE).unwrap();
        PathBuf::from(path)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn who_comes_is_let_in_and_nothing_stays_behind() {
        let parent = tempfile::tempdir().unwrap();
        let door = door(parent.path());
        let socket = path(&door);
        assert_eq!(mode(&socket), 0o600);
        assert_eq!(mode(socket.parent().unwrap()), 0o700);
        let mut guest = UnixStream::connect(&socket).await.unwrap();
        let stream = door.guest().await.unwrap();
        drop(door);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        drop(stream);
        assert_eq!(guest.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_stranger_is_not_let_in() {
        let parent = tempfile::tempdir().unwrap();
        let mut door = door(parent.path());
        let own = std::mem::replace(&mut door.guests, vec![u32::MAX]);
        let mut stranger = UnixStream::connect(path(&door)).await.unwrap();
        let mut byte = [0];
        tokio::select! {
            guest = door.guest() => panic!("{guest:?} came in"),
            read = stranger.read(&mut byte) => assert_eq!(read.unwrap(), 0),
        }
        door.guests = own;
        let _guest = UnixStream::connect(path(&door)).await.unwrap();
        door.guest().await.unwrap();
    }

    #[tokio::test]
    async fn with_sudo_the_login_gets_at_the_socket_and_nobody_else() {
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let door = Door::in_folder_of(parent.path(), 0, Some(1234)).unwrap();
        let socket = path(&door);
        let owner = fs::symlink_metadata(&socket).unwrap().uid();
        assert_eq!((owner, mode(&socket)), (1234, 0o600));
        let folder = socket.parent().unwrap();
        let owner = fs::symlink_metadata(folder).unwrap().uid();
        assert_eq!((owner, mode(folder)), (0, 0o711));
    }

    #[tokio::test]
    async fn what_the_dead_left_is_removed_and_the_living_stay() {
        let parent = tempfile::tempdir().unwrap();
        let own = nix::unistd::Uid::effective().as_raw();
        let living = door(parent.path());
        let mut dead = std::mem::ManuallyDrop::new(door(parent.path()));
        let left = path(&dead);
        // A killed process lets go of its lock, and no more.
        // A new folder in its place has none either.
        let other = File::open(parent.path()).unwrap();
        let other = Flock::lock(other, FlockArg::LockShared).map_err(|(_, errno)| errno);
        drop(std::mem::replace(&mut dead._lock, other.unwrap()));
        remove_stale(parent.path(), own);
        assert!(path(&living).exists() && !left.exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        remove_stale(parent.path(), own + 1);
        assert!(path(&living).exists());
    }
}
