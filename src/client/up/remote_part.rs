//! What a carrier has to do: the remote end's part of a tunnel, from the first look
//! to the last word. `by_serve`, `by_agent` and `by_tun` do it.

use ipnetwork::IpNetwork;

use crate::host::change::resolver::name_servers::NameServers;
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::HostFacts;
use crate::link::datagram::Restrictions;
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;
use crate::tun::Device;
use crate::types::Mtu;

use super::{Reporter, UpRequest};

/// What is known before the remote end is looked at.
pub(super) struct Start<'a> {
    /// Tells the user.
    pub reporter: Reporter,
    /// The way to the remote end.
    pub connection: &'a Connection,
    /// What was asked for.
    pub request: &'a UpRequest,
    /// This host.
    pub local: HostFacts,
    /// Makes the addresses others for another user or destination.
    pub seed: u64,
}

/// What both ends are to look like.
pub(super) struct Agreed<P> {
    /// The remote end.
    pub remote: P,
    /// The tunnel's addresses.
    pub addresses: Vec<AddressPair>,
    /// Its MTU.
    pub mtu: Mtu,
    /// What else the remote end gives.
    pub pushed: Pushed,
    /// Whether the user asked the remote end to leave source addresses alone, so that
    /// the routed networks have a route back.
    pub without_nat: bool,
}

/// The device here, and what may come to it.
pub(super) struct LocalDevice {
    pub tun: Device,
    /// What the remote end is held to.
    pub held: Restrictions,
}

/// What a server gave and the user allows, besides the tunnel itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Networks to reach through it, besides those that were asked for.
    pub routes: Vec<IpNetwork>,
    /// Name servers behind it.
    pub name_servers: Option<NameServers>,
}

/// The remote end's part of a tunnel. All that it holds is in `self` before it is
/// waited for, so that it can be taken down from any point.
pub(super) trait RemotePart {
    /// What the remote end is to look like.
    type Plan;

    /// Looks at the remote end and decides; nothing is changed yet.
    async fn agree(&mut self, start: &Start<'_>) -> Result<Agreed<Self::Plan>, Failure>;

    /// Sets the remote end up and joins `near` to the device there; yields that
    /// device's name.
    async fn open(
        &mut self,
        start: &Start<'_>,
        agreed: &Agreed<Self::Plan>,
        local: LocalDevice,
    ) -> Result<String, Failure>;

    /// Waits until the tunnel is lost; yields why.
    async fn lost(&mut self, connection: &Connection) -> Failure;

    /// Stops the packets, and closes the device here.
    async fn stop(&mut self, connection: &Connection, reporter: Reporter);

    /// Has the remote end put everything back.
    async fn finish(self, connection: &Connection, reporter: Reporter);
}

/// Says how the remote end's part was put back: `None` where it did not tell.
pub(super) fn report_undone(reporter: Reporter, host: &str, left: Option<Vec<String>>) {
    let Some(left) = left else {
        reporter.warning(format_args!(
            "{host} did not confirm that its part is undone; it does that by itself once it sees that \
             the connection is gone"
        ));
        return;
    };
    for what in &left {
        reporter.warning(format_args!("{host}: left as it is: {what}"));
    }
    if left.is_empty() {
        reporter.step(format_args!("{host}: undone"));
    }
}
