//! The text of /etc/resolv.conf (resolv.conf(5)) with name servers of tunnels in
//! it: between marks, so that they can be taken out again, whoever looks at the
//! file next and whatever became of the journal. Pure.
//!
//! ```text
//!   # sshvpn begins …
//!   # sshvpn before: …      what the file was
//!   # sshvpn tunnel: …      for each tunnel
//!   nameserver …            theirs come first
//!   # sshvpn ends
//!   …                       what was there before, untouched
//!   # sshvpn begins …
//!   search …                the last line of its kind counts: all domains
//!   # sshvpn ends
//! ```

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::name_servers::{NameServers, joined};
use crate::host::journal::owner::Owner;

/// How a marked part begins.
const BEGINS: &str = "# sshvpn begins";
/// The same where the last line before it had no end.
const BEGINS_JOINED: &str = "# sshvpn begins (and ends the line above)";
/// Behind the first, for people.
const ADVICE: &str = ": what is marked goes when the tunnel does, or by 'sshvpn cleanup'";
/// How a marked part ends.
const ENDS: &str = "# sshvpn ends";
/// What the file was.
const BEFORE: &str = "# sshvpn before: ";
/// One tunnel.
const TUNNEL: &str = "# sshvpn tunnel: ";

/// What the file was before the first tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::host) enum Before {
    /// There was none.
    Absent,
    /// A file, with the same permissions.
    File,
    /// A symbolic link.
    Link {
        /// Where to.
        target: PathBuf,
        /// SHA-256 of what was read through it.
        digest: String,
    },
}

/// A tunnel that has its name servers in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::host) struct Holder {
    /// Its interface.
    pub(in crate::host) interface: String,
    /// The network namespace that this is in.
    pub(in crate::host) namespace: u64,
    /// The boot in which it is up.
    pub(in crate::host) boot: String,
    /// Its name servers.
    pub(in crate::host) name_servers: NameServers,
}

impl Holder {
    /// Whether that is the tunnel on `interface` of `owner`.
    pub(in crate::host) fn is(&self, interface: &str, owner: &Owner) -> bool {
        let place = (self.boot.as_str(), self.namespace);
        self.interface == interface && place == (&owner.boot_id, owner.network_namespace)
    }
}

/// The file's text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) struct Marked {
    /// What the file was.
    pub(in crate::host) before: Before,
    /// Whose name servers are in it, the last to come last.
    pub(in crate::host) holders: Vec<Holder>,
    /// All that is not marked.
    pub(in crate::host) rest: Vec<u8>,
}

/// Takes a text apart; nothing where there is no mark in it, or marks that
/// somebody has changed.
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
    /// The text, with the name servers of the last tunnel to come first.
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
