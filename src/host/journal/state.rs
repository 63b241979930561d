//! Makes a tunnel's or a server's changes of this host: each is journalled, then made. The owner
//! undoes all of them in reverse; if it died, the next start does.

use super::Journal;
use super::runtime_dir::RuntimeDir;
use super::undo::undo_and_close;
use crate::host::change::Change;
use crate::host::change::shared_setting::SharedSetting;
use crate::host::change::shared_sysctl;
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::own_device::{self, UndoScope};
use crate::types::InterfaceName;

pub use super::undo::UndoReport;
pub use crate::host::change::kind::ToUndo;

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
        change.apply(&self.netlink, &mut self.journal).await
    }

    /// Holds exactly these of the settings that several tunnels share, and releases the others that
    /// were taken before.
    pub fn share_exactly(&mut self, wanted: &[SharedSetting]) -> Result<(), NetError> {
        shared_sysctl::share_exactly(&mut self.journal, wanted)
    }

    /// The access that undoing the changes made so far needs.
    pub fn to_undo(&self) -> ToUndo {
        let mut needs = ToUndo {
            directory: self.journal.directory().to_owned(),
            file: None,
            iptables: false,
        };
        for entry in self.journal.entries() {
            entry.add_needs(&mut needs);
        }
        needs
    }

    /// Starts the programs that undoing needs, but that could not do their work if an unprivileged
    /// process started them. They wait until they are needed.
    pub async fn prepare_to_undo(&self) {
        for entry in self.journal.entries() {
            entry.prepare_to_undo(self.journal.interface()).await;
        }
    }

    /// Undoes every change in reverse and removes the journal. If a change fails, the journal keeps
    /// it for a later try.
    pub async fn undo(self) -> UndoReport {
        undo_and_close(&self.netlink, self.journal, UndoScope::of_this_process()).await
    }
}

#[cfg(test)]
mod tests;
