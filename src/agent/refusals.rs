//! Reports the packets that an agent refused: to the client's user on standard error, which sshd
//! passes only to the client, and to the host's administrator by syslog.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::unistd::Uid;

use crate::process::message::say;

/// The socket of syslog (syslog(3)).
const SYSLOG: &str = "/dev/log";
/// LOG_AUTHPRIV | LOG_WARNING.
const PRIORITY: u32 = 10 << 3 | 4;

/// Reports `refused`, by reason.
pub(crate) fn report(refused: &str) {
    say(format_args!(
        "sshvpn: agent: refused packets of the client: {refused}"
    ));
    if let Err(error) = log(Path::new(SYSLOG), refused) {
        tracing::debug!(%error, "cannot write to syslog");
    }
}

fn log(syslog: &Path, refused: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A full log must not delay the tunnel's end.
    socket.set_nonblocking(true)?;
    let line = format!(
        "<{PRIORITY}>sshvpn-agent[{}]: refused packets of the client of uid {}: {refused}",
        std::process::id(),
        Uid::current(),
    );
    socket.send_to(line.as_bytes(), syslog)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_is_told_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(log(&path, "3 source not allowed").is_err());
        let socket = UnixDatagram::bind(&path).unwrap();
        log(&path, "3 source not allowed").unwrap();
        let mut line = [0; 200];
        let length = socket.recv(&mut line).unwrap();
        let line = std::str::from_utf8(&line[..length]).unwrap();
        assert!(line.starts_with("<84>sshvpn-agent["), "{line}");
        assert!(line.ends_with(": 3 source not allowed"), "{line}");
    }
}
