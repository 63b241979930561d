//! Settings for tests: ssh's options for `alice@server` with an empty configuration, and
//! the user who runs the tests.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use crate::config::invoker::Invoker;
use crate::config::ssh::args::AddressFamily;
use crate::config::ssh::options::{
    FingerprintHash, ForwardSettings, LogLevel, PermitRemoteOpen, RekeyLimit, RequestTty,
    SessionType, SshOptions, StrictHostKeyChecking,
};
use crate::types::TunnelDevice;

/// The user of the test process, without an agent.
pub(crate) fn invoker() -> Invoker {
    let user = User::from_uid(Uid::effective()).unwrap().unwrap();
    Invoker {
        uid: user.uid,
        gid: user.gid,
        groups: vec![user.gid],
        name: user.name,
        home: PathBuf::from("/nonexistent/home"),
        agent_socket: None,
        via_sudo: false,
    }
}

/// A public RSA key of 1024 bits.
pub(crate) const RSA_KEY: &str = "ssh-rsa \
    AAAAB3NzaC1yc2EAAAADAQABAAAAgQDVbokNID0xieXwm0ZVa3KCVKbC50lc+KRw57oXBseo\
    1hoUbpUPgg6OoYnO3nkDLXzy8DFUahTK6+C7NouE4wL2n8A9ktqxCabWnKq+rAwKp3dWij9s\
    eFay1cn3W8kyBLDUaQvaeuI2FRmladwme59dMXiSwO3/FDBEaz16y0uhAw==";

/// The signature algorithms of OpenSSH's defaults.
const ALGORITHMS: &str = "ssh-ed25519-cert-v01@openssh.com \
    ecdsa-sha2-nistp256-cert-v01@openssh.com rsa-sha2-512-cert-v01@openssh.com \
    rsa-sha2-256-cert-v01@openssh.com ssh-ed25519 ecdsa-sha2-nistp256 \
    ecdsa-sha2-nistp384 ecdsa-sha2-nistp521 sk-ssh-ed25519@openssh.com \
    rsa-sha2-512 rsa-sha2-256";

/// The settings; they name no file of this host.
pub(crate) fn options() -> SshOptions {
    SshOptions {
        destination: "server".into(),
        host: "server".into(),
        port: 22,
        segment_size: None,
        user: "alice".into(),
        address_family: AddressFamily::Any,
        bind_address: None,
        bind_interface: None,
        connect_timeout: None,
        connection_attempts: 1,
        tcp_keep_alive: true,
        proxy: None,
        host_key_alias: None,
        user_known_hosts: Vec::new(),
        global_known_hosts: Vec::new(),
        revoked_host_keys: Vec::new(),
        strict_host_key_checking: StrictHostKeyChecking::Ask,
        hash_known_hosts: false,
        check_host_ip: false,
        no_host_authentication_for_localhost: false,
        fingerprint_hash: FingerprintHash::Sha256,
        required_rsa_size: 1024,
        identity_files: Vec::new(),
        identity_files_explicit: true,
        certificate_files: Vec::new(),
        identities_only: false,
        identity_agent: None,
        preferred_authentications: names("publickey keyboard-interactive password"),
        pubkey_authentication: true,
        password_authentication: true,
        kbd_interactive_authentication: true,
        number_of_password_prompts: 3,
        batch_mode: false,
        pubkey_accepted_algorithms: names(ALGORITHMS),
        ciphers: Vec::new(),
        kex_algorithms: Vec::new(),
        macs: Vec::new(),
        host_key_algorithms: names(ALGORITHMS),
        host_key_algorithms_explicit: false,
        ca_signature_algorithms: names("ssh-ed25519 ecdsa-sha2-nistp256 rsa-sha2-512"),
        rekey_limit: RekeyLimit::default(),
        server_alive_interval: None,
        server_alive_count_max: 3,
        tunnel: None,
        tunnel_device: TunnelDevice::default(),
        forwards: ForwardSettings {
            local: Vec::new(),
            remote: Vec::new(),
            dynamic: Vec::new(),
            stdio: None,
            gateway_ports: false,
            socket_mask: 0o177,
            unlink_socket: false,
            permit_remote_open: PermitRemoteOpen::Any,
            address_family: AddressFamily::Any,
        },
        control: None,
        control_path: None,
        exit_on_forward_failure: false,
        congestion: None,
        request_tty: RequestTty::Auto,
        remote_command: None,
        session_type: SessionType::Default,
        stdin_null: false,
        fork_after_authentication: false,
        send_env: Vec::new(),
        set_env: Vec::new(),
        escape_char: None,
        log_level: LogLevel::Info,
    }
}

fn names(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

/// Writes a shell script. Another process writes it: if this process had it open for
/// writing, a child forked meanwhile could keep the file busy (ETXTBSY).
pub(crate) fn write_program(path: &Path, script: &str) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    write!(install.stdin.take().unwrap(), "#!/bin/sh\n{script}\n").unwrap();
    assert!(install.wait().unwrap().success());
}
