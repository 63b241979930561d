//! One tunnel from bring-up to take-down: holds its parts in the order of their making, and takes
//! them down in reverse.

use anyhow::anyhow;
use ipnetwork::IpNetwork;

use super::guard::{self, GuardInput};
use super::path::Path;
use super::remote_part::{Agreed, LocalDevice, RemotePart, Start};
use super::{Reporter, UpRequest};
use super::{closed, local_host, plan};
use crate::config::ssh::options::SshOptions;
use crate::host::change::Change;
use crate::host::journal::recovery::Recoverer;
use crate::host::journal::state::HostState;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::HostFacts;
use crate::host::plan::route_plan::{self, RoutePlan, RouteRequest};
use crate::link::datagram::Restrictions;
use crate::process::cleanup;
use crate::process::confinement;
use crate::process::failure::Failure;
use crate::ssh::client::connect::Connection;
use crate::tun::Device;

/// A tunnel and the parts that it holds so far.
pub(super) struct Attempt<F> {
    reporter: Reporter,
    connection: Connection,
    remote: F,
    local: Option<HostState>,
}

impl<F: RemotePart> Attempt<F> {
    pub(super) fn new(reporter: Reporter, connection: Connection, remote: F) -> Self {
        Attempt {
            reporter,
            connection,
            remote,
            local: None,
        }
    }

    /// Brings the tunnel up. After a failure, or if this future is dropped,
    /// [`take_down`](Self::take_down) undoes what was done.
    pub(super) async fn bring_up(
        &mut self,
        request: &UpRequest,
        options: &SshOptions,
    ) -> Result<(), Failure> {
        let netlink = Netlink::open().map_err(Failure::local)?;
        let local = netlink.facts().await.map_err(Failure::local)?;
        // Report an impossible request before the server is asked for anything.
        self.plan_routes(request, &[], &local)?;
        let start = Start {
            reporter: self.reporter,
            connection: &self.connection,
            request,
            local,
            seed: plan::seed(
                &local_host::machine_id(),
                &options.user,
                &options.destination,
                options.port,
            ),
        };
        let agreed = self.remote.agree(&start).await?;
        let routes = self.plan_routes(request, &agreed.pushed.routes, &start.local)?;
        self.tell(&routes);
        let tun = Device::open(&request.device, request.mode).map_err(Failure::local)?;
        let device = tun.name().to_string();
        let directory = cleanup::runtime_dir()?;
        let local = self.local.insert(
            HostState::begin(&directory, tun.name())
                .await
                .map_err(Failure::local)?,
        );
        // Before the link is up, through which connections could come in.
        let firewall = closed::firewall(request, &agreed, &routes.routes);
        let host = start.connection.host();
        closed::close(local, firewall, &agreed, host, self.reporter).await?;
        let held = Restrictions::of_addresses(guard::rules(&GuardInput {
            mode: request.mode,
            addresses: &agreed.addresses,
            routes: &routes.routes,
            behind: &request.forward,
            local: &start.local,
        }));
        let ours = LocalDevice { tun, held };
        let remote_device = self.remote.open(&start, &agreed, ours).await?;
        let path = Path {
            host: start.connection.host(),
            device: &device,
            addresses: &agreed.addresses,
            plan: &routes,
            local: &start.local,
            hidden: start.connection.has_proxy(),
        };
        let mut changes = local_host::changes(request.mode, &agreed, &routes.routes);
        let first = changes
            .iter()
            .position(|change| matches!(change, Change::Route(_)));
        let further = changes.split_off(first.unwrap_or(changes.len()));
        make(local, changes, self.reporter).await?;
        let answering = path.before_routes().await;
        make(local, further, self.reporter).await?;
        let findings = tokio::select! {
            findings = path.after_routes(&netlink, answering) => findings?,
            reason = start.connection.ended() => return Err(Failure::ssh(anyhow!("{reason}"))),
        };
        for finding in &findings {
            self.reporter.warning(finding);
        }
        if request.strict {
            let faults = path.overlaps().chain(findings);
            require_none(&faults.collect::<Vec<_>>())?;
        }
        self.announce(&remote_device, request, &agreed);
        Ok(())
    }

    /// Drops every right that neither the tunnel nor its undoing needs. `other_user`: whether a
    /// ProxyCommand runs as another user.
    pub(super) async fn confine(&self, other_user: bool) {
        let Some(local) = &self.local else {
            return;
        };
        let ends_proxy = other_user && self.connection.has_proxy();
        if let Err(error) = confinement::keep_undoing(local, ends_proxy).await {
            self.reporter.warning(error);
        }
    }

    /// Plans the routes on this host: the requested and the `pushed` ones.
    fn plan_routes(
        &self,
        request: &UpRequest,
        pushed: &[IpNetwork],
        local: &HostFacts,
    ) -> Result<RoutePlan, Failure> {
        let asked = RouteRequest {
            routes: [&request.routes, pushed].concat(),
            excludes: request.excludes.clone(),
            servers: self.connection.first_hop().to_vec(),
        };
        route_plan::plan(&asked, local, "").map_err(Failure::local)
    }

    /// Reports the plan's notes.
    fn tell(&self, plan: &RoutePlan) {
        for note in &plan.notes {
            match note.is_warning() {
                true => self.reporter.warning(note),
                false => self.reporter.step(note),
            }
        }
    }

    fn announce(&self, remote_device: &str, request: &UpRequest, agreed: &Agreed<F::Plan>) {
        let way_down = match request.background {
            true => format!("'kill {}' takes it down", std::process::id()),
            false => "Ctrl-C takes it down".to_owned(),
        };
        let host = self.connection.host();
        let pairs: Vec<String> = agreed
            .addresses
            .iter()
            .map(|pair| format!("{} here, {} at {host}", pair.local, pair.remote))
            .collect();
        self.reporter.step(format_args!(
            "up: {} ({remote_device}, MTU {}); {way_down}",
            pairs.join("; "),
            agreed.mtu,
        ));
    }

    /// Waits until the tunnel or the connection is lost.
    pub(super) async fn lost(&mut self) -> Failure {
        tokio::select! {
            reason = self.connection.ended() => Failure::ssh(anyhow!("{reason}")),
            failure = self.remote.lost(&self.connection) => failure,
        }
    }

    /// Undoes everything, the last first: this host, the devices, the remote host, the connection.
    pub(super) async fn take_down(mut self) {
        let verbose = !self.reporter.quiet;
        let report = match self.local {
            Some(local) => Some(local.undo().await),
            None => None,
        };
        self.remote.stop(&self.connection, self.reporter).await;
        match report {
            // The device is gone, and with it any change on it that could not be
            // undone. Recovery reports what is left.
            Some(report) if !report.failed.is_empty() => {
                if let Err(failure) = cleanup::recover(verbose, Recoverer::Other).await {
                    self.reporter.warning(failure);
                }
            }
            Some(report) => cleanup::print_report(&report, verbose),
            None => {}
        }
        self.remote.finish(&self.connection, self.reporter).await;
        self.connection.close().await;
        cleanup::remove_empty_runtime_dir();
    }
}

/// Makes the changes, and reports those that concern the user.
async fn make(
    local: &mut HostState,
    changes: Vec<Change>,
    reporter: Reporter,
) -> Result<(), Failure> {
    for change in changes {
        let line = local_host::describe(&change);
        local.apply(change).await.map_err(Failure::local)?;
        if let Some(line) = line {
            reporter.step(format_args!("here: {line}"));
        }
    }
    Ok(())
}

/// The error of `--strict`.
fn require_none(faults: &[String]) -> Result<(), Failure> {
    let Some(first) = faults.first() else {
        return Ok(());
    };
    let more = match faults.len() {
        1 => String::new(),
        count => format!(" (and {} more, see the warnings above)", count - 1),
    };
    Err(Failure::local(anyhow!(
        "refused by --strict: {first}{more}"
    )))
}
