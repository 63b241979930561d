//! The remote end's part of a tunnel by a server of ours there: it says what the
//! tunnel is like, and what of that the user allows is taken.

use super::plan::error::PlanError;
use super::plan::serve::{self, OfferInput};
use super::remote_part::{Agreed, LocalDevice, RemotePart, Start};
use super::running::{Running, gone};
use super::{Reporter, UpRequest};
use crate::client::remote::agent::RemoteAgent;
use crate::frame::control::{Ask, FEATURE_ETHERNET};
use crate::host::change::sysctl;
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;
use crate::types::{Mode, Mtu};

/// What it holds so far.
pub(super) struct ByServe {
    /// Until packets flow.
    server: Option<RemoteAgent>,
    /// From then on.
    running: Option<Running>,
}

impl ByServe {
    /// With a server that was greeted.
    pub(super) fn new(server: RemoteAgent) -> Self {
        ByServe {
            server: Some(server),
            running: None,
        }
    }
}

impl RemotePart for ByServe {
    /// The MTU that was agreed on: all else is the server's own business.
    type Plan = Mtu;

    async fn agree(&mut self, start: &Start<'_>) -> Result<Agreed<Mtu>, Failure> {
        let (host, request) = (start.connection.host(), start.request);
        let server = self.server.as_mut().ok_or_else(gone)?;
        if request.mode == Mode::Ethernet && !server.has(FEATURE_ETHERNET) {
            let host = host.to_owned();
            return Err(Failure::ssh(PlanError::NoEthernet { host }));
        }
        if let Some(options) = without_effect(request) {
            start.reporter.step(format_args!(
                "{options}: without effect, since {host} is a server and decides that"
            ));
        }
        let ask = Ask {
            mode: request.mode,
            mtu: request.mtu,
            addresses: request.address.into_iter().collect(),
        };
        let offer = server.ask(ask).await.map_err(Failure::ssh)?;
        let decided = serve::decide(&OfferInput {
            host,
            request,
            local: &start.local,
            local_ipv6: sysctl::has_ipv6(),
            first_hop: start.connection.first_hop(),
            offer: &offer,
        })
        .map_err(Failure::ssh)?;
        for note in decided.notes {
            let line = format_args!("{host}: {note}");
            match note.is_warning() {
                true => start.reporter.warning(line),
                false => start.reporter.step(line),
            }
        }
        Ok(Agreed {
            remote: decided.mtu,
            addresses: decided.addresses,
            mtu: decided.mtu,
            pushed: decided.pushed,
            // Without effect here.
            without_nat: false,
        })
    }

    async fn open(
        &mut self,
        start: &Start<'_>,
        agreed: &Agreed<Mtu>,
        local: LocalDevice,
    ) -> Result<String, Failure> {
        let server = self.server.as_mut().ok_or_else(gone)?;
        let ready = server.accept(agreed.remote).await.map_err(Failure::ssh)?;
        let local_name = local.tun.name().clone();
        let server = self.server.take().ok_or_else(gone)?;
        self.running = Some(Running::start(local, server));
        start.reporter.step(format_args!(
            "tunnel open: {local_name} here, {} at {}",
            ready.device,
            start.connection.host()
        ));
        Ok(ready.device.to_string())
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

    async fn finish(self, _: &Connection, _: Reporter) {
        if let Some(server) = self.server {
            // Before its tunnel is up there is nothing of ours to tell of.
            server.close().await;
        }
    }
}

/// The options that a server does not ask about.
fn without_effect(request: &UpRequest) -> Option<String> {
    let given = [
        (request.peer_address.is_some(), "--peer-address"),
        (request.peer_unit.is_some(), "--peer-unit (or TunnelDevice)"),
        (request.nat == Some(true), "--nat"),
        (request.nat == Some(false), "--no-nat"),
        (request.carrier.push, "--push"),
    ];
    let options: Vec<&str> = given.iter().filter(|it| it.0).map(|it| it.1).collect();
    (!options.is_empty()).then(|| options.join(", "))
}

#[cfg(test)]
mod tests;
