//! `sshvpn agent`: the remote end of a tunnel on a host that has sshvpn. sshd starts
//! it, as a subsystem or by exec, and its standard input and output are the
//! stream of frames; people are told on standard error.
//!
//! ```text
//!   stdio ⇄ conversation ⇄ dialogue, then end ──► host ──► net, tun
//!    door, lending                                                │
//!            limits, limits_file ──► set_up, guard   what may be, and what it takes
//! ```

pub(crate) mod dialogue;
pub(crate) mod door;
pub(crate) mod end;
pub(crate) mod error;
pub(crate) mod guard;
pub(crate) mod host;
pub mod limits;
pub mod limits_file;
pub(crate) mod refusals;
pub mod remove_self;
pub(crate) mod set_up;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::config::invoker::Invoker;
use crate::frame::control::PREAMBLE;
use crate::link::control::Conversation;
use crate::link::stdio::Input;
use crate::process::failure::Failure;
use crate::process::message::say;
use crate::process::shutdown::Shutdown;
use crate::pump::FrameSink;
use dialogue::Dialogue;
use door::Door;
use host::ThisHost;
use limits::Limits;

pub use error::AgentError;

/// How long the socket stays for a client that says nothing.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// What the command line asks for.
#[derive(Debug, Clone, Default)]
pub struct AgentRequest {
    /// What the agent may do at most.
    pub limits: Limits,
    /// The program was pushed here for this tunnel, and removes itself.
    pub remove_self: bool,
}

/// Runs until the client closes or is gone, or a signal comes; then everything
/// here is undone. Yields the exit code.
pub async fn run(request: AgentRequest) -> Result<u8, Failure> {
    let (input, output) = crate::link::stdio::open().map_err(Failure::local)?;
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
        Some(guest) => crate::link::stdio::of_socket(guest).map_err(Failure::local)?,
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

/// Who came to the socket, if the client's first words come that way.
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
        .unwrap_or_else(|| "the remote end".to_owned())
}
