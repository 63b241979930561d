//! One tunnel from its first step to its last: everything that it holds, in the
//! order in which it came to be, and taken down in reverse.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::anyhow;
use ipnetwork::IpNetwork;

use super::near;
use super::plan::{self, AddressInput, FarDevice};
use super::{Reporter, UpRequest};
use crate::config::invoker::Invoker;
use crate::config::ssh_options::SshOptions;
use crate::config::types::{Mode, Mtu, Unit, UnitRequest};
use crate::net::addressing::AddressPair;
use crate::net::facts::HostFacts;
use crate::net::netlink::Netlink;
use crate::net::route_plan::{self, RoutePlan, RouteRequest};
use crate::net::state::HostState;
use crate::net::sysctl;
use crate::pump::End;
use crate::session::carrier::Link;
use crate::session::cleanup;
use crate::session::failure::Failure;
use crate::session::far_end::facts::{Facts, Privilege};
use crate::session::far_end::steps::{self, Forwarding, Plan};
use crate::session::far_end::{self, Holder};
use crate::ssh::connect::Connection;
use crate::tun::Device;

/// How often a server is asked whether it is there, where the user did not
/// say: a tunnel without traffic must notice that it is dead.
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// What a tunnel holds so far.
pub struct Attempt {
    reporter: Reporter,
    connection: Option<Connection>,
    holder: Option<Holder>,
    link: Option<Link>,
    near: Option<HostState>,
}

/// What both ends are to look like.
struct Agreed {
    device: FarDevice,
    forwarding: Option<Forwarding>,
    addresses: Vec<AddressPair>,
    mtu: Mtu,
    routes: Vec<IpNetwork>,
}

impl Attempt {
    pub(super) fn new(reporter: Reporter) -> Self {
        Attempt {
            reporter,
            connection: None,
            holder: None,
            link: None,
            near: None,
        }
    }

    /// Every step up. After a failure, or when this is dropped half way,
    /// [`take_down`](Self::take_down) undoes what was done.
    pub(super) async fn bring_up(
        &mut self,
        request: &UpRequest,
        options: &SshOptions,
        invoker: &Invoker,
    ) -> Result<(), Failure> {
        let mut options = options.clone();
        options.server_alive_interval.get_or_insert(ALIVE_INTERVAL);
        let opened = Connection::open(&options, &request.args, invoker).await;
        let connection = self.connection.insert(opened.map_err(Failure::ssh)?);
        connection.require_verified().map_err(Failure::ssh)?;
        let (agreed, far) = self.agree(request, &options).await?;
        let tun = Device::open(&request.device, request.mode).map_err(Failure::local)?;
        let unit = self
            .open_link(tun, request.mode, agreed.device, &far)
            .await?;
        if far.privilege != Privilege::None {
            let plan = Plan {
                unit,
                mode: request.mode,
                preexisting: matches!(agreed.device, FarDevice::Premade(_)),
                addresses: agreed.addresses.clone(),
                mtu: agreed.mtu,
                forwarding: agreed.forwarding.clone(),
            };
            self.far_steps(&plan, &far).await?;
        }
        self.near_changes(request.mode, &agreed).await?;
        self.announce(unit, request, &agreed);
        Ok(())
    }

    /// Looks at both hosts and decides; nothing is changed yet.
    async fn agree(
        &self,
        request: &UpRequest,
        options: &SshOptions,
    ) -> Result<(Agreed, Facts), Failure> {
        let Some(connection) = &self.connection else {
            return Err(no_connection());
        };
        let netlink = Netlink::open().map_err(Failure::local)?;
        let near = netlink.facts().await.map_err(Failure::local)?;
        let routes = self.plan_routes(request, connection, &near)?;
        let ways: Vec<IpAddr> = request.routes.iter().flat_map(plan::way_probes).collect();
        let far = far_end::probe(connection, &ways)
            .await
            .map_err(Failure::ssh)?;
        let host = connection.host();
        self.reporter.step(format_args!(
            "{host}: connected, logged in as {}",
            far.login
        ));
        let device = plan::far_device(host, request, &far).map_err(Failure::ssh)?;
        let (forwarding, without_way) =
            plan::forwarding(host, request, &far).map_err(Failure::ssh)?;
        for route in without_way {
            self.reporter
                .warning(format_args!("{host} itself has no route to {route}"));
        }
        let mtu = plan::mtu(host, request, device, &far).map_err(Failure::ssh)?;
        let addresses = plan::addresses(&AddressInput {
            host,
            request,
            device,
            mtu,
            near: &near,
            near_ipv6: sysctl::has_ipv6(),
            far: &far,
            seed: plan::seed(
                &near::machine_id(),
                &options.user,
                &options.destination,
                options.port,
            ),
        })
        .map_err(Failure::local)?;
        let agreed = Agreed {
            device,
            forwarding,
            addresses,
            mtu,
            routes,
        };
        Ok((agreed, far))
    }

    /// The routes to install here; says what is remarkable about them.
    fn plan_routes(
        &self,
        request: &UpRequest,
        connection: &Connection,
        near: &HostFacts,
    ) -> Result<Vec<IpNetwork>, Failure> {
        let asked = RouteRequest {
            routes: request.routes.clone(),
            excludes: request.excludes.clone(),
            servers: connection.first_hop().to_vec(),
        };
        let RoutePlan { routes, notes } =
            route_plan::plan(&asked, near, "").map_err(Failure::local)?;
        for note in notes {
            match note.is_warning() {
                true => self.reporter.warning(note),
                false => self.reporter.step(note),
            }
        }
        Ok(routes)
    }

    /// The channel and the devices at both ends; yields the far end's unit.
    async fn open_link(
        &mut self,
        tun: Device,
        mode: Mode,
        device: FarDevice,
        far: &Facts,
    ) -> Result<Unit, Failure> {
        let Some(connection) = &self.connection else {
            return Err(no_connection());
        };
        let directory = cleanup::runtime_dir()?;
        self.near = Some(
            HostState::begin(&directory, tun.name())
                .await
                .map_err(Failure::local)?,
        );
        if far.privilege != Privilege::None {
            let started = Holder::start(connection, far.privilege)
                .await
                .map_err(Failure::ssh)?;
            let holder = self.holder.insert(started);
            if let FarDevice::MadeForLogin(unit) = device {
                let step = steps::make_device(unit, mode, &far.login);
                holder.step(&step).await.map_err(Failure::ssh)?;
            }
        }
        let (sender, receiver) = connection
            .open_tunnel(mode, device.unit())
            .await
            .map_err(Failure::ssh)?;
        let near_name = tun.name().clone();
        // From here on frames are drawn from the channel, though both devices
        // are still down, so that nothing else on the connection waits for them.
        self.link = Some(Link::start(tun, sender, receiver));
        let unit = match device.unit() {
            UnitRequest::Unit(unit) => unit,
            UnitRequest::Any => far_end::opened_unit(connection, mode)
                .await
                .map_err(Failure::ssh)?,
        };
        self.reporter.step(format_args!(
            "tunnel open: {near_name} here, {} at {}",
            unit.device_name(mode),
            connection.host()
        ));
        Ok(unit)
    }

    async fn far_steps(&mut self, plan: &Plan, far: &Facts) -> Result<(), Failure> {
        let (Some(holder), Some(connection)) = (&mut self.holder, &self.connection) else {
            return Err(no_connection());
        };
        for step in steps::bring_up(plan, far) {
            holder.step(&step).await.map_err(Failure::ssh)?;
            self.reporter
                .step(format_args!("{}: {}", connection.host(), step.what));
        }
        Ok(())
    }

    /// This host's part: the link, then addresses, then routes.
    async fn near_changes(&mut self, mode: Mode, agreed: &Agreed) -> Result<(), Failure> {
        let Some(near) = &mut self.near else {
            return Err(no_connection());
        };
        for change in near::changes(mode, &agreed.addresses, agreed.mtu, &agreed.routes) {
            let line = near::describe(&change);
            near.apply(change).await.map_err(Failure::local)?;
            if let Some(line) = line {
                self.reporter.step(format_args!("here: {line}"));
            }
        }
        Ok(())
    }

    fn announce(&self, unit: Unit, request: &UpRequest, agreed: &Agreed) {
        let mode = request.mode;
        let way_down = match request.background {
            true => format!("'kill {}' takes it down", std::process::id()),
            false => "Ctrl-C takes it down".to_owned(),
        };
        let host = self
            .connection
            .as_ref()
            .map_or("", |connection| connection.host());
        let pairs: Vec<String> = agreed
            .addresses
            .iter()
            .map(|pair| format!("{} here, {} at {host}", pair.near, pair.far))
            .collect();
        self.reporter.step(format_args!(
            "up: {} ({}, MTU {}); {}",
            pairs.join("; "),
            unit.device_name(mode),
            agreed.mtu,
            way_down
        ));
    }

    /// Waits until the tunnel or the connection is lost.
    pub(super) async fn lost(&mut self) -> Failure {
        let (Some(connection), Some(link)) = (&self.connection, &mut self.link) else {
            return no_connection();
        };
        tokio::select! {
            reason = connection.ended() => Failure::ssh(anyhow!("{reason}")),
            end = link.ended() => match (end, connection.end_reason()) {
                (_, Some(reason)) => Failure::ssh(anyhow!("{reason}")),
                (End::Channel, None) => Failure::ssh(anyhow!(
                    "{} closed the tunnel: its device failed or was removed there",
                    connection.host()
                )),
                (End::Stream(error), None) => {
                    Failure::ssh(anyhow!("{} sent nonsense: {error}", connection.host()))
                }
                (End::Device(error), None) => {
                    Failure::local(anyhow!("the tunnel device here failed: {error}"))
                }
            },
        }
    }

    /// Undoes everything, the last first: this host, the devices, the far end,
    /// the connection.
    pub(super) async fn take_down(self) {
        let verbose = !self.reporter.quiet;
        let report = match self.near {
            Some(near) => Some(near.undo().await),
            None => None,
        };
        if let Some(link) = self.link {
            let counters = link.stop().await;
            self.reporter
                .step(format_args!("sent {}", counters.outbound.snapshot()));
            self.reporter
                .step(format_args!("received {}", counters.inbound.snapshot()));
        }
        match report {
            // With the device gone, what could not be undone on it has gone too;
            // what is still there is said.
            Some(report) if !report.failed.is_empty() => {
                if let Err(failure) = cleanup::recover(verbose).await {
                    self.reporter.warning(failure);
                }
            }
            Some(report) => cleanup::print_report(&report, verbose),
            None => {}
        }
        if let Some(connection) = self.connection {
            if let Some(holder) = self.holder {
                end_far_part(self.reporter, connection.host(), holder).await;
            }
            connection.close().await;
        }
        cleanup::remove_empty_runtime_dir();
    }
}

async fn end_far_part(reporter: Reporter, host: &str, holder: Holder) {
    if holder.finish().await {
        reporter.step(format_args!("{host}: undone"));
    } else {
        reporter.warning(format_args!(
            "{host} did not confirm that its part is undone; it does that by itself once it sees that \
             the connection is gone"
        ));
    }
}

fn no_connection() -> Failure {
    Failure::ssh(anyhow!("the connection is gone"))
}
