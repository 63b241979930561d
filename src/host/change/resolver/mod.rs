//! Configures a tunnel's name servers on this host: by systemd-resolved if it answers here
//! (resolvectl(1)), else by resolvconf(8), else in /etc/resolv.conf itself.
//!
//! Only systemd-resolved can ask different name servers for different domains.

pub(in crate::host) mod file;
pub mod name_servers;
pub(in crate::host) mod text;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Entry;
use super::kind::{HostChange, HostEntry, Outcome, ToUndo};
use crate::host::error::NetError;
use crate::host::journal::owner::Owner;
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::journal::{Journal, JournalError};
use crate::host::netlink::Netlink;
use crate::host::program::{Program, ProgramError};
use file::ResolverFileError;
use name_servers::{NameServers, joined};

/// The resolver's configuration file (resolv.conf(5)).
const FILE: &str = "/etc/resolv.conf";
/// The configuration of the name services that programs ask (nsswitch.conf(5)).
const SWITCH: &str = "/etc/nsswitch.conf";
/// The directory of systemd-resolved's files that FILE may be a link to
/// (systemd-resolved.service(8), /etc/resolv.conf).
const RESOLVED_FILES: &str = "/run/systemd/resolve";
/// The addresses of systemd-resolved (the same page).
const RESOLVED_ADDRESSES: [&str; 2] = ["127.0.0.53", "127.0.0.54"];
/// The program of systemd-resolved; resolvconf may be a link to it.
const RESOLVECTL: &str = "resolvectl";
/// The program of Debian's resolvconf and of openresolv.
const RESOLVCONF: &str = "resolvconf";
/// The prefix of the interface's name in resolvconf's records: the orders that Debian ships
/// (/etc/resolvconf/interface-order) and that openresolv has (dynamic_order) put these before those
/// of network cards.
const RECORD: &str = "vpn.";

/// The reason why the host's name servers were not changed.
#[derive(Debug, Error)]
pub enum ResolverError {
    /// The program was removed.
    #[error("the program '{0}' is no longer on this host")]
    Missing(&'static str),
    /// The program did not run or reported an error.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The resolver's file.
    #[error(transparent)]
    File(#[from] ResolverFileError),
    /// The interface has name servers that another program set.
    #[error(
        "the interface {interface} already has name servers ({found}); sshvpn leaves them unchanged"
    )]
    Taken {
        /// The interface.
        interface: String,
        /// The name servers that systemd-resolved reports for it.
        found: String,
    },
}

impl ResolverError {
    /// Whether it is certain that nothing was changed.
    pub fn nothing_changed(&self) -> bool {
        matches!(
            self,
            ResolverError::Missing(_) | ResolverError::Taken { .. }
        )
    }
}

/// The resolver that sets a host's name servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ResolverWay {
    /// systemd-resolved, for the interface alone.
    Resolved,
    /// resolvconf, Debian's or openresolv.
    Resolvconf,
    /// A resolver file.
    File {
        /// Its path.
        path: PathBuf,
    },
}

impl ResolverWay {
    /// This host's resolver.
    pub fn of_host() -> Self {
        let resolvectl = Program::find(RESOLVECTL);
        if resolvectl.is_some() && resolved_answers(Path::new(FILE), Path::new(SWITCH)) {
            return ResolverWay::Resolved;
        }
        match Program::find(RESOLVCONF) {
            Some(program) if !is_resolvectl(&program) => ResolverWay::Resolvconf,
            _ => ResolverWay::of_file(Path::new(FILE)),
        }
    }

    /// The file at `path`, whatever resolver this host has.
    pub fn of_file(path: &Path) -> Self {
        ResolverWay::File {
            path: path.to_owned(),
        }
    }
}

impl fmt::Display for ResolverWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolverWay::Resolved => f.write_str("systemd-resolved"),
            ResolverWay::Resolvconf => f.write_str("resolvconf"),
            ResolverWay::File { path } => path.display().fmt(f),
        }
    }
}

/// Name servers to configure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverChange {
    /// The name servers.
    pub name_servers: NameServers,
    /// The resolver.
    pub way: ResolverWay,
}

impl fmt::Display for ResolverChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name_servers, way) = (&self.name_servers, &self.way);
        write!(f, "name servers {name_servers} in {way}")?;
        match way {
            ResolverWay::Resolved if name_servers.domains.is_empty() => {
                f.write_str(", asked about all names")
            }
            ResolverWay::Resolved => f.write_str(", asked about these names alone"),
            ResolverWay::Resolvconf | ResolverWay::File { .. } => f.write_str(
                ", asked about all names, before the others, which are asked when these do not answer",
            ),
        }
    }
}

/// Whether systemd-resolved resolves names on this host.
fn resolved_answers(file: &Path, switch: &Path) -> bool {
    if fs::canonicalize(file).is_ok_and(|path| path.starts_with(RESOLVED_FILES)) {
        return true;
    }
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()
    });
    if servers.any(|server| RESOLVED_ADDRESSES.contains(&server)) {
        return true;
    }
    let text = fs::read_to_string(switch).unwrap_or_default();
    let mut hosts = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("hosts:"));
    hosts.any(|services| services.split_ascii_whitespace().any(|it| it == "resolve"))
}

/// systemd's resolvconf replacement, which works only with systemd's resolver.
fn is_resolvectl(program: &Program) -> bool {
    let real = fs::canonicalize(program.path());
    real.is_ok_and(|path| path.file_name().is_some_and(|name| name == RESOLVECTL))
}

/// Name servers were configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The resolver that was configured.
    pub way: ResolverWay,
}

impl HostChange for ResolverChange {
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let interface = journal.interface().to_owned();
        let way = self.way.clone();
        journal.record(Entry::NameServers(Made { way }))?;
        let made = match &self.way {
            ResolverWay::Resolved => match Program::find(RESOLVECTL) {
                Some(program) => tell_resolved(&program, &interface, &self.name_servers).await,
                None => Err(ResolverError::Missing(RESOLVECTL)),
            },
            ResolverWay::Resolvconf => match Program::find(RESOLVCONF) {
                Some(program) => tell_resolvconf(&program, &interface, &self.name_servers).await,
                None => Err(ResolverError::Missing(RESOLVCONF)),
            },
            ResolverWay::File { path } => {
                let owner = journal.owner().clone();
                let _lock = journal.lock()?;
                file::put_in(path, &interface, &owner, &self.name_servers)
                    .map_err(ResolverError::from)
            }
        };
        if let Err(error) = &made
            && error.nothing_changed()
        {
            journal.withdraw_last()?;
        }
        Ok(made?)
    }
}

impl HostEntry for Made {
    async fn undo(
        &self,
        netlink: &Netlink,
        journal: &mut Journal,
        _: usize,
    ) -> Result<Outcome, NetError> {
        let interface = journal.interface().to_owned();
        match &self.way {
            ResolverWay::Resolved => {
                // The settings are removed with the interface.
                let Some(index) = journal.index() else {
                    return Ok(Outcome::Gone);
                };
                let link = netlink.link_by_index(index).await?;
                if link.is_none_or(|link| link.name != interface) {
                    return Ok(Outcome::Gone);
                }
                let program =
                    Program::find(RESOLVECTL).ok_or(ResolverError::Missing(RESOLVECTL))?;
                Ok(revert_resolved(&program, &interface).await?)
            }
            ResolverWay::Resolvconf => {
                let program =
                    Program::find(RESOLVCONF).ok_or(ResolverError::Missing(RESOLVCONF))?;
                Ok(revert_resolvconf(&program, &interface).await?)
            }
            ResolverWay::File { path } => {
                let owner = journal.owner().clone();
                let _lock = journal.lock()?;
                let outcome = file::take_out(path, &interface, &owner);
                Ok(outcome.map_err(ResolverError::from)?)
            }
        }
    }

    fn describe(&self, interface: &str) -> String {
        format!("the name servers of {interface} in {}", self.way)
    }

    fn add_needs(&self, needs: &mut ToUndo) {
        if let ResolverWay::File { path } = &self.way {
            needs.file.get_or_insert_with(|| path.clone());
        }
    }

    /// It is a program of the host, and resolvconf even restarts some daemons, which would have as
    /// few privileges as this process.
    async fn prepare_to_undo(&self, interface: &str) {
        let (name, arguments) = match &self.way {
            ResolverWay::Resolved => (RESOLVECTL, ["revert".to_owned(), interface.to_owned()]),
            ResolverWay::Resolvconf => (RESOLVCONF, ["-d".to_owned(), record_name(interface)]),
            ResolverWay::File { .. } => return,
        };
        let arguments = arguments.each_ref().map(String::as_str);
        if let Some(program) = Program::find(name)
            && let Err(error) = program.prepare(&arguments).await
        {
            tracing::warn!(%error, "{name} will run with few privileges");
        }
    }
}

fn record_name(interface: &str) -> String {
    format!("{RECORD}{interface}")
}

/// A file from which name servers that survived a reboot were removed.
#[derive(Debug)]
pub struct RecoveredFile {
    /// The file.
    pub path: PathBuf,
    /// Its present state, if it could not be restored.
    pub left: Option<String>,
}

/// Removes the entries of a tunnel that was up when the host went down; `None` if there are none.
pub fn recover_file(directory: &RuntimeDir) -> Result<Option<RecoveredFile>, NetError> {
    let here = Owner::current().map_err(JournalError::Owner)?;
    let path = PathBuf::from(FILE);
    let _lock = directory.lock().map_err(JournalError::from)?;
    let outcome = file::take_out_earlier_boots(&path, &here);
    let left = match outcome.map_err(ResolverError::from)? {
        Outcome::Gone => return Ok(None),
        Outcome::Undone | Outcome::Shared => None,
        Outcome::Left(what) | Outcome::Beyond(what) => Some(what),
    };
    Ok(Some(RecoveredFile { path, left }))
}

/// With domains, only names in them are asked there: a search domain is a routing domain too, and
/// the interface is not the default for other names.
async fn tell_resolved(
    program: &Program,
    interface: &str,
    name_servers: &NameServers,
) -> Result<(), ResolverError> {
    let action = "set the name servers";
    // "Link 7 (sshvpn0): 10.0.0.1"
    let known = program.run(action, &["dns", interface], "").await?;
    let found = known.split_once("):").map_or("", |(_, found)| found.trim());
    if !found.is_empty() {
        return Err(ResolverError::Taken {
            interface: interface.to_owned(),
            found: found.to_owned(),
        });
    }
    let servers: Vec<String> = name_servers.servers.iter().map(IpAddr::to_string).collect();
    let mut domains: Vec<&str> = name_servers.domains.iter().map(|it| it.as_str()).collect();
    let everything = domains.is_empty();
    if everything {
        domains.push("~.");
    }
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let default = if everything { "yes" } else { "no" };
    for (verb, rest) in [
        ("dns", &servers[..]),
        ("domain", &domains),
        ("default-route", &[default]),
    ] {
        let arguments = [&[verb, interface], rest].concat();
        program.run(action, &arguments, "").await?;
    }
    Ok(())
}

async fn revert_resolved(program: &Program, interface: &str) -> Result<Outcome, ResolverError> {
    let action = "restore the name servers";
    program.run(action, &["revert", interface], "").await?;
    Ok(Outcome::Undone)
}

async fn tell_resolvconf(
    program: &Program,
    interface: &str,
    name_servers: &NameServers,
) -> Result<(), ResolverError> {
    let servers = name_servers.servers.iter();
    let mut record: String = servers
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    if !name_servers.domains.is_empty() {
        record.push_str(&format!("search {}\n", joined(&name_servers.domains, " ")));
    }
    let name = record_name(interface);
    program
        .run("set the name servers", &["-a", &name], &record)
        .await?;
    Ok(())
}

async fn revert_resolvconf(program: &Program, interface: &str) -> Result<Outcome, ResolverError> {
    let name = record_name(interface);
    let deleted = program
        .run("restore the name servers", &["-d", &name], "")
        .await;
    match deleted {
        Ok(_) => Ok(Outcome::Undone),
        // openresolv's message; Debian's resolvconf prints none.
        Err(ProgramError::Refused { complaint, .. })
            if complaint.contains("No resolv.conf for interface") =>
        {
            Ok(Outcome::Gone)
        }
        Err(error) => Err(error.into()),
    }
}
