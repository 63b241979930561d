//! Kernel settings beyond the tunnel's own interface that forwarding needs. Several tunnels may
//! need the same one at a time.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::sysctl::{SysctlError, SysctlKey};
use crate::host::plan::address_range::Family;
use crate::types::InterfaceName;

/// The directory of the interfaces' IPv6 settings.
pub(in crate::host) const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";
/// Stands for all interfaces in a path.
const ALL: &str = "all";

/// A setting with the value that forwarding needs (kernel: Documentation/networking/ip-sysctl.rst).
/// In a journal it is the setting's path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SysctlKey", into = "SysctlKey")]
pub enum SharedSetting {
    /// Forward IPv4 packets that come in by this interface.
    ForwardIpv4(InterfaceName),
    /// Forward IPv6 packets. The kernel copies the value to every interface.
    ForwardIpv6,
    /// Keep accepting router advertisements on this interface; an interface that forwards ignores
    /// them by default.
    AcceptAdvertisements(InterfaceName),
}

impl SharedSetting {
    /// The setting's path.
    pub fn key(&self) -> SysctlKey {
        match self {
            SharedSetting::ForwardIpv4(interface) => {
                SysctlKey::of(Family::V4, interface.as_str(), "forwarding")
            }
            SharedSetting::ForwardIpv6 => SysctlKey::of(Family::V6, ALL, "forwarding"),
            SharedSetting::AcceptAdvertisements(interface) => {
                SysctlKey::of(Family::V6, interface.as_str(), "accept_ra")
            }
        }
    }

    /// The value that forwarding needs.
    pub fn wanted(&self) -> &'static str {
        match self {
            SharedSetting::ForwardIpv4(_) | SharedSetting::ForwardIpv6 => "1",
            SharedSetting::AcceptAdvertisements(_) => "2",
        }
    }
}

impl fmt::Display for SharedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key(), self.wanted())
    }
}

impl TryFrom<SysctlKey> for SharedSetting {
    type Error = SysctlError;

    fn try_from(key: SysctlKey) -> Result<Self, SysctlError> {
        let wrong = || SysctlError::Name(key.to_string());
        let parts: Vec<&str> = key.as_str().split('/').collect();
        match parts[..] {
            ["net", "ipv6", "conf", ALL, "forwarding"] => Ok(SharedSetting::ForwardIpv6),
            // "all" and "default" are not interfaces.
            ["net", _, "conf", ALL | "default", _] => Err(wrong()),
            ["net", "ipv4", "conf", interface, "forwarding"] => interface
                .parse()
                .map(SharedSetting::ForwardIpv4)
                .map_err(|_| wrong()),
            ["net", "ipv6", "conf", interface, "accept_ra"] => interface
                .parse()
                .map(SharedSetting::AcceptAdvertisements)
                .map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl From<SharedSetting> for SysctlKey {
    fn from(setting: SharedSetting) -> SysctlKey {
        setting.key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_journal_is_one_of_these_or_refused() {
        for path in [
            "net/ipv4/conf/eth0.7/forwarding",
            "net/ipv6/conf/all/forwarding",
            "net/ipv6/conf/eth0/accept_ra",
        ] {
            let json = format!("\"{path}\"");
            let setting: SharedSetting = serde_json::from_str(&json).unwrap();
            assert_eq!(setting.key().to_string(), path);
            assert_eq!(serde_json::to_string(&setting).unwrap(), json);
        }
        for wrong in [
            "net/ipv4/ip_forward",
            "net/ipv4/conf/all/forwarding",
            "net/ipv4/conf/default/forwarding",
            "net/ipv6/conf/eth0/forwarding",
            "net/ipv6/conf/all/accept_ra",
            "net/ipv4/conf/eth0/rp_filter",
            "net/ipv4/conf/a-name-that-is-too-long/forwarding",
            "net/../kernel/hostname",
        ] {
            let read = serde_json::from_str::<SharedSetting>(&format!("\"{wrong}\""));
            assert!(read.is_err(), "{wrong}");
        }
    }
}
