//! Errors of a connection to an SSH server.

use std::io;

use thiserror::Error;

use super::client::auth::AuthError;
use super::client::host_key::HostKeyError;
use super::congestion::CongestionError;
use crate::config::ConfigError;

/// Why a connection failed. The texts are those of ssh where ssh has one.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The settings of a jump host could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host name does not resolve.
    #[error("Could not resolve hostname {host}: {reason}")]
    Resolve {
        /// The host name.
        host: String,
        /// The resolver's reason.
        reason: String,
    },
    /// No address of the host accepted a TCP connection.
    #[error("connect to host {host} port {port}: {reason}")]
    Tcp {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
        /// The kernel's reason.
        reason: String,
    },
    /// `BindAddress` or `BindInterface` cannot be used.
    #[error("cannot connect from {from} (BindAddress or BindInterface): {source}")]
    Bind {
        /// The address or interface.
        from: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The requested congestion control cannot be used.
    #[error("--congestion: {0}")]
    Congestion(#[from] CongestionError),
    /// The ProxyCommand did not start.
    #[error("cannot start ProxyCommand '{command}': {source}")]
    ProxyCommand {
        /// The command.
        command: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A jump host did not connect to the next host.
    #[error("jump host {jump} cannot connect to {host} port {port}: {reason}")]
    Jump {
        /// The jump host.
        jump: String,
        /// The next host.
        host: String,
        /// Its port.
        port: u16,
        /// The jump host's reason.
        reason: String,
    },
    /// sshvpn supports no algorithm of a configured list.
    #[error("no algorithm in {key} '{configured}' is supported; supported are: {supported}")]
    NoAlgorithm {
        /// The option's name.
        key: &'static str,
        /// The option's value.
        configured: String,
        /// The supported algorithms, separated by commas.
        supported: String,
    },
    /// The server did not finish the handshake within `ConnectTimeout`.
    #[error("connect to host {host} port {port}: Connection timed out during the SSH handshake")]
    HandshakeTimeout {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Large packets do not get through.
    #[error(
        "connect to host {host} port {port}: small packets reach it and large ones do not: a router on \
         the way drops them and reports nothing (path MTU); let ICMP through there, or give 'sshvpn up' \
         --segment-size 1200"
    )]
    NarrowPath {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The server closed the connection before it had identified itself.
    #[error("{host} port {port}: the server closed the connection before the banner ({reason})")]
    ClosedEarly {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
        /// The server's word, or the likely reasons.
        reason: String,
    },
    /// A ProxyCommand ended before the server had identified itself.
    #[error("{host}: the ProxyCommand closed the connection before the server's banner")]
    ProxyClosed {
        /// The host.
        host: String,
    },
    /// The handshake failed.
    #[error("SSH handshake with {host} port {port} failed: {reason}")]
    Handshake {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
        /// The reason.
        reason: String,
    },
    /// The host key was not accepted.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// No authentication method was accepted.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Why a request on a connection failed.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The server refused the tunnel.
    #[error("{host} refused the tunnel: {reason}")]
    TunnelRefused {
        /// The server.
        host: String,
        /// The server's reason, and what to do about it.
        reason: String,
    },
    /// The server implements no tunnels.
    #[error(
        "{host} refused the tunnel: its SSH server, {software}, has no tunnel forwarding (tun@openssh.com); \
         'sshvpn up' needs none where sshvpn is installed, and with --push"
    )]
    TunnelUnknown {
        /// The server.
        host: String,
        /// Its program and version.
        software: String,
    },
    /// The server's host key was not verified.
    #[error(
        "no tunnel to {host} and no forwards: its host key is not the known one or is revoked, and StrictHostKeyChecking no \
         permits sessions only; check the key and correct known_hosts"
    )]
    Unverified {
        /// The server.
        host: String,
    },
    /// The server did not start a command or shell.
    #[error("{host} did not start {what}: {reason}")]
    Process {
        /// The server.
        host: String,
        /// The command, or "a shell".
        what: String,
        /// The server's reason.
        reason: String,
    },
    /// The server does not listen.
    #[error(
        "{host} refused to listen at {what}: the port may be taken, or AllowTcpForwarding or PermitListen forbids it"
    )]
    ListenRefused {
        /// The server.
        host: String,
        /// The listener.
        what: String,
    },
    /// The server did not reply in time.
    #[error("{host} did not answer the request for {what}")]
    NoAnswer {
        /// The server.
        host: String,
        /// The request.
        what: String,
    },
    /// The connection is gone.
    #[error("connection to {host} is gone: {reason}")]
    Gone {
        /// The server.
        host: String,
        /// The reason.
        reason: String,
    },
}
