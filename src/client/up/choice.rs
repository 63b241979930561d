//! Chooses the carrier: the user's, else an sshvpn server's stream, else an agent's stream, else
//! the forwarding of sshd.

use std::fmt;

use thiserror::Error;

use super::plan::way_probes;
use super::{Reporter, UpRequest};
use crate::client::remote::agent::{
    self, AgentRequest, RemoteAgent, RemoteAgentError, Started, StartedAgent,
};
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;

/// How packets travel inside SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The stream of an sshvpn server.
    Serve,
    /// The stream of an agent on the remote host.
    Agent,
    /// Tunnel forwarding by sshd, `tun@openssh.com`.
    Tun,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Carrier::Serve => "serve",
            Carrier::Agent => "agent",
            Carrier::Tun => "tun",
        })
    }
}

/// The user's request for a carrier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CarrierRequest {
    /// This carrier; with `None`, the best that the server has.
    pub via: Option<Carrier>,
    /// The command that starts an agent, in place of the default ones.
    pub agent_command: Option<String>,
    /// Whether to send this program to a remote host that has none.
    pub push: bool,
}

impl CarrierRequest {
    /// The only carrier that the user allows, if any.
    fn forced(&self) -> Option<Carrier> {
        let command = self.agent_command.as_ref().map(|_| Carrier::Agent);
        self.via.or(command)
    }
}

/// The chosen carrier, and what was started for it.
pub(super) enum Chosen {
    /// A server that has answered the greeting.
    Serve(Box<RemoteAgent>),
    /// An agent, and the facts about its host.
    Agent(Box<StartedAgent>),
    /// Nothing is started yet.
    Tun,
}

/// The server lacks the requested carrier.
#[derive(Debug, Error)]
enum ChoiceError {
    /// The server is `sshvpn serve`.
    #[error(
        "{host} is an sshvpn server ({software}), which has neither agents nor shells: give '--via serve', \
         or leave out --via and --agent-command"
    )]
    Server {
        /// The server's host.
        host: String,
        /// Its program and version.
        software: String,
    },
}

/// Chooses the carrier, and reports it and the reason in one line.
pub(super) async fn choose(
    connection: &Connection,
    request: &UpRequest,
    reporter: Reporter,
) -> Result<Chosen, Failure> {
    let forced = request.carrier.forced();
    let other = forced.is_some_and(|carrier| carrier != Carrier::Serve);
    if connection.is_sshvpn() && other {
        return Err(only_serve(connection, connection.software()));
    }
    if connection.is_sshvpn() || forced == Some(Carrier::Serve) {
        let server = agent::meet_server(connection).await;
        return Ok(serve(connection, reporter, server.map_err(Failure::ssh)?));
    }
    if let Some(options) = only_for_servers(request) {
        reporter.step(format_args!(
            "{options}: no effect, unless {} is an sshvpn server",
            connection.host()
        ));
    }
    if forced == Some(Carrier::Tun) {
        reporter.step(format_args!("by {}: as requested", Carrier::Tun));
        return Ok(Chosen::Tun);
    }
    start(connection, request, reporter).await
}

/// Starts an agent; falls back to the forwarding of sshd unless an agent is required.
async fn start(
    connection: &Connection,
    request: &UpRequest,
    reporter: Reporter,
) -> Result<Chosen, Failure> {
    let wanted = &request.carrier;
    let agent_request = AgentRequest {
        command: wanted.agent_command.clone(),
        push: wanted.push,
        meter: !reporter.quiet,
        ways: request.routes.iter().flat_map(way_probes).collect(),
    };
    let progress = |text: String| reporter.step(text);
    match agent::start(connection, &agent_request, progress).await {
        Ok(Started::Server(server)) if wanted.forced().is_some() => {
            let software = server.software();
            server.close().await;
            Err(only_serve(connection, software))
        }
        Ok(Started::Server(server)) => Ok(serve(connection, reporter, server)),
        Ok(Started::Agent(started)) => {
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

fn serve(connection: &Connection, reporter: Reporter, server: RemoteAgent) -> Chosen {
    let (software, host) = (server.software(), connection.host());
    reporter.step(format_args!("by {}: {software} at {host}", Carrier::Serve));
    Chosen::Serve(Box::new(server))
}

fn only_serve(connection: &Connection, software: String) -> Failure {
    let host = connection.host().to_owned();
    Failure::ssh(ChoiceError::Server { host, software })
}

/// The given options that only concern a server's offer.
fn only_for_servers(request: &UpRequest) -> Option<&'static str> {
    let acceptance = &request.acceptance;
    match (
        acceptance.routes || !acceptance.networks.is_empty(),
        acceptance.name_servers,
    ) {
        (true, true) => Some("--accept-routes, --accept-route, --accept-dns"),
        (true, false) => Some("--accept-routes, --accept-route"),
        (false, true) => Some("--accept-dns"),
        (false, false) => None,
    }
}

/// Whether no other carrier may be tried after this error.
fn is_final(wanted: &CarrierRequest, error: &RemoteAgentError) -> bool {
    wanted.forced() == Some(Carrier::Agent) || error.lost_connection()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::up::test_request::request;
    use crate::ssh::client::wire_server::{Wire, WireServer, about, data, number};

    const QUIET: Reporter = Reporter { quiet: true };

    fn wanted(via: Option<Carrier>, agent_command: Option<&str>) -> UpRequest {
        let mut request = request(&[]);
        request.carrier.via = via;
        request.carrier.agent_command = agent_command.map(str::to_owned);
        request
    }

    /// The choice at a server that behaves as `server`.
    async fn chosen(
        request: UpRequest,
        server: impl AsyncFnOnce(Wire) -> Option<Wire>,
    ) -> Result<Chosen, Failure> {
        let listening = WireServer::bind().await;
        let (connection, wire) = listening.connect().await;
        tokio::join!(choose(&connection, &request, QUIET), server(wire)).0
    }

    /// The error at a server that identifies itself as sshvpn.
    async fn refused_by_ours(request: UpRequest) -> String {
        let listening = WireServer::bind_as("SSH-2.0-sshvpn_9.9").await;
        let (connection, _wire) = listening.connect().await;
        let choice = choose(&connection, &request, QUIET).await;
        choice.err().expect("it is chosen").to_string()
    }

    #[tokio::test]
    async fn our_server_is_asked_for_nothing_that_it_has_not() {
        for wanted in [
            wanted(Some(Carrier::Tun), None),
            wanted(Some(Carrier::Agent), None),
            wanted(None, Some("run it")),
        ] {
            let text = refused_by_ours(wanted).await;
            assert!(text.contains("(sshvpn_9.9)"), "{text}");
            assert!(text.contains("give '--via serve'"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_forced_has_to_be_one() {
        let no_subsystem = async |mut wire: Wire| {
            let channel = wire.confirm_next().await.unwrap();
            let refusal = about(number::CHANNEL_FAILURE, channel);
            wire.send(&refusal).await.unwrap();
            Some(wire)
        };
        let forced = chosen(wanted(Some(Carrier::Serve), None), no_subsystem).await;
        let text = forced.err().expect("it is chosen").to_string();
        assert!(
            text.contains("no 'sshvpn serve' there, but hostile"),
            "{text}"
        );
    }

    /// A server with neither the subsystem nor the program.
    async fn no_agent(mut wire: Wire) -> Option<Wire> {
        let channel = wire.confirm_next().await.unwrap();
        let refusal = about(number::CHANNEL_FAILURE, channel);
        wire.send(&refusal).await.unwrap();
        let (channel, _) = wire.start_next().await.unwrap();
        let none = data(channel, "sshvpn-start: none\n");
        wire.send(&none).await.unwrap();
        Some(wire)
    }

    #[tokio::test]
    async fn without_an_agent_it_is_sshds_forwarding_unless_it_may_not() {
        let automatic = chosen(wanted(None, None), no_agent).await;
        assert!(matches!(automatic, Ok(Chosen::Tun)));
        let forced = chosen(wanted(Some(Carrier::Agent), None), no_agent).await;
        let text = forced.err().expect("it is chosen").to_string();
        assert!(text.contains("no sshvpn at server"), "{text}");
        let ends = async |mut wire: Wire| {
            let (channel, _) = wire.start_next().await.unwrap();
            let close = about(number::CHANNEL_CLOSE, channel);
            wire.send(&close).await.unwrap();
            Some(wire)
        };
        assert!(chosen(wanted(None, Some("run it")), ends).await.is_err());
    }

    #[tokio::test]
    async fn forced_forwarding_starts_nothing() {
        let nothing = async |wire: Wire| Some(wire);
        let tun = chosen(wanted(Some(Carrier::Tun), None), nothing).await;
        assert!(matches!(tun, Ok(Chosen::Tun)));
    }

    #[tokio::test]
    async fn over_a_lost_connection_there_is_no_choice() {
        let lost = async |mut wire: Wire| {
            wire.start_next().await.unwrap();
            None
        };
        assert!(chosen(wanted(None, None), lost).await.is_err());
    }
}
