//! Checks the path of a tunnel before it is called up: the remote tunnel addresses answer, the
//! kernel sends the routes' packets into the tunnel, and no host behind it refuses them.
//!
//! ```text
//!   addresses set ─► before_routes: which remote addresses answer?
//!   routes set    ─► after_routes:  do they still?   no ─► the routes took the SSH connection: error
//!                                   detours, refusals ─► warnings; errors with --strict
//! ```

mod finding;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::anyhow;
use futures_util::future::join_all;
use ipnetwork::IpNetwork;
use tokio::time::Instant;

use super::plan::way_probes;
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::detour::Detour;
use crate::host::plan::facts::{HostFacts, InterfaceIndex};
use crate::host::plan::route_plan::{RouteNote, RoutePlan};
use crate::host::probe::{self, Answer, Probe, Report};
use crate::process::failure::Failure;
use crate::types::address_set::AddressSet;
use finding::{Destination, Finding};

/// How long a remote address may take to answer before there are routes.
const BEFORE_ROUTES: Duration = Duration::from_secs(1);
/// How long an address may take that has not answered before.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// How long an address may take that has answered before the routes were set: silence ends the
/// tunnel, so a slow link gets more time.
const SAME_ANSWER: Duration = Duration::from_secs(10);
/// How long a host behind the tunnel may take to refuse a packet. Shorter than the three seconds
/// after which a router reports a host that is absent.
const REFUSAL: Duration = Duration::from_millis(800);
/// When a TCP connection is tried beside the pings.
const PINGS_ALONE: Duration = Duration::from_millis(300);
/// How long to wait after a failure before the next request.
const AGAIN: Duration = Duration::from_millis(50);
/// Routes whose first host is asked, at most.
const MOST_ASKED: usize = 32;

/// The tunnel whose path is checked.
pub(super) struct Path<'a> {
    /// The remote host's name.
    pub host: &'a str,
    /// The device on this host.
    pub device: &'a str,
    /// The tunnel's addresses.
    pub addresses: &'a [AddressPair],
    /// Its routes.
    pub plan: &'a RoutePlan,
    /// This host's state before the tunnel.
    pub local: &'a HostFacts,
    /// Whether the SSH connection goes to an address that is unknown here.
    pub hidden: bool,
}

/// The remote addresses that answered before the routes were set.
pub(super) struct Answering(Vec<IpAddr>);

impl Path<'_> {
    /// Asks the remote addresses before the routes are set.
    pub(super) async fn before_routes(&self) -> Answering {
        if self.plan.routes.is_empty() {
            return Answering(Vec::new());
        }
        let asked = self.addresses.iter().map(|pair| async {
            let answers = self.answers(pair.remote, BEFORE_ROUTES).await;
            (answers == Ok(true)).then_some(pair.remote)
        });
        Answering(join_all(asked).await.into_iter().flatten().collect())
    }

    /// Checks the whole path; an error says that the tunnel carries nothing any more.
    pub(super) async fn after_routes(
        &self,
        netlink: &Netlink,
        answering: Answering,
    ) -> Result<Vec<String>, Failure> {
        let (silent, refused) = tokio::join!(self.silent(&answering), self.refused());
        let silent = silent?;
        // Last, since the kernel adds the route to an IPv6 peer a moment after the address.
        let detours = self.detours(netlink).await.map_err(Failure::local)?;
        let findings = detours.into_iter().chain(silent).chain(refused);
        Ok(findings.map(|finding| finding.to_string()).collect())
    }

    /// The parts of routes that go elsewhere, of which the plan has warned already.
    pub(super) fn overlaps(&self) -> impl Iterator<Item = String> {
        let notes = self.plan.notes.iter();
        let overlaps = notes.filter(|note| overlapped(note).is_some());
        overlaps.map(|note| Finding::Overlap(note.clone()).to_string())
    }

    async fn ping(&self, target: IpAddr, patience: Duration) -> Answer {
        let probe = Probe {
            target,
            interface: self.device,
            hop_limit: None,
        };
        probe::echo(probe, patience).await
    }

    /// Whether `remote` answers pings within `patience`, whatever others report meanwhile. An error
    /// says why this host sent none.
    async fn answers(&self, remote: IpAddr, patience: Duration) -> Result<bool, String> {
        let end = Instant::now() + patience;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            let unsent = match self.ping(remote, rest).await {
                answer if answer.is_from(remote) => return Ok(true),
                // The kernel adds the route to an IPv6 peer a moment after the address.
                Answer::Unsent(error) => Some(plain(&error)),
                _ => None,
            };
            if end <= Instant::now() {
                return unsent.map_or(Ok(false), Err);
            }
            // Another host's report is no reason to ask faster.
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn silent(&self, answering: &Answering) -> Result<Vec<Finding>, Failure> {
        let asked = self
            .addresses
            .iter()
            .map(|pair| self.asked(pair, answering));
        let mut findings = Vec::new();
        for finding in join_all(asked).await {
            findings.extend(finding?);
        }
        Ok(findings)
    }

    async fn asked(
        &self,
        pair: &AddressPair,
        answering: &Answering,
    ) -> Result<Option<Finding>, Failure> {
        let remote = pair.remote;
        if answering.0.contains(&remote) {
            return match self.answers(remote, SAME_ANSWER).await {
                Ok(true) => Ok(None),
                _ => Err(self.lost(remote)),
            };
        }
        let mut unsent = None;
        let (pings, connects, forwards) = (
            self.answers(remote, FIRST_ANSWER),
            self.connects(remote),
            self.forwards(pair),
        );
        tokio::pin!(pings, connects, forwards);
        let (mut pinging, mut connecting, mut forwarding) = (true, true, true);
        loop {
            let answers = tokio::select! {
                answers = &mut pings, if pinging => {
                    pinging = false;
                    answers.unwrap_or_else(|error| {
                        unsent = Some(error);
                        false
                    })
                }
                answers = &mut connects, if connecting => {
                    connecting = false;
                    answers
                }
                answers = &mut forwards, if forwarding => {
                    forwarding = false;
                    answers
                }
                else => break,
            };
            if answers {
                return Ok(None);
            }
        }
        Ok(Some(Finding::Silent {
            host: self.host.to_owned(),
            address: remote,
            waited: FIRST_ANSWER,
            unsent,
            hidden: self.hidden && !self.plan.routes.is_empty(),
        }))
    }

    fn lost(&self, remote: IpAddr) -> Failure {
        let host = self.host;
        let cause = match self.hidden {
            true => "they contain the address that the ProxyCommand connects to",
            false => "they take the packets of the SSH connection",
        };
        Failure::ssh(anyhow!(
            "{remote} at {host} answered through the tunnel until the routes were set, and has not in \
             {} s since: probably {cause}; leave it out with --exclude",
            SAME_ANSWER.as_secs()
        ))
    }

    /// Whether the remote address refuses or accepts a connection, where pings may be dropped.
    async fn connects(&self, remote: IpAddr) -> bool {
        tokio::time::sleep(PINGS_ALONE).await;
        probe::connects(remote, self.device, FIRST_ANSWER - PINGS_ALONE).await
    }

    /// Whether the remote host forwards: a packet that may take no further hop is reported by it,
    /// even where its firewall drops all that is for itself.
    async fn forwards(&self, pair: &AddressPair) -> bool {
        let routes = self.plan.routes.iter();
        let mut of_family = routes.filter(|route| route.is_ipv4() == pair.remote.is_ipv4());
        let Some(route) = of_family.next() else {
            return false;
        };
        let asked = way_probes(route).map(|target| async move {
            let probe = Probe {
                target,
                interface: self.device,
                hop_limit: Some(1),
            };
            let answer = probe::echo(probe, FIRST_ANSWER).await;
            matches!(answer, Answer::Answered | Answer::Reported { .. })
        });
        join_all(asked).await.contains(&true)
    }

    /// The destinations whose packets the kernel sends elsewhere.
    async fn detours(&self, netlink: &Netlink) -> Result<Vec<Finding>, NetError> {
        let device = netlink.link_by_name(self.device).await?.index;
        let known: AddressSet = self.plan.notes.iter().filter_map(overlapped).collect();
        let own = self.local.addresses.iter().map(|own| own.address).collect();
        let remote = self.addresses.iter().map(|pair| {
            let destination = Destination::Remote(self.host.to_owned());
            (destination, Some(pair.remote))
        });
        let routes = self.plan.routes.iter().map(|route| {
            let address = first_outside(route, &known.union(&own));
            (Destination::Route(*route), address)
        });
        let mut rules = None;
        let mut findings = Vec::new();
        for (destination, address) in remote.chain(routes) {
            let Some(address) = address else { continue };
            let Some(detour) = detour(netlink, address, device, self.local, &mut rules).await?
            else {
                continue;
            };
            findings.push(Finding::Detour {
                destination,
                address,
                detour: detour.known,
            });
        }
        Ok(findings)
    }

    /// The routes whose first host is reported as unreachable or prohibited.
    async fn refused(&self) -> Vec<Finding> {
        let routes = self.plan.routes.iter().take(MOST_ASKED);
        let asked = routes.map(|route| async move {
            let address = way_probes(route).next()?;
            match self.ping(address, REFUSAL).await {
                Answer::Reported { by, report } if is_refusal(report) => Some(Finding::Refused {
                    route: *route,
                    address,
                    by,
                    report,
                }),
                _ => None,
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// Whether no other host of the network can be reached either, so far as one report tells.
fn is_refusal(report: Report) -> bool {
    matches!(
        report,
        Report::NoRoute | Report::NoHost | Report::Prohibited | Report::Port
    )
}

/// The network that a note leaves out of the tunnel.
fn overlapped(note: &RouteNote) -> Option<IpNetwork> {
    match note {
        RouteNote::ContainsLocal { network, .. } => Some(*network),
        RouteNote::ContainsRoute { existing, .. } => Some(*existing),
        RouteNote::InsideRoute { .. } => None,
    }
}

/// The first host of a route that is not in `other`, of which the user knows that it goes
/// elsewhere.
fn first_outside(route: &IpNetwork, other: &AddressSet) -> Option<IpAddr> {
    let rest = AddressSet::of([route]).minus(other).to_networks();
    rest.iter().find_map(|network| way_probes(network).next())
}

/// The kernel's error text without Rust's "(os error N)".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A detour, with its cause if that is known.
struct Found {
    known: Option<Detour>,
}

async fn detour(
    netlink: &Netlink,
    address: IpAddr,
    device: InterfaceIndex,
    local: &HostFacts,
    rules: &mut Option<HostFacts>,
) -> Result<Option<Found>, NetError> {
    let chosen = netlink.chosen_route(address).await;
    if let Ok(chosen) = &chosen
        && chosen.leaves_by(device)
    {
        return Ok(None);
    }
    // Others may have added rules since the plan was made.
    let facts = match rules {
        Some(facts) => facts,
        None => rules.insert(HostFacts {
            rules: netlink.rules().await?,
            ..local.clone()
        }),
    };
    Ok(Some(match chosen {
        Ok(chosen) => Found {
            known: Detour::of(address, &chosen, device, facts),
        },
        Err(NetError::Refused { .. }) => Found {
            known: Detour::of_refused(address, facts),
        },
        Err(error) => return Err(error),
    }))
}
