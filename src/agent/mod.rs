//! `sshvpn agent`: sets up the remote host of a tunnel under a stock sshd.
//!
//! sshd starts it, as a subsystem or by exec. Its standard input and output are the stream of
//! frames; messages for people go to standard error.
//!
//! ```text
//!   stdio or door ⇄ conversation ⇄ dialogue, then end ──► crate::host, crate::tun
//!                                                                   │
//!                  limits, limits_file ──► set_up, guard: permitted changes and packets
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

/// How long the socket stays for a silent client.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// The request of the command line.
#[derive(Debug, Clone, Default)]
pub struct AgentRequest {
    /// The limits of the command line.
    pub limits: Limits,
    /// Whether the program was pushed for this tunnel, and removes itself.
    pub remove_self: bool,
}

/// Runs until the client closes, the connection ends or a signal comes; then undoes everything.
/// Returns the exit code.
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
        // The client is gone, and nothing was changed.
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

/// The user id that called sudo or doas, if this process became root that way.
fn login_of_sudo() -> Option<u32> {
    let login =
        Invoker::detect().inspect_err(|error| tracing::debug!(%error, "cannot detect the login"));
    login
        .ok()
        .filter(|it| it.via_sudo)
        .map(|it| it.uid.as_raw())
}

/// The client's stream through the socket; `None` if it speaks on standard input, or not at all.
async fn guest(door: Option<Door>, input: &Input) -> Option<UnixStream> {
    let door = door?;
    tokio::select! {
        biased;
        guest = door.guest() => guest
            .inspect_err(|error| tracing::debug!(%error, "the socket takes no connections"))
            .ok(),
        _ = input.readable() => None,
        // The dialogue handles a silent client.
        () = sleep(FIRST_WORD) => None,
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "the remote end".to_owned())
}
