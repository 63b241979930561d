//! The carrier `tun`: the channel `tun@openssh.com` of sshd, and shell commands for addresses,
//! forwarding and NAT.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::anyhow;

use super::Reporter;
use super::addresses::local_ipv6;
use super::plan::{self, AddressInput, RemoteDevice};
use super::remote_part::{Agreed, LocalDevice, Pushed, RemotePart, Start, report_undone};
use crate::client::remote::shell::facts::{Privilege, RemoteFacts};
use crate::client::remote::shell::steps::{self, Forwarding, Plan};
use crate::client::remote::shell::{self, Holder};
use crate::link::datagram::{self, Link};
use crate::process::failure::Failure;
use crate::pump::End;
use crate::ssh::client::connect::Connection;
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
    device: RemoteDevice,
    forwarding: Option<Forwarding>,
}

impl RemotePart for ByTun {
    type Plan = TunPlan;

    async fn agree(&mut self, start: &Start<'_>) -> Result<Agreed<TunPlan>, Failure> {
        let (connection, request) = (start.connection, start.request);
        let ways: Vec<IpAddr> = request.routes.iter().flat_map(plan::way_probes).collect();
        let facts = shell::probe(connection, &ways)
            .await
            .map_err(Failure::ssh)?;
        let host = connection.host();
        start.reporter.step(format_args!(
            "{host}: connected, logged in as {}",
            facts.login
        ));
        let device = plan::remote_device(host, request, &facts).map_err(Failure::ssh)?;
        let (forwarding, without_way) =
            plan::forwarding(host, request, &facts).map_err(Failure::ssh)?;
        for route in without_way {
            start
                .reporter
                .warning(format_args!("{host} itself has no route to {route}"));
        }
        let mtu = plan::mtu(host, request, device, &facts).map_err(Failure::ssh)?;
        let addresses = plan::addresses(&AddressInput {
            host,
            request,
            device,
            mtu,
            local: &start.local,
            local_ipv6: local_ipv6(request),
            remote: &facts,
            seed: start.seed,
        })
        .map_err(Failure::local)?;
        start.reporter.without_ipv6(addresses.without_ipv6);
        Ok(Agreed {
            remote: TunPlan {
                facts,
                device,
                forwarding,
            },
            addresses: addresses.pairs,
            mtu,
            pushed: Pushed::default(),
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
        let unit = self.open_link(start, &agreed.remote, local).await?;
        if agreed.remote.facts.privilege != Privilege::None {
            let plan = Plan {
                unit,
                mode,
                preexisting: matches!(agreed.remote.device, RemoteDevice::Premade(_)),
                addresses: agreed.addresses.clone(),
                mtu: agreed.mtu,
                forwarding: agreed.remote.forwarding.clone(),
            };
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
    /// Opens the channel and the remote device; returns the remote unit.
    async fn open_link(
        &mut self,
        start: &Start<'_>,
        plan: &TunPlan,
        local: LocalDevice,
    ) -> Result<Unit, Failure> {
        let (connection, mode) = (start.connection, start.request.mode);
        if plan.facts.privilege != Privilege::None {
            let started = Holder::start(connection, plan.facts.privilege)
                .await
                .map_err(Failure::ssh)?;
            let holder = self.holder.insert(started);
            if let RemoteDevice::MadeForLogin(unit) = plan.device {
                let step = steps::make_device(unit, mode, &plan.facts.login);
                holder.step(&step).await.map_err(Failure::ssh)?;
            }
        }
        let (sender, receiver) = connection
            .open_tunnel(mode, plan.device.unit())
            .await
            .map_err(Failure::ssh)?;
        let local_name = local.tun.name().clone();
        // The link starts to read frames while both devices are still down, so that unread
        // frames do not block the other channels of the connection.
        let framing = datagram::framing(connection.is_sshvpn());
        let LocalDevice { tun, held } = local;
        let link = Link::start(tun, framing, sender, receiver, held, Arc::default());
        self.link = Some(link);
        let unit = match plan.device.unit() {
            UnitRequest::Unit(unit) => unit,
            UnitRequest::Any => self.opened_unit(connection, &plan.facts, mode).await?,
        };
        start.reporter.step(format_args!(
            "tunnel open: {local_name} here, {} at {}",
            unit.device_name(mode),
            connection.host()
        ));
        Ok(unit)
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

fn no_connection() -> Failure {
    Failure::ssh(anyhow!("the connection is closed"))
}
