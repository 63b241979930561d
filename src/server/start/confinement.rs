//! The sandbox of a listening server. It may change the network with CAP_NET_ADMIN, run
//! the programs that change the firewall, read what reloads and name lookups need, and
//! write its own files. Of /proc and /sys it writes only the network's settings.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::unistd::Uid;

use crate::config::serve::settings::ServeSettings;
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::plan::surroundings::{firewall_programs, has_legacy_rules};
use crate::host::privilege::TUN_DEVICE;
use crate::process::confinement::XTABLES_LOCK;
use crate::sandbox::Sandbox;
use crate::sandbox::capabilities::{Capabilities, Capability};
use crate::sandbox::files::Files;

/// Programs, libraries, host settings and kernel information; all of /etc, because files
/// in it are created and replaced.
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
/// Writable kernel files: the network's settings, and the device that makes tunnels.
const WRITTEN: [&str; 3] = ["/dev/null", "/proc/sys/net", TUN_DEVICE];

/// The sandbox for these settings. Creates the directory of the leases, since a rule can
/// only name an existing path.
pub fn of(config: &Path, settings: &ServeSettings, directory: &RuntimeDir) -> Sandbox {
    Sandbox {
        capabilities: match has_legacy_rules() {
            true => Capabilities::NET_ADMIN.with(Capability::NetRaw),
            false => Capabilities::NET_ADMIN,
        },
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
    // Editors replace a file by a new one, so the rule is for its directory.
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
        // The directory is removed with the last tunnel.
        files = files.remove_directories(above);
    }
    if has_legacy_rules() {
        files = files.write(XTABLES_LOCK);
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
        // The warning follows when the leases are written.
        tracing::debug!(%error, "no directory for leases");
    }
}
