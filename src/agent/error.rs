//! Why an agent did not do what was asked of it. The client is told in these
//! words, with the agent's host in front.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::limits::PrefixError;
use super::limits_file::{self, LimitsFileError};
use crate::frame::control::CloseReason;
use crate::host::error::NetError;
use crate::host::journal::runtime_dir::RuntimeDirError;
use crate::host::privilege::PrivilegeError;
use crate::tun::OpenError;
use crate::types::{InterfaceName, Mtu};

/// Where limits come from, for the texts below.
const LIMITS: &str = "by its command line or its agent.toml";

/// A refusal or a failure.
#[derive(Debug, Error)]
pub enum AgentError {
    /// No tunnel can be made by this login.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// A network that is not allowed.
    #[error(
        "the agent there may not forward to {0}, {LIMITS}: leave it out, or have it allowed (allow-route)"
    )]
    Route(IpNetwork),
    /// NAT is not allowed.
    #[error(
        "the agent there may not do NAT, {LIMITS}: ask for none (--no-nat), and give the networks behind a route back"
    )]
    Nat,
    /// A tunnel address that is not allowed.
    #[error(
        "the agent there takes no tunnel address {0}, {LIMITS}: choose one that it allows (--address, --peer-address)"
    )]
    Address(IpAddr),
    /// A device name that is not allowed.
    #[error("the agent there makes no device '{0}', {LIMITS}: let it choose the name")]
    Device(InterfaceName),
    /// An MTU above the limit.
    #[error(
        "the agent there takes an MTU of {max} at most, {LIMITS}, not {asked}: ask for less (--mtu)"
    )]
    Mtu {
        /// What was asked for.
        asked: Mtu,
        /// The limit.
        max: Mtu,
    },
    /// A request that no host could fulfil.
    #[error("a set-up that makes no sense: {0}")]
    Nonsense(String),
    /// nft or iptables is needed.
    #[error(
        "there is neither an 'nft' nor an '{program}' program there, which {needed_for} needs: install nftables there"
    )]
    NoFirewall {
        /// The one that would do.
        program: &'static str,
        /// What it would do.
        needed_for: &'static str,
    },
    /// The file of limits.
    #[error("{0}; no agent runs there until that is mended")]
    LimitsFile(#[from] LimitsFileError),
    /// Limits that contradict each other.
    #[error("{0} ({path})", path = limits_file::PATH)]
    Prefix(#[from] PrefixError),
    /// The device.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The host's state.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The place of the journals.
    #[error("the undo journal: {0}")]
    RuntimeDir(#[from] RuntimeDirError),
}

impl AgentError {
    /// The kind of reason that the client is given.
    pub fn reason(&self) -> CloseReason {
        match self {
            AgentError::Privilege(_)
            | AgentError::Route(_)
            | AgentError::Nat
            | AgentError::Address(_)
            | AgentError::Device(_)
            | AgentError::Mtu { .. } => CloseReason::NotPermitted,
            AgentError::Nonsense(_) => CloseReason::Protocol,
            _ => CloseReason::Failed,
        }
    }
}
