//! The distribution's sshd for tests: one process for one loopback connection, with its own
//! configuration and keys. It ends with the connection or with the test.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use russh::client::{Config, Handle, Handler, connect_stream};
use russh::keys::PublicKeyOrCertificate;
use russh::{Preferred, client};
use tempfile::TempDir;

use super::auth::{AuthError, authenticate};
use super::host_key::{HostKeyCheck, HostKeyError};
use super::prompt::Prompter;
use super::prompt::script::Script;
use crate::config::invoker::Invoker;
use crate::config::ssh::options::{SshOptions, StrictHostKeyChecking};
use crate::ssh::test_settings;

/// sshd's empty directory, which the service's start script creates.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// A server's directory: host key, configuration, and the test's files.
pub(in crate::ssh) struct Server {
    directory: TempDir,
}

/// A process that is killed when the test drops it.
pub(in crate::ssh) struct Running(pub(in crate::ssh) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that checks the host key as sshvpn does.
pub(in crate::ssh) struct Client(HostKeyCheck);

/// Why a test's connection failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::ssh) enum Failure {
    #[error(transparent)]
    HostKey(HostKeyError),
    #[error(transparent)]
    Session(#[from] russh::Error),
}

impl Handler for Client {
    type Error = Failure;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        let checked = self.0.check(key).await;
        checked.map(|_| true).map_err(Failure::HostKey)
    }
}

/// Runs a program to its end; yields its output and panics if it failed.
pub(in crate::ssh) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

impl Server {
    /// A server whose configuration has `lines` in addition to what every test needs. Keys
    /// in the file `authorized` may log in.
    pub(in crate::ssh) fn new(lines: &str) -> Self {
        let _ = fs::create_dir(PRIVILEGE_SEPARATION);
        let server = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        server.key("host", &["-t", "ed25519", "-N", ""]);
        let path = server.directory.path().display();
        let config = format!(
            "{lines}\n\
             HostKey {path}/host\n\
             AuthorizedKeysFile {path}/authorized\n\
             StrictModes no\n\
             UsePAM no\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             PermitRootLogin yes\n"
        );
        fs::write(server.path("config"), config).unwrap();
        fs::write(server.path("authorized"), "").unwrap();
        server
    }

    /// The path of the server's file `name`.
    pub(in crate::ssh) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Creates the key pair `name` with these arguments of ssh-keygen.
    pub(in crate::ssh) fn key(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.path(name);
        run(Command::new("ssh-keygen")
            .args(["-q", "-C", name, "-f"])
            .arg(&path)
            .args(arguments));
        path
    }

    /// Lets the key `name` log in.
    pub(in crate::ssh) fn authorize(&self, name: &str) {
        let mut authorized = fs::read_to_string(self.path("authorized")).unwrap();
        authorized.push_str(&fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap());
        fs::write(self.path("authorized"), authorized).unwrap();
    }

    /// Signs the public key `name` with the key `authority`.
    pub(in crate::ssh) fn certify(&self, authority: &str, name: &str, arguments: &[&str]) {
        run(Command::new("ssh-keygen")
            .args(["-q", "-I", name, "-s"])
            .arg(self.path(authority))
            .args(arguments)
            .arg(self.path(&format!("{name}.pub"))));
    }

    /// sshd's log of all connections.
    pub(in crate::ssh) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Settings for the user who may log in: the one who runs the test.
    pub(in crate::ssh) fn options(&self) -> SshOptions {
        let mut options = test_settings::options();
        options.host = "127.0.0.1".into();
        options.user = test_settings::invoker().name;
        options.strict_host_key_checking = StrictHostKeyChecking::AcceptNew;
        options.user_known_hosts = vec![self.path("known_hosts")];
        options
    }

    /// Connects and checks the host key; does not log in.
    pub(in crate::ssh) async fn connect(
        &self,
        options: &SshOptions,
        prompter: &Prompter,
    ) -> Result<(Handle<Client>, HostKeyCheck, Running), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let sshd = Running(self.spawn(accepted.into()));
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (handle, check) = connect(stream, options, prompter, Some(address)).await?;
        Ok((handle, check, sshd))
    }

    fn spawn(&self, connection: OwnedFd) -> Child {
        let log = self.path("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        Command::new("/usr/sbin/sshd")
            .args(["-i", "-e", "-f"])
            .arg(self.path("config"))
            .stdin(Stdio::from(connection.try_clone().unwrap()))
            .stdout(Stdio::from(connection))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap()
    }

    /// Connects and logs in.
    pub(in crate::ssh) async fn log_in(
        &self,
        options: &SshOptions,
        prompter: &Prompter,
    ) -> Result<(), AuthError> {
        let connected = self.connect(options, prompter).await;
        let (mut handle, check, _sshd) = match connected {
            Ok(connected) => connected,
            Err(failure) => panic!("{failure}\n{}", self.log()),
        };
        let trust = check.trust().unwrap();
        let invoker: Invoker = test_settings::invoker();
        authenticate(&mut handle, trust, options, &invoker, prompter).await
    }
}

/// Starts an SSH session over `stream`, as sshvpn does.
pub(in crate::ssh) async fn connect(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    options: &SshOptions,
    prompter: &Prompter,
    peer: Option<std::net::SocketAddr>,
) -> Result<(Handle<Client>, HostKeyCheck), Failure> {
    let invoker = test_settings::invoker();
    let check = HostKeyCheck::new(options, &invoker, prompter.clone(), peer);
    let algorithms = check.algorithms();
    let config = Config {
        preferred: Preferred {
            key: algorithms.plain.into(),
            host_key_certificates: algorithms.certificates.into(),
            ..Preferred::default()
        },
        ..client::Config::default()
    };
    let handle = connect_stream(Arc::new(config), stream, Client(check.clone())).await?;
    Ok((handle, check))
}

/// An ssh-agent that listens at `socket`.
pub(in crate::ssh) async fn start_agent(socket: &Path) -> Running {
    let agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let agent = Running(agent);
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        tokio::task::yield_now().await;
    }
    agent
}

/// Adds the key in `path` and its certificate to the agent.
pub(in crate::ssh) fn add_to_agent(socket: &Path, path: &Path) {
    run(Command::new("ssh-add")
        .arg("-q")
        .arg(path)
        .env("SSH_AUTH_SOCK", socket)
        .stdin(Stdio::null()));
}

/// A prompter without answers.
pub(in crate::ssh) fn nobody() -> Prompter {
    Prompter::scripted(Script::new(&[]))
}

/// `options` with the key files `names` of the server.
pub(in crate::ssh) fn with_keys(server: &Server, names: &[&str]) -> SshOptions {
    let mut options = server.options();
    options.identity_files = names.iter().map(|name| server.path(name)).collect();
    options
}

/// How many times sshd's log contains `text`.
pub(in crate::ssh) fn logged(server: &Server, text: &str) -> usize {
    server.log().matches(text).count()
}
