//! What an undo journal says, as JSON with a version, and why one may not be
//! acted on.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::owner::Owner;
use super::runtime_dir::RuntimeDirError;
use crate::host::change::resolver::ResolverWay;
use crate::host::change::shared_setting::SharedSetting;
use crate::host::change::sysctl::SysctlKey;
use crate::host::change::{InterfaceAddress, TunnelRoute};
use crate::host::netlink::PortSettings;
use crate::host::plan::facts::{AddressFacts, AddressGeneration, InterfaceIndex};
use crate::packet::guard::link::MacAddress;
use crate::types::InterfaceName;

/// The version of the format that this program writes, and the newest it
/// reads. Version 2 added the kinds of change that reach beyond the interface,
/// version 3 name servers, and those of a server: without an interface, bridges,
/// groups; version 4 guarded ports of bridges, and rules of iptables.
pub(in crate::host) const VERSION: u32 = 4;
/// A journal is far smaller; a larger file is not one.
pub(in crate::host) const SIZE_LIMIT: u64 = 1 << 20;

/// Why a journal cannot be written, or was not acted on.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The directory or a file in it.
    #[error("the undo journal: {0}")]
    Directory(#[from] RuntimeDirError),
    /// /proc does not say who we are.
    #[error(
        "cannot write the undo journal: this process's identity cannot be read from /proc: {0}"
    )]
    Owner(#[source] io::Error),
    /// A process that runs has this interface.
    #[error(
        "the tunnel {name} is up already, by {holder}; stop that first or choose another interface"
    )]
    Busy {
        /// The interface.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// More changes than a journal can list.
    #[error("{path} would be larger than {SIZE_LIMIT} bytes; ask for fewer routes")]
    Full {
        /// The file.
        path: String,
    },
    /// A journal that nobody holds is in the way.
    #[error("an earlier run left {path} behind; run 'sshvpn cleanup' first")]
    Stale {
        /// The file.
        path: String,
    },
    /// Not a journal, or broken.
    #[error(
        "{path} is not a journal that this program wrote ({reason}); nothing in it was undone; look at it, undo by hand what it lists, and remove it"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer program.
    #[error(
        "{path} has format version {version}, this program knows {VERSION}; nothing in it was undone; run 'cleanup' of the newer sshvpn"
    )]
    Version {
        /// The file.
        path: String,
        /// Its version.
        version: u32,
    },
}

/// One change, with what takes it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// The link was brought up; it was down.
    LinkUp {
        /// Its IPv6 addresses before: bringing a link down drops those.
        ipv6_before: Vec<AddressFacts>,
    },
    /// The MTU was set, in bytes.
    Mtu {
        /// Before.
        before: u32,
        /// Since.
        set: u32,
    },
    /// The transmit queue length was set, in packets.
    TxQueueLength {
        /// Before.
        before: u32,
        /// Since.
        set: u32,
    },
    /// The size of super-packets was limited, in bytes.
    GsoMaxSize {
        /// Before.
        before: u32,
        /// Since.
        set: u32,
    },
    /// IPv6 address generation was switched off.
    AddressGenerationNone {
        /// The mode before.
        before: AddressGeneration,
    },
    /// The interface was made a port of a bridge.
    Bridge {
        /// What it was a port of before.
        before: Option<InterfaceIndex>,
        /// The bridge.
        set: InterfaceIndex,
    },
    /// The bridge was told not to learn from the interface.
    GuardedPort {
        /// How it treated it before.
        before: PortSettings,
        /// Since.
        set: PortSettings,
        /// The stations that were there before; those that came since go again.
        stations: Vec<MacAddress>,
    },
    /// The interface was put into a group.
    Group {
        /// Before.
        before: u32,
        /// Since.
        set: u32,
    },
    /// An address was added.
    Address {
        /// Which.
        address: InterfaceAddress,
    },
    /// A route was added.
    Route {
        /// Which.
        route: TunnelRoute,
    },
    /// A sysctl was set.
    Sysctl {
        /// Which.
        key: SysctlKey,
        /// Before.
        before: String,
        /// Since.
        set: String,
    },
    /// A setting beyond the interface was set, or found set by another tunnel.
    /// Every tunnel that wants it has this in its journal.
    SharedSysctl {
        /// Which.
        setting: SharedSetting,
        /// Before the first of those tunnels.
        before: String,
        /// Interfaces of which the kernel overwrote the setting, and which
        /// stood on the wanted value before.
        same_before: Vec<InterfaceName>,
    },
    /// The tunnel's firewall table was made.
    FirewallTable,
    /// Rules that let the tunnel's packets through were put into the host's
    /// own forward chain.
    ForwardAccept {
        /// Of IPv6, or of IPv4.
        ipv6: bool,
    },
    /// The tunnel's firewall rules were made by iptables or ip6tables.
    FirewallRules {
        /// Of IPv6, or of IPv4.
        ipv6: bool,
    },
    /// Name servers were made known.
    NameServers {
        /// By what.
        way: ResolverWay,
    },
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::host) struct Document {
    pub(in crate::host) version: u32,
    pub(in crate::host) interface: String,
    /// None where the changes are not a device's.
    pub(in crate::host) index: Option<InterfaceIndex>,
    pub(in crate::host) owner: Owner,
    pub(in crate::host) changes: Vec<Entry>,
}

/// The version alone, which has to be read before the rest can be.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a journal; all of it has to be understood.
pub(in crate::host) fn parse(file: &File, path: &str) -> Result<Document, JournalError> {
    let corrupt = |reason: String| JournalError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let mut text = String::new();
    let length = file
        .take(SIZE_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(|error| corrupt(error.to_string()))?;
    if length as u64 > SIZE_LIMIT {
        return Err(corrupt(format!("it is larger than {SIZE_LIMIT} bytes")));
    }
    let Versioned { version } =
        serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
    if !(1..=VERSION).contains(&version) {
        return Err(JournalError::Version {
            path: path.to_owned(),
            version,
        });
    }
    serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))
}
