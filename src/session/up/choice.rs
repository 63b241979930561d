//! Which carrier a tunnel travels by: as the user says, else by an agent, if one
//! can be started at the far end, else by sshd's own forwarding.

use std::fmt;

use super::plan::way_probes;
use super::{Reporter, UpRequest};
use crate::session::failure::Failure;
use crate::session::far_agent::{self, AgentRequest, FarAgentError, Started};
use crate::ssh::connect::Connection;

/// A way in which packets travel inside SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The stream of an sshvpn at the far end.
    Agent,
    /// sshd's own tunnel forwarding, `tun@openssh.com`.
    Tun,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Carrier::Agent => "agent",
            Carrier::Tun => "tun",
        })
    }
}

/// Which carrier is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CarrierRequest {
    /// This one; the best there is where it is not said.
    pub via: Option<Carrier>,
    /// The command that starts an agent, in place of those that are tried.
    pub agent_command: Option<String>,
    /// Whether to send our own program to a far end that has none.
    pub push: bool,
}

impl CarrierRequest {
    /// The carrier without which there is to be no tunnel.
    fn forced(&self) -> Option<Carrier> {
        let command = self.agent_command.as_ref().map(|_| Carrier::Agent);
        self.via.or(command)
    }
}

/// The chosen carrier, as far as it has been started.
pub(super) enum Chosen {
    /// An agent, and what it told about its host.
    Agent(Box<Started>),
    /// Nothing has been started.
    Tun,
}

/// Chooses, and says which and why in one line.
pub(super) async fn choose(
    connection: &Connection,
    request: &UpRequest,
    reporter: Reporter,
) -> Result<Chosen, Failure> {
    let wanted = &request.carrier;
    if wanted.forced() == Some(Carrier::Tun) {
        reporter.step(format_args!("by {}: as asked for", Carrier::Tun));
        return Ok(Chosen::Tun);
    }
    let agent_request = AgentRequest {
        command: wanted.agent_command.clone(),
        push: wanted.push,
        ways: request.routes.iter().flat_map(way_probes).collect(),
    };
    let progress = |text: String| reporter.step(text);
    match far_agent::start(connection, &agent_request, progress).await {
        Ok(started) => {
            let (software, host) = (started.agent.software(), connection.host());
            reporter.step(format_args!("by {}: {software} at {host}", Carrier::Agent));
            Ok(Chosen::Agent(Box::new(started)))
        }
        Err(error) if is_final(wanted, &error) => Err(Failure::ssh(error)),
        Err(reason) => {
            reporter.step(format_args!("by {}: {reason}", Carrier::Tun));
            Ok(Chosen::Tun)
        }
    }
}

/// Whether no other carrier may be tried after this.
fn is_final(wanted: &CarrierRequest, error: &FarAgentError) -> bool {
    wanted.forced() == Some(Carrier::Agent) || error.lost_connection()
}
