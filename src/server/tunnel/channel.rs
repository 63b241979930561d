//! A tunnel over a `tun@openssh.com` channel (OpenSSH PROTOCOL, section 2.3), as `ssh -w`
//! and `sshvpn -w` request it.

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

/// A requested tunnel.
pub(in crate::server) struct ChannelTunnel {
    /// The server.
    pub server: Arc<Server>,
    /// What the client may do.
    pub entitlement: Arc<Entitlement>,
    /// The session that counts the tunnel's traffic.
    pub session: Arc<Session>,
    /// The client's rate limits.
    pub rates: Rates,
    /// The requested mode.
    pub mode: Mode,
    /// The requested unit.
    pub unit: UnitRequest,
    /// Whether the client accepts super-packets.
    pub offload: bool,
}

impl ChannelTunnel {
    /// Runs the tunnel from the request to its end; everything is undone when this returns.
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
