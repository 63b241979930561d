//! Compares the lines that log in here with those that log in at the distribution's sshd.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::*;

/// Lines on which sshd and sshvpn agree.
const SAME: [&str; 36] = [
    "KEY",
    "  KEY comment",
    "#KEY",
    "restrict KEY",
    "RESTRICT,No-Pty,,pty, KEY",
    "restrict\tKEY",
    "restrict, KEY",
    "restrict KEY # no comment",
    "restrict,no-such-option KEY",
    "no-restrict KEY",
    "restrictive KEY",
    "tunnel=\"0\" KEY",
    "tunnel=\"any\" KEY",
    "tunnel=\"2147483647\" KEY",
    "tunnel=\"tun0\" KEY",
    "tunnel=0 KEY",
    "tunnel=\"0\"pty KEY",
    "cert-authority KEY",
    "principals=\"root\" KEY",
    "from=\"127.0.0.1\" KEY",
    "from=\"127.0.0.0/8\" KEY",
    "from=\"127.0.0.?\" KEY",
    "from=\"10.0.0.0/8,127.*\" KEY",
    "from=\"*,!127.0.0.1\" KEY",
    "from=\"!127.0.0.1,*\" KEY",
    "from=\"10.0.0.0/8\" KEY",
    "from=\"127.0.0.1/8\" KEY",
    "from=\"host.example\" KEY",
    "expiry-time=\"20991231Z\" KEY",
    "expiry-time=\"20991231\",expiry-time=\"20010101\" KEY",
    "expiry-time=\"209912312359\" KEY",
    "expiry-time=\"2099123\" KEY",
    "permitopen=\"localhost:80\",permitlisten=\"8080\" KEY",
    "permitopen=\"80\" KEY",
    "permitlisten=\"localhost:0\" KEY",
    "from=\"127.0.0.1 KEY",
];

/// Lines that sshd accepts and enforces, and that sshvpn refuses because it cannot enforce them.
const STRICTER: [&str; 6] = [
    "command=\"true\" KEY",
    "command=\"echo \\\"a, b\\\" c\",restrict KEY",
    "environment=\"A=b\" KEY",
    "verify-required KEY",
    "from=\"*,!host.example\" KEY",
    "tunnel=\"1\",tunnel=\"1\" KEY",
];

#[test]
fn sshd_lets_in_by_the_same_lines() {
    let server = Server::new();
    for line in SAME {
        assert_eq!(
            server.lets_in(line),
            we_let_in(&server.line(line)),
            "{line}"
        );
    }
    for line in STRICTER {
        assert!(server.lets_in(line), "{line}");
        assert!(!we_let_in(&server.line(line)), "{line}");
    }
}

fn we_let_in(line: &str) -> bool {
    let Ok(Some(found)) = parse_line(line) else {
        return false;
    };
    let options = found.options;
    let here = Ipv4Addr::LOCALHOST.into();
    !options.cert_authority
        && options.from.is_none_or(|from| from.permit(here))
        && options.expiry.is_none_or(|last| SystemTime::now() <= last)
}

struct Server {
    directory: tempfile::TempDir,
    key: String,
}

impl Server {
    fn new() -> Self {
        let _ = fs::create_dir("/run/sshd");
        let directory = tempfile::tempdir().unwrap();
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]);
            assert!(
                keygen
                    .arg(directory.path().join(name))
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let path = directory.path().display();
        let config = format!(
            "HostKey {path}/host\nAuthorizedKeysFile {path}/keys\nStrictModes no\nUsePAM no\n\
             AuthenticationMethods publickey\nPermitRootLogin yes\nKexAlgorithms curve25519-sha256\n"
        );
        fs::write(directory.path().join("config"), config).unwrap();
        let key = fs::read_to_string(directory.path().join("user.pub")).unwrap();
        let key = key.trim_end().to_owned();
        Self { directory, key }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn line(&self, line: &str) -> String {
        line.replace("KEY", &self.key)
    }

    /// Whether a login at sshd succeeds with this line alone.
    fn lets_in(&self, line: &str) -> bool {
        fs::write(self.path("keys"), self.line(line) + "\n").unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = client(&self.path("user"), port).spawn().unwrap();
        let (connection, _) = listener.accept().unwrap();
        let log = File::create(self.path("log")).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd")
            .args(["-i", "-e", "-o", "LogLevel=VERBOSE", "-f"])
            .arg(self.path("config"))
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(
                connection.try_clone().unwrap(),
            )))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(connection)))
            .stderr(log)
            .spawn()
            .unwrap();
        client.wait().unwrap();
        sshd.wait().unwrap();
        let log = fs::read_to_string(self.path("log")).unwrap();
        let accepted = log.contains("Accepted publickey");
        assert!(
            accepted || log.contains("Connection closed by authenticating user"),
            "{log}"
        );
        accepted
    }
}

fn client(key: &Path, port: u16) -> Command {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective());
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-q", "-n", "-T", "-o", "BatchMode=yes"])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "IdentitiesOnly=yes", "-i"])
        .arg(key)
        .args(["-p", &port.to_string(), "-l", &user.unwrap().unwrap().name])
        .args(["127.0.0.1", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    ssh
}
