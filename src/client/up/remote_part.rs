//! The interface of a carrier: sets up the remote host's part of a tunnel and undoes it.
//! `via_serve`, `via_agent` and `via_tun` implement it.

use ipnetwork::IpNetwork;

use crate::host::change::resolver::name_servers::NameServers;
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::HostFacts;
use crate::link::datagram::Restrictions;
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;
use crate::tun::Device;
use crate::types::Mtu;

use super::claims::Claims;
use super::{Reporter, UpRequest};

/// The inputs that are known before the remote host is inspected.
pub(super) struct Start<'a> {
    /// Prints the steps.
    pub reporter: Reporter,
    /// The SSH connection.
    pub connection: &'a Connection,
    /// The user's request.
    pub request: &'a UpRequest,
    /// This host's state.
    pub local: HostFacts,
    /// The tunnel's claims on addresses of this host.
    pub claims: &'a Claims,
    /// Varies the addresses by user and destination.
    pub seed: u64,
}

/// The agreed state of both hosts.
pub(super) struct Agreed<P> {
    /// The remote host's part.
    pub remote: P,
    /// The tunnel's addresses.
    pub addresses: Vec<AddressPair>,
    /// Its MTU.
    pub mtu: Mtu,
    /// Routes and name servers that the server pushes.
    pub pushed: Pushed,
    /// Whether the user turned NAT off on the remote host; then the routed networks have a route to
    /// this host.
    pub without_nat: bool,
}

/// The device on this host, and the restrictions on inbound packets.
pub(super) struct LocalDevice {
    pub tun: Device,
    /// The restrictions on the peer's packets.
    pub held: Restrictions,
}

/// The server's offers that the user accepts, besides the tunnel itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Networks to reach through the tunnel, besides the requested ones.
    pub routes: Vec<IpNetwork>,
    /// Name servers behind the server.
    pub name_servers: Option<NameServers>,
}

impl Pushed {
    /// Routes alone.
    pub(super) fn routes(routes: Vec<IpNetwork>) -> Self {
        Pushed {
            routes,
            name_servers: None,
        }
    }
}

/// The remote host's part of a tunnel. Implementations store each part in `self` before they
/// await anything further, so that the tunnel can be taken down from any point.
pub(super) trait RemotePart {
    /// The plan for the remote host.
    type Plan;

    /// Inspects the remote host, decides on a plan and claims the addresses at both ends; changes
    /// nothing else.
    async fn agree(&mut self, start: &Start<'_>) -> Result<Agreed<Self::Plan>, Failure>;

    /// Sets up the remote host and joins `local` to the device there; returns that device's name.
    async fn open(
        &mut self,
        start: &Start<'_>,
        agreed: &Agreed<Self::Plan>,
        local: LocalDevice,
    ) -> Result<String, Failure>;

    /// Waits until the tunnel is lost; returns the reason.
    async fn lost(&mut self, connection: &Connection) -> Failure;

    /// Stops the packets and closes the device on this host.
    async fn stop(&mut self, connection: &Connection, reporter: Reporter);

    /// Undoes the changes on the remote host.
    async fn finish(self, connection: &Connection, reporter: Reporter);
}

/// Reports how the remote host's part was undone. `left` lists what could not be undone; `None`
/// means that the host did not confirm it.
pub(super) fn report_undone(reporter: Reporter, host: &str, left: Option<Vec<String>>) {
    let Some(left) = left else {
        reporter.warning(format_args!(
            "{host} did not confirm that it has undone its part; it does so once it notices that the \
             connection is closed"
        ));
        return;
    };
    for what in &left {
        reporter.warning(format_args!("{host}: not undone: {what}"));
    }
    if left.is_empty() {
        reporter.step(format_args!("{host}: undone"));
    }
}
