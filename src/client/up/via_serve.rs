//! The remote end's part of a tunnel by a server of ours there: it says what the
//! tunnel is like, and what of that the user allows is taken.

use super::addresses::local_ipv6;
use super::plan::serve::{self, OfferInput};
use super::remote_part::{Agreed, Start};
use super::via_stream::{ByStream, StreamKind};
use super::{Reporter, UpRequest};
use crate::client::remote::agent::{RemoteAgent, RemoteAgentError};
use crate::frame::control::{Ask, Ready};
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;
use crate::types::Mtu;

/// A server, which decides by itself.
pub(super) struct Server;

/// By a server.
pub(super) type ByServe = ByStream<Server>;

impl StreamKind for Server {
    /// The MTU that was agreed on: all else is the server's own business.
    type Plan = Mtu;

    async fn agree(
        &self,
        server: &mut RemoteAgent,
        start: &Start<'_>,
    ) -> Result<Agreed<Mtu>, Failure> {
        let (host, request) = (start.connection.host(), start.request);
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
            local_ipv6: local_ipv6(request),
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

    async fn set_up(
        &self,
        server: &mut RemoteAgent,
        _: &Start<'_>,
        mtu: &Mtu,
    ) -> Result<Ready, RemoteAgentError> {
        server.accept(*mtu).await
    }

    async fn finish(server: RemoteAgent, _: &Connection, _: Reporter) {
        // Before its tunnel is up there is nothing of ours to tell of.
        server.close().await;
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
