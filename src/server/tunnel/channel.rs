//! A tunnel by `tun@openssh.com` (OpenSSH PROTOCOL, section 2.3), as `ssh -w` and
//! `sshvpn -w` ask for it.

use std::sync::Arc;

use super::Reserved;
use super::rates::Rates;
use crate::frame::window::WindowRule;
use crate::link::datagram::{self, Link};
use crate::server::Server;
use crate::server::access::entitlement::Entitlement;
use crate::server::report::audit::event::Asked;
use crate::server::report::registry::session::Session;
use crate::ssh::server::requests::TunnelReply;
use crate::types::{Mode, UnitRequest};

/// One that is asked for.
pub(in crate::server) struct ChannelTunnel {
    /// The server.
    pub server: Arc<Server>,
    /// What the client may.
    pub entitlement: Arc<Entitlement>,
    /// Where it is counted.
    pub session: Arc<Session>,
    /// How much.
    pub rates: Rates,
    /// What it is to carry.
    pub mode: Mode,
    /// The device that is asked for.
    pub unit: UnitRequest,
    /// Whether the client takes super-packets.
    pub offload: bool,
}

impl ChannelTunnel {
    /// From the request to the end of the tunnel; all is undone when this returns.
    pub(in crate::server) async fn run(self, reply: TunnelReply) {
        let asked = Asked::tunnel(self.mode, self.unit);
        let reserved = Reserved::new(
            &self.server,
            &self.entitlement,
            self.session.id(),
            self.mode,
            self.unit,
            None,
            &[],
        );
        let opened = match reserved {
            Ok(reserved) => reserved.open(self.rates).await,
            Err(refusal) => Err(refusal),
        };
        let (tunnel, device, restrictions) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                self.session.refused(asked, &refusal.text);
                return reply.refuse(refusal.code, &refusal.text).await;
            }
        };
        self.session.granted(asked);
        tunnel.announce(&self.session);
        let (sender, receiver) = reply.accept().await;
        let framing = datagram::framing(self.offload);
        let sender = sender.counted_by(WindowRule::of(self.offload));
        let counters = Arc::clone(&tunnel.counters);
        let mut link = Link::start(device, framing, sender, receiver, restrictions, counters);
        let end = tokio::select! {
            end = link.ended() => Some(end),
            _ = self.entitlement.dismissed() => None,
        };
        tracing::debug!(?end, device = %tunnel.device(), "a tunnel ends");
        link.stop().await;
        tunnel.close(&self.session).await;
    }
}
