//! Sockets in the runtime directory, by which running servers answer users with access to it.
//!
//! A socket that no process listens on is stale: its process has ended.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::{fs, process};

use nix::unistd::Uid;

use super::journal::runtime_dir::{RuntimeDir, RuntimeDirError};

/// The suffix of the sockets' names.
const SUFFIX: &str = ".sock";

/// A listening socket; dropping it removes its name.
#[derive(Debug)]
pub struct RuntimeSocket {
    directory: RuntimeDir,
    name: String,
    listener: UnixListener,
}

impl RuntimeSocket {
    /// Listens at `NAME.sock`, or at `NAME-PID.sock` if a process (in another network namespace, on
    /// the same port) listens at `NAME.sock` already.
    pub fn bind(directory: &RuntimeDir, name: &str) -> Result<Self, RuntimeDirError> {
        let (directory, _lock) = directory.lock_linked()?;
        let mut file_name = format!("{name}{SUFFIX}");
        if directory.has(&file_name) && !remove_if_stale(&directory, &file_name)? {
            file_name = format!("{name}-{}{SUFFIX}", process::id());
            if directory.has(&file_name) {
                remove_if_stale(&directory, &file_name)?;
            }
        }
        let path = directory.path().join(&file_name);
        // The directory keeps other users out until the mode is set.
        let listener = UnixListener::bind(&path)
            .map_err(|error| directory.failed("listen at", &file_name, error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(|error| directory.failed("protect", &file_name, error))?;
        Ok(Self {
            directory,
            name: file_name,
            listener,
        })
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A duplicate of the listening socket, for reading from.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for RuntimeSocket {
    fn drop(&mut self) {
        if let Err(error) = self.directory.remove(&self.name) {
            tracing::debug!(%error, "cannot remove a socket");
        }
    }
}

/// Connects to every listening server whose socket name begins with `prefix`.
pub fn connect_all(
    directory: &RuntimeDir,
    prefix: &str,
) -> Result<Vec<(String, UnixStream)>, RuntimeDirError> {
    let mut connections = connect_here(directory, prefix)?;
    // A server's own user has no access to root's directory.
    if let Some(part) = directory
        .other_side()
        .filter(|_| Uid::effective().is_root())
    {
        connections.extend(connect_here(&part, prefix)?);
    }
    Ok(connections)
}

fn connect_here(
    directory: &RuntimeDir,
    prefix: &str,
) -> Result<Vec<(String, UnixStream)>, RuntimeDirError> {
    let mut connections = Vec::new();
    for name in directory.names(SUFFIX)? {
        if !name.starts_with(prefix) {
            continue;
        }
        match UnixStream::connect(directory.path().join(&name)) {
            Ok(stream) => connections.push((name, stream)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(directory.failed("connect to", &name, error)),
        }
    }
    Ok(connections)
}

/// Removes the sockets of dead processes.
pub fn remove_stale(directory: &RuntimeDir) -> Result<(), RuntimeDirError> {
    let (directory, _lock) = directory.lock_linked()?;
    for name in directory.names(SUFFIX)? {
        remove_if_stale(&directory, &name)?;
    }
    Ok(())
}

/// Removes the socket if no process listens on it; returns whether it did. The caller must hold the
/// directory's lock: a socket is bound before it listens.
fn remove_if_stale(directory: &RuntimeDir, name: &str) -> Result<bool, RuntimeDirError> {
    match UnixStream::connect(directory.path().join(name)) {
        Err(error) if is_gone(&error) => directory.remove(name).map(|()| true),
        _ => Ok(false),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, RuntimeDir) {
        let parent = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::at(&parent.path().join("sshvpn")).unwrap();
        (parent, directory)
    }

    #[test]
    fn a_socket_is_private_and_goes_with_its_server() {
        let (_parent, directory) = directory();
        let socket = RuntimeSocket::bind(&directory, "serve-22").unwrap();
        let path = directory.path().join("serve-22.sock");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(connect_all(&directory, "serve-").unwrap().len(), 1);
        assert!(connect_all(&directory, "other-").unwrap().is_empty());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn two_servers_of_one_port_have_two_names() {
        let (_parent, directory) = directory();
        let first = RuntimeSocket::bind(&directory, "serve-22").unwrap();
        let second = RuntimeSocket::bind(&directory, "serve-22").unwrap();
        assert_ne!(first.name(), second.name());
        assert_eq!(connect_all(&directory, "serve-").unwrap().len(), 2);
        drop(first);
        remove_stale(&directory).unwrap();
        assert_eq!(directory.names("").unwrap(), [second.name()]);
    }

    #[test]
    fn what_a_killed_server_left_is_taken_over_or_removed() {
        let (_parent, directory) = directory();
        // std leaves the name in place, as a killed process does.
        drop(UnixListener::bind(directory.path().join("serve-22.sock")).unwrap());
        drop(UnixListener::bind(directory.path().join("serve-23.sock")).unwrap());
        assert!(connect_all(&directory, "serve-").unwrap().is_empty());
        let socket = RuntimeSocket::bind(&directory, "serve-22").unwrap();
        assert_eq!(socket.name(), "serve-22.sock");
        remove_stale(&directory).unwrap();
        assert_eq!(directory.names("").unwrap(), ["serve-22.sock"]);
    }
}
