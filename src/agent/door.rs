//! A Unix socket beside standard input and output, to which the client has sshd connect.
//!
//! Each switch of processes moves far more data through it than through the pipes that sshd makes.
//! It exists from the agent's first output until the client's first input.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Uid, UnlinkatFlags, mkdtemp, unlinkat};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frame::control::{SOCKET_LINE, SOCKET_WORD};

/// Directories for the socket's folder; every login can enter them.
const PARENTS: [&str; 2] = ["/run", "/tmp"];
/// The prefix of the folder's name.
const FOLDER_PREFIX: &str = "sshvpn-agent.";
/// The socket's name in the folder.
const SOCKET: &str = "socket";
/// The socket's send buffer in bytes, which the kernel doubles. Unlike a pipe, a socket wakes its
/// writer only when three quarters are free.
const SEND_BUFFER: usize = 256 * 1024;
/// Limit for a connection to send the word.
const WORD_WAIT: Duration = Duration::from_secs(5);
/// Connections that may owe the word at a time.
const MOST_ASKED: usize = 16;

/// The socket until the client has connected. Dropping it removes its folder.
pub(crate) struct Door {
    folder: PathBuf,
    listener: UnixListener,
    /// User ids that may connect: this process's, that of the user who called sudo, and root's,
    /// as which some servers connect.
    guests: Vec<u32>,
    /// The secret word that the client sends first.
    word: String,
    /// Held while this process lives; a folder without it is stale.
    _lock: Flock<File>,
}

impl Door {
    /// Opens one in the first directory where that is possible; `login` may connect as well.
    pub(crate) fn open(login: Option<u32>) -> io::Result<Self> {
        let own = Uid::effective().as_raw();
        for parent in PARENTS {
            remove_stale(Path::new(parent), own);
        }
        // Each is tried twice, since another agent may take a new folder for a stale one.
        let mut result = Err(io::ErrorKind::NotFound.into());
        for parent in PARENTS.iter().chain(&PARENTS) {
            result = Self::in_folder_of(Path::new(parent), own, login);
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

    /// Until the last step, no other user can enter the folder.
    fn in_folder(folder: &Path, own: u32, login: Option<u32>) -> io::Result<Self> {
        let lock = lock(folder, own)?;
        let socket = folder.join(SOCKET);
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        let guests = [Some(own), login, Some(0)].into_iter().flatten().collect();
        let door = Door {
            folder: folder.to_owned(),
            listener,
            guests,
            word: secret()?,
            _lock: lock,
        };
        if let Some(login) = login.filter(|login| *login != own) {
            lchown(&socket, Some(login), None)?;
            fs::set_permissions(folder, Permissions::from_mode(0o711))?;
        }
        Ok(door)
    }

    /// The line that announces the socket to the client.
    pub(crate) fn announcement(&self) -> Bytes {
        let socket = self.folder.join(SOCKET);
        let path = socket.as_os_str().as_bytes();
        let word = self.word.as_bytes();
        [SOCKET_LINE.as_bytes(), path, b" ", word, b"\r\n"]
            .concat()
            .into()
    }

    /// Waits for the first connection that sends the word.
    pub(crate) async fn guest(&self) -> io::Result<UnixStream> {
        let mut asked = JoinSet::new();
        loop {
            tokio::select! {
                Some(answer) = asked.join_next() => if let Ok(Some(guest)) = answer {
                    widen(&guest);
                    return Ok(guest);
                },
                came = self.listener.accept(), if asked.len() < MOST_ASKED => {
                    let (stream, _) = came?;
                    let uid = stream.peer_cred()?.uid();
                    if self.guests.contains(&uid) {
                        asked.spawn(knows(stream, self.word.clone()));
                    } else {
                        tracing::warn!(uid, "refused another user's connection");
                    }
                }
            }
        }
    }
}

/// The stream, if it sends the word.
async fn knows(mut stream: UnixStream, word: String) -> Option<UnixStream> {
    let mut said = [0; SOCKET_WORD];
    let heard = timeout(WORD_WAIT, stream.read_exact(&mut said)).await;
    heard.ok()?.ok()?;
    (said == word.as_bytes()).then_some(stream)
}

fn secret() -> io::Result<String> {
    let mut random = [0; SOCKET_WORD / 2];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Drop for Door {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Sets the send buffer. Exceeding the host's limit needs a privilege; without it, the limit is
/// good enough.
fn widen(stream: &UnixStream) {
    let socket = stream.as_fd();
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER);
    }
}

/// Locks a folder of this user; refuses a symbolic link.
fn lock(folder: &Path, own: u32) -> io::Result<Flock<File>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(folder)?;
    if opened.metadata()?.uid() != own {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

fn remove(folder: &Path) {
    let _ = fs::remove_file(folder.join(SOCKET));
    if let Err(error) = fs::remove_dir(folder) {
        tracing::debug!(%error, "cannot remove {}", folder.display());
    }
}

/// Removes the folders that killed agents of this user left.
fn remove_stale(parent: &Path, own: u32) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let named = (entry.file_name().as_bytes()).starts_with(FOLDER_PREFIX.as_bytes());
        if !named {
            continue;
        }
        if let Ok(held) = lock(&entry.path(), own) {
            let _ = unlinkat(&*held, SOCKET, UnlinkatFlags::NoRemoveDir);
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn door(parent: &Path) -> Door {
        Door::in_folder_of(parent, Uid::effective().as_raw(), None).unwrap()
    }

    /// The path and the word in the announcement.
    fn told(door: &Door) -> (PathBuf, String) {
        let line = String::from_utf8(door.announcement().to_vec()).unwrap();
        let socket = line.strip_suffix("\r\n").unwrap();
        let socket = socket.strip_prefix(SOCKET_LINE).unwrap();
        let (path, word) = socket.split_once(' ').unwrap();
        (PathBuf::from(path), word.to_owned())
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn count(parent: &Path) -> usize {
        fs::read_dir(parent).unwrap().count()
    }

    async fn comes(path: &Path, word: &str) -> UnixStream {
        let mut guest = UnixStream::connect(path).await.unwrap();
        guest.write_all(word.as_bytes()).await.unwrap();
        guest
    }

    #[tokio::test]
    async fn who_knows_the_word_is_let_in_and_nothing_stays_behind() {
        let parent = tempfile::tempdir().unwrap();
        let door = door(parent.path());
        let (socket, word) = told(&door);
        assert_eq!(mode(&socket), 0o600);
        assert_eq!(mode(socket.parent().unwrap()), 0o700);
        // Silent and wrong connections do not delay the right one.
        let _silent = UnixStream::connect(&socket).await.unwrap();
        let mut wrong = comes(&socket, &"0".repeat(SOCKET_WORD)).await;
        let mut guest = comes(&socket, &format!("{word}more")).await;
        let mut stream = door.guest().await.unwrap();
        drop(door);
        assert_eq!(count(parent.path()), 0);
        guest.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "more");
        stream.write_all(b"to you").await.unwrap();
        drop(stream);
        heard.clear();
        guest.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "to you");
        assert_eq!(wrong.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_stranger_is_not_let_in() {
        let parent = tempfile::tempdir().unwrap();
        let mut door = door(parent.path());
        let guests = std::mem::replace(&mut door.guests, vec![u32::MAX]);
        let (socket, word) = told(&door);
        let mut stranger = comes(&socket, &word).await;
        let mut byte = [0];
        tokio::select! {
            guest = door.guest() => panic!("{guest:?} came in"),
            // The connection is closed with the word unread.
            read = stranger.read(&mut byte) => assert!(!matches!(read, Ok(1..))),
        }
        door.guests = guests;
        let _guest = comes(&socket, &word).await;
        door.guest().await.unwrap();
    }

    #[tokio::test]
    async fn with_sudo_the_login_gets_at_the_socket_and_nobody_else() {
        if !Uid::effective().is_root() {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let door = Door::in_folder_of(parent.path(), 0, Some(1234)).unwrap();
        let (socket, _) = told(&door);
        let owner = fs::symlink_metadata(&socket).unwrap().uid();
        assert_eq!((owner, mode(&socket)), (1234, 0o600));
        let folder = socket.parent().unwrap();
        let owner = fs::symlink_metadata(folder).unwrap().uid();
        assert_eq!((owner, mode(folder)), (0, 0o711));
    }

    #[tokio::test]
    async fn what_the_dead_left_is_removed_and_all_else_stays() {
        let parent = tempfile::tempdir().unwrap();
        let own = Uid::effective().as_raw();
        let living = door(parent.path());
        // A killed process releases only its lock.
        let dead = parent.path().join("sshvpn-agent.dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(SOCKET), "").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join(SOCKET), "").unwrap();
        let link = parent.path().join("sshvpn-agent.link");
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        remove_stale(parent.path(), own + 1);
        assert_eq!(count(parent.path()), 3);
        remove_stale(parent.path(), own);
        assert!(told(&living).0.exists() && !dead.exists() && link.exists());
        assert_eq!(count(elsewhere.path()), 1);
    }
}
