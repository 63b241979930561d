//! Reads and writes kernel settings below /proc/sys of this network namespace.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::InterfaceName;
use crate::types::family::Family;

/// The directory of the settings (proc(5)).
const ROOT: &str = "/proc/sys";
/// The size limit of a value, in bytes; no network setting's is longer.
const VALUE_LIMIT: usize = 4096;

/// The reason why a setting was not read or written.
#[derive(Debug, Error)]
pub enum SysctlError {
    /// The key is not the name of a network setting.
    #[error("'{0}' is not the path of a setting, like net/ipv4/conf/NAME/rp_filter")]
    Name(String),
    /// The value is not one line, or too long.
    #[error("the value for {key} must be one line of at most {VALUE_LIMIT} bytes")]
    Value {
        /// The setting.
        key: SysctlKey,
    },
    /// The setting does not exist: an older kernel, a disabled family, or a removed device.
    #[error("there is no setting /proc/sys/{key} on this host")]
    Absent {
        /// The setting.
        key: SysctlKey,
    },
    /// The process may not read or write it.
    #[error(
        "cannot {action} /proc/sys/{key}: permission denied; this needs root, and in a container a writable /proc/sys"
    )]
    NotPermitted {
        /// `read` or `write`.
        action: &'static str,
        /// The setting.
        key: SysctlKey,
    },
    /// Another error.
    #[error("cannot {action} /proc/sys/{key}: {source}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The setting.
        key: SysctlKey,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// The path of a setting below /proc/sys, with slashes, since an interface name in it may have
/// dots. It cannot lead out of /proc/sys/net.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SysctlKey(String);

impl SysctlKey {
    /// The setting `leaf` of an interface, or of `all`. Both words must be valid path components: a
    /// parsed name, or a word of this program.
    pub(in crate::host) fn of(family: Family, interface: &str, leaf: &'static str) -> Self {
        let family = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        Self(format!("net/{family}/conf/{interface}/{leaf}"))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The setting `leaf` of one interface, for IPv4.
    pub fn ipv4(interface: &InterfaceName, leaf: &str) -> Result<Self, SysctlError> {
        format!("net/ipv4/conf/{interface}/{leaf}").parse()
    }

    /// The setting `leaf` of one interface, for IPv6.
    pub fn ipv6(interface: &InterfaceName, leaf: &str) -> Result<Self, SysctlError> {
        format!("net/ipv6/conf/{interface}/{leaf}").parse()
    }

    /// Whether this is a setting of that interface alone.
    pub fn belongs_to(&self, interface: &str) -> bool {
        let parts: Vec<&str> = self.0.split('/').collect();
        matches!(parts[..], ["net", "ipv4" | "ipv6", "conf" | "neigh", name, _] if name == interface)
    }

    /// The value, without its final newline.
    pub fn read(&self) -> Result<String, SysctlError> {
        let mut text = String::new();
        File::open(self.path())
            .and_then(|file| file.take(VALUE_LIMIT as u64).read_to_string(&mut text))
            .map_err(|source| self.failed("read", source))?;
        Ok(text.trim_end().to_owned())
    }

    /// Sets the value.
    pub fn write(&self, value: &str) -> Result<(), SysctlError> {
        if value.len() > VALUE_LIMIT || value.contains(['\n', '\0']) {
            return Err(SysctlError::Value { key: self.clone() });
        }
        fs::write(self.path(), value).map_err(|source| self.failed("write", source))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(ROOT).join(&self.0)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> SysctlError {
        let key = self.clone();
        match source.kind() {
            io::ErrorKind::NotFound => SysctlError::Absent { key },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                SysctlError::NotPermitted { action, key }
            }
            _ => SysctlError::Io {
                action,
                key,
                source,
            },
        }
    }
}

/// Whether a new device of this host gets IPv6: the kernel has it, and neither the setting of all
/// devices nor that of new ones disables it.
pub fn has_ipv6() -> bool {
    ["all", "default"].into_iter().all(is_ipv6_enabled)
}

/// Whether the device `name` has IPv6; for a missing device, whether a new one gets it.
pub fn device_has_ipv6(name: &InterfaceName) -> bool {
    match SysctlKey::of(Family::V6, name.as_str(), "disable_ipv6").read() {
        Ok(value) => value == "0",
        Err(_) => has_ipv6(),
    }
}

fn is_ipv6_enabled(interface: &str) -> bool {
    let disabled = SysctlKey::of(Family::V6, interface, "disable_ipv6").read();
    disabled.is_ok_and(|value| value == "0")
}

impl FromStr for SysctlKey {
    type Err = SysctlError;

    fn from_str(text: &str) -> Result<Self, SysctlError> {
        let sound = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|c| c.is_ascii_graphic())
        };
        let valid = text.len() <= 256 && text.starts_with("net/") && text.split('/').all(sound);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(SysctlError::Name(text.to_owned()))
        }
    }
}

impl TryFrom<String> for SysctlKey {
    type Error = SysctlError;

    fn try_from(text: String) -> Result<Self, SysctlError> {
        text.parse()
    }
}

impl From<SysctlKey> for String {
    fn from(key: SysctlKey) -> String {
        key.0
    }
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::test_namespace;

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        for wrong in [
            "",
            "net",
            "net/",
            "/net/ipv4/ip_forward",
            "net//ipv4",
            "net/../kernel/hostname",
            "net/ipv4/./ip_forward",
            "kernel/hostname",
            "net/ipv4/ip_forward\n",
            "net/ipv4/\0",
        ] {
            assert!(wrong.parse::<SysctlKey>().is_err(), "{wrong:?}");
        }
        assert!(
            "net/ipv4/conf/eth0.7/rp_filter"
                .parse::<SysctlKey>()
                .is_ok()
        );
    }

    #[test]
    fn a_setting_belongs_to_the_interface_that_it_names() {
        let key: SysctlKey = "net/ipv4/conf/tun0/rp_filter".parse().unwrap();
        assert!(key.belongs_to("tun0"));
        assert!(!key.belongs_to("tun1"));
        let global: SysctlKey = "net/ipv4/ip_forward".parse().unwrap();
        assert!(!global.belongs_to("ipv4"));
        let all: SysctlKey = "net/ipv4/conf/all/rp_filter".parse().unwrap();
        assert!(!all.belongs_to("tun0"));
    }

    #[test]
    fn reads_back_what_it_wrote_in_its_namespace() {
        test_namespace::run(async {
            let key: SysctlKey = "net/ipv4/conf/lo/rp_filter".parse().unwrap();
            key.write("2").unwrap();
            assert_eq!(key.read().unwrap(), "2");
            assert!(matches!(key.write("1\n2"), Err(SysctlError::Value { .. })));
            let absent: SysctlKey = "net/ipv4/conf/none/rp_filter".parse().unwrap();
            assert!(matches!(absent.read(), Err(SysctlError::Absent { .. })));
        });
    }
}
