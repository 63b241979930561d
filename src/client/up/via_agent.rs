//! The remote end's part of a tunnel by an sshvpn there: it is told what its host
//! is to look like, makes it so, and puts it back.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::addresses::local_ipv6;
use super::claims;
use super::plan::agent::{self, AgentInput, AgentPlan};
use super::plan::auto::{self, AutoError, AutoInput};
use super::plan::way_probes;
use super::remote_part::{Agreed, Pushed, Start, report_undone};
use super::via_stream::{ByStream, StreamKind};
use super::{Reporter, UpRequest};
use crate::client::remote::agent::{RemoteAgent, RemoteAgentError, StartedAgent};
use crate::frame::control::{AgentFacts, Look, Ready, SetUp};
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
    /// Makes the plan, with addresses that no other tunnel has at either end.
    async fn decide(
        &self,
        remote: &mut RemoteAgent,
        start: &Start<'_>,
        (request, facts): (&UpRequest, &AgentFacts),
    ) -> Result<AgentPlan, Failure> {
        let mut taken: Vec<IpAddr> = Vec::new();
        loop {
            let decided = claims::choose(
                start,
                &taken,
                |local, seed| {
                    agent::decide(&AgentInput {
                        host: start.connection.host(),
                        request,
                        local,
                        local_ipv6: local_ipv6(request),
                        remote: facts,
                        seed,
                    })
                },
                |decided| &decided.addresses,
            )
            .map_err(Failure::local)?;
            let clients = decided.addresses.iter().map(|pair| pair.local).collect();
            let refused = remote.claim(clients).await.map_err(Failure::ssh)?;
            if refused.is_empty() {
                return Ok(decided);
            }
            claims::refused(&mut taken, refused).map_err(Failure::local)?;
        }
    }

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
            ipv6: facts.ipv6 && local_ipv6(request),
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
        remote: &mut RemoteAgent,
        start: &Start<'_>,
    ) -> Result<Agreed<SetUp>, Failure> {
        let host = start.connection.host();
        start.reporter.step(format_args!(
            "{host}: connected, the agent runs as {}",
            self.facts.login
        ));
        let (automatic, facts) = match start.request.auto {
            true => self.automatic(remote, start).await?,
            false => (Vec::new(), self.facts.clone()),
        };
        let request = &start.request.reaching(&automatic);
        let decided = self.decide(remote, start, (request, &facts)).await?;
        for route in decided.without_way {
            start
                .reporter
                .warning(format_args!("{host} itself has no route to {route}"));
        }
        start.reporter.without_ipv6(decided.without_ipv6);
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
        let step = |what: &str, warning: bool| match warning {
            true => reporter.warning(format_args!("{host}: {what}")),
            false => reporter.step(format_args!("{host}: {what}")),
        };
        remote.set_up(plan.clone(), step).await
    }

    async fn finish(remote: RemoteAgent, connection: &Connection, reporter: Reporter) {
        report_undone(reporter, connection.host(), remote.close().await);
    }
}
