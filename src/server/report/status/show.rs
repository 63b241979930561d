//! Queries the servers on this host for their status, and shows it.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use serde::Deserialize;
use thiserror::Error;

use super::PREFIX;
use super::document::VERSION;
use super::table::{self, Answer};
use crate::host::journal::owner::network_namespace;
use crate::host::journal::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::host::runtime_socket::connect_all;
use crate::process::cleanup;
use crate::process::failure::Failure;
use crate::process::message::{print, say};
use crate::server::report::bounded_listener::PATIENCE;

/// Size limit of an answer, in bytes.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Why no status can be shown.
#[derive(Debug, Error)]
pub enum StatusError {
    /// No server runs here.
    #[error(
        "no 'sshvpn serve' of this user runs in this network namespace; only root can query a server of root: sudo sshvpn serve --status"
    )]
    NoServer,
    /// The server does not answer, or its answer is incomplete.
    #[error("cannot read the status of the server behind {name}: {source}")]
    Silent {
        /// The socket's name.
        name: String,
        /// The reason.
        source: io::Error,
    },
    /// The answer is not a known document.
    #[error(
        "this sshvpn does not understand the answer of the server behind {name}; is it of another version?"
    )]
    Unknown {
        /// The socket's name.
        name: String,
    },
    /// The directory of the sockets cannot be used.
    #[error(transparent)]
    Directory(#[from] RuntimeDirError),
    /// The result cannot be written.
    #[error("cannot write the status: {0}")]
    Output(#[source] io::Error),
}

/// The fields that are read of a document of any version.
#[derive(Debug, Deserialize)]
struct Envelope {
    version: u32,
    server: Place,
}

#[derive(Debug, Deserialize)]
struct Place {
    network_namespace: u64,
}

/// Prints the status of each server of this network namespace: as a table, or as one
/// JSON document per line. Returns the exit code.
pub fn show(json: bool) -> Result<u8, Failure> {
    let directory = cleanup::runtime_dir()?;
    let shown = show_from(&directory, json, print);
    // Opening the directory may have created it.
    cleanup::remove_empty_runtime_dir();
    shown.map(|()| 0).map_err(Failure::local)
}

fn show_from(
    directory: &RuntimeDir,
    json: bool,
    print: impl FnOnce(&str) -> io::Result<()>,
) -> Result<(), StatusError> {
    let here = network_namespace().unwrap_or_default();
    let (mut text, mut servers, mut elsewhere) = (String::new(), 0, 0);
    for (name, stream) in connect_all(directory, PREFIX)? {
        let answer = match ask(stream) {
            Ok(answer) => answer,
            Err(source) => return Err(StatusError::Silent { name, source }),
        };
        let unknown = || StatusError::Unknown { name: name.clone() };
        let envelope: Envelope = serde_json::from_str(&answer).map_err(|_| unknown())?;
        if envelope.server.network_namespace != here {
            elsewhere += 1;
            continue;
        }
        servers += 1;
        if json {
            text.push_str(answer.trim_end());
            text.push('\n');
        } else {
            let understood = (envelope.version == VERSION)
                .then(|| serde_json::from_str::<Answer>(&answer).ok())
                .flatten();
            text.push_str(&table::render(&understood.ok_or_else(unknown)?));
        }
    }
    if elsewhere > 0 {
        say(format_args!(
            "servers in other network namespaces are not shown: {elsewhere}"
        ));
    }
    if servers == 0 {
        return Err(StatusError::NoServer);
    }
    print(&text).map_err(StatusError::Output)
}

/// Whether a server of this user, or for root any server, runs on this host.
pub fn any_server() -> bool {
    let Ok(directory) = cleanup::runtime_dir() else {
        return false;
    };
    let runs = connect_all(&directory, PREFIX).is_ok_and(|found| !found.is_empty());
    cleanup::remove_empty_runtime_dir();
    runs
}

fn ask(mut stream: UnixStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    (&mut stream).take(LONGEST).read_to_string(&mut answer)?;
    match answer.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(answer),
    }
}

#[cfg(test)]
pub(in crate::server) mod tests;
