//! Parses the remote host's facts, as `probe.sh` prints them. They are untrusted: unreadable lines
//! are skipped, names are parsed into their types, and only facts that the program needs are used.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::{script, unit_of};
use crate::client::remote::login::{NoCommands, SudoRefusal};
use crate::ssh::client::prompt::terminal_text;
use crate::types::{InterfaceName, Mode, Unit};

/// Entries of one kind that are kept, at most; more are an error or an attack.
const MOST: usize = 200_000;

/// Units of keys that are kept, at most; each may have to be tried.
const MOST_KEY_UNITS: usize = 8;

/// Why the remote host cannot be used. The text says what to do there.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FactsError {
    /// The commands did not run to the end.
    #[error(transparent)]
    NoCommands(#[from] NoCommands),
    /// The host does not run Linux.
    #[error(
        "{host} runs {system}; addresses can only be set on Linux: use -w and set them yourself"
    )]
    NotLinux {
        /// The remote end.
        host: String,
        /// Its kernel.
        system: String,
    },
    /// The host lacks iproute2.
    #[error("{host} has no 'ip' command: install iproute2 there")]
    NoIp {
        /// The remote end.
        host: String,
    },
    /// The login is not root and cannot use sudo.
    #[error(
        "{login}@{host} is not root, and {sudo}: log in as root, allow 'sudo -n' (NOPASSWD), or have \
         the administrator make a device with an address (ip tuntap add dev tun0 mode tun user {login}; \
         ip addr add … peer … dev tun0; ip link set tun0 up)"
    )]
    NoPrivilege {
        /// The remote end.
        host: String,
        /// The login there.
        login: String,
        /// Why sudo does not work.
        sudo: SudoRefusal,
    },
    /// sudo may run `ip`, which makes no devices.
    #[error(
        "{host}: its 'ip' makes no device for {login} (busybox's lacks 'tuntap'): install iproute2 there, \
         or log in as root"
    )]
    NoTuntap {
        /// The remote end.
        host: String,
        /// The login there.
        login: String,
    },
    /// The kernel lacks tun.
    #[error("{host} has no /dev/net/tun: load the module there (modprobe tun)")]
    NoTun {
        /// The remote end.
        host: String,
    },
}

/// How commands become root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// The login is root.
    Root,
    /// By `sudo -n`.
    Sudo,
    /// They cannot; only a premade device can be used.
    None,
}

/// A tun or tap device of the remote host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its unit.
    pub unit: Unit,
    /// Its mode.
    pub mode: Mode,
    /// Whether the login may open it without being root.
    pub ours: bool,
    /// Whether it was made for a user or a group.
    pub for_login: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its group (IFLA_GROUP).
    pub group: u32,
    /// Whether it has IPv6.
    pub ipv6: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: InterfaceName,
    /// The address itself.
    pub address: IpAddr,
    /// The network reached through the interface: the peer's, or the address's own prefix.
    pub network: IpNetwork,
}

/// The facts about a remote host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFacts {
    /// The login's name there.
    pub login: String,
    /// How commands become root.
    pub privilege: Privilege,
    /// Why sudo does not work, if the login is not root.
    sudo: SudoRefusal,
    /// Whether new devices get IPv6.
    pub ipv6: bool,
    /// Whether nftables can be used.
    pub nft: bool,
    /// The program that makes rules for IPv4, if nftables cannot be used.
    pub iptables: Option<&'static str>,
    /// The program that makes rules for IPv6, if nftables cannot be used.
    pub ip6tables: Option<&'static str>,
    /// Whether `ip` makes tun and tap devices.
    pub tuntap: bool,
    /// Names of all network devices.
    names: HashSet<String>,
    /// The units that keys of the login are bound to (`tunnel="N"` in authorized_keys), if the
    /// login uses sudo.
    pub key_units: Vec<Unit>,
    /// Tun and tap devices.
    pub devices: Vec<Device>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Destinations of its routes, except for the default route.
    pub routes: Vec<IpNetwork>,
    /// The interfaces of its routes, with their destinations.
    pub through: Vec<(InterfaceName, IpNetwork)>,
    /// Interfaces with routes learned from router advertisements.
    pub advertised: Vec<InterfaceName>,
    /// The interface by which it reaches each probed address.
    pub ways: BTreeMap<IpAddr, InterfaceName>,
}

impl RemoteFacts {
    /// Every network in use on the host.
    pub fn networks(&self) -> Vec<IpNetwork> {
        let own = self.addresses.iter().map(|a| IpNetwork::from(a.address));
        let connected = self.addresses.iter().map(|a| a.network);
        own.chain(connected)
            .chain(self.routes.iter().copied())
            .collect()
    }

    /// The tun or tap device of that unit.
    pub fn device(&self, unit: Unit, mode: Mode) -> Option<&Device> {
        let mut devices = self.devices.iter();
        devices.find(|device| device.unit == unit && device.mode == mode)
    }

    /// The error for a login that cannot change the host.
    pub fn no_privilege(&self, host: &str) -> FactsError {
        FactsError::NoPrivilege {
            host: host.to_owned(),
            login: self.login.clone(),
            sudo: self.sudo.clone(),
        }
    }

    /// The error for a login with sudo on a host whose `ip` makes no devices.
    pub fn no_tuntap(&self, host: &str) -> FactsError {
        FactsError::NoTuntap {
            host: host.to_owned(),
            login: self.login.clone(),
        }
    }

    /// The unit of the only device among `names`, separated by spaces, that the probe did not
    /// find.
    pub fn new_unit(&self, names: &str, mode: Mode) -> Option<Unit> {
        let known = |unit: &Unit| self.device(*unit, mode).is_some();
        let units = names
            .split_whitespace()
            .filter_map(|name| unit_of(name, mode));
        let mut new = units.filter(|unit| !known(unit));
        new.next().filter(|_| new.next().is_none())
    }

    /// Whether a device of any kind has the name of that unit.
    pub fn is_taken(&self, unit: Unit, mode: Mode) -> bool {
        self.names.contains(&unit.device_name(mode))
    }

    /// The lowest free unit of `mode`.
    pub fn free_unit(&self, mode: Mode) -> Unit {
        (0..=Unit::MAX)
            .filter_map(|number| Unit::new(number).ok())
            .find(|unit| !self.is_taken(*unit, mode))
            .unwrap_or_default()
    }
}

/// Parses the probe's output; `said` is for the error if it did not run: its last lines, and how
/// it ended.
pub fn parse(host: &str, text: &str, said: &str) -> Result<RemoteFacts, FactsError> {
    let host = host.to_owned();
    if !text.lines().any(|line| line == "end") {
        let said = said.to_owned();
        return Err(NoCommands { host, said }.into());
    }
    let mut reading = Reading::default();
    for line in script::output(text).unwrap_or(text).lines() {
        // Unreadable lines are skipped.
        let _ = reading.line(line);
    }
    if reading.system != "Linux" {
        return Err(FactsError::NotLinux {
            host,
            system: reading.system,
        });
    }
    if !reading.has("ip") {
        return Err(FactsError::NoIp { host });
    }
    if !reading.has("tun") {
        return Err(FactsError::NoTun { host });
    }
    Ok(reading.facts())
}

#[derive(Default)]
struct Reading {
    system: String,
    login: String,
    uid: Option<u32>,
    /// What sudo printed.
    sudo: String,
    words: Vec<String>,
    groups: Vec<u32>,
    names: HashSet<String>,
    key_units: Vec<Unit>,
    devices: Vec<Device>,
    addresses: Vec<Address>,
    routes: Vec<IpNetwork>,
    through: Vec<(InterfaceName, IpNetwork)>,
    iptables: Option<&'static str>,
    ip6tables: Option<&'static str>,
    advertised: Vec<InterfaceName>,
    ways: BTreeMap<IpAddr, InterfaceName>,
}

impl Reading {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_ascii_whitespace();
        let key = words.next()?;
        let value = words.next()?;
        match key {
            "system" => self.system = shown(value),
            "login" => self.login = shown(value),
            "uid" => self.uid = value.parse().ok(),
            "sudo" if value == "yes" => self.words.push("sudo".to_owned()),
            "sudo" => self.sudo = words.collect::<Vec<_>>().join(" "),
            "groups" => {
                let all = std::iter::once(value).chain(words);
                self.groups = all.filter_map(|word| word.parse().ok()).collect();
            }
            "name" if self.names.len() < MOST => {
                self.names.insert(shown(value));
            }
            "key_unit" if self.key_units.len() < MOST_KEY_UNITS => {
                let unit = Unit::new(value.parse().ok()?).ok()?;
                if !self.key_units.contains(&unit) {
                    self.key_units.push(unit);
                }
            }
            "iptables" => self.iptables = program(["iptables", "iptables-legacy"], value),
            "ip6tables" => self.ip6tables = program(["ip6tables", "ip6tables-legacy"], value),
            "ip" | "tuntap" | "tun" | "ipv6" | "nft" if value == "yes" => {
                self.words.push(key.to_owned());
            }
            "device" if self.devices.len() < MOST => {
                self.names.insert(shown(value));
                let flags = u32::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
                let owner = words.next()?.parse().ok()?;
                let mtu = words.next()?.parse().ok()?;
                let state = words.next().unwrap_or_default();
                // linux/if.h: IFF_UP 1.
                let up =
                    u32::from_str_radix(state.trim_start_matches("0x"), 16).unwrap_or(0) & 1 == 1;
                let group = words.next().and_then(|word| word.parse().ok());
                let owners = words.next().and_then(|word| word.parse().ok());
                let disable_ipv6 = words.next();
                let owners = owners.unwrap_or(-1);
                let ours = self.may_open(flags, owner, owners);
                self.devices.push(device(value, flags).map(|device| Device {
                    ours,
                    for_login: (owner, owners) != (-1, -1),
                    mtu,
                    up,
                    group: group.unwrap_or(0),
                    ipv6: disable_ipv6 == Some("0"),
                    ..device
                })?);
            }
            "address" if self.addresses.len() < MOST => {
                let network: IpNetwork = words.next()?.parse().ok()?;
                let peer = words.next().and_then(|peer| peer.parse::<IpNetwork>().ok());
                self.addresses.push(Address {
                    interface: value.parse().ok()?,
                    address: network.ip(),
                    network: without_host_bits(peer.unwrap_or(network)),
                });
            }
            "route" if self.routes.len() < MOST => {
                self.routes.push(without_host_bits(value.parse().ok()?));
            }
            "through" if self.through.len() < MOST => {
                let network = without_host_bits(words.next()?.parse().ok()?);
                self.through.push((value.parse().ok()?, network));
            }
            "advertised" if self.advertised.len() < MOST => {
                self.advertised.push(value.parse().ok()?);
            }
            "way" if self.ways.len() < MOST => {
                self.ways
                    .insert(value.parse().ok()?, words.next()?.parse().ok()?);
            }
            _ => {}
        }
        Some(())
    }

    /// Whether the login may open a device without being root, as the kernel decides
    /// (drivers/net/tun.c, tun_not_capable): -1 as owner or group stands for none.
    fn may_open(&self, flags: u32, owner: i64, group: i64) -> bool {
        // linux/if_tun.h: IFF_PERSIST 0x800. Any other device is in use.
        let persistent = flags & 0x800 != 0;
        let owns = owner == -1 || self.uid.is_some_and(|uid| i64::from(uid) == owner);
        let in_group = group == -1 || self.groups.iter().any(|id| i64::from(*id) == group);
        self.uid == Some(0) || (persistent && owns && in_group)
    }

    fn facts(self) -> RemoteFacts {
        let privilege = match self.uid {
            Some(0) => Privilege::Root,
            _ if self.has("sudo") => Privilege::Sudo,
            _ => Privilege::None,
        };
        RemoteFacts {
            privilege,
            sudo: SudoRefusal::of(&self.sudo),
            ipv6: self.has("ipv6"),
            nft: self.has("nft"),
            iptables: self.iptables,
            ip6tables: self.ip6tables,
            tuntap: self.has("tuntap"),
            names: self.names,
            key_units: self.key_units,
            devices: self.devices,
            login: self.login,
            addresses: self.addresses,
            routes: self.routes,
            through: self.through,
            advertised: self.advertised,
            ways: self.ways,
        }
    }
}

/// A device with a name as of OpenSSH; `flags` are sysfs' `tun_flags`.
fn device(name: &str, flags: u32) -> Option<Device> {
    // linux/if_tun.h: IFF_TUN 1, IFF_TAP 2.
    let mode = if flags & 2 != 0 {
        Mode::Ethernet
    } else {
        Mode::PointToPoint
    };
    let unit = Unit::new(name.strip_prefix(mode.prefix())?.parse().ok()?).ok()?;
    Some(Device {
        unit,
        mode,
        ours: false,
        for_login: false,
        mtu: 0,
        up: false,
        group: 0,
        ipv6: false,
    })
}

fn program(known: [&'static str; 2], name: &str) -> Option<&'static str> {
    known.into_iter().find(|known| *known == name)
}

fn without_host_bits(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

fn shown(word: &str) -> String {
    terminal_text::line(word).chars().take(64).collect()
}

#[cfg(test)]
mod tests;
