//! The text of /etc/resolv.conf (resolv.conf(5)) with name servers of tunnels between marks, so
//! that any later process can remove them without a journal. Pure.
//!
//! ```text
//!   # sshvpn begins …
//!   # sshvpn before: …      the state of the file before
//!   # sshvpn tunnel: …      one line per tunnel
//!   nameserver …            the tunnels' name servers come first
//!   # sshvpn ends
//!   …                       the original text, unchanged
//!   # sshvpn begins …
//!   search …                resolvers use the last line of its kind: all domains
//!   # sshvpn ends
//! ```

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::name_servers::{NameServers, joined};
use crate::host::journal::owner::Owner;

/// Begins a marked part.
const BEGINS: &str = "# sshvpn begins";
/// Begins a marked part if the line before had no newline.
const BEGINS_JOINED: &str = "# sshvpn begins (and ends the line above)";
/// Follows the first mark, for readers.
const ADVICE: &str = ": removed with the tunnel, or by 'sshvpn cleanup'";
/// Ends a marked part.
const ENDS: &str = "# sshvpn ends";
/// Precedes the state of the file before.
const BEFORE: &str = "# sshvpn before: ";
/// Precedes one tunnel's record.
const TUNNEL: &str = "# sshvpn tunnel: ";

/// The state of the file before the first tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::host) enum Before {
    /// The file was missing.
    Absent,
    /// A regular file, with the present permissions.
    File,
    /// A symbolic link.
    Link {
        /// The target.
        target: PathBuf,
        /// SHA-256 of the text that was read through the link.
        digest: String,
    },
}

/// A tunnel that has name servers in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::host) struct Holder {
    /// Its interface.
    pub(in crate::host) interface: String,
    /// The network namespace of the interface.
    pub(in crate::host) namespace: u64,
    /// The boot in which the tunnel is up.
    pub(in crate::host) boot: String,
    /// Its name servers.
    pub(in crate::host) name_servers: NameServers,
}

impl Holder {
    /// Whether this is the tunnel on `interface` of `owner`.
    pub(in crate::host) fn is(&self, interface: &str, owner: &Owner) -> bool {
        let place = (self.boot.as_str(), self.namespace);
        self.interface == interface && place == (&owner.boot_id, owner.network_namespace)
    }
}

/// The parsed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) struct Marked {
    /// The state of the file before the first tunnel.
    pub(in crate::host) before: Before,
    /// The tunnels with name servers in it, the newest last.
    pub(in crate::host) holders: Vec<Holder>,
    /// The text outside of the marks.
    pub(in crate::host) rest: Vec<u8>,
}

/// Parses a text; `None` without marks, or if the marks were edited.
pub(in crate::host) fn parse(text: &[u8]) -> Option<Marked> {
    let mut before = None;
    let mut holders = Vec::new();
    let mut rest: Vec<u8> = Vec::new();
    let mut marked = false;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if bare.starts_with(BEGINS.as_bytes()) {
            if bare == BEGINS_JOINED.as_bytes() && !marked {
                rest.pop();
            }
            marked = true;
        } else if bare == ENDS.as_bytes() {
            marked = false;
        } else if !marked {
            rest.extend_from_slice(line);
        } else if let Some(json) = bare.strip_prefix(BEFORE.as_bytes()) {
            before = serde_json::from_slice(json).ok();
        } else if let Some(json) = bare.strip_prefix(TUNNEL.as_bytes()) {
            holders.extend(serde_json::from_slice::<Holder>(json));
        }
    }
    Some(Marked {
        before: before.filter(|_| !marked)?,
        holders,
        rest,
    })
}

impl Marked {
    /// The text, with the newest tunnel's name servers first.
    pub(in crate::host) fn render(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = format!("{BEGINS}{ADVICE}\n");
        text.push_str(&format!(
            "{BEFORE}{}\n",
            serde_json::to_string(&self.before)?
        ));
        for holder in &self.holders {
            text.push_str(&format!("{TUNNEL}{}\n", serde_json::to_string(holder)?));
        }
        let theirs = || self.holders.iter().rev().map(|holder| &holder.name_servers);
        let mut servers = Vec::new();
        for server in theirs().flat_map(|theirs| &theirs.servers) {
            if !servers.contains(server) {
                servers.push(*server);
                text.push_str(&format!("nameserver {server}\n"));
            }
        }
        text.push_str(&format!("{ENDS}\n"));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.rest);
        let mut domains: Vec<String> = Vec::new();
        for domain in theirs().flat_map(|theirs| &theirs.domains) {
            push_new(&mut domains, domain.to_string());
        }
        if domains.is_empty() {
            return Ok(bytes);
        }
        for domain in search_of(&self.rest) {
            push_new(&mut domains, domain);
        }
        let begins = match self.rest.last() {
            None | Some(b'\n') => format!("{BEGINS}\n"),
            Some(_) => format!("\n{BEGINS_JOINED}\n"),
        };
        let search = joined(&domains, " ");
        bytes.extend_from_slice(format!("{begins}search {search}\n{ENDS}\n").as_bytes());
        Ok(bytes)
    }
}

fn push_new(list: &mut Vec<String>, entry: String) {
    if !list.contains(&entry) {
        list.push(entry);
    }
}

/// The domains of the last `search` or `domain` line.
fn search_of(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let Some("search" | "domain") = words.next() {
            found = words.map(str::to_owned).collect();
        }
    }
    found
}

#[cfg(test)]
mod tests;
