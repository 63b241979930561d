//! A server for tests on a loopback listener, with a gate that knows some keys; its client
//! is the distribution's ssh.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::{PublicKey, load_public_key};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::host_keys::HostKeys;
use super::login::accept::accept;
use super::login::credential::{Attempt, Credential, KeyBlob};
use super::login::gate::{Gate, Tried};
use super::login::{Login, LoginFailure};
use super::settings::ServerSettings;
use crate::ssh::client::test_server::run;

/// A wait that takes this long hangs: it is far longer than any test needs.
pub(crate) const HANGS: Duration = Duration::from_secs(30);

/// The user who may log in with a security key that was not touched.
pub(crate) const UNTOUCHED: &str = "robot";

/// Accepts every key that it knows, and every certificate of an authority that it knows.
/// The grant is the user's name.
#[derive(Debug, Default)]
pub(crate) struct TestGate {
    known: Mutex<Vec<KeyBlob>>,
    failures: Mutex<Vec<String>>,
    judged: Mutex<usize>,
    begun: Mutex<usize>,
}

impl TestGate {
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    pub(crate) fn judged(&self) -> usize {
        *self.judged.lock().unwrap()
    }

    pub(crate) fn begun(&self) -> usize {
        *self.begun.lock().unwrap()
    }

    pub(crate) fn know(&self, key: &PublicKey) {
        self.know_blob(key.to_bytes().unwrap());
    }

    pub(crate) fn know_blob(&self, key: Vec<u8>) {
        self.known.lock().unwrap().push(KeyBlob(key));
    }
}

impl Gate for TestGate {
    type Grant = String;

    fn begun(&self) {
        *self.begun.lock().unwrap() += 1;
    }

    fn judge(&self, attempt: &Attempt<'_>) -> Option<String> {
        *self.judged.lock().unwrap() += 1;
        let decisive = match attempt.credential {
            Credential::Key(key) => key,
            Credential::Certificate(certificate) => &certificate.authority,
        };
        let known = self.known.lock().unwrap().contains(decisive);
        let touched = attempt.touched || attempt.user == UNTOUCHED;
        (known && touched).then(|| attempt.user.to_owned())
    }

    fn failed(&self, peer: SocketAddr, user: &str, tried: Tried<'_>) {
        assert!(peer.ip().is_loopback());
        let tried = match tried {
            Tried::Refused(Credential::Key(_)) => "a key".to_owned(),
            Tried::Refused(Credential::Certificate(_)) => "a certificate".to_owned(),
            Tried::Unproven(_, why) => format!("a key, {why}"),
            Tried::Unfit(why) => why.to_owned(),
            Tried::Method(method) => method.to_owned(),
        };
        self.failures
            .lock()
            .unwrap()
            .push(format!("{user}: {tried}"));
    }
}

/// A server and its keys.
pub(crate) struct Lab {
    directory: TempDir,
    pub(crate) settings: ServerSettings,
    pub(crate) gate: Arc<TestGate>,
    listener: TcpListener,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host_keys = HostKeys::load_or_make(&[directory.path().join("host")]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let lab = Lab {
            settings: ServerSettings {
                host_keys,
                max_auth_tries: 6,
                grace_time: Some(HANGS),
                congestion: None,
                channels: 20,
            },
            gate: Arc::default(),
            listener,
            directory,
        };
        lab.is_known_by("host");
        lab
    }

    /// Replaces the host key with one that ssh-keygen makes with these arguments.
    pub(crate) fn host_key(&mut self, arguments: &[&str]) {
        self.key("other-host", arguments);
        let key = self.path("other-host");
        self.settings.host_keys = HostKeys::load_or_make(&[key]).unwrap();
        self.is_known_by("other-host");
    }

    /// Lists the key `name` as the server's key in the clients' known_hosts.
    fn is_known_by(&self, name: &str) {
        let host = std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        let known = format!("[127.0.0.1]:{} {host}", self.address().port());
        std::fs::write(self.path("known_hosts"), known).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Creates the key pair `name` with these arguments of ssh-keygen.
    pub(crate) fn key(&self, name: &str, arguments: &[&str]) {
        run(Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", name, "-f"])
            .arg(self.path(name))
            .args(arguments));
    }

    /// Creates the ed25519 key `name`, which may log in.
    pub(crate) fn known_key(&self, name: &str) {
        self.key(name, &["-t", "ed25519"]);
        self.know(name);
    }

    /// Lets the key `name` log in, and the keys that it certifies.
    pub(crate) fn know(&self, name: &str) {
        let path = self.path(&format!("{name}.pub"));
        self.gate.know(&load_public_key(path).unwrap());
    }

    /// Signs the public key `name` with the key `authority`.
    pub(crate) fn certify(&self, authority: &str, name: &str, arguments: &[&str]) {
        run(Command::new("ssh-keygen")
            .args(["-q", "-I", name, "-s"])
            .arg(self.path(authority))
            .args(arguments)
            .arg(self.path(&format!("{name}.pub"))));
    }

    /// The next connection's login or failure.
    pub(crate) async fn accept(&self) -> Result<Login<String>, LoginFailure> {
        let (stream, peer) = self.listener.accept().await.unwrap();
        let accepted = accept(stream, peer, &self.settings, Arc::clone(&self.gate));
        timeout(HANGS * 2, accepted).await.expect("a login hangs")
    }

    /// The next login; the gate must know the client's key.
    pub(crate) async fn login(&self) -> Login<String> {
        match self.accept().await {
            Ok(login) => login,
            Err(failure) => panic!("{failure}; {:?}", self.gate.failures()),
        }
    }

    /// Starts ssh with the key files `keys` and `arguments`, in addition to what every test
    /// needs.
    pub(crate) fn ssh(&self, keys: &[&str], arguments: &[&str]) -> Client {
        self.client("ssh", keys, arguments, &["127.0.0.1"])
    }

    /// The same with a command instead of a shell.
    pub(crate) fn ssh_command(&self, keys: &[&str], command: &[&str]) -> Client {
        self.client("ssh", keys, &[], &[&["127.0.0.1"], command].concat())
    }

    /// Starts sftp.
    pub(crate) fn sftp(&self, keys: &[&str]) -> Client {
        self.client("sftp", keys, &[], &["alice@127.0.0.1"])
    }

    /// Starts ssh with pipes for its standard input and output.
    pub(crate) fn ssh_with_pipes(&self, keys: &[&str], arguments: &[&str], last: &str) -> Client {
        let mut command = self.command("ssh", keys, arguments, &["127.0.0.1", last]);
        Client(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    fn client(&self, program: &str, keys: &[&str], arguments: &[&str], last: &[&str]) -> Client {
        let mut command = self.command(program, keys, arguments, last);
        Client(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn command(
        &self,
        program: &str,
        keys: &[&str],
        arguments: &[&str],
        last: &[&str],
    ) -> tokio::process::Command {
        let known_hosts = self.path("known_hosts");
        let mut command = tokio::process::Command::new(program);
        command
            .args(["-F", "none", "-o", "BatchMode=yes"])
            .args(["-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "User=alice"])
            .arg("-o")
            .arg(format!("Port={}", self.address().port()))
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known_hosts.display()));
        for key in keys {
            command.arg("-i").arg(self.path(key));
        }
        command
            .args(arguments)
            .args(last)
            .env_remove("SSH_AUTH_SOCK")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// A running ssh or sftp; killed at the end of the test.
pub(crate) struct Client(Child);

/// How ssh ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) errors: String,
}

impl Client {
    /// Waits until it has ended.
    pub(crate) async fn ended(self) -> Ended {
        let output = timeout(HANGS, self.0.wait_with_output()).await;
        let Output { status, stderr, .. } = output.expect("ssh hangs").unwrap();
        Ended {
            code: status.code(),
            errors: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Its standard input and output.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        let (input, output) = (self.0.stdin.take(), self.0.stdout.take());
        (input.unwrap(), output.unwrap())
    }

    /// Waits until it has written `text` to its standard error; yields everything up to
    /// there.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        use tokio::io::AsyncReadExt;
        let errors = self.0.stderr.as_mut().unwrap();
        let mut said = Vec::new();
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&said).contains(text) {
            let read = timeout(HANGS, errors.read(&mut buffer)).await;
            let length = read.expect("ssh says nothing").unwrap();
            assert!(length > 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANGS, holds)
        .await
        .expect("the condition never holds");
}
