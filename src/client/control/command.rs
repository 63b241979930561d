//! `-O`: sends a command to the control socket of a running connection.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use super::message::{self, MAX_MESSAGE, Reply, Request};
use crate::client::forward;
use crate::config::invoker::Invoker;
use crate::config::ssh::args::{ControlCommand, SshArgs};
use crate::config::ssh::forward::{Forward, Kind};
use crate::process::failure::Failure;
use crate::process::message::say;

/// How long the running process may take to reply: it asks the server about remote forwards.
const REPLY: Duration = Duration::from_secs(70);
/// The error of a connection that ended.
const ENDED: io::ErrorKind = io::ErrorKind::UnexpectedEof;

/// Sends `command` to the process at `path`; returns the exit code.
pub fn run(
    command: ControlCommand,
    path: &Path,
    args: &SshArgs,
    invoker: &Invoker,
) -> Result<u8, Failure> {
    let failed = |error: io::Error| {
        let path = path.display();
        Failure::ssh(anyhow!("Control socket connect({path}): {error}"))
    };
    let mut stream = invoker.connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(REPLY)).map_err(failed)?;
    stream.write_all(&message::hello()).map_err(failed)?;
    message::read_hello(&receive(&mut stream).map_err(failed)?).map_err(Failure::ssh)?;
    let mut ask = |request: &Request| -> Result<Reply, Failure> {
        stream.write_all(&request.encode(0)).map_err(failed)?;
        match receive(&mut stream) {
            Ok(reply) => Reply::decode(&reply).map_err(Failure::ssh),
            // ssh ends before it has replied.
            Err(error) if *request == Request::Exit && error.kind() == ENDED => Ok(Reply::Ok),
            Err(error) => Err(failed(error)),
        }
    };
    let quiet = args.quiet;
    match command {
        ControlCommand::Check => match ask(&Request::Check)? {
            Reply::Alive(process) => say(format_args!("Master running (pid={process})")),
            other => return Err(refused(&other)),
        },
        ControlCommand::Exit => done(&ask(&Request::Exit)?, "Exit request sent.", quiet)?,
        ControlCommand::Stop => {
            done(&ask(&Request::Stop)?, "Stop listening request sent.", quiet)?;
        }
        ControlCommand::Forward | ControlCommand::Cancel => {
            if args.forwards.is_empty() {
                return Err(Failure::ssh(anyhow!(
                    "-O forward and -O cancel need at least one -L, -R or -D"
                )));
            }
            for (kind, forward) in &args.forwards {
                let (kind, forward) = (*kind, forward.clone());
                match command {
                    ControlCommand::Forward => {
                        let reply = ask(&Request::Add(kind, forward.clone()))?;
                        report_port(&reply, kind, &forward)?;
                    }
                    _ => done(&ask(&Request::Remove(kind, forward))?, "", true)?,
                }
            }
        }
    }
    Ok(0)
}

fn refused(reply: &Reply) -> Failure {
    match reply {
        Reply::Failure(reason) => Failure::ssh(anyhow!("the running connection refused: {reason}")),
        _ => Failure::ssh(anyhow!("the running connection sent an unexpected reply")),
    }
}

fn done(reply: &Reply, text: &str, quiet: bool) -> Result<(), Failure> {
    match reply {
        Reply::Ok => {
            if !quiet {
                say(text);
            }
            Ok(())
        }
        other => Err(refused(other)),
    }
}

fn report_port(reply: &Reply, kind: Kind, forward: &Forward) -> Result<(), Failure> {
    match reply {
        Reply::Ok => Ok(()),
        Reply::Port(port) => {
            let port = u16::try_from(*port).unwrap_or(0);
            say(forward::allocated(kind, port, forward));
            Ok(())
        }
        other => Err(refused(other)),
    }
}

fn receive(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut message)?;
    Ok(message)
}
