//! The faults of a path that the check finds, as texts for the user: what was seen, and the way
//! out.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use crate::host::plan::detour::Detour;
use crate::host::plan::route_plan::RouteNote;
use crate::host::probe::Report;

/// One fault.
#[derive(Debug)]
pub(super) enum Finding {
    /// The remote tunnel address answers nothing.
    Silent {
        host: String,
        address: IpAddr,
        waited: Duration,
        /// An error of this host, if it sent nothing.
        unsent: Option<String>,
        /// Whether the SSH connection goes to an address that is unknown here, and there are
        /// routes.
        hidden: bool,
    },
    /// The kernel sends packets for a route elsewhere.
    Detour {
        destination: Destination,
        address: IpAddr,
        detour: Option<Detour>,
    },
    /// A host on the path refuses packets for a route.
    Refused {
        route: IpNetwork,
        address: IpAddr,
        by: IpAddr,
        report: Report,
    },
    /// A part of the route goes elsewhere (`--strict` only; said as a note before).
    Overlap(RouteNote),
}

/// The network that is to be reached by the tunnel.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    Route(IpNetwork),
    /// The tunnel address of this remote host.
    Remote(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Silent {
                host,
                address,
                waited,
                unsent,
                hidden,
            } => {
                let seconds = waited.as_secs();
                write!(
                    f,
                    "no answer through the tunnel from {address} at {host} in {seconds} s"
                )?;
                match unsent {
                    Some(error) => write!(f, ": this host sent nothing: {error}"),
                    None if *hidden => write!(
                        f,
                        ": a route may contain the address that the ProxyCommand connects to (leave \
                         it out with --exclude), or a firewall at {host} drops pings"
                    ),
                    None => write!(
                        f,
                        ": a firewall at {host} may drop what comes in by the tunnel; if it drops \
                         pings alone, ignore this"
                    ),
                }
            }
            Finding::Detour {
                destination,
                address,
                detour,
            } => {
                match destination {
                    Destination::Route(route) => write!(
                        f,
                        "packets to {address} (route {route}) do not take the tunnel: "
                    )?,
                    Destination::Remote(host) => write!(
                        f,
                        "packets to {address} (the tunnel address of {host}) do not take the tunnel: "
                    )?,
                }
                match detour {
                    Some(detour) => write!(f, "{detour}")?,
                    None => f.write_str("the kernel refuses them")?,
                }
                way_out(f, destination, *address, detour.as_ref())
            }
            Finding::Refused {
                route,
                address,
                by,
                report,
            } => write!(
                f,
                "packets to {address} (route {route}) are not delivered: {by} reports '{report}'"
            ),
            Finding::Overlap(note) => write!(f, "{note}"),
        }
    }
}

/// The advice for a detour.
fn way_out(
    f: &mut fmt::Formatter<'_>,
    destination: &Destination,
    address: IpAddr,
    detour: Option<&Detour>,
) -> fmt::Result {
    let (network, alternative) = match destination {
        Destination::Route(route) => (*route, "leave that network to it with --exclude"),
        Destination::Remote(_) => (
            IpNetwork::from(address),
            "choose other addresses with --address and --peer-address",
        ),
    };
    let family = if network.is_ipv6() { " -6" } else { "" };
    match detour {
        Some(
            Detour::Rule {
                priority: Some(priority),
                ..
            }
            | Detour::RefusedByRule { priority },
        ) if *priority > 0 => write!(
            f,
            "; {alternative}, or put a rule ahead of it: ip{family} rule add to {network} lookup main \
             priority {}",
            priority - 1
        ),
        Some(Detour::Route { route, .. }) => match destination {
            Destination::Route(_) => {
                write!(f, "; remove it, or leave it out with --exclude {route}")
            }
            Destination::Remote(_) => write!(f, "; remove it, or {alternative}"),
        },
        _ => write!(f, "; {alternative}"),
    }
}
