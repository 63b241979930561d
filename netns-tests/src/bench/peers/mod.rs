//! Other VPNs, if they are installed: started on both hosts with new keys and the lab's usual
//! tunnel addresses.

pub mod openvpn;
pub mod sshuttle;
pub mod wireguard;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::lab::child::Child;
use crate::lab::host::PATH;
use crate::wait::{PATIENCE, until};

/// The directory for programs that Debian lacks, installed by scripts/bench; git ignores it.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../run-scripts-bench/bin");

/// The path of the program `name`: that of scripts/bench, else the system's.
pub fn program(name: &str) -> Result<String> {
    let directories = [INSTALLED].into_iter().chain(PATH.split(':'));
    let mut paths = directories.map(|directory| Path::new(directory).join(name));
    let path = paths
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not installed (scripts/bench --peers)"))?;
    let path = path.canonicalize().unwrap_or(path);
    path.into_os_string()
        .into_string()
        .ok()
        .context("a path that is not UTF-8")
}

/// Waits until `step` succeeds; the error has its last error, or the output of the peer's process
/// if that has ended.
fn once_up<T>(peer: &Child, mut step: impl FnMut() -> Result<T>) -> Result<T> {
    let mut complaint = String::new();
    let done = until("the peer to be up", PATIENCE, || match step() {
        Ok(value) => Some(Some(value)),
        Err(error) => {
            complaint = format!("{error:#}");
            peer.has_ended().then_some(None)
        }
    });
    let Some(value) = done.with_context(|| complaint)? else {
        let said = [peer.stdout(), peer.stderr()].concat();
        bail!("it ended before it was up: {}", said.trim());
    };
    Ok(value)
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;
    use crate::lab::host::Host;

    #[test]
    fn a_peer_that_ends_is_not_waited_for() -> Result<()> {
        let host = Host::new("laptop")?;
        let peer = host.spawn(&["sh", "-c", "echo no luck >&2; exit 1"])?;
        let error = once_up::<()>(&peer, || bail!("no device")).map_err(|error| error.to_string());
        ensure!(error == Err("it ended before it was up: no luck".to_owned()));
        let mut tries = 0;
        let peer = host.spawn(&["sleep", "100"])?;
        once_up(&peer, || {
            tries += 1;
            ensure!(tries > 2, "not yet");
            Ok(())
        })
    }
}
