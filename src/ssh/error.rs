//! What can go wrong between us and an SSH server.

use std::io;

use thiserror::Error;

use super::client::auth::AuthError;
use super::client::host_key::HostKeyError;
use crate::config::ConfigError;

/// Why there is no connection. Worded as ssh words it where ssh has words.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The settings for a host on the way could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The name has no address.
    #[error("Could not resolve hostname {host}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's reason.
        reason: String,
    },
    /// No address of the host answered.
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
    #[error("cannot connect from {from}, as configured: {source}")]
    Bind {
        /// The address or interface.
        from: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The ProxyCommand did not start.
    #[error("cannot start ProxyCommand '{command}': {source}")]
    ProxyCommand {
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A jump host did not open the way to the next host.
    #[error("jump host {jump} does not connect to {host} port {port}: {reason}")]
    Jump {
        /// The jump host.
        jump: String,
        /// The next host.
        host: String,
        /// Its port.
        port: u16,
        /// Its reason.
        reason: String,
    },
    /// No algorithm of a configured list is one that we have.
    #[error("no algorithm in {key} '{configured}' is supported; supported are: {supported}")]
    NoAlgorithm {
        /// The setting.
        key: &'static str,
        /// Its value.
        configured: String,
        /// What there is.
        supported: String,
    },
    /// The server did not finish the handshake in `ConnectTimeout`.
    #[error("connect to host {host} port {port}: Connection timed out during the SSH handshake")]
    HandshakeTimeout {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The handshake failed.
    #[error("SSH handshake with {host} port {port} failed: {reason}")]
    Handshake {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
        /// What russh says.
        reason: String,
    },
    /// The host key was not accepted.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// No authentication method was accepted.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Why a request on a connection was not fulfilled.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The server refused the tunnel.
    #[error("{host} refused the tunnel: {reason}")]
    TunnelRefused {
        /// The remote end.
        host: String,
        /// Its reason, and what to do about it.
        reason: String,
    },
    /// The server may be somebody else.
    #[error(
        "no tunnel to {host}: its host key is not the one that is known, and StrictHostKeyChecking no \
         only lets a session through"
    )]
    Unverified {
        /// The remote end.
        host: String,
    },
    /// The server did not start a command or shell.
    #[error("{host} did not start {what}: {reason}")]
    Process {
        /// The remote end.
        host: String,
        /// The command, or "a shell".
        what: String,
        /// Its reason.
        reason: String,
    },
    /// The server said neither yes nor no.
    #[error("{host} does not answer the request for {what}")]
    NoAnswer {
        /// The remote end.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The connection is gone.
    #[error("connection to {host} is gone: {reason}")]
    Gone {
        /// The remote end.
        host: String,
        /// Why.
        reason: String,
    },
}
