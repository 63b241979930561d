//! `sshvpn agent`: the far end of a tunnel on a host that has sshvpn. sshd starts
//! it, as a subsystem or by exec, and its standard input and output are the
//! stream of frames; people are told on standard error.
//!
//! ```text
//!   stdio ⇄ conversation ⇄ dialogue, then running, then end ──► host ──► net, tun
//!                                                                 │
//!            limits, limits_file ──► set_up          what may be, and what it takes
//! ```

mod dialogue;
mod end;
mod error;
mod host;
pub mod limits;
pub mod limits_file;
pub mod remove_self;
mod running;
mod set_up;
mod stdio;

use std::pin::pin;

use bytes::Bytes;

use super::conversation::Conversation;
use super::failure::Failure;
use super::shutdown::Shutdown;
use crate::frame::control::PREAMBLE;
use crate::message::say;
use crate::pump::FrameSink;
use dialogue::Dialogue;
use host::ThisHost;
use limits::Limits;

pub use error::AgentError;

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
    if output.send(Bytes::from_static(PREAMBLE)).await.is_err() {
        // Nobody listens, and nothing was done.
        return Ok(0);
    }
    let conversation = Conversation::new(input, output);
    let host = ThisHost::new(request.limits);
    let stop = pin!(shutdown.requested());
    let end = Dialogue::new(conversation, host, stop, host_name())
        .run()
        .await;
    tracing::debug!(?end, "the agent ends");
    Ok(if end.is_orderly() { 0 } else { Failure::LOCAL })
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "the far end".to_owned())
}
