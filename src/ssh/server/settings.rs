//! What every connection of a server has in common, and what russh is told of it.

use std::borrow::Cow;
use std::time::Duration;

use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, SshId};

use super::host_keys::HostKeys;
use crate::ssh::algorithms;
use crate::ssh::client::connect::{IDENTIFICATION, MAX_PACKET, QUEUE, SEND_QUEUE, UNREAD_LIMIT};

/// The window that a client is granted on each channel, in bytes: what OpenSSH
/// grants on a session. It carries 250 Mbit/s over 40 ms, as it is granted in halves.
const WINDOW: u32 = 2 * 1024 * 1024;

/// The window that a forward has at its start, in bytes; it doubles as it is used. Many
/// forwards of a browser stay idle, and what they are granted is missing elsewhere.
const FIRST_WINDOW: u32 = 256 * 1024;

/// How often a client is asked whether it is there (sshd's `ClientAliveInterval`).
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How often in a row it may fail to answer (`ClientAliveCountMax`).
const ALIVE_COUNT: u32 = 3;

/// Settings of a server's connections.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// By which it shows who it is.
    pub host_keys: HostKeys,
    /// Failed attempts of one connection, as sshd's `MaxAuthTries`; at least one.
    pub max_auth_tries: usize,
    /// How long a login may take; for ever, where there is none.
    pub grace_time: Option<Duration>,
    /// Channels that one connection may have open or ask for at once.
    pub channels: usize,
}

impl ServerSettings {
    /// How long a client may take nothing of what is written to it.
    pub(super) fn stall_limit(&self) -> Duration {
        ALIVE_INTERVAL * ALIVE_COUNT
    }

    /// The configuration for russh.
    pub(super) fn configuration(&self) -> Config {
        Config {
            server_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            // A refusal says nothing that its time could tell more of: keys are
            // compared with public lists, and no account stands behind a name.
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: None,
            keys: self.host_keys.to_vec(),
            limits: Limits::default(),
            window_size: WINDOW,
            first_window_size: FIRST_WINDOW,
            unread_limit: UNREAD_LIMIT,
            maximum_packet_size: MAX_PACKET,
            channel_buffer_size: QUEUE,
            requests_to_readers: false,
            event_buffer_size: SEND_QUEUE,
            preferred: algorithms::offered(),
            max_auth_attempts: self.max_auth_tries.max(1),
            inactivity_timeout: None,
            keepalive_interval: Some(ALIVE_INTERVAL),
            keepalive_max: usize::try_from(ALIVE_COUNT).unwrap_or(usize::MAX),
            nodelay: true,
            ..Config::default()
        }
    }
}
