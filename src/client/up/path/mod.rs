//! Checks the path of a tunnel before it is called up: the remote tunnel addresses answer, the
//! kernel sends the routes' packets into the tunnel, and no host behind it refuses them.
//!
//! ```text
//!   addresses set ─► before_routes: which remote addresses answer?
//!   routes set    ─► after_routes:  do they still?   no ─► the routes took the SSH connection: error
//!                                   detours, refusals ─► warnings; errors with --strict
//! ```

mod detours;
mod finding;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::anyhow;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::plan::way_probes;
use crate::host::netlink::Netlink;
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::HostFacts;
use crate::host::plan::route_plan::RoutePlan;
use crate::host::probe::{self, Answer, Probe, Report};
use crate::process::failure::Failure;
use crate::ssh::client::narrow::PathWatch;
use crate::types::Mtu;
use detours::overlapped;
use finding::Finding;

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
/// How long a packet of the tunnel's full size may take, there and back.
const LARGE_ANSWER: Duration = Duration::from_secs(2);
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
    /// The tunnel's MTU.
    pub mtu: Mtu,
    /// Looks at the SSH connection's path.
    pub watch: PathWatch,
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
        let small = match silent.is_empty() {
            true => self.large_packets().await,
            false => None,
        };
        // Last, since the kernel adds the route to an IPv6 peer a moment after the address.
        let detours = self.detours(netlink).await.map_err(Failure::local)?;
        let findings = detours
            .into_iter()
            .chain(silent)
            .chain(small)
            .chain(refused);
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
            length: 0,
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
                length: 0,
            };
            let answer = probe::echo(probe, FIRST_ANSWER).await;
            matches!(answer, Answer::Answered | Answer::Reported { .. })
        });
        join_all(asked).await.contains(&true)
    }

    /// Sends a packet as large as the tunnel and the usual path take. Where it gets lost on the way
    /// there, the connection's watch notices it; a packet that gets lost on the way back is a finding.
    async fn large_packets(&self) -> Option<Finding> {
        let pair = self.addresses.first()?;
        let mtu = self.mtu.min(Mtu::ETHERNET);
        let headers = if pair.remote.is_ipv4() { 28 } else { 48 };
        let probe = Probe {
            target: pair.remote,
            interface: self.device,
            hop_limit: None,
            length: (mtu.get() as usize).saturating_sub(headers),
        };
        let pinged = self.answers(pair.remote, PINGS_ALONE).await == Ok(true);
        if !pinged || probe::echo(probe, LARGE_ANSWER).await.is_from(pair.remote) {
            return None;
        }
        let end = Instant::now() + SAME_ANSWER;
        while self.watch.is_repeating() && Instant::now() < end {
            tokio::time::sleep(AGAIN).await;
        }
        Some(Finding::Large {
            host: self.host.to_owned(),
            address: pair.remote,
            mtu,
        })
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

/// The kernel's error text without Rust's "(os error N)".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
