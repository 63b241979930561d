//! What a server may still do on its host once it listens: change the network with
//! CAP_NET_ADMIN, run the programs that change the firewall, read what a reload and
//! name lookups take, and write what is its own. Of /proc and /sys, the network's
//! settings alone are written.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::unistd::Uid;

use crate::config::serve::settings::ServeSettings;
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::plan::surroundings::firewall_programs;
use crate::host::privilege::TUN_DEVICE;
use crate::sandbox::Sandbox;
use crate::sandbox::capabilities::Capabilities;
use crate::sandbox::files::Files;

/// Programs, libraries, settings of the host, and what its kernel tells; /etc is where
/// files come and go, so all of it.
const READ: [&str; 15] = [
    "/bin",
    "/dev/random",
    "/dev/urandom",
    "/etc",
    "/gnu/store",
    "/lib",
    "/lib64",
    "/nix/store",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/sss",
    "/var/run",
];
/// Of the kernel's files: the network's settings, and where devices are made.
const WRITTEN: [&str; 3] = ["/dev/null", "/proc/sys/net", TUN_DEVICE];

/// For a server with these settings. Makes the directory of the leases, since what is
/// not there cannot be let through.
pub fn of(config: &Path, settings: &ServeSettings, directory: &RuntimeDir) -> Sandbox {
    Sandbox {
        capabilities: Capabilities::NET_ADMIN,
        for_programs: true,
        files: files(config, settings, directory),
    }
}

fn files(config: &Path, settings: &ServeSettings, directory: &RuntimeDir) -> Files {
    let mut files = Files::limited().without_signals();
    // A service manager may listen in the abstract namespace (sd_notify(3)).
    let notify = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    if !notify.as_encoded_bytes().starts_with(b"@") {
        files = files.without_abstract_sockets();
    }
    files = READ.into_iter().fold(files, Files::read);
    files = WRITTEN.into_iter().fold(files, Files::write);
    let read = [config]
        .into_iter()
        .chain(settings.host_keys.iter().map(AsRef::as_ref))
        .chain(settings.authorized_keys.iter().map(AsRef::as_ref))
        .chain(settings.user_authorities.iter().map(AsRef::as_ref))
        .chain(settings.revoked_keys.as_deref());
    // Editors put a new file in the place of the old one.
    files = read.filter_map(parent).fold(files, Files::read);
    if let Some(leases) = parent(&settings.network.leases) {
        if settings.network.assign {
            make(leases);
        }
        files = files.change(leases);
    }
    if let Some(audit) = settings.audit.file.as_deref().and_then(parent) {
        files = files.append(audit);
    }
    files = files.change(directory.path());
    if let (true, Some(above)) = (Uid::effective().is_root(), directory.path().parent()) {
        // It goes with the last tunnel.
        files = files.remove_directories(above);
    }
    firewall_programs()
        .iter()
        .fold(files, |files, program| files.run(program))
}

/// The directory of a file.
fn parent(file: &Path) -> Option<&Path> {
    let parent = file.parent()?;
    match parent.as_os_str().is_empty() {
        true => Some(Path::new(".")),
        false => Some(parent),
    }
}

fn make(directory: &Path) {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    if let Err(error) = made {
        // The leases say so when they are written.
        tracing::debug!(%error, "no directory for leases");
    }
}
