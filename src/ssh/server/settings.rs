//! The settings that all connections of a server share, and russh's configuration.

use std::borrow::Cow;
use std::time::Duration;

use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, SshId};

use super::host_keys::HostKeys;
use crate::config::congestion::CongestionControl;
use crate::ssh::algorithms;
use crate::ssh::client::connect::{IDENTIFICATION, MAX_PACKET, QUEUE, SEND_QUEUE, UNREAD_LIMIT};

/// The window that the server grants on each channel, in bytes: the same as OpenSSH's on a
/// session. It carries 250 Mbit/s over 40 ms, because it is granted in halves.
const WINDOW: u32 = 2 * 1024 * 1024;

/// The window of a forward at its start, in bytes; it doubles with use. Many forwards of a
/// browser stay idle, and their windows reduce those of other channels.
const FIRST_WINDOW: u32 = 256 * 1024;

/// How often the server probes a client (sshd's `ClientAliveInterval`).
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How many probes in a row may stay unanswered (`ClientAliveCountMax`).
const ALIVE_COUNT: u32 = 3;

/// Settings of a server's connections.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The server's host keys.
    pub host_keys: HostKeys,
    /// Failed attempts of one connection, as sshd's `MaxAuthTries`; at least one.
    pub max_auth_tries: usize,
    /// The time limit of a login; `None` for no limit.
    pub grace_time: Option<Duration>,
    /// The congestion control of the connections; `None` for this host's own choice.
    pub congestion: Option<CongestionControl>,
    /// At most this many channels per connection, open or requested.
    pub channels: usize,
}

impl ServerSettings {
    /// How long a client may accept no data that is written to it.
    pub(super) fn stall_limit(&self) -> Duration {
        ALIVE_INTERVAL * ALIVE_COUNT
    }

    /// The configuration for russh.
    pub(super) fn configuration(&self) -> Config {
        Config {
            server_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            // A refusal's timing reveals nothing: keys are compared with public lists, and
            // a user name has no account behind it.
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
