//! Finds the SSH agent of an invoker behind sudo(8), which by default removes `SSH_AUTH_SOCK`: sudo
//! itself was started with it, and so were the processes above, unless it was set in a shell that
//! was running already (`eval $(ssh-agent)`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::Invoker;

/// The limit of ancestors to search.
const MAX_ANCESTORS: usize = 64;
/// The limit of one ancestor's environment, in bytes.
const MAX_ENVIRON: u64 = 1 << 20;

/// Finds the agent's socket: in the environment of the nearest process, from `pid` upwards, that
/// has the variable and belongs to the invoker, or to root as sudo does. Each such environment may
/// be of another user's making, so the socket must belong to the invoker.
pub(crate) fn agent_of_ancestors(pid: i32, invoker: &Invoker) -> Option<PathBuf> {
    let (mut pid, uid) = (pid, invoker.uid);
    for _ in 0..MAX_ANCESTORS {
        if pid <= 1 {
            return None;
        }
        let process = PathBuf::from(format!("/proc/{pid}"));
        if owner(&process).is_ok_and(|owner| owner == uid || owner.is_root())
            && let Some(socket) = agent_in_environ(&process.join("environ"))
            && is_socket_of(&socket, invoker)
        {
            return Some(socket);
        }
        pid = parent(&process.join("status"))?;
    }
    None
}

fn owner(path: &Path) -> io::Result<Uid> {
    Ok(Uid::from_raw(fs::metadata(path)?.uid()))
}

fn is_socket_of(path: &Path, invoker: &Invoker) -> bool {
    let found = invoker.act(|| fs::metadata(path));
    found.is_ok_and(|found| found.file_type().is_socket() && found.uid() == invoker.uid.as_raw())
}

/// `SSH_AUTH_SOCK` in a file of NUL-terminated `NAME=value` (proc(5)).
fn agent_in_environ(environ: &Path) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let file = File::open(environ).ok()?;
    file.take(MAX_ENVIRON).read_to_end(&mut bytes).ok()?;
    let value = bytes
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"SSH_AUTH_SOCK="))?;
    Some(PathBuf::from(OsString::from_vec(value.to_vec())))
}

/// The `PPid` of a /proc/PID/status.
fn parent(status: &Path) -> Option<i32> {
    let text = fs::read_to_string(status).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    use nix::unistd::geteuid;

    use super::*;
    use crate::config::ssh::tokens::tests::alice;

    #[test]
    fn an_ancestor_lends_its_agent_only_to_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent");
        let _listener = UnixListener::bind(&socket).unwrap();
        // The search starts at the shell's child: only the shell's environment has the variable,
        // since its child removes it, as sudo does.
        let mut shell = Command::new("sh")
            .args(["-c", "env -u SSH_AUTH_SOCK sh -c 'echo $$; read line'; :"])
            .env("SSH_AUTH_SOCK", &socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        io::BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let child = line.trim().parse().unwrap();
        let invoker = |uid| Invoker {
            uid,
            via_sudo: false,
            ..alice()
        };
        let own = invoker(geteuid());
        assert_eq!(agent_of_ancestors(child, &own), Some(socket.clone()));
        let other = invoker(Uid::from_raw(54321));
        assert_eq!(agent_of_ancestors(child, &other), None);
        fs::remove_file(&socket).unwrap();
        assert_ne!(agent_of_ancestors(child, &own), Some(socket));
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
