//! `-W`: standard input and output as one forwarded connection.

use anyhow::anyhow;

use crate::config::ssh::forward::Target;
use crate::process::failure::Failure;
use crate::ssh::channel::process::Process;
use crate::ssh::client::connect::Connection;

/// Lets the server connect to `target`.
pub(in crate::client) async fn open(
    connection: &Connection,
    target: &Target,
) -> Result<Process, Failure> {
    let opened = connection.open_target(target, None).await;
    opened.map_err(|error| Failure::ssh(anyhow!("stdio forwarding to {target} failed: {error}")))
}
