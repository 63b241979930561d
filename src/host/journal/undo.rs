//! Undoes one journalled change: only if the present value is still ours, and without an error if
//! the change is gone already.

use super::{Entry, Journal};
use crate::host::change::TunnelRoute;
use crate::host::change::firewall;
use crate::host::change::iptables;
use crate::host::change::resolver;
use crate::host::change::shared_sysctl;
use crate::host::change::sysctl::{SysctlError, SysctlKey};
use crate::host::error::{NetError, Refusal};
use crate::host::netlink::{Netlink, PortSettings};
use crate::host::own_device::{self, UndoScope};
use crate::host::plan::address_range::Family;
use crate::host::plan::facts::{AddressFacts, AddressGeneration, InterfaceIndex, LinkFacts};
use crate::packet::guard::link::MacAddress;

/// The outcome for the changes of one tunnel.
#[derive(Debug, Default)]
pub struct UndoReport {
    /// Changes that were undone.
    pub undone: Vec<String>,
    /// Changes that were gone already, with the device for instance.
    pub gone: Vec<String>,
    /// Settings that another program has changed since; they stay unchanged.
    pub left: Vec<String>,
    /// Changes that only root may undo; they stay in the journal.
    pub beyond: Vec<String>,
    /// Changes that could not be undone; they stay in the journal.
    pub failed: Vec<(String, NetError)>,
}

impl UndoReport {
    /// Whether every change of this tunnel is undone or gone.
    pub fn is_clean(&self) -> bool {
        self.left.is_empty() && self.beyond.is_empty() && self.failed.is_empty()
    }
}

/// The outcome for one change.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::host) enum Outcome {
    Undone,
    /// Released; another tunnel still needs the change.
    Shared,
    Gone,
    /// Another program has changed it to this value.
    Left(String),
    /// The caller may not undo it, for this reason.
    Beyond(String),
}

impl Outcome {
    fn takes_root() -> Self {
        Outcome::Beyond("this needs root".to_owned())
    }
}

/// Undoes every change of `journal` in reverse and removes the journal. Changes that fail or are
/// beyond `reach` stay in it for a later try.
pub(in crate::host) async fn undo_and_close(
    netlink: &Netlink,
    mut journal: Journal,
    reach: UndoScope,
) -> UndoReport {
    let (mut report, remaining) = undo_all(netlink, &mut journal, reach).await;
    let name = format!("the journal of {}", journal.interface());
    let closed = if remaining.is_empty() {
        journal.remove()
    } else {
        journal.replace(remaining)
    };
    if let Err(error) = closed {
        report.failed.push((name, error.into()));
    }
    report
}

/// Undoes every change of `journal` in reverse; the second value lists the changes that could not
/// be undone, in the order of the journal.
async fn undo_all(
    netlink: &Netlink,
    journal: &mut Journal,
    reach: UndoScope,
) -> (UndoReport, Vec<Entry>) {
    let mut report = UndoReport::default();
    let mut remaining = Vec::new();
    for (position, entry) in journal.entries().to_vec().iter().enumerate().rev() {
        let what = described(entry, journal.interface());
        match undo(netlink, journal, position, reach, entry).await {
            Ok(Outcome::Undone) => report.undone.push(what),
            Ok(Outcome::Shared) => report
                .undone
                .push(format!("{what} (kept; another tunnel needs it)")),
            Ok(Outcome::Gone) => report.gone.push(what),
            Ok(Outcome::Beyond(why)) => {
                report.beyond.push(format!("{what}: {why}"));
                remaining.insert(0, entry.clone());
            }
            Ok(Outcome::Left(found)) => report.left.push(format!("{what}: {found}")),
            Err(error) => {
                report.failed.push((what, error));
                remaining.insert(0, entry.clone());
            }
        }
    }
    (report, remaining)
}

/// Undoes the entry at `position`; it may remove the entry from the journal.
async fn undo(
    netlink: &Netlink,
    journal: &mut Journal,
    position: usize,
    reach: UndoScope,
    entry: &Entry,
) -> Result<Outcome, NetError> {
    match entry {
        Entry::SharedSysctl { .. }
        | Entry::FirewallTable
        | Entry::ForwardAccept { .. }
        | Entry::FirewallRules { .. }
        | Entry::NameServers { .. }
            if reach == UndoScope::OwnDevices =>
        {
            Ok(Outcome::takes_root())
        }
        Entry::SharedSysctl { .. } => shared_sysctl::release(journal, position),
        Entry::FirewallTable => firewall::remove_table(journal.interface()).await,
        Entry::ForwardAccept { ipv6 } => {
            firewall::remove_accept(journal.interface(), Family::of_ipv6(*ipv6)).await
        }
        Entry::FirewallRules { ipv6 } => {
            iptables::remove(journal.interface(), Family::of_ipv6(*ipv6)).await
        }
        Entry::NameServers { way } => resolver::release(netlink, journal, way).await,
        _ => match journal.index() {
            Some(index) => undo_link(netlink, journal.interface(), index, reach, entry).await,
            None => Ok(Outcome::Gone),
        },
    }
}

async fn undo_link(
    netlink: &Netlink,
    interface: &str,
    index: InterfaceIndex,
    reach: UndoScope,
    entry: &Entry,
) -> Result<Outcome, NetError> {
    let Some(link) = netlink.link_by_index(index).await? else {
        return Ok(Outcome::Gone);
    };
    // Interface numbers can recur in a new namespace, so the name is checked too.
    if link.name != interface || !link.is_tun() {
        return Ok(Outcome::Left(format!(
            "interface number {} is now '{}'",
            index.0, link.name
        )));
    }
    if !own_device::is_own(netlink, &link, reach).await? {
        return Ok(Outcome::Beyond(format!(
            "'{interface}' belongs to another user"
        )));
    }
    if reach == UndoScope::OwnDevices && !own_device::is_undone_on_device(entry, interface) {
        return Ok(Outcome::takes_root());
    }
    let result = undo_on(netlink, &link, entry).await;
    match result {
        Err(error) if matches!(error.refusal(), Some(Refusal::NoDevice | Refusal::Absent)) => {
            Ok(Outcome::Gone)
        }
        other => other,
    }
}

async fn undo_on(netlink: &Netlink, link: &LinkFacts, entry: &Entry) -> Result<Outcome, NetError> {
    match entry {
        Entry::LinkUp { ipv6_before } => bring_down(netlink, link, ipv6_before).await,
        Entry::Mtu { before, set } => match judge(&link.mtu, before, set) {
            None => done(netlink.set_mtu(link, *before).await),
            Some(outcome) => Ok(outcome),
        },
        Entry::GsoMaxSize { before, set } => {
            match judge(&link.gso_max_size.unwrap_or(*before), before, set) {
                None => done(netlink.set_gso_max_size(link, *before).await),
                Some(outcome) => Ok(outcome),
            }
        }
        Entry::TxQueueLength { before, set } => match judge(&link.tx_queue_length, before, set) {
            None => done(netlink.set_tx_queue_length(link, *before).await),
            Some(outcome) => Ok(outcome),
        },
        Entry::AddressGenerationNone { before } => {
            let now = link.address_generation.map(|mode| mode.0);
            match judge_optional(now, before.0, AddressGeneration::NONE.0) {
                None => done(netlink.set_address_generation(link, *before).await),
                Some(outcome) => Ok(outcome),
            }
        }
        Entry::Bridge { before, set } => {
            let number = |master: Option<InterfaceIndex>| master.map_or(0, |master| master.0);
            match judge(&number(link.master), &number(*before), &set.0) {
                None => done(netlink.set_master(link, *before).await),
                Some(outcome) => Ok(outcome),
            }
        }
        Entry::GuardedPort {
            before,
            set,
            stations,
        } => release_port(netlink, link, before, set, stations).await,
        Entry::Group { before, set } => match judge(&link.group, before, set) {
            None => done(netlink.set_group(link, *before).await),
            Some(outcome) => Ok(outcome),
        },
        Entry::Address { address } => {
            let ours = |found: &AddressFacts| {
                (found.address, found.prefix, found.peer)
                    == (address.local(), address.prefix(), address.peer())
            };
            let addresses = netlink.addresses(Some(link.index)).await?;
            match addresses.iter().find(|found| ours(found)) {
                Some(found) => done(netlink.remove_address(link, found).await),
                None => Ok(Outcome::Gone),
            }
        }
        Entry::Route { route } => remove_route(netlink, link, route).await,
        Entry::Sysctl { key, before, set } => reset_sysctl(link, key, before, set),
        // These are not changes of a link.
        Entry::SharedSysctl { .. }
        | Entry::FirewallTable
        | Entry::ForwardAccept { .. }
        | Entry::FirewallRules { .. }
        | Entry::NameServers { .. } => Ok(Outcome::Gone),
    }
}

/// Returns `None` if the value is still the one that we set.
pub(in crate::host) fn judge<T: PartialEq + std::fmt::Display>(
    now: &T,
    before: &T,
    set: &T,
) -> Option<Outcome> {
    if now == set {
        None
    } else if now == before {
        Some(Outcome::Gone)
    } else {
        Some(Outcome::Left(format!("it is now {now}")))
    }
}

fn judge_optional(now: Option<u8>, before: u8, set: u8) -> Option<Outcome> {
    match now {
        Some(now) => judge(&now, &before, &set),
        None => Some(Outcome::Gone),
    }
}

fn done(result: Result<(), NetError>) -> Result<Outcome, NetError> {
    result.map(|()| Outcome::Undone)
}

/// Brings the link down. The kernel then removes its IPv6 addresses; those that it had before it
/// was brought up, and still has, are added again.
async fn bring_down(
    netlink: &Netlink,
    link: &LinkFacts,
    ipv6_before: &[AddressFacts],
) -> Result<Outcome, NetError> {
    if !link.up {
        return Ok(Outcome::Gone);
    }
    let had = netlink.addresses(Some(link.index)).await?;
    netlink.set_up(link, false).await?;
    let have = netlink.addresses(Some(link.index)).await?;
    let among = |list: &[AddressFacts], wanted: &AddressFacts| {
        list.iter()
            .any(|found| found.address == wanted.address && found.prefix == wanted.prefix)
    };
    for address in ipv6_before {
        if among(&had, address) && !among(&have, address) {
            netlink.put_address(link, address).await?;
        }
    }
    Ok(Outcome::Undone)
}

/// Restores the bridge port's settings and removes the stations that we added there.
async fn release_port(
    netlink: &Netlink,
    link: &LinkFacts,
    before: &PortSettings,
    set: &PortSettings,
    stations: &[MacAddress],
) -> Result<Outcome, NetError> {
    let Some(now) = netlink.bridge_port(link).await? else {
        return Ok(Outcome::Gone);
    };
    for found in netlink.stations_at(link).await? {
        if !found.own && !stations.contains(&found.station) {
            netlink.remove_station(link, found.station).await?;
        }
    }
    match judge(&now, before, set) {
        None => done(netlink.set_bridge_port(link, before).await),
        Some(outcome) => Ok(outcome),
    }
}

async fn remove_route(
    netlink: &Netlink,
    link: &LinkFacts,
    route: &TunnelRoute,
) -> Result<Outcome, NetError> {
    let routes = netlink.routes(Some(link.index)).await?;
    match routes.iter().find(|found| found.is_ours(route, link.index)) {
        Some(found) => done(netlink.remove_route(link, found).await),
        None => Ok(Outcome::Gone),
    }
}

fn reset_sysctl(
    link: &LinkFacts,
    key: &SysctlKey,
    before: &str,
    set: &str,
) -> Result<Outcome, NetError> {
    if !key.belongs_to(&link.name) {
        return Err(NetError::ForeignSysctl {
            key: key.to_string(),
            interface: link.name.clone(),
        });
    }
    let now = match key.read() {
        Err(SysctlError::Absent { .. }) => return Ok(Outcome::Gone),
        other => other?,
    };
    match judge(&now.as_str(), &before, &set) {
        None => {
            key.write(before)?;
            Ok(Outcome::Undone)
        }
        Some(outcome) => Ok(outcome),
    }
}

fn described(entry: &Entry, interface: &str) -> String {
    match entry {
        Entry::LinkUp { .. } => format!("{interface} up"),
        Entry::Mtu { set, .. } => format!("MTU {set} of {interface}"),
        Entry::GsoMaxSize { set, .. } => format!("super-packets of {set} bytes on {interface}"),
        Entry::TxQueueLength { set, .. } => format!("transmit queue length {set} of {interface}"),
        Entry::AddressGenerationNone { .. } => {
            format!("IPv6 address generation off on {interface}")
        }
        Entry::Bridge { .. } => format!("the bridge of {interface}"),
        Entry::GuardedPort { .. } => format!("how the bridge treats {interface}"),
        Entry::Group { set, .. } => format!("group {set} of {interface}"),
        Entry::Address { address } => format!("address {address} on {interface}"),
        Entry::Route { route } => format!("route {route} through {interface}"),
        Entry::Sysctl { key, set, .. } => format!("{key} = {set}"),
        Entry::SharedSysctl { setting, .. } => setting.to_string(),
        Entry::FirewallTable => format!("the firewall table of {interface}"),
        Entry::ForwardAccept { ipv6 } => format!(
            "the rules for {interface} in '{}'",
            firewall::forward_chain(Family::of_ipv6(*ipv6))
        ),
        Entry::FirewallRules { ipv6: false } => format!("the iptables rules for {interface}"),
        Entry::FirewallRules { ipv6: true } => format!("the ip6tables rules for {interface}"),
        Entry::NameServers { way } => format!("the name servers of {interface} in {way}"),
    }
}
