//! The remote end's part of a tunnel by the stream of an sshvpn there: control messages
//! until packets flow. `via_agent` and `via_serve` define the messages.

use super::Reporter;
use super::plan::error::PlanError;
use super::remote_part::{Agreed, LocalDevice, RemotePart, Start};
use super::running::{Running, gone};
use crate::client::remote::agent::{RemoteAgent, RemoteAgentError};
use crate::frame::control::{FEATURE_ETHERNET, Ready};
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;
use crate::types::Mode;

/// A tunnel to an agent or a server, as `K` says.
pub(super) struct ByStream<K> {
    kind: K,
    /// Until packets flow.
    remote: Option<RemoteAgent>,
    /// From then on.
    running: Option<Running>,
}

/// The messages to an agent or to a server.
pub(super) trait StreamKind {
    /// What the remote end is to look like.
    type Plan;

    /// Looks at the remote end and decides; nothing is changed yet.
    async fn agree(
        &self,
        remote: &mut RemoteAgent,
        start: &Start<'_>,
    ) -> Result<Agreed<Self::Plan>, Failure>;

    /// Sets the remote end up.
    async fn set_up(
        &self,
        remote: &mut RemoteAgent,
        start: &Start<'_>,
        plan: &Self::Plan,
    ) -> Result<Ready, RemoteAgentError>;

    /// Ends the dialogue with a remote end whose tunnel is not up.
    async fn finish(remote: RemoteAgent, connection: &Connection, reporter: Reporter);
}

impl<K> ByStream<K> {
    /// With a remote end that was greeted.
    pub(super) fn new(kind: K, remote: RemoteAgent) -> Self {
        ByStream {
            kind,
            remote: Some(remote),
            running: None,
        }
    }
}

impl<K: StreamKind> RemotePart for ByStream<K> {
    type Plan = K::Plan;

    async fn agree(&mut self, start: &Start<'_>) -> Result<Agreed<K::Plan>, Failure> {
        let remote = self.remote.as_mut().ok_or_else(gone)?;
        if start.request.mode == Mode::Ethernet && !remote.has(FEATURE_ETHERNET) {
            let host = start.connection.host().to_owned();
            return Err(Failure::ssh(PlanError::NoEthernet { host }));
        }
        self.kind.agree(remote, start).await
    }

    async fn open(
        &mut self,
        start: &Start<'_>,
        agreed: &Agreed<K::Plan>,
        local: LocalDevice,
    ) -> Result<String, Failure> {
        let remote = self.remote.as_mut().ok_or_else(gone)?;
        let ready = self.kind.set_up(remote, start, &agreed.remote).await;
        let remote_device = ready.map_err(Failure::ssh)?.device;
        let local_name = local.tun.name().clone();
        let remote = self.remote.take().ok_or_else(gone)?;
        self.running = Some(Running::start(local, remote));
        start.reporter.step(format_args!(
            "tunnel open: {local_name} here, {remote_device} at {}",
            start.connection.host()
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
        if let Some(remote) = self.remote {
            K::finish(remote, connection, reporter).await;
        }
    }
}
