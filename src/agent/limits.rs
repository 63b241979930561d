//! The limits of an agent: by default none, except that it joins no tunnels. The host's file and
//! the command line each narrow them; the stricter of the two applies.

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::frame::control::Permissions;
use crate::types::address_set::AddressSet;
use crate::types::{DevicePrefix, InterfaceName, Mtu};

/// The limits of an agent; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Networks that it forwards to; `None` permits all.
    pub routes: Option<Vec<IpNetwork>>,
    /// Networks behind the client whose packets are accepted, besides its tunnel address; `None`
    /// permits none.
    pub sources: Option<Vec<IpNetwork>>,
    /// Networks that the tunnel's addresses may be in; `None` permits all.
    pub addresses: Option<Vec<IpNetwork>>,
    /// Whether NAT is forbidden.
    pub no_nat: bool,
    /// The prefix of its devices' names; `None` permits any name.
    pub device_prefix: Option<DevicePrefix>,
    /// The largest MTU.
    pub max_mtu: Option<Mtu>,
    /// Whether a tunnel may be reached from other tunnels of this host, if its client asks for
    /// that. Not an option of the command line, since the login writes that itself.
    pub tunnels: bool,
}

/// Two prefixes that no name satisfies.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "--device-prefix {asked} does not begin with '{allowed}', which this host's agent.toml requires"
)]
pub struct PrefixError {
    asked: DevicePrefix,
    allowed: DevicePrefix,
}

impl Limits {
    /// These limits, narrowed by those of the command line (`other`).
    pub fn narrowed_by(self, other: Limits) -> Result<Limits, PrefixError> {
        let device_prefix = match (self.device_prefix, other.device_prefix) {
            (Some(allowed), Some(asked)) if !asked.as_str().starts_with(allowed.as_str()) => {
                return Err(PrefixError { asked, allowed });
            }
            (allowed, asked) => asked.or(allowed),
        };
        Ok(Limits {
            routes: in_both(self.routes, other.routes),
            sources: in_both(self.sources, other.sources),
            addresses: in_both(self.addresses, other.addresses),
            no_nat: self.no_nat || other.no_nat,
            device_prefix,
            max_mtu: match (self.max_mtu, other.max_mtu) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            tunnels: self.tunnels,
        })
    }

    /// The limits as sent to the client.
    pub fn permissions(&self) -> Permissions {
        Permissions {
            routes: self.routes.clone(),
            addresses: self.addresses.clone(),
            nat: !self.no_nat,
            max_mtu: self.max_mtu.map(Mtu::get),
        }
    }

    /// Whether it may forward to all of a network.
    pub fn allows_route(&self, network: &IpNetwork) -> bool {
        is_covered(network, self.routes.as_deref())
    }

    /// Whether a tunnel may have an address.
    pub fn allows_address(&self, address: std::net::IpAddr) -> bool {
        is_covered(&address.into(), self.addresses.as_deref())
    }

    /// Whether a device may have a name.
    pub fn allows_device(&self, name: &InterfaceName) -> bool {
        let prefix = self.device_prefix.as_ref();
        prefix.is_none_or(|prefix| name.as_str().starts_with(prefix.as_str()))
    }

    /// Whether a device may exist beforehand: without limits the login could use it anyway; with
    /// limits, `device_prefix` has to be one of them.
    pub fn allows_existing_device(&self) -> bool {
        *self == Limits::default() || self.device_prefix.is_some()
    }
}

/// Whether every address of `network` is in one of `allowed`.
fn is_covered(network: &IpNetwork, allowed: Option<&[IpNetwork]>) -> bool {
    let Some(allowed) = allowed else {
        return true;
    };
    AddressSet::of(allowed).includes(&AddressSet::of([network]))
}

/// The intersection of both lists, without overlaps.
fn in_both(one: Option<Vec<IpNetwork>>, other: Option<Vec<IpNetwork>>) -> Option<Vec<IpNetwork>> {
    let (one, other) = match (one, other) {
        (None, None) => return None,
        (Some(only), None) | (None, Some(only)) => (only.clone(), only),
        (Some(one), Some(other)) => (one, other),
    };
    let both = AddressSet::of(&one).within(&AddressSet::of(&other));
    Some(both.to_networks())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Option<Vec<IpNetwork>> {
        Some(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn the_narrower_wins_on_either_side() {
        let file = Limits {
            routes: networks(&["10.0.0.0/8", "fd00::/8"]),
            max_mtu: Some(Mtu::ETHERNET),
            device_prefix: Some("vpn".parse().unwrap()),
            ..Limits::default()
        };
        let line = Limits {
            routes: networks(&["10.1.0.0/16", "192.168.0.0/16", "fd00::/16"]),
            addresses: networks(&["10.9.0.0/16"]),
            no_nat: true,
            max_mtu: Some(Mtu::MIN_IPV6),
            device_prefix: Some("vpn-a".parse().unwrap()),
            tunnels: true,
            ..Limits::default()
        };
        let both = file.clone().narrowed_by(line.clone()).unwrap();
        assert_eq!(both.routes, networks(&["10.1.0.0/16", "fd00::/16"]));
        assert_eq!(both.addresses, networks(&["10.9.0.0/16"]));
        assert!(both.no_nat && !both.tunnels);
        assert_eq!(both.max_mtu, Some(Mtu::MIN_IPV6));
        assert!(both.allows_device(&"vpn-a0".parse().unwrap()));
        assert!(!both.allows_device(&"vpn0".parse().unwrap()));
        let same = file.clone().narrowed_by(Limits::default()).unwrap();
        assert_eq!(same, file);
        let other = Limits {
            device_prefix: Some("tun".parse().unwrap()),
            ..Limits::default()
        };
        assert!(file.narrowed_by(other).is_err());
    }

    #[test]
    fn a_network_has_to_be_covered_as_a_whole() {
        let limits = Limits {
            routes: networks(&["10.0.0.0/9", "10.128.0.0/9", "fd00::/8"]),
            ..Limits::default()
        };
        let allows = |text: &str| limits.allows_route(&text.parse().unwrap());
        assert!(allows("10.0.0.0/8"), "by two together");
        assert!(allows("10.1.2.3/32"));
        assert!(allows("fd01::/16"));
        assert!(!allows("0.0.0.0/0"));
        assert!(!allows("11.0.0.0/8"));
        assert!(!allows("fe80::/10"));
        assert!(Limits::default().allows_route(&"::/0".parse().unwrap()));
        let none = Limits {
            routes: Some(Vec::new()),
            ..Limits::default()
        };
        assert!(!none.allows_route(&"10.0.0.0/32".parse().unwrap()));
    }

    #[test]
    fn the_local_end_is_told() {
        let limits = Limits {
            no_nat: true,
            max_mtu: Some(Mtu::ETHERNET),
            ..Limits::default()
        };
        let told = limits.permissions();
        assert_eq!((told.nat, told.max_mtu), (false, Some(1500)));
        assert_eq!(Limits::default().permissions(), Permissions::all());
    }
}
