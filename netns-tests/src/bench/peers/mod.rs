//! Other VPNs, as far as they are installed: each is started in both hosts
//! with keys made on the spot, and has the lab's usual tunnel addresses.

pub mod openvpn;
pub mod sshuttle;
pub mod wireguard;

use std::path::Path;

use anyhow::{Context, Result};

use crate::host::PATH;

/// Where scripts/bench installs what Debian does not have; git ignores it.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../run-scripts-bench/bin");

/// The path of the program `name`: what scripts/bench has installed, else the system's.
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
