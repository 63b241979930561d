//! Confines a tunnel's process once the tunnel is up: it can carry packets and undo its journalled
//! changes, and gives up all other access for good.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid};

use crate::host::journal::state::{HostState, ToUndo};
use crate::host::privilege::TUN_DEVICE;
use crate::sandbox::capabilities::{Capabilities, Capability};
use crate::sandbox::files::Files;
use crate::sandbox::{InForce, Sandbox, SandboxError, confine};

/// The lock file of iptables-legacy (iptables(8), -w).
pub(crate) const XTABLES_LOCK: &str = "/run/xtables.lock";

/// Keeps the access that undoing `state` needs, and with `ends_proxy` the capability to end another
/// user's ProxyCommand.
pub(crate) async fn keep_undoing(
    state: &HostState,
    ends_proxy: bool,
) -> Result<InForce, SandboxError> {
    let needs = state.to_undo();
    state.prepare_to_undo().await;
    let mut capabilities = Capabilities::NET_ADMIN;
    if needs.iptables {
        capabilities = capabilities.with(Capability::NetRaw);
    }
    if needs.file.as_deref().is_some_and(is_anothers) {
        capabilities = capabilities.with(Capability::Chown);
    }
    in_force(confine(&Sandbox {
        capabilities: with_proxy(capabilities, ends_proxy),
        for_programs: false,
        files: files(&needs),
    }))
}

/// Keeps no access, for a tunnel that undoes nothing; `ends_proxy` as in [`keep_undoing`].
pub(crate) fn keep_nothing(ends_proxy: bool) -> Result<InForce, SandboxError> {
    in_force(confine(&Sandbox {
        capabilities: with_proxy(Capabilities::NONE, ends_proxy),
        for_programs: false,
        files: terminal(),
    }))
}

fn in_force(confined: Result<InForce, SandboxError>) -> Result<InForce, SandboxError> {
    confined.inspect(|in_force| tracing::debug!("sandbox: {in_force}"))
}

fn with_proxy(capabilities: Capabilities, ends_proxy: bool) -> Capabilities {
    match ends_proxy {
        true => capabilities.with(Capability::Kill),
        false => capabilities,
    }
}

fn terminal() -> Files {
    Files::limited_in_writing()
        .write("/dev/null")
        .write("/dev/pts")
        .write("/dev/tty")
}

fn files(needs: &ToUndo) -> Files {
    let mut files = terminal()
        .write("/proc/sys/net")
        .write(TUN_DEVICE)
        .change(&needs.directory);
    if let Some(above) = needs.directory.parent() {
        // The last tunnel removes the directory.
        files = files.remove_directories(above);
    }
    if needs.iptables {
        files = files.write(XTABLES_LOCK);
    }
    match needs.file.as_deref().and_then(Path::parent) {
        Some(directory) => files.change_with_links(directory),
        None => files,
    }
}

/// Whether a file that replaces this one has to be given to another user or group.
fn is_anothers(file: &Path) -> bool {
    let ours = (Uid::effective().as_raw(), Gid::effective().as_raw());
    fs::metadata(file).is_ok_and(|found| (found.uid(), found.gid()) != ours)
}
