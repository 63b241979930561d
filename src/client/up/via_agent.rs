//! The remote end's part of a tunnel by an sshvpn there: it is told what its host
//! is to look like, makes it so, and puts it back.

use super::Reporter;
use super::plan::agent::{self, AgentInput};
use super::plan::error::PlanError;
use super::remote_part::{Agreed, LocalDevice, Pushed, RemotePart, Start, report_undone};
use super::running::{Running, gone};
use crate::client::remote::agent::{RemoteAgent, StartedAgent};
use crate::frame::control::{AgentFacts, FEATURE_ETHERNET, SetUp};
use crate::host::change::sysctl;
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;
use crate::types::Mode;

/// What it holds so far.
pub(super) struct ByAgent {
    facts: AgentFacts,
    /// Until packets flow.
    agent: Option<RemoteAgent>,
    /// From then on.
    running: Option<Running>,
}

impl ByAgent {
    /// With an agent that has looked at its host.
    pub(super) fn new(StartedAgent { agent, facts }: StartedAgent) -> Self {
        ByAgent {
            facts,
            agent: Some(agent),
            running: None,
        }
    }
}

impl RemotePart for ByAgent {
    type Plan = SetUp;

    async fn agree(&mut self, start: &Start<'_>) -> Result<Agreed<SetUp>, Failure> {
        let (host, request) = (start.connection.host(), start.request);
        let ethernet = self.agent.as_ref().map(|agent| agent.has(FEATURE_ETHERNET));
        if request.mode == Mode::Ethernet && ethernet == Some(false) {
            let host = host.to_owned();
            return Err(Failure::ssh(PlanError::NoEthernet { host }));
        }
        start.reporter.step(format_args!(
            "{host}: connected, the agent runs as {}",
            self.facts.login
        ));
        let decided = agent::decide(&AgentInput {
            host,
            request,
            local: &start.local,
            local_ipv6: sysctl::has_ipv6(),
            remote: &self.facts,
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
            pushed: Pushed::default(),
            without_nat: request.nat == Some(false),
        })
    }

    async fn open(
        &mut self,
        start: &Start<'_>,
        agreed: &Agreed<SetUp>,
        local: LocalDevice,
    ) -> Result<String, Failure> {
        let (host, reporter) = (start.connection.host(), start.reporter);
        let step = |what: &str| reporter.step(format_args!("{host}: {what}"));
        let agent = self.agent.as_mut().ok_or_else(gone)?;
        let ready = agent.set_up(agreed.remote.clone(), step).await;
        let remote_device = ready.map_err(Failure::ssh)?.device;
        let local_name = local.tun.name().clone();
        let agent = self.agent.take().ok_or_else(gone)?;
        self.running = Some(Running::start(local, agent));
        reporter.step(format_args!(
            "tunnel open: {local_name} here, {remote_device} at {host}"
        ));
        Ok(remote_device.to_string())
    }

    async fn lost(&mut self, connection: &Connection) -> Failure {
        match &mut self.running {
            Some(running) => running.lost(connection).await,
            None => gone(),
        }
    }

    async fn stop(&mut self, connection: &Connection, reporter: Reporter) {
        if let Some(running) = self.running.take() {
            running.stop(connection, reporter).await;
        }
    }

    async fn finish(self, connection: &Connection, reporter: Reporter) {
        if let Some(agent) = self.agent {
            report_undone(reporter, connection.host(), agent.close().await);
        }
    }
}
