//! Parses the remote host's facts, as `probe.sh` prints them. They are untrusted: unreadable lines
//! are skipped, names are parsed into their types, and only facts that the program needs are used.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::{script, unit_of};
use crate::ssh::client::prompt::terminal_text;
use crate::types::{InterfaceName, Mode, Unit};

/// Entries of one kind that are kept, at most; more are an error or an attack.
const MOST: usize = 200_000;

/// Why the remote host cannot be used. The text says what to do there.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FactsError {
    /// The commands did not run to the end.
    #[error(
        "{host}: its shell does not run commands as expected ({complaint}): use a login with a POSIX \
         shell that sshd runs as it is (no ForceCommand, no command= of the key, no ChrootDirectory)"
    )]
    NoShell {
        /// The remote end.
        host: String,
        /// Its error output.
        complaint: String,
    },
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
        "{login}@{host} is not root and {sudo}: log in as root, allow 'sudo -n' (NOPASSWD), or have \
         the administrator make a device with an address (ip tuntap add dev tun0 mode tun user {login}; \
         ip addr add … peer … dev tun0; ip link set tun0 up)"
    )]
    NoPrivilege {
        /// The remote end.
        host: String,
        /// The login there.
        login: String,
        /// Why sudo does not work.
        sudo: &'static str,
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
    sudo: &'static str,
    /// Whether new devices get IPv6.
    pub ipv6: bool,
    /// Whether nftables can be used.
    pub nft: bool,
    /// Whether iptables can be used.
    pub iptables: bool,
    /// Whether ip6tables can be used.
    pub ip6tables: bool,
    /// Whether iptables' FORWARD chain drops by default.
    pub forward_drop: bool,
    /// Whether ip6tables' FORWARD chain drops by default.
    pub forward_drop6: bool,
    /// Tun and tap devices.
    pub devices: Vec<Device>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Destinations of its routes, except for the default route.
    pub routes: Vec<IpNetwork>,
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
            sudo: self.sudo,
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

    /// The lowest free unit of `mode`.
    pub fn free_unit(&self, mode: Mode) -> Unit {
        let ours = self.devices.iter().filter(|device| device.mode == mode);
        let taken: HashSet<Unit> = ours.map(|device| device.unit).collect();
        (0..=Unit::MAX)
            .filter_map(|number| Unit::new(number).ok())
            .find(|unit| !taken.contains(unit))
            .unwrap_or_default()
    }
}

/// Parses the probe's output. `complaint` is its standard error.
pub fn parse(host: &str, text: &str, complaint: &str) -> Result<RemoteFacts, FactsError> {
    let host = host.to_owned();
    if !text.lines().any(|line| line == "end") {
        let said = if complaint.trim().is_empty() {
            text
        } else {
            complaint
        };
        let said = match said.trim() {
            "" => "it printed nothing".to_owned(),
            said => said.replace('\n', "; "),
        };
        let complaint: String = terminal_text::line(&said).chars().take(200).collect();
        return Err(FactsError::NoShell { host, complaint });
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
    sudo: &'static str,
    words: Vec<String>,
    devices: Vec<Device>,
    addresses: Vec<Address>,
    routes: Vec<IpNetwork>,
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
            "sudo" if value == "missing" => self.sudo = "there is no sudo",
            "sudo" => self.sudo = "sudo asks for a password",
            "ip" | "tun" | "ipv6" | "nft" | "iptables" | "ip6tables" if value == "yes" => {
                self.words.push(key.to_owned());
            }
            "forward_drop" => self.words.push(format!("forward_drop{}", shown(value))),
            "device" if self.devices.len() < MOST => {
                let flags = u32::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
                let owner = words.next()?.parse().ok()?;
                let mtu = words.next()?.parse().ok()?;
                let state = words.next().unwrap_or_default();
                // linux/if.h: IFF_UP 1.
                let up =
                    u32::from_str_radix(state.trim_start_matches("0x"), 16).unwrap_or(0) & 1 == 1;
                let group = words.next().and_then(|word| word.parse().ok());
                let disable_ipv6 = words.next();
                self.devices
                    .push(device(value, flags, owner, self.uid).map(|device| Device {
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

    fn facts(self) -> RemoteFacts {
        let privilege = match self.uid {
            Some(0) => Privilege::Root,
            _ if self.has("sudo") => Privilege::Sudo,
            _ => Privilege::None,
        };
        RemoteFacts {
            privilege,
            sudo: if self.sudo.is_empty() {
                "sudo does not work"
            } else {
                self.sudo
            },
            ipv6: self.has("ipv6"),
            nft: self.has("nft"),
            iptables: self.has("iptables"),
            ip6tables: self.has("ip6tables"),
            forward_drop: self.has("forward_drop4"),
            forward_drop6: self.has("forward_drop6"),
            devices: self.devices,
            login: self.login,
            addresses: self.addresses,
            routes: self.routes,
            advertised: self.advertised,
            ways: self.ways,
        }
    }
}

/// A device with a name as of OpenSSH; `flags` and `owner` (-1: none) are sysfs' `tun_flags` and
/// `owner`.
fn device(name: &str, flags: u32, owner: i64, uid: Option<u32>) -> Option<Device> {
    // linux/if_tun.h: IFF_TUN 1, IFF_TAP 2.
    let mode = if flags & 2 != 0 {
        Mode::Ethernet
    } else {
        Mode::PointToPoint
    };
    let unit = Unit::new(name.strip_prefix(mode.prefix())?.parse().ok()?).ok()?;
    let ours = uid == Some(0) || uid.is_some_and(|uid| i64::from(uid) == owner);
    Some(Device {
        unit,
        mode,
        ours,
        mtu: 0,
        up: false,
        group: 0,
        ipv6: false,
    })
}

fn without_host_bits(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

fn shown(word: &str) -> String {
    terminal_text::line(word).chars().take(64).collect()
}

#[cfg(test)]
mod tests;
