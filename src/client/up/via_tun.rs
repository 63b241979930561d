//! The far end's part of a tunnel through sshd's own forwarding: the channel
//! `tun@openssh.com`, and shell commands for addresses, forwarding and NAT.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::anyhow;

use super::Reporter;
use super::plan::{self, AddressInput, FarDevice};
use super::remote_part::{Agreed, FarPart, NearDevice, Pushed, Start, report_undone};
use crate::client::remote::shell::facts::{Facts, Privilege};
use crate::client::remote::shell::steps::{self, Forwarding, Plan};
use crate::client::remote::shell::{self, Holder};
use crate::host::change::sysctl;
use crate::link::datagram::{self, Link};
use crate::process::failure::Failure;
use crate::pump::End;
use crate::ssh::client::connect::Connection;
use crate::types::{Unit, UnitRequest};

/// What it holds so far.
#[derive(Default)]
pub(super) struct ByTun {
    holder: Option<Holder>,
    link: Option<Link>,
}

/// The far end as it is and as it is to be.
pub(super) struct TunPlan {
    facts: Facts,
    device: FarDevice,
    forwarding: Option<Forwarding>,
}

impl FarPart for ByTun {
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
        let device = plan::far_device(host, request, &facts).map_err(Failure::ssh)?;
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
            near: &start.near,
            near_ipv6: sysctl::has_ipv6(),
            far: &facts,
            seed: start.seed,
        })
        .map_err(Failure::local)?;
        Ok(Agreed {
            far: TunPlan {
                facts,
                device,
                forwarding,
            },
            addresses,
            mtu,
            pushed: Pushed::default(),
            without_nat: request.nat == Some(false),
        })
    }

    async fn open(
        &mut self,
        start: &Start<'_>,
        agreed: &Agreed<TunPlan>,
        near: NearDevice,
    ) -> Result<String, Failure> {
        let mode = start.request.mode;
        let unit = self.open_link(start, &agreed.far, near).await?;
        if agreed.far.facts.privilege != Privilege::None {
            let plan = Plan {
                unit,
                mode,
                preexisting: matches!(agreed.far.device, FarDevice::Premade(_)),
                addresses: agreed.addresses.clone(),
                mtu: agreed.mtu,
                forwarding: agreed.far.forwarding.clone(),
            };
            self.steps(start, &plan, &agreed.far.facts).await?;
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
            (End::Stream(error), None) => {
                Failure::ssh(anyhow!("{} sent nonsense: {error}", connection.host()))
            }
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
    /// The channel and the devices at both ends; yields the far end's unit.
    async fn open_link(
        &mut self,
        start: &Start<'_>,
        plan: &TunPlan,
        near: NearDevice,
    ) -> Result<Unit, Failure> {
        let (connection, mode) = (start.connection, start.request.mode);
        if plan.facts.privilege != Privilege::None {
            let started = Holder::start(connection, plan.facts.privilege)
                .await
                .map_err(Failure::ssh)?;
            let holder = self.holder.insert(started);
            if let FarDevice::MadeForLogin(unit) = plan.device {
                let step = steps::make_device(unit, mode, &plan.facts.login);
                holder.step(&step).await.map_err(Failure::ssh)?;
            }
        }
        let (sender, receiver) = connection
            .open_tunnel(mode, plan.device.unit())
            .await
            .map_err(Failure::ssh)?;
        let near_name = near.tun.name().clone();
        // From here on frames are drawn from the channel, though both devices
        // are still down, so that nothing else on the connection waits for them.
        let framing = datagram::framing(connection.is_sshvpn());
        let NearDevice { tun, held } = near;
        let link = Link::start(tun, framing, sender, receiver, held, Arc::default());
        self.link = Some(link);
        let unit = match plan.device.unit() {
            UnitRequest::Unit(unit) => unit,
            UnitRequest::Any => shell::opened_unit(connection, mode)
                .await
                .map_err(Failure::ssh)?,
        };
        start.reporter.step(format_args!(
            "tunnel open: {near_name} here, {} at {}",
            unit.device_name(mode),
            connection.host()
        ));
        Ok(unit)
    }

    async fn steps(
        &mut self,
        start: &Start<'_>,
        plan: &Plan,
        facts: &Facts,
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
                "{host}: cannot {}: these settings stay as they were: {left}",
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
    Failure::ssh(anyhow!("the connection is gone"))
}
