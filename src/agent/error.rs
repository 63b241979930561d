//! Why an agent refused or failed a request. The client receives these texts, after the host's
//! name.

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

/// The source of the limits, for the texts below.
const LIMITS: &str = "a limit of its command line or agent.toml";

/// A refusal or a failure.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The login lacks the privilege to make a tunnel.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Forwarding to the network is not permitted.
    #[error(
        "the agent does not permit forwarding to {0} ({LIMITS}): leave it out, or have it allowed (allow-route)"
    )]
    Route(IpNetwork),
    /// NAT is not permitted.
    #[error(
        "the agent does not permit NAT ({LIMITS}): use --no-nat, and give the networks behind it a route back"
    )]
    Nat,
    /// The tunnel address is not permitted.
    #[error(
        "the agent does not permit the tunnel address {0} ({LIMITS}): choose another (--address, --peer-address)"
    )]
    Address(IpAddr),
    /// Another tunnel has the client's address.
    #[error("{0} is the address of another tunnel there: choose another (--address), or try again")]
    AddressTaken(IpAddr),
    /// The device name is not permitted.
    #[error("the agent does not permit the device name '{0}' ({LIMITS}): leave out --peer-unit")]
    Device(InterfaceName),
    /// The MTU is above the limit.
    #[error(
        "the agent permits an MTU of at most {max} ({LIMITS}), not {asked}: use a smaller --mtu"
    )]
    Mtu {
        /// The requested MTU.
        asked: Mtu,
        /// The limit.
        max: Mtu,
    },
    /// The request is invalid.
    #[error("invalid set-up request: {0}")]
    Nonsense(String),
    /// The request needs nft or iptables.
    #[error(
        "the agent's host has neither 'nft' nor '{program}', needed for {needed_for}: install nftables there"
    )]
    NoFirewall {
        /// `iptables` or `ip6tables`.
        program: &'static str,
        /// The purpose.
        needed_for: &'static str,
    },
    /// The file of limits is unusable.
    #[error("{0}; no agent runs on this host until that is fixed")]
    LimitsFile(#[from] LimitsFileError),
    /// The limits contradict each other.
    #[error("{0} ({path})", path = limits_file::PATH)]
    Prefix(#[from] PrefixError),
    /// The device cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A change of the host failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The journal's directory is unusable.
    #[error("the undo journal: {0}")]
    RuntimeDir(#[from] RuntimeDirError),
}

impl AgentError {
    /// The reason's code for the client.
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
