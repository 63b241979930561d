//! Small types for numbers and names from outside. Each is parsed once, and valid from
//! then on.

pub mod address_set;
pub mod family;

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a value is invalid; the text names the valid ones.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Not a number, or out of the range of the type.
    #[error("{what} '{value}' is not a number from {min} to {max}")]
    Range {
        /// The setting.
        what: &'static str,
        /// The invalid value.
        value: String,
        /// The smallest valid value.
        min: u32,
        /// The largest valid value.
        max: u32,
    },
    /// An interface name that the kernel refuses.
    #[error(
        "interface name '{0}' has to be 1 to 15 characters, without '/', ':', '%' or spaces, and not '.' or '..'"
    )]
    InterfaceName(String),
    /// Not the prefix of a device's name.
    #[error(
        "device prefix '{0}' has to be 1 to 11 letters, digits, '_', '-' and '.', beginning with a letter"
    )]
    DevicePrefix(String),
    /// Not a `-w` argument.
    #[error("'{0}' is not LOCAL[:REMOTE], each a number from 0 to 2147483646 or 'any'")]
    TunnelDevice(String),
    /// Not a `Tunnel` value.
    #[error("'{0}' is not one of yes, no, point-to-point, ethernet")]
    Tunnel(String),
}

/// Maximum transmission unit of a tunnel device, in bytes of IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// The smallest MTU: IPv4 requires it of every link (RFC 791, section 3.2).
    pub const MIN: Mtu = Mtu(68);
    /// The smallest MTU at which a link carries IPv6 (RFC 8200, section 5).
    pub const MIN_IPV6: Mtu = Mtu(1280);
    /// The MTU of Ethernet.
    pub const ETHERNET: Mtu = Mtu(1500);
    /// The largest MTU that OpenSSH carries in point-to-point mode: its channel buffer
    /// holds 16384 bytes (channels.c, CHAN_RBUF), 4 of them the address family.
    pub const MAX_POINT_TO_POINT: Mtu = Mtu(16380);
    /// The largest MTU that OpenSSH carries in ethernet mode: 16384 bytes less the
    /// Ethernet header and one VLAN tag.
    pub const MAX_ETHERNET: Mtu = Mtu(16384 - 18);

    /// An MTU of `bytes`, if a tunnel of `mode` can carry it.
    pub fn new(bytes: u32, mode: Mode) -> Result<Self, ParseError> {
        let max = Self::max(mode);
        if (Self::MIN.0..=max.0).contains(&bytes) {
            return Ok(Self(bytes));
        }
        Err(ParseError::Range {
            what: "mtu",
            value: bytes.to_string(),
            min: Self::MIN.0,
            max: max.0,
        })
    }

    /// The largest MTU that a tunnel of `mode` can carry.
    pub fn max(mode: Mode) -> Self {
        match mode {
            Mode::PointToPoint => Self::MAX_POINT_TO_POINT,
            Mode::Ethernet => Self::MAX_ETHERNET,
        }
    }

    /// The MTU in bytes.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = ParseError;

    /// Accepts an MTU that a tunnel of either mode can carry.
    fn try_from(bytes: u32) -> Result<Self, ParseError> {
        Self::new(bytes, Mode::PointToPoint)
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> u32 {
        mtu.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a tunnel carries (OpenSSH PROTOCOL, section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// IP packets: a tun device.
    #[default]
    PointToPoint,
    /// Ethernet frames: a tap device.
    Ethernet,
}

impl Mode {
    /// The value on the wire (`SSH_TUNMODE_*`, OpenSSH PROTOCOL section 2.3).
    pub fn wire(self) -> u32 {
        match self {
            Mode::PointToPoint => 1,
            Mode::Ethernet => 2,
        }
    }

    /// The mode of a value on the wire; `None` for other values.
    pub fn from_wire(value: u32) -> Option<Self> {
        [Mode::PointToPoint, Mode::Ethernet]
            .into_iter()
            .find(|mode| mode.wire() == value)
    }

    /// The prefix of OpenSSH's device names in this mode: `tun` or `tap`.
    pub fn prefix(self) -> &'static str {
        match self {
            Mode::PointToPoint => "tun",
            Mode::Ethernet => "tap",
        }
    }
}

/// The value of ssh_config's `Tunnel`.
pub fn parse_tunnel(value: &str) -> Result<Option<Mode>, ParseError> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "point-to-point" => Ok(Some(Mode::PointToPoint)),
        "ethernet" => Ok(Some(Mode::Ethernet)),
        "no" | "false" => Ok(None),
        _ => Err(ParseError::Tunnel(value.to_owned())),
    }
}

/// The number of a tun or tap device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Unit(u32);

impl Unit {
    /// OpenSSH's largest unit (`SSH_TUNID_MAX`).
    pub const MAX: u32 = 0x7fff_ffff - 1;

    /// A unit from a number up to [`Unit::MAX`].
    pub fn new(number: u32) -> Result<Self, ParseError> {
        if number <= Self::MAX {
            return Ok(Self(number));
        }
        Err(ParseError::Range {
            what: "tunnel unit",
            value: number.to_string(),
            min: 0,
            max: Self::MAX,
        })
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// OpenSSH's name for the device: `tun3`, `tap3`.
    pub fn device_name(self, mode: Mode) -> String {
        format!("{}{}", mode.prefix(), self.0)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A requested unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnitRequest {
    /// The first free unit.
    #[default]
    Any,
    /// This unit.
    Unit(Unit),
}

impl UnitRequest {
    /// The value on the wire (`SSH_TUNID_ANY` is 0x7fffffff).
    pub fn wire(self) -> u32 {
        match self {
            UnitRequest::Any => 0x7fff_ffff,
            UnitRequest::Unit(unit) => unit.0,
        }
    }

    /// The request of a value on the wire.
    pub fn from_wire(value: u32) -> Result<Self, ParseError> {
        if value == UnitRequest::Any.wire() {
            return Ok(UnitRequest::Any);
        }
        Unit::new(value).map(UnitRequest::Unit)
    }
}

impl FromStr for UnitRequest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.eq_ignore_ascii_case("any") {
            return Ok(UnitRequest::Any);
        }
        let number: Result<u32, ParseIntError> = text.parse();
        match number {
            Ok(number) => Unit::new(number).map(UnitRequest::Unit),
            Err(_) => Err(ParseError::TunnelDevice(text.to_owned())),
        }
    }
}

impl fmt::Display for UnitRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnitRequest::Any => f.write_str("any"),
            UnitRequest::Unit(unit) => unit.fmt(f),
        }
    }
}

/// `-w LOCAL[:REMOTE]`, ssh_config's `TunnelDevice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelDevice {
    /// The local unit.
    pub local: UnitRequest,
    /// The remote unit.
    pub remote: UnitRequest,
}

impl FromStr for TunnelDevice {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (local, remote) = text.split_once(':').unwrap_or((text, "any"));
        let parse = |unit: &str| {
            unit.parse()
                .map_err(|_| ParseError::TunnelDevice(text.to_owned()))
        };
        Ok(TunnelDevice {
            local: parse(local)?,
            remote: parse(remote)?,
        })
    }
}

/// The name of a network interface that the kernel accepts (`dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = ParseError;

    fn from_str(name: &str) -> Result<Self, ParseError> {
        let valid = (1..=15).contains(&name.len())
            && name != "."
            && name != ".."
            && name
                .chars()
                .all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%'));
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(ParseError::InterfaceName(name.to_owned()))
        }
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = ParseError;

    fn try_from(name: String) -> Result<Self, ParseError> {
        name.parse()
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> String {
        name.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of a device's name in front of its number: short enough to leave room for a
/// number, and of characters that firewall rules accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DevicePrefix(String);

impl DevicePrefix {
    /// The longest prefix, in bytes: an interface's name has at most 15, a number takes
    /// up to 4 of them.
    const MAX_LEN: usize = 11;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for DevicePrefix {
    fn default() -> Self {
        Self("sshvpn".to_owned())
    }
}

impl FromStr for DevicePrefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let valid = (1..=Self::MAX_LEN).contains(&text.len())
            && text.chars().all(sound)
            && text.starts_with(|c: char| c.is_ascii_alphabetic());
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::DevicePrefix(text.to_owned()))
        }
    }
}

impl TryFrom<String> for DevicePrefix {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<DevicePrefix> for String {
    fn from(prefix: DevicePrefix) -> String {
        prefix.0
    }
}

impl fmt::Display for DevicePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_device_reads_what_ssh_reads() {
        let both: TunnelDevice = "0:1".parse().unwrap();
        assert_eq!(both.local, UnitRequest::Unit(Unit(0)));
        assert_eq!(both.remote, UnitRequest::Unit(Unit(1)));
        let local: TunnelDevice = "3".parse().unwrap();
        assert_eq!(local.remote, UnitRequest::Any);
        let any: TunnelDevice = "any:any".parse().unwrap();
        assert_eq!(any, TunnelDevice::default());
        for wrong in [
            "",
            ":",
            "1:",
            "x",
            "1:2:3",
            "-1",
            "2147483647",
            "1:2147483648",
        ] {
            assert!(wrong.parse::<TunnelDevice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn mtu_is_bounded_by_what_openssh_carries() {
        assert!(Mtu::new(67, Mode::PointToPoint).is_err());
        assert_eq!(
            Mtu::new(16380, Mode::PointToPoint).unwrap(),
            Mtu::MAX_POINT_TO_POINT
        );
        assert!(Mtu::new(16381, Mode::PointToPoint).is_err());
        assert!(Mtu::new(16367, Mode::Ethernet).is_err());
    }

    #[test]
    fn a_device_prefix_leaves_room_for_a_number() {
        for valid in [
            "vpn",
            "a",
            "my-vpn.5_",
            "12345678901".replace('1', "a").as_str(),
        ] {
            assert!(valid.parse::<DevicePrefix>().is_ok(), "{valid}");
        }
        for wrong in [
            "",
            "0",
            "-a",
            "a b",
            "a%d",
            "a/b",
            "a\"",
            "a*",
            "abcdefghijkl",
        ] {
            assert!(wrong.parse::<DevicePrefix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for valid in ["tun0", "sshvpn0", "a", "123456789012345"] {
            assert!(valid.parse::<InterfaceName>().is_ok(), "{valid}");
        }
        for wrong in [
            "",
            ".",
            "..",
            "1234567890123456",
            "a b",
            "a/b",
            "a:b",
            "tun%d",
        ] {
            assert!(wrong.parse::<InterfaceName>().is_err(), "{wrong}");
        }
    }
}
