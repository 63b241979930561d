//! The settings that ssh would use for a destination: typed, with paths and commands expanded.
//! ssh_config(5) describes each one.

use std::path::PathBuf;
use std::time::Duration;

use super::args::AddressFamily;
use super::destination::JumpHop;
use super::forward::{Forward, Target};
use super::pattern::matches_any;
use crate::config::congestion::CongestionControl;
use crate::config::forward_place::Place;
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
    /// The user to log in as.
    pub user: String,
    /// The address families to try.
    pub address_family: AddressFamily,
    /// The local address to connect from.
    pub bind_address: Option<String>,
    /// The local interface to connect from.
    pub bind_interface: Option<String>,
    /// The time limit for connecting, including the SSH handshake.
    pub connect_timeout: Option<Duration>,
    /// The number of attempts to connect.
    pub connection_attempts: u32,
    /// Whether TCP keepalives are on.
    pub tcp_keep_alive: bool,
    /// The congestion control of the TCP connection; `None` for this host's own choice.
    pub congestion: Option<CongestionControl>,
    /// The proxy to the host, if any.
    pub proxy: Option<Proxy>,

    /// The name for looking up the host's key, instead of the host.
    pub host_key_alias: Option<String>,
    /// The user's known_hosts files; new keys are added to the first.
    pub user_known_hosts: Vec<PathBuf>,
    /// The system's known_hosts files.
    pub global_known_hosts: Vec<PathBuf>,
    /// Files of revoked keys: lists of public keys, or a KRL.
    pub revoked_host_keys: Vec<PathBuf>,
    /// The treatment of unknown and changed keys.
    pub strict_host_key_checking: StrictHostKeyChecking,
    /// Whether names are hashed when a key is added.
    pub hash_known_hosts: bool,
    /// Whether the host's address must have the key, too.
    pub check_host_ip: bool,
    /// Whether localhost's key is not checked.
    pub no_host_authentication_for_localhost: bool,
    /// The format of fingerprints.
    pub fingerprint_hash: FingerprintHash,
    /// The smallest RSA key that is accepted, in bits.
    pub required_rsa_size: u32,

    /// Private keys, in order.
    pub identity_files: Vec<PathBuf>,
    /// Whether identity files were configured; if not, `identity_files` are the defaults, and a
    /// missing file is not reported.
    pub identity_files_explicit: bool,
    /// Certificates for the private keys.
    pub certificate_files: Vec<PathBuf>,
    /// Whether the agent's other keys are ignored.
    pub identities_only: bool,
    /// The agent's socket; `None` for no agent.
    pub identity_agent: Option<PathBuf>,
    /// Methods by name, in order.
    pub preferred_authentications: Vec<String>,
    /// Whether keys are tried.
    pub pubkey_authentication: bool,
    /// Whether passwords are tried.
    pub password_authentication: bool,
    /// Whether keyboard-interactive is tried.
    pub kbd_interactive_authentication: bool,
    /// The number of attempts to enter a password.
    pub number_of_password_prompts: u32,
    /// Whether all questions to the user are disabled.
    pub batch_mode: bool,

    /// Signature algorithms for the user's keys, as ssh names them.
    pub pubkey_accepted_algorithms: Vec<String>,
    /// The largest TCP segment of the connection, in bytes; the path's if `None`. Not of ssh_config.
    pub segment_size: Option<u16>,

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
    /// Signature algorithms of certification authorities.
    pub ca_signature_algorithms: Vec<String>,

    /// The limits after which new keys are agreed on.
    pub rekey_limit: RekeyLimit,
    /// The time without a message after which the server is asked for a reply.
    pub server_alive_interval: Option<Duration>,
    /// The number of such requests without a reply, after which the connection ends.
    pub server_alive_count_max: u32,

    /// The kind of tunnel, if one is requested.
    pub tunnel: Option<Mode>,
    /// The devices of the tunnel.
    pub tunnel_device: TunnelDevice,
    /// The forwards.
    pub forwards: ForwardSettings,
    /// The control socket to listen at, if any.
    pub control: Option<ControlSocket>,
    /// `ControlPath`.
    pub control_path: Option<PathBuf>,
    /// Whether a forward that cannot be set up ends the connection.
    pub exit_on_forward_failure: bool,
    /// Whether the command gets a terminal.
    pub request_tty: RequestTty,
    /// The command to run; `None` for a login shell.
    pub remote_command: Option<String>,
    /// The kind of session at the server.
    pub session_type: SessionType,
    /// Whether standard input is /dev/null.
    pub stdin_null: bool,
    /// Whether to move to the background after login.
    pub fork_after_authentication: bool,
    /// Patterns of environment variables to send.
    pub send_env: Vec<String>,
    /// Environment variables to set.
    pub set_env: Vec<(String, String)>,
    /// The escape character of a session with a terminal.
    pub escape_char: Option<u8>,
    /// The verbosity of messages.
    pub log_level: LogLevel,
}

impl SshOptions {
    /// The environment for the session: the variables of `environment` that `SendEnv` names, and
    /// those of `SetEnv`, which take precedence.
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

/// The forwards, and the settings that apply to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSettings {
    /// `-L`, `LocalForward`.
    pub local: Vec<Forward>,
    /// `-R`, `RemoteForward`.
    pub remote: Vec<Forward>,
    /// `-D`, `DynamicForward`.
    pub dynamic: Vec<Forward>,
    /// `-W`: the target of standard input and output.
    pub stdio: Option<Target>,
    /// Whether listeners without an address are at all addresses (`GatewayPorts`).
    pub gateway_ports: bool,
    /// The file mode bits that a Unix socket lacks (`StreamLocalBindMask`).
    pub socket_mask: u32,
    /// Whether a Unix socket replaces an existing file (`StreamLocalBindUnlink`).
    pub unlink_socket: bool,
    /// The targets of remote dynamic forwards.
    pub permit_remote_open: PermitRemoteOpen,
    /// The address families of listeners.
    pub address_family: AddressFamily,
}

impl ForwardSettings {
    /// The keywords of the forwards.
    pub fn keywords(&self) -> Vec<&'static str> {
        let all = [
            ("LocalForward", &self.local),
            ("RemoteForward", &self.remote),
            ("DynamicForward", &self.dynamic),
        ];
        let set = all.into_iter().filter(|(_, forwards)| !forwards.is_empty());
        set.map(|(keyword, _)| keyword).collect()
    }

    /// Whether there is no forward with a listener.
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.dynamic.is_empty()
    }
}

/// The control socket of this connection (`ControlMaster` with `ControlPath`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSocket {
    /// Its path.
    pub path: PathBuf,
    /// Whether a socket that is taken is no reason for a message (`auto`, `autoask`).
    pub auto: bool,
    /// Whether the connection in the background stays after its command, and how long without a forwarded
    /// connection (`ControlPersist`); zero for ever.
    pub persist: Option<Duration>,
}

/// `PermitRemoteOpen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermitRemoteOpen {
    /// Every target.
    Any,
    /// These places alone.
    Places(Vec<Place>),
}

impl PermitRemoteOpen {
    /// Whether a remote dynamic forward may connect to `target`.
    pub fn permits(&self, target: &Target) -> bool {
        match (self, target) {
            (PermitRemoteOpen::Any, _) => true,
            (PermitRemoteOpen::Places(places), Target::Host { host, port }) => {
                places.iter().any(|place| {
                    place.host.as_deref().is_none_or(|known| known == host)
                        && place.port.is_none_or(|known| known == *port)
                })
            }
            (PermitRemoteOpen::Places(_), Target::Socket(_)) => false,
        }
    }
}

/// The proxy to a host.
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
    /// The user is asked about unknown keys.
    Ask,
    /// Unknown keys are added, changed keys refused.
    AcceptNew,
    /// Unknown keys are added, changed keys accepted with some restrictions.
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

/// `RekeyLimit`; `None` is the cipher's default, or no time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RekeyLimit {
    /// The limit in bytes.
    pub bytes: Option<u64>,
    /// The limit in time.
    pub time: Option<Duration>,
}

/// `RequestTTY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestTty {
    /// If there is a terminal here and no command.
    Auto,
    /// Never.
    No,
    /// If there is a terminal here.
    Yes,
    /// Always.
    Force,
}

/// `SessionType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionType {
    /// A shell or a command.
    Default,
    /// No session (`-N`).
    None,
    /// The command names a subsystem (`-s`).
    Subsystem,
}

/// `LogLevel`, `-v`, `-q`: from the fewest messages to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// No messages.
    Quiet,
    /// Errors that end the program.
    Fatal,
    /// Errors.
    Error,
    /// The default.
    Info,
    /// Additional messages.
    Verbose,
    /// `-v`.
    Debug1,
    /// `-vv`.
    Debug2,
    /// `-vvv`.
    Debug3,
}
