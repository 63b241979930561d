//! The remote end's part of a tunnel by an sshvpn there: it is told what its host
//! is to look like, makes it so, and puts it back.

use super::Reporter;
use super::addresses::local_ipv6;
use super::plan::agent::{self, AgentInput};
use super::remote_part::{Agreed, Pushed, Start, report_undone};
use super::via_stream::{ByStream, StreamKind};
use crate::client::remote::agent::{RemoteAgent, RemoteAgentError, StartedAgent};
use crate::frame::control::{AgentFacts, Ready, SetUp};
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

impl StreamKind for Agent {
    type Plan = SetUp;

    async fn agree(
        &self,
        _: &mut RemoteAgent,
        start: &Start<'_>,
    ) -> Result<Agreed<SetUp>, Failure> {
        let (host, request) = (start.connection.host(), start.request);
        start.reporter.step(format_args!(
            "{host}: connected, the agent runs as {}",
            self.facts.login
        ));
        let decided = agent::decide(&AgentInput {
            host,
            request,
            local: &start.local,
            local_ipv6: local_ipv6(request),
            remote: &self.facts,
            seed: start.seed,
        })
        .map_err(Failure::local)?;
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
            pushed: Pushed::default(),
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
