//! `sshvpn agent`: the far end of a tunnel on a host that has sshvpn. sshd starts
//! it, as a subsystem or by exec, and its standard input and output are the
//! stream of frames; people are told on standard error.
//!
//! ```text
//!   stdio ⇄ conversation ⇄ dialogue, then running, then end ──► host ──► net, tun
//!    door, lending                                                │
//!            limits, limits_file ──► set_up, guard   what may be, and what it takes
//! ```

mod dialogue;
mod door;
mod end;
mod error;
mod guard;
mod host;
mod lending;
pub mod limits;
pub mod limits_file;
mod refusals;
pub mod remove_self;
mod running;
mod set_up;
mod stdio;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::conversation::Conversation;
use super::failure::Failure;
use super::shutdown::Shutdown;
use crate::config::invoker::Invoker;
use crate::frame::control::PREAMBLE;
use crate::message::say;
use crate::pump::FrameSink;
use dialogue::Dialogue;
use door::Door;
use host::ThisHost;
use limits::Limits;
use stdio::Input;

pub use error::AgentError;

/// How long the socket stays for a near end that says nothing.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// What the command line asks for.
#[derive(Debug, Clone, Default)]
pub struct AgentRequest {
    /// What the agent may do at most.
    pub limits: Limits,
    /// The program was pushed here for this tunnel, and removes itself.
    pub remove_self: bool,
}

/// Runs until the near end closes or is gone, or a signal comes; then everything
/// here is undone. Yields the exit code.
pub async fn run(request: AgentRequest) -> Result<u8, Failure> {
    let (input, output) = stdio::open().map_err(Failure::local)?;
    let mut shutdown = Shutdown::listen().map_err(Failure::local)?;
    if request.remove_self
        && let Err(error) = remove_self::remove_self()
    {
        say(format_args!("sshvpn: agent: {error}"));
    }
    let door = Door::open(login_of_sudo());
    if let Err(error) = &door {
        tracing::debug!(%error, "no socket beside standard input and output");
    }
    let door = door.ok();
    let mut first = Vec::from_iter(door.as_ref().map(Door::announcement));
    first.push(Bytes::from_static(PREAMBLE));
    if output.send_all(&mut first).await.is_err() {
        // Nobody listens, and nothing was done.
        return Ok(0);
    }
    let stop = shutdown.requested().boxed().shared();
    let guest = tokio::select! {
        biased;
        guest = guest(door, &input) => guest,
        _ = stop.clone() => None,
    };
    let (input, output) = match guest {
        Some(guest) => stdio::of_socket(guest).map_err(Failure::local)?,
        None => (input, output),
    };
    let conversation = Conversation::new(input, output);
    let host = ThisHost::new(request.limits);
    let end = Dialogue::new(conversation, host, stop, host_name())
        .run()
        .await;
    tracing::debug!(?end, "the agent ends");
    Ok(if end.is_orderly() { 0 } else { Failure::LOCAL })
}

/// The user who called sudo or doas, if this process became root that way.
fn login_of_sudo() -> Option<u32> {
    let login = Invoker::detect().inspect_err(|error| tracing::debug!(%error, "whose login it is"));
    login
        .ok()
        .filter(|it| it.via_sudo)
        .map(|it| it.uid.as_raw())
}

/// Who came to the socket, if the near end's first words come that way.
async fn guest(door: Option<Door>, input: &Input) -> Option<UnixStream> {
    let door = door?;
    tokio::select! {
        biased;
        guest = door.guest() => guest
            .inspect_err(|error| tracing::debug!(%error, "nobody can come to the socket"))
            .ok(),
        _ = input.readable() => None,
        // It is silent: for the dialogue to notice.
        () = sleep(FIRST_WORD) => None,
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "the far end".to_owned())
}
