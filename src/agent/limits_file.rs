//! Reads `/etc/sshvpn/agent.toml`, the limits of every agent of a host. The login that starts an
//! agent writes the command line itself, so only a file that root alone can write binds it.

use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde::Deserialize;
use thiserror::Error;

use super::limits::Limits;
use crate::config::cidr::Network;
use crate::config::keys::trusted_file::{TrustedFileError, TrustedOwners};
use crate::config::toml_text;
use crate::types::{DevicePrefix, Mtu};

/// The file's path.
pub const PATH: &str = "/etc/sshvpn/agent.toml";
/// The largest file that is read, in bytes.
const SIZE_LIMIT: u64 = 64 * 1024;

/// Why the file cannot be used; no agent runs then.
#[derive(Debug, Error)]
pub enum LimitsFileError {
    /// It cannot be read, or a user other than root could have written it.
    #[error(transparent)]
    File(#[from] TrustedFileError),
    /// Its content is invalid.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The fault and its line.
        reason: String,
    },
}

/// The file's schema; its keys are the options of `sshvpn agent`, and `allow-tunnels`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Document {
    allow_route: Option<Vec<Network>>,
    allow_source: Vec<Network>,
    allow_address: Option<Vec<Network>>,
    no_forward: bool,
    no_nat: bool,
    device_prefix: Option<DevicePrefix>,
    max_mtu: Option<Mtu>,
    allow_tunnels: bool,
}

/// Reads the limits of this host; no limits if the file does not exist.
pub fn load() -> Result<Limits, LimitsFileError> {
    load_from(Path::new(PATH), Uid::from_raw(0))
}

/// `owner` has to own the file and its directory.
fn load_from(path: &Path, owner: Uid) -> Result<Limits, LimitsFileError> {
    let Some(text) = TrustedOwners(&[owner]).read(path, SIZE_LIMIT)? else {
        return Ok(Limits::default());
    };
    let document = toml_text::parse(&text).map_err(|reason| LimitsFileError::Syntax {
        path: path.to_owned(),
        reason,
    })?;
    Ok(limits(document))
}

fn limits(document: Document) -> Limits {
    let plain = |list: Vec<Network>| list.into_iter().map(|Network(network)| network).collect();
    let routes = match document.no_forward {
        true => Some(Vec::new()),
        false => document.allow_route.map(plain),
    };
    Limits {
        routes,
        // A file without the key permits no sources: an administrator who sets limits would not
        // mean to leave this one open.
        sources: Some(plain(document.allow_source)),
        addresses: document.allow_address.map(plain),
        no_nat: document.no_nat,
        device_prefix: document.device_prefix,
        max_mtu: document.max_mtu,
        tunnels: document.allow_tunnels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn read(text: &str, mode: u32, owner: Uid) -> Result<Limits, LimitsFileError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        load_from(&path, owner)
    }

    fn ours(text: &str) -> Result<Limits, LimitsFileError> {
        read(text, 0o644, Uid::effective())
    }

    #[test]
    fn every_key_is_read() {
        let limits = ours(
            "allow-route = [\"10.20.0.0/16\", \"fd20::/16\"]\n\
             allow-source = [\"10.77.0.0/24\"]\n\
             allow-address = [\"10.99.0.0/16\"]\n\
             no-nat = true\n\
             device-prefix = \"vpn\"\n\
             max-mtu = 1400\n\
             allow-tunnels = true\n",
        )
        .unwrap();
        assert_eq!(limits.routes.unwrap().len(), 2);
        assert_eq!(limits.sources.unwrap().len(), 1);
        assert_eq!(limits.addresses.unwrap().len(), 1);
        assert!(limits.no_nat && limits.tunnels);
        assert_eq!(limits.device_prefix, "vpn".parse().ok());
        assert_eq!(limits.max_mtu.map(Mtu::get), Some(1400));
        let none = ours("allow-route = [\"10.0.0.0/8\"]\nno-forward = true").unwrap();
        assert_eq!(none.routes, Some(Vec::new()));
        // A command line does not add sources to a file that names none.
        let asked = Limits {
            sources: Some(vec!["10.77.0.0/24".parse().unwrap()]),
            ..Limits::default()
        };
        let empty = ours("").unwrap().narrowed_by(asked).unwrap();
        let expected = Limits {
            sources: Some(Vec::new()),
            ..Limits::default()
        };
        assert_eq!(empty, expected);
    }

    #[test]
    fn no_file_is_no_limit_and_an_unreadable_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        let uid = Uid::effective();
        assert_eq!(load_from(&path, uid).unwrap(), Limits::default());
        fs::create_dir(&path).unwrap();
        let error = load_from(&path, uid).unwrap_err();
        assert!(matches!(
            error,
            LimitsFileError::File(TrustedFileError::Unreadable { .. })
        ));
        let below = path.join("agent.toml");
        assert_eq!(load_from(&below, uid).unwrap(), Limits::default());
    }

    #[test]
    fn a_file_that_others_can_write_binds_nobody_and_stops_the_agent() {
        let uid = Uid::effective();
        for (mode, owner) in [
            (0o664, uid),
            (0o646, uid),
            (0o644, Uid::from_raw(uid.as_raw() + 1)),
        ] {
            let error = read("", mode, owner).unwrap_err();
            assert!(error.to_string().contains("chmod go-w"), "{error}");
        }
    }

    #[test]
    fn a_directory_in_which_others_can_take_the_file_away_stops_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        let uid = Uid::effective();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        for text in [None, Some("no-forward = true\n")] {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let error = load_from(&path, uid).unwrap_err();
            assert!(
                matches!(
                    error,
                    LimitsFileError::File(TrustedFileError::Unsafe { .. })
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        for (wrong, said) in [
            ("allow-routes = []", "unknown field"),
            (
                "allow-route = [\"10.1.2.3/16\"]",
                "did you mean 10.1.0.0/16?",
            ),
            ("no-nat = 1", "invalid type"),
            ("device-prefix = \"a/b\"", "device prefix"),
            ("max-mtu = 20", "mtu"),
            ("no-nat", "line 1"),
        ] {
            let error = ours(wrong).unwrap_err().to_string();
            assert!(
                error.contains(said) && error.contains("agent.toml"),
                "{error}"
            );
        }
    }
}
