//! The carrier `tun`: the channel `tun@openssh.com` of sshd, and shell commands for addresses,
//! forwarding and NAT.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::anyhow;
use ipnetwork::IpNetwork;

use super::Reporter;
use super::addresses::{Chosen, local_ipv6};
use super::claims;
use super::plan::auto::{self, AutoInput};
use super::plan::error::PlanError;
use super::plan::{self, AddressInput, RemoteDevice};
use super::remote_part::{Agreed, LocalDevice, Pushed, RemotePart, Start, report_undone};
use crate::client::remote::shell::facts::{Privilege, RemoteFacts};
use crate::client::remote::shell::firewall::{self, RemoteFirewall};
use crate::client::remote::shell::steps::{self, Forwarding, Plan};
use crate::client::remote::shell::{self, Holder, routed};
use crate::host::forward_path::{self, Named, Obstacles, Tunnel};
use crate::host::plan::facts::HostFacts;
use crate::link::datagram::{self, Link};
use crate::process::failure::Failure;
use crate::pump::End;
use crate::ssh::channel::tunnel::{TunnelReceiver, TunnelSender};
use crate::ssh::client::connect::Connection;
use crate::ssh::error::ChannelError;
use crate::types::family::Family;
use crate::types::{Mode, Unit, UnitRequest};

/// The parts of the tunnel so far.
#[derive(Default)]
pub(super) struct ByTun {
    holder: Option<Holder>,
    link: Option<Link>,
}

/// The remote host's state and its plan.
pub(super) struct TunPlan {
    facts: RemoteFacts,
    /// The first one that sshd opens.
    devices: Vec<RemoteDevice>,
    forwarding: Option<Forwarding>,
    firewall: RemoteFirewall,
    /// The routed networks.
    networks: Vec<IpNetwork>,
}

impl TunPlan {
    /// The chains there that drop packets of the tunnel's device.
    fn obstacles(&self, device: &str) -> Obstacles {
        let Some(forwarding) = &self.forwarding else {
            return Obstacles::default();
        };
        let tunnel = Tunnel {
            device: forward_path::Device::Named(device),
            named: Named::Device(device),
            networks: &self.networks,
            inbound: !forwarding.inbound.is_empty(),
            among_clients: &[],
        };
        let ways = |family| match family {
            Family::V4 => &forwarding.ways4,
            Family::V6 => &forwarding.ways6,
        };
        self.firewall.rulesets.obstacles(&tunnel, ways)
    }
}

/// The device that sshd opened.
struct OpenedDevice {
    unit: Unit,
    /// Whether it existed before this tunnel.
    preexisting: bool,
}

impl RemotePart for ByTun {
    type Plan = TunPlan;

    async fn agree(&mut self, start: &Start<'_>) -> Result<Agreed<TunPlan>, Failure> {
        let connection = start.connection;
        let (host, software) = (connection.host(), connection.software());
        if software.starts_with("dropbear") {
            let host = host.to_owned();
            return Err(Failure::ssh(PlanError::NoTunnels { host, software }));
        }
        let automatic = match start.request.auto {
            true => automatic(start).await?,
            false => Vec::new(),
        };
        let request = &start.request.reaching(&automatic);
        let ways: Vec<IpAddr> = request.routes.iter().flat_map(plan::way_probes).collect();
        let facts = shell::probe(connection, &ways)
            .await
            .map_err(Failure::ssh)?;
        start.reporter.step(format_args!(
            "{host}: connected, logged in as {}",
            facts.login
        ));
        let devices = plan::remote_devices(host, request, &facts).map_err(Failure::ssh)?;
        let device = devices.first().copied().ok_or_else(no_connection)?;
        let (forwarding, without_way) =
            plan::forwarding(host, request, &facts).map_err(Failure::ssh)?;
        for route in without_way {
            start
                .reporter
                .warning(format_args!("{host} itself has no route to {route}"));
        }
        let firewall = match &forwarding {
            Some(_) => firewall::read(connection, facts.privilege).await,
            None => RemoteFirewall::default(),
        };
        let mtu = plan::mtu(host, request, device, &facts).map_err(Failure::ssh)?;
        if facts.privilege != Privilege::None {
            let started = Holder::start(connection, facts.privilege).await;
            self.holder = Some(started.map_err(Failure::ssh)?);
        }
        let choose = |local: &HostFacts, seed| {
            plan::addresses(&AddressInput {
                host,
                request,
                device,
                mtu,
                local,
                local_ipv6: local_ipv6(request),
                remote: &facts,
                seed,
            })
        };
        let addresses = self.claim_addresses(start, choose).await?;
        start.reporter.without_ipv6(addresses.without_ipv6);
        Ok(Agreed {
            remote: TunPlan {
                facts,
                devices,
                forwarding,
                firewall,
                networks: request.routes.clone(),
            },
            addresses: addresses.pairs,
            mtu,
            pushed: Pushed::routes(automatic),
            without_nat: request.nat == Some(false),
        })
    }

    async fn open(
        &mut self,
        start: &Start<'_>,
        agreed: &Agreed<TunPlan>,
        local: LocalDevice,
    ) -> Result<String, Failure> {
        let mode = start.request.mode;
        let OpenedDevice { unit, preexisting } =
            self.open_link(start, &agreed.remote, local).await?;
        if agreed.remote.facts.privilege != Privilege::None {
            let obstacles = agreed.remote.obstacles(&unit.device_name(mode));
            let plan = Plan {
                unit,
                mode,
                preexisting,
                addresses: agreed.addresses.clone(),
                mtu: agreed.mtu,
                forwarding: agreed.remote.forwarding.clone(),
                accept: agreed.remote.firewall.accept(&obstacles),
            };
            for what in obstacles.warnings {
                let host = start.connection.host();
                start.reporter.warning(format_args!("{host}: {what}"));
            }
            self.steps(start, &plan, &agreed.remote.facts).await?;
        }
        Ok(unit.device_name(mode))
    }

    async fn lost(&mut self, connection: &Connection) -> Failure {
        let Some(link) = &mut self.link else {
            return no_connection();
        };
        match (link.ended().await, connection.end_reason()) {
            (_, Some(reason)) => Failure::ssh(anyhow!("{reason}")),
            (End::Channel, None) => Failure::ssh(anyhow!(
                "{} closed the tunnel: its device failed or was removed there",
                connection.host()
            )),
            (End::Stream(error), None) => Failure::ssh(anyhow!(
                "{} does not keep to the protocol: {error}",
                connection.host()
            )),
            (End::Device(error), None) => {
                Failure::local(anyhow!("the tunnel device here failed: {error}"))
            }
        }
    }

    async fn stop(&mut self, _: &Connection, reporter: Reporter) {
        if let Some(link) = self.link.take() {
            let counters = link.stop().await;
            reporter.step(format_args!("sent {}", counters.outbound.snapshot()));
            reporter.step(format_args!("received {}", counters.inbound.snapshot()));
        }
    }

    async fn finish(self, connection: &Connection, reporter: Reporter) {
        if let Some(holder) = self.holder {
            let undone = holder.finish().await.then(Vec::new);
            report_undone(reporter, connection.host(), undone);
        }
    }
}

impl ByTun {
    /// Chooses addresses that no other tunnel has at either end.
    async fn claim_addresses(
        &mut self,
        start: &Start<'_>,
        mut choose: impl FnMut(&HostFacts, u64) -> Result<Chosen, PlanError>,
    ) -> Result<Chosen, Failure> {
        let mut taken: Vec<IpAddr> = Vec::new();
        loop {
            let chosen = claims::choose(start, &taken, &mut choose, |chosen| &chosen.pairs);
            let chosen = chosen.map_err(Failure::local)?;
            let Some(holder) = &mut self.holder else {
                return Ok(chosen);
            };
            let claim = steps::claim(&chosen.pairs);
            let said = holder.step(&claim).await.map_err(Failure::ssh)?;
            // What was not asked about says nothing.
            let words = said.split_whitespace().filter_map(|word| word.parse().ok());
            let ours = |address: &IpAddr| chosen.pairs.iter().any(|pair| pair.local == *address);
            let refused: Vec<IpAddr> = words.filter(ours).collect();
            if refused.is_empty() {
                return Ok(chosen);
            }
            claims::refused(&mut taken, refused).map_err(Failure::local)?;
        }
    }

    /// Opens the channel and the remote device.
    async fn open_link(
        &mut self,
        start: &Start<'_>,
        plan: &TunPlan,
        local: LocalDevice,
    ) -> Result<OpenedDevice, Failure> {
        let (connection, mode) = (start.connection, start.request.mode);
        let (device, (sender, receiver)) = self.open_channel(connection, plan, mode).await?;
        let local_name = local.tun.name().clone();
        // The link starts to read frames while both devices are still down, so that unread
        // frames do not block the other channels of the connection.
        let framing = datagram::framing(connection.is_sshvpn());
        let LocalDevice { tun, held } = local;
        let link = Link::start(tun, framing, sender, receiver, held, Arc::default());
        self.link = Some(link);
        let unit = match device.unit() {
            UnitRequest::Unit(unit) => unit,
            UnitRequest::Any => self.opened_unit(connection, &plan.facts, mode).await?,
        };
        start.reporter.step(format_args!(
            "tunnel open: {local_name} here, {} at {}",
            unit.device_name(mode),
            connection.host()
        ));
        let preexisting = match device {
            RemoteDevice::MadeForLogin(_) => false,
            RemoteDevice::Premade(_) => true,
            // sshd makes devices as root only.
            RemoteDevice::BySshd(_) => plan.facts.privilege != Privilege::Root,
        };
        Ok(OpenedDevice { unit, preexisting })
    }

    /// Opens the channel to the first of the plan's devices that sshd opens. If it opens none, the
    /// error is that of the first.
    async fn open_channel(
        &mut self,
        connection: &Connection,
        plan: &TunPlan,
        mode: Mode,
    ) -> Result<(RemoteDevice, (TunnelSender, TunnelReceiver)), Failure> {
        let mut refused = None;
        for device in &plan.devices {
            if let (RemoteDevice::MadeForLogin(unit), Some(holder)) = (device, &mut self.holder) {
                let step = steps::make_device(*unit, mode, &plan.facts.login);
                holder.step(&step).await.map_err(Failure::ssh)?;
            }
            match connection.open_tunnel(mode, device.unit()).await {
                Ok(channel) => return Ok((*device, channel)),
                Err(error @ ChannelError::TunnelRefused { .. }) => {
                    tracing::debug!("{error}");
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(Failure::ssh(error)),
            }
        }
        Err(refused.map_or_else(no_connection, Failure::ssh))
    }

    /// The unit that sshd opened, by SSH_TUNNEL; where there is none (OpenSSH before 7.7) or no
    /// second session (MaxSessions 1), by the only device that is new there.
    async fn opened_unit(
        &mut self,
        connection: &Connection,
        facts: &RemoteFacts,
        mode: Mode,
    ) -> Result<Unit, Failure> {
        let error = match shell::opened_unit(connection, mode).await {
            Ok(unit) => return Ok(unit),
            Err(error) => error,
        };
        let Some(holder) = &mut self.holder else {
            return Err(Failure::ssh(error));
        };
        tracing::debug!("{error}");
        let listed = holder.step(&steps::list_devices()).await;
        let listed = listed.map_err(Failure::ssh)?;
        facts.new_unit(&listed, mode).ok_or(Failure::ssh(error))
    }

    async fn steps(
        &mut self,
        start: &Start<'_>,
        plan: &Plan,
        facts: &RemoteFacts,
    ) -> Result<(), Failure> {
        let Some(holder) = &mut self.holder else {
            return Err(no_connection());
        };
        let host = start.connection.host();
        let step = steps::protect(plan, facts);
        let left = holder.step(&step).await.map_err(Failure::ssh)?;
        match left.is_empty() {
            true => start.reporter.step(format_args!("{host}: {}", step.what)),
            false => start.reporter.warning(format_args!(
                "{host}: cannot {}: unchanged settings: {left}",
                step.what
            )),
        }
        for step in steps::bring_up(plan, facts) {
            let (said, what) = (holder.step(&step).await.map_err(Failure::ssh)?, step.what);
            match said.as_str() {
                "" => start.reporter.step(format_args!("{host}: {what}")),
                _ => start
                    .reporter
                    .warning(format_args!("{host}: cannot {what}: {said}")),
            }
        }
        Ok(())
    }
}

/// The networks of the remote host that `--route auto` takes.
async fn automatic(start: &Start<'_>) -> Result<Vec<IpNetwork>, Failure> {
    let (connection, request) = (start.connection, start.request);
    let networks = routed::networks(connection).await.map_err(Failure::ssh)?;
    let auto = auto::choose(&AutoInput {
        host: connection.host(),
        request,
        local: &start.local,
        first_hop: connection.first_hop(),
        networks: &networks,
        permitted: None,
        ipv6: local_ipv6(request),
    })
    .map_err(Failure::local)?;
    start.reporter.auto(connection.host(), &auto);
    Ok(auto.taken)
}

fn no_connection() -> Failure {
    Failure::ssh(anyhow!("the connection is closed"))
}
