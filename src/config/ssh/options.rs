//! What ssh would use for a destination: every setting typed, every path and
//! command expanded. See ssh_config(5) for what each one means.

use std::path::PathBuf;
use std::time::Duration;

use super::args::AddressFamily;
use super::destination::JumpHop;
use super::pattern::matches_any;
use crate::types::{Mode, TunnelDevice};

/// The settings for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshOptions {
    /// The host as typed (`%n`), without user and port.
    pub destination: String,
    /// The host to connect to (`HostName`, `%h`).
    pub host: String,
    /// The port to connect to.
    pub port: u16,
    /// Who to log in as.
    pub user: String,
    /// Which addresses of the host are tried.
    pub address_family: AddressFamily,
    /// The local address to connect from.
    pub bind_address: Option<String>,
    /// The local interface to connect from.
    pub bind_interface: Option<String>,
    /// How long a connection may take to be made, the SSH handshake included.
    pub connect_timeout: Option<Duration>,
    /// How often connecting is tried.
    pub connection_attempts: u32,
    /// Whether TCP keepalives are on.
    pub tcp_keep_alive: bool,
    /// The way to the host, if not straight.
    pub proxy: Option<Proxy>,

    /// The name under which the host's key is looked up, instead of the host.
    pub host_key_alias: Option<String>,
    /// The user's known_hosts files; the first is where keys are added.
    pub user_known_hosts: Vec<PathBuf>,
    /// The system's known_hosts files.
    pub global_known_hosts: Vec<PathBuf>,
    /// Files of keys never to be accepted: lists of public keys, or a KRL.
    pub revoked_host_keys: Vec<PathBuf>,
    /// What happens to keys that are not known, or changed.
    pub strict_host_key_checking: StrictHostKeyChecking,
    /// Whether names are hashed when a key is added.
    pub hash_known_hosts: bool,
    /// Whether the host's address has to have the key, too.
    pub check_host_ip: bool,
    /// Whether localhost's key is not checked.
    pub no_host_authentication_for_localhost: bool,
    /// How fingerprints are shown.
    pub fingerprint_hash: FingerprintHash,
    /// The smallest RSA key that is accepted, in bits.
    pub required_rsa_size: u32,

    /// Private keys, in order.
    pub identity_files: Vec<PathBuf>,
    /// Whether any was configured; if not, those are the default ones, and a
    /// missing one is no news.
    pub identity_files_explicit: bool,
    /// Certificates for them.
    pub certificate_files: Vec<PathBuf>,
    /// Whether the agent's other keys are left alone.
    pub identities_only: bool,
    /// The agent's socket; None: no agent.
    pub identity_agent: Option<PathBuf>,
    /// Methods by name, in order.
    pub preferred_authentications: Vec<String>,
    /// Whether keys are tried.
    pub pubkey_authentication: bool,
    /// Whether passwords are tried.
    pub password_authentication: bool,
    /// Whether keyboard-interactive is tried.
    pub kbd_interactive_authentication: bool,
    /// How often a password is asked for.
    pub number_of_password_prompts: u32,
    /// Whether nothing at all is asked for.
    pub batch_mode: bool,

    /// Signature algorithms for the user's keys, as ssh names them.
    pub pubkey_accepted_algorithms: Vec<String>,
    /// Ciphers, as ssh names them, best first.
    pub ciphers: Vec<String>,
    /// Key exchange algorithms, as ssh names them, best first.
    pub kex_algorithms: Vec<String>,
    /// MACs, as ssh names them, best first.
    pub macs: Vec<String>,
    /// Host key algorithms, as ssh names them, best first.
    pub host_key_algorithms: Vec<String>,
    /// Whether they were configured; if not, those of known keys go first.
    pub host_key_algorithms_explicit: bool,
    /// What certification authorities may sign with.
    pub ca_signature_algorithms: Vec<String>,

    /// When new keys are agreed on.
    pub rekey_limit: RekeyLimit,
    /// After how much silence the server is asked whether it is there.
    pub server_alive_interval: Option<Duration>,
    /// How many such questions may go unanswered.
    pub server_alive_count_max: u32,

    /// The tunnel that is asked for.
    pub tunnel: Option<Mode>,
    /// Which devices it joins.
    pub tunnel_device: TunnelDevice,
    /// Whether a forwarding that cannot be set up ends the connection.
    pub exit_on_forward_failure: bool,
    /// Whether the command gets a terminal.
    pub request_tty: RequestTty,
    /// The command to run; a login shell if none.
    pub remote_command: Option<String>,
    /// What runs at the remote end.
    pub session_type: SessionType,
    /// Whether standard input is /dev/null.
    pub stdin_null: bool,
    /// Whether to go into the background once logged in.
    pub fork_after_authentication: bool,
    /// Patterns of environment variables to send.
    pub send_env: Vec<String>,
    /// Environment variables to set.
    pub set_env: Vec<(String, String)>,
    /// The escape character of a session with a terminal.
    pub escape_char: Option<u8>,
    /// How much is said.
    pub log_level: LogLevel,
}

impl SshOptions {
    /// What the session's environment gets: of `environment` what `SendEnv`
    /// names, and what `SetEnv` sets, which wins.
    pub fn environment(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<(String, String)> {
        let patterns = || self.send_env.iter().map(String::as_str);
        let set = |name: &str| self.set_env.iter().any(|(other, _)| other == name);
        let mut sent: Vec<_> = environment
            .into_iter()
            .filter(|(name, _)| matches_any(name, patterns()) && !set(name))
            .collect();
        sent.extend(self.set_env.iter().cloned());
        sent
    }
}

/// The way to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// Through these hosts, the nearest first.
    Jump(Vec<JumpHop>),
    /// Through the standard input and output of this shell command.
    Command(String),
}

/// `StrictHostKeyChecking`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrictHostKeyChecking {
    /// Unknown keys are refused.
    Yes,
    /// Unknown keys are asked about.
    Ask,
    /// Unknown keys are added, changed ones refused.
    AcceptNew,
    /// Unknown keys are added, changed ones accepted with some restrictions.
    No,
}

/// `FingerprintHash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FingerprintHash {
    /// Base64 of the SHA-256.
    Sha256,
    /// Colon-separated hexadecimal of the MD5.
    Md5,
}

/// `RekeyLimit`; None: the default of the cipher, or never by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RekeyLimit {
    /// After this many bytes.
    pub bytes: Option<u64>,
    /// After this long.
    pub time: Option<Duration>,
}

/// `RequestTTY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestTty {
    /// When there is a terminal here and no command.
    Auto,
    /// Never.
    No,
    /// When there is a terminal here.
    Yes,
    /// Always.
    Force,
}

/// `SessionType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionType {
    /// A shell or a command.
    Default,
    /// Nothing (`-N`).
    None,
    /// The command names a subsystem (`-s`).
    Subsystem,
}

/// `LogLevel`, `-v`, `-q`: from the least said to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Quiet,
    /// What ends the program.
    Fatal,
    /// Errors.
    Error,
    /// The default.
    Info,
    /// More.
    Verbose,
    /// `-v`.
    Debug1,
    /// `-vv`.
    Debug2,
    /// `-vvv`.
    Debug3,
}
