//! Makes a tunnel's or a server's changes of this host: each is journalled, then made. The owner
//! undoes all of them in reverse; if it died, the next start does.

use std::path::PathBuf;

use super::make::{bridge_index, exists, make};
use super::runtime_dir::RuntimeDir;
use super::undo::undo_and_close;
use super::{Entry, Journal};
use crate::host::change::Change;
use crate::host::change::client_firewall::{self, Means};
use crate::host::change::firewall;
use crate::host::change::iptables::{self, FirewallRules};
use crate::host::change::protection::{self, Difference, Differing, Ipv6};
use crate::host::change::resolver::{self, ResolverWay};
use crate::host::change::server_table;
use crate::host::change::shared_setting::SharedSetting;
use crate::host::change::shared_sysctl;
use crate::host::change::sysctl::SysctlKey;
use crate::host::error::NetError;
use crate::host::netlink::{Netlink, PortSettings};
use crate::host::own_device::{self, UndoScope};
use crate::host::plan::address_range::Family;
use crate::host::plan::facts::{AddressFacts, AddressGeneration, LinkFacts};
use crate::types::InterfaceName;

pub use super::undo::UndoReport;

/// The changes that one tunnel or server has made to this host so far.
///
/// Dropping it undoes nothing: the journal stays, and
/// [`recover_stale`](super::recovery::recover_stale) undoes its changes.
#[derive(Debug)]
#[must_use = "the changes stay until undo() is called"]
pub struct HostState {
    netlink: Netlink,
    journal: Journal,
}

/// The access that undoing needs besides CAP_NET_ADMIN.
#[derive(Debug)]
pub struct ToUndo {
    /// The directory of the journals.
    pub directory: PathBuf,
    /// A resolver file that has to be restored.
    pub file: Option<PathBuf>,
    /// Whether there are iptables rules.
    pub iptables: bool,
}

impl HostState {
    /// Begins with an existing tun or tap device, in the calling thread's network namespace.
    /// Nothing is changed yet.
    pub async fn begin(
        directory: &RuntimeDir,
        interface: &InterfaceName,
    ) -> Result<Self, NetError> {
        let netlink = Netlink::open()?;
        let link = netlink.link_by_name(interface.as_str()).await?;
        if !link.is_tun() {
            return Err(NetError::NotTunnel(interface.to_string()));
        }
        if !own_device::is_own(&netlink, &link, UndoScope::of_this_process()).await? {
            return Err(NetError::NotOwn(interface.to_string()));
        }
        let journal = Journal::create(directory, interface, Some(link.index))?;
        Ok(Self { netlink, journal })
    }

    /// Begins without a device, for changes that belong to none: the firewall and shared settings.
    /// `name` is the name of the journal and of the firewall table; no tunnel's device may have it
    /// meanwhile.
    pub fn begin_without_device(
        directory: &RuntimeDir,
        name: &InterfaceName,
    ) -> Result<Self, NetError> {
        let netlink = Netlink::open()?;
        let journal = Journal::create(directory, name, None)?;
        Ok(Self { netlink, journal })
    }

    /// The netlink connection, for reading.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// The name of the device, or the name that was given instead.
    pub fn name(&self) -> &str {
        self.journal.interface()
    }

    /// Makes one change. A value that is set already is left alone and not undone later; an address
    /// or a route that exists already is an error.
    ///
    /// If the kernel refuses a change, its entry leaves the journal again. If the outcome is
    /// unknown, or this future is dropped half way, the entry stays: undoing a change that was not
    /// made does nothing.
    pub async fn apply(&mut self, change: Change) -> Result<(), NetError> {
        own_device::require_on_device(&change)?;
        match &change {
            Change::Shared(setting) => return shared_sysctl::take(&mut self.journal, setting),
            Change::NameServers(wanted) => return resolver::take(&mut self.journal, wanted).await,
            Change::Protection(ipv6) => return self.protect(*ipv6).await,
            _ => {}
        }
        if let Some(entry) = firewall_entry(&change) {
            return self.apply_to_firewall(&change, entry).await;
        }
        let link = self.link().await?;
        let Some(entry) = self.plan(&link, &change).await? else {
            return Ok(());
        };
        self.journal.record(entry)?;
        let result = make(&self.netlink, &link, &change).await;
        self.settle(&result);
        result
    }

    /// Holds exactly these of the settings that several tunnels share, and releases the others that
    /// were taken before.
    pub fn share_exactly(&mut self, wanted: &[SharedSetting]) -> Result<(), NetError> {
        let is_wanted = |entry: &Entry| match entry {
            Entry::SharedSysctl { setting, .. } => wanted.contains(setting),
            _ => true,
        };
        while let Some(position) = self.journal.entries().iter().position(|it| !is_wanted(it)) {
            shared_sysctl::release(&mut self.journal, position)?;
        }
        for setting in wanted {
            let has = |entry: &Entry| matches!(entry, Entry::SharedSysctl { setting: held, .. } if held == setting);
            if !self.journal.entries().iter().any(has) {
                shared_sysctl::take(&mut self.journal, setting)?;
            }
        }
        Ok(())
    }

    /// The access that undoing the changes made so far needs.
    pub fn to_undo(&self) -> ToUndo {
        let entries = self.journal.entries();
        let file = |entry: &Entry| match entry {
            Entry::NameServers {
                way: ResolverWay::File { path },
            } => Some(path.clone()),
            _ => None,
        };
        ToUndo {
            directory: self.journal.directory().to_owned(),
            file: entries.iter().find_map(file),
            iptables: entries
                .iter()
                .any(|entry| matches!(entry, Entry::FirewallRules { .. })),
        }
    }

    /// Starts the programs that undoing needs, but that could not do their work if an unprivileged
    /// process started them. They wait until they are needed.
    pub async fn prepare_to_undo(&self) {
        resolver::prepare_to_release(&self.journal).await;
    }

    /// Undoes every change in reverse and removes the journal. If a change fails, the journal keeps
    /// it for a later try.
    pub async fn undo(self) -> UndoReport {
        undo_and_close(&self.netlink, self.journal, UndoScope::of_this_process()).await
    }

    /// Journals and changes all settings at once. Settings that cannot be changed leave the journal
    /// again.
    async fn protect(&mut self, ipv6: Ipv6) -> Result<(), NetError> {
        let link = self.link().await?;
        // Disabling IPv6 would remove addresses that the user gave the device for good.
        let addresses = self.netlink.addresses(Some(link.index)).await?;
        let given = |found: &AddressFacts| protection::is_given_ipv6(found.address);
        let ipv6 = match addresses.iter().any(given) {
            true => Ipv6::On,
            false => ipv6,
        };
        let Difference {
            differing,
            mut failed,
        } = Difference::of(&link.name, ipv6);
        if !differing.is_empty() {
            let mut made = self.journal.entries().to_vec();
            let planned = differing.iter().map(sysctl_entry);
            self.journal
                .replace(made.iter().cloned().chain(planned).collect())?;
            let known = failed.len();
            for one in &differing {
                match one.key.write(one.set) {
                    Ok(()) => made.push(sysctl_entry(one)),
                    Err(error) => failed.push(error),
                }
            }
            if failed.len() > known {
                self.journal.replace(made)?;
            }
        }
        protection::warn(&link.name, &failed);
        Ok(())
    }

    /// Makes a firewall change. A server's existing rules are not added twice; its table is
    /// replaced.
    async fn apply_to_firewall(&mut self, change: &Change, entry: Entry) -> Result<(), NetError> {
        let made = self.journal.entries().contains(&entry);
        let name = self.journal.interface().to_owned();
        match change {
            Change::ServerTable(table) if made => return server_table::replace(&name, table).await,
            Change::ForwardPassed(_) if made => return Ok(()),
            _ => {}
        }
        self.journal.record(entry)?;
        let result = match change {
            Change::FirewallTable(table) => firewall::make_table(&name, table).await,
            Change::ForwardAccept(family) => firewall::add_accept(&name, *family).await,
            Change::FirewallRules(rules) => iptables::make(&name, rules).await,
            Change::ClientFirewall(rules, means) => {
                client_firewall::make(&name, rules, *means).await
            }
            Change::ServerTable(table) => server_table::make(&name, table).await,
            Change::ForwardPassed(family) => server_table::add_accept(&name, *family).await,
            _ => Ok(()),
        };
        self.settle(&result);
        result
    }

    /// Removes the last entry if the change was certainly not made.
    fn settle(&mut self, result: &Result<(), NetError>) {
        if let Err(error) = result
            && error.nothing_changed()
            && let Err(error) = self.journal.withdraw_last()
        {
            tracing::warn!(%error, "a refused change is still in the journal");
        }
    }

    async fn link(&self) -> Result<LinkFacts, NetError> {
        let gone = || NetError::NoInterface(self.journal.interface().to_owned());
        let index = self.journal.index().ok_or_else(gone)?;
        let link = self.netlink.link_by_index(index).await?;
        link.filter(|link| link.name == self.journal.interface())
            .ok_or_else(gone)
    }

    /// The entry to journal for a change; `None` if nothing has to change.
    async fn plan(&self, link: &LinkFacts, change: &Change) -> Result<Option<Entry>, NetError> {
        Ok(match change {
            Change::LinkUp => match link.up {
                true => None,
                false => Some(self.plan_up(link).await?),
            },
            Change::Mtu(mtu) => self.plan_mtu(link, mtu.get()).await?,
            Change::GsoMaxSize(set) => link
                .gso_max_size
                .filter(|before| before != set)
                .map(|before| Entry::GsoMaxSize { before, set: *set }),
            Change::TxQueueLength(set) => {
                let (before, set) = (link.tx_queue_length, *set);
                (before != set).then_some(Entry::TxQueueLength { before, set })
            }
            Change::AddressGenerationNone => link
                .address_generation
                .filter(|before| *before != AddressGeneration::NONE)
                .map(|before| Entry::AddressGenerationNone { before }),
            Change::Bridge(bridge) => {
                let set = bridge_index(&self.netlink, bridge).await?;
                let before = link.master;
                (before != Some(set)).then_some(Entry::Bridge { before, set })
            }
            Change::GuardedPort { isolated } => self.plan_port(link, *isolated).await?,
            Change::Group(set) => {
                let (before, set) = (link.group, *set);
                (before != set).then_some(Entry::Group { before, set })
            }
            Change::Address(address) => {
                let there = self.netlink.addresses(Some(link.index)).await?;
                if there.iter().any(|found| {
                    (found.address, found.prefix) == (address.local(), address.prefix())
                }) {
                    return Err(exists(format!("the address {address} on {}", link.name)));
                }
                Some(Entry::Address { address: *address })
            }
            Change::Route(route) => {
                let there = self.netlink.routes(Some(link.index)).await?;
                if there.iter().any(|found| found.same_slot(route)) {
                    return Err(exists(format!("the route {route} through {}", link.name)));
                }
                Some(Entry::Route { route: *route })
            }
            Change::Sysctl { key, value } => plan_sysctl(link, key, value)?,
            // Not a change of the link, or journalled elsewhere.
            Change::Protection(_)
            | Change::Shared(_)
            | Change::NameServers(_)
            | Change::FirewallTable(_)
            | Change::ForwardAccept(_)
            | Change::FirewallRules(_)
            | Change::ClientFirewall(..)
            | Change::ServerTable(_)
            | Change::ForwardPassed(_) => None,
        })
    }

    async fn plan_up(&self, link: &LinkFacts) -> Result<Entry, NetError> {
        let mut ipv6_before = self.netlink.addresses(Some(link.index)).await?;
        ipv6_before.retain(|address| address.address.is_ipv6());
        Ok(Entry::LinkUp { ipv6_before })
    }

    async fn plan_port(&self, link: &LinkFacts, isolated: bool) -> Result<Option<Entry>, NetError> {
        let Some(before) = self.netlink.bridge_port(link).await? else {
            return Ok(None);
        };
        let set = PortSettings::guarded(isolated).as_known_to(&before);
        let stations = self.netlink.stations_at(link).await?;
        let stations = stations.iter().map(|found| found.station).collect();
        Ok(Some(Entry::GuardedPort {
            before,
            set,
            stations,
        }))
    }

    async fn plan_mtu(&self, link: &LinkFacts, set: u32) -> Result<Option<Entry>, NetError> {
        let before = link.mtu;
        if before == set {
            return Ok(None);
        }
        if set < crate::types::Mtu::MIN_IPV6.get() {
            let addresses = self.netlink.addresses(Some(link.index)).await?;
            if addresses.iter().any(|found| found.address.is_ipv6()) {
                return Err(NetError::MtuUnderIpv6 {
                    interface: link.name.clone(),
                    mtu: set,
                });
            }
        }
        Ok(Some(Entry::Mtu { before, set }))
    }
}

/// The entry to journal for a change of the firewall.
fn firewall_entry(change: &Change) -> Option<Entry> {
    match change {
        Change::FirewallTable(_) | Change::ServerTable(_) => Some(Entry::FirewallTable),
        Change::ForwardAccept(family) | Change::ForwardPassed(family) => {
            Some(Entry::ForwardAccept {
                ipv6: *family == Family::V6,
            })
        }
        Change::FirewallRules(FirewallRules { family, .. })
        | Change::ClientFirewall(_, Means::Iptables(family)) => Some(Entry::FirewallRules {
            ipv6: *family == Family::V6,
        }),
        Change::ClientFirewall(_, Means::Nft | Means::NftStateless) => Some(Entry::FirewallTable),
        _ => None,
    }
}

fn sysctl_entry(differing: &Differing) -> Entry {
    Entry::Sysctl {
        key: differing.key.clone(),
        before: differing.before.clone(),
        set: differing.set.to_owned(),
    }
}

fn plan_sysctl(link: &LinkFacts, key: &SysctlKey, value: &str) -> Result<Option<Entry>, NetError> {
    if !key.belongs_to(&link.name) {
        return Err(NetError::ForeignSysctl {
            key: key.to_string(),
            interface: link.name.clone(),
        });
    }
    let before = key.read()?;
    Ok((before != value).then(|| Entry::Sysctl {
        key: key.clone(),
        before,
        set: value.to_owned(),
    }))
}

#[cfg(test)]
mod tests;
