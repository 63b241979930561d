//! The remote end's part of a tunnel by an sshvpn there: it is told what its host
//! is to look like, makes it so, and puts it back.

use ipnetwork::IpNetwork;

use super::Reporter;
use super::plan::agent::{self, AgentInput};
use super::plan::auto::{self, AutoError, AutoInput};
use super::plan::way_probes;
use super::remote_part::{Agreed, Pushed, Start, report_undone};
use super::via_stream::{ByStream, StreamKind};
use crate::client::remote::agent::{RemoteAgent, RemoteAgentError, StartedAgent};
use crate::frame::control::{AgentFacts, Look, Ready, SetUp};
use crate::host::change::sysctl;
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;

/// An agent that has looked at its host.
pub(super) struct Agent {
    facts: AgentFacts,
}

/// By an agent.
pub(super) type ByAgent = ByStream<Agent>;

impl ByAgent {
    /// With an agent that has looked at its host.
    pub(super) fn of(StartedAgent { agent, facts }: StartedAgent) -> Self {
        ByStream::new(Agent { facts }, agent)
    }
}

impl Agent {
    /// The networks of the agent's host that `--route auto` takes, and the facts with their ways.
    async fn automatic(
        &self,
        agent: &mut RemoteAgent,
        start: &Start<'_>,
    ) -> Result<(Vec<IpNetwork>, AgentFacts), Failure> {
        let (host, request) = (start.connection.host(), start.request);
        let asked = Look {
            ways: Vec::new(),
            routed: true,
        };
        let facts = agent.look(asked).await.map_err(Failure::ssh)?;
        let networks = facts.routed.ok_or_else(|| AutoError::Old(host.to_owned()));
        let auto = auto::choose(&AutoInput {
            host,
            request,
            local: &start.local,
            first_hop: start.connection.first_hop(),
            networks: &networks.map_err(Failure::ssh)?,
            permitted: facts.permissions.routes.as_deref(),
            ipv6: facts.ipv6 && sysctl::has_ipv6(),
        })
        .map_err(Failure::local)?;
        start.reporter.auto(host, &auto);
        let routes = request.routes.iter().chain(&auto.taken);
        let asked = Look {
            ways: routes.flat_map(way_probes).collect(),
            routed: false,
        };
        let facts = agent.look(asked).await.map_err(Failure::ssh)?;
        Ok((auto.taken, facts))
    }
}

impl StreamKind for Agent {
    type Plan = SetUp;

    async fn agree(
        &self,
        agent: &mut RemoteAgent,
        start: &Start<'_>,
    ) -> Result<Agreed<SetUp>, Failure> {
        let host = start.connection.host();
        start.reporter.step(format_args!(
            "{host}: connected, the agent runs as {}",
            self.facts.login
        ));
        let (automatic, facts) = match start.request.auto {
            true => self.automatic(agent, start).await?,
            false => (Vec::new(), self.facts.clone()),
        };
        let request = &start.request.reaching(&automatic);
        let decided = agent::decide(&AgentInput {
            host,
            request,
            local: &start.local,
            local_ipv6: sysctl::has_ipv6(),
            remote: &facts,
            seed: start.seed,
        })
        .map_err(Failure::local)?;
        for route in decided.without_way {
            start
                .reporter
                .warning(format_args!("{host} itself has no route to {route}"));
        }
        Ok(Agreed {
            addresses: decided.addresses,
            mtu: decided.set_up.mtu,
            remote: decided.set_up,
            pushed: Pushed::routes(automatic),
            without_nat: request.nat == Some(false),
        })
    }

    async fn set_up(
        &self,
        remote: &mut RemoteAgent,
        start: &Start<'_>,
        plan: &SetUp,
    ) -> Result<Ready, RemoteAgentError> {
        let (host, reporter) = (start.connection.host(), start.reporter);
        let step = |what: &str| reporter.step(format_args!("{host}: {what}"));
        remote.set_up(plan.clone(), step).await
    }

    async fn finish(remote: RemoteAgent, connection: &Connection, reporter: Reporter) {
        report_undone(reporter, connection.host(), remote.close().await);
    }
}
