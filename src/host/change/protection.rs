//! The kernel settings of a tunnel's own device that keep the peer from configuring this host: one
//! list, for every role.
//!
//! rp_filter is not among them: the kernel uses the larger of `all` and the device's own, and 2
//! (loose) is larger than 1 (strict), so any value written here could weaken a host that is strict.

use std::net::IpAddr;
use std::sync::Once;

use super::Entry;
use super::kind::{HostChange, link_of};
use super::link;
use super::sysctl::{SysctlError, SysctlKey};
use crate::host::error::NetError;
use crate::host::journal::Journal;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::{AddressFacts, LinkFacts};
use crate::process::message::say;
use crate::types::InterfaceName;
use crate::types::family::Family;

/// Settings and values for every tunnel device (kernel: Documentation/networking/ip-sysctl.rst).
const ALWAYS: [(Family, &str, &str); 7] = [
    (Family::V4, "accept_redirects", "0"),
    (Family::V4, "send_redirects", "0"),
    (Family::V4, "accept_source_route", "0"),
    (Family::V6, "accept_ra", "0"),
    (Family::V6, "autoconf", "0"),
    (Family::V6, "accept_redirects", "0"),
    // 0 would accept routing headers of type 2.
    (Family::V6, "accept_source_route", "-1"),
];
/// For a device without IPv6.
const IPV6_OFF: (Family, &str, &str) = (Family::V6, "disable_ipv6", "1");

/// Whether a tunnel device has IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    /// An IPv6 address was agreed on, or the user configures the addresses.
    On,
    /// No IPv6 address was agreed on.
    Off,
}

impl Ipv6 {
    /// `On` if `agreed`.
    pub fn agreed(agreed: bool) -> Self {
        match agreed {
            true => Ipv6::On,
            false => Ipv6::Off,
        }
    }
}

/// Whether `address` is an IPv6 address that was added to the device. The kernel generates
/// link-local ones for every device that is up, and generates them again.
pub fn is_given_ipv6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if !address.is_unicast_link_local())
}

/// The settings of `device` with their values. The name is from the kernel, or a parsed one.
pub fn settings(device: &str, ipv6: Ipv6) -> Vec<(SysctlKey, &'static str)> {
    let off = (ipv6 == Ipv6::Off).then_some(IPV6_OFF);
    let all = ALWAYS.into_iter().chain(off);
    all.map(|(family, leaf, value)| (SysctlKey::of(family, device, leaf), value))
        .collect()
}

impl HostChange for Ipv6 {
    /// Journals and changes all settings at once. Settings that cannot be changed leave the journal
    /// again.
    async fn apply(&self, netlink: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        let link = link_of(netlink, journal).await?;
        // Disabling IPv6 would remove addresses that the user gave the device for good.
        let addresses = netlink.addresses(Some(link.index)).await?;
        let given = |found: &AddressFacts| is_given_ipv6(found.address);
        let ipv6 = match addresses.iter().any(given) {
            true => Ipv6::On,
            false => *self,
        };
        let Difference {
            differing,
            mut failed,
        } = Difference::of(&link.name, ipv6);
        if !differing.is_empty() {
            let mut made = journal.entries().to_vec();
            let planned = differing.iter().map(Differing::entry);
            journal.replace(made.iter().cloned().chain(planned).collect())?;
            let known = failed.len();
            for one in &differing {
                match one.key.write(one.set) {
                    Ok(()) => made.push(one.entry()),
                    Err(error) => failed.push(error),
                }
            }
            if failed.len() > known {
                journal.replace(made)?;
            }
        }
        warn(&link.name, &failed);
        Ok(())
    }

    fn make(&self, link: &LinkFacts) {
        set_by_name(&link.name, *self);
    }

    fn is_on_device(&self) -> bool {
        true
    }
}

/// A setting whose value has to change.
#[derive(Debug, Clone)]
pub(in crate::host) struct Differing {
    pub key: SysctlKey,
    pub before: String,
    pub set: &'static str,
}

impl Differing {
    fn entry(&self) -> Entry {
        Entry::Sysctl(link::sysctl::Made {
            key: self.key.clone(),
            before: self.before.clone(),
            set: self.set.to_owned(),
        })
    }
}

/// The settings of a device that have to change, and the errors of reading the others.
#[derive(Debug, Default)]
pub(in crate::host) struct Difference {
    pub differing: Vec<Differing>,
    pub failed: Vec<SysctlError>,
}

impl Difference {
    /// Compares the present values. A disabled family has no settings and needs none.
    pub fn of(device: &str, ipv6: Ipv6) -> Self {
        let mut found = Self::default();
        for (key, set) in settings(device, ipv6) {
            match key.read() {
                Ok(before) if before == set => {}
                Ok(before) => found.differing.push(Differing { key, before, set }),
                Err(SysctlError::Absent { .. }) => {}
                Err(error) => found.failed.push(error),
            }
        }
        found
    }
}

/// Sets up a device that ends with its descriptor, so that nothing has to be restored. A setting
/// that cannot be changed is a warning, see `warn`.
pub fn set(device: &InterfaceName, ipv6: Ipv6) {
    set_by_name(device.as_str(), ipv6);
}

fn set_by_name(device: &str, ipv6: Ipv6) {
    let Difference {
        differing,
        mut failed,
    } = Difference::of(device, ipv6);
    let written = differing.iter().map(|it| it.key.write(it.set));
    failed.extend(written.filter_map(Result::err));
    warn(device, &failed);
}

/// Warns, once per process, that settings could not be changed. The tunnel comes up all the same:
/// /proc/sys is read-only in most containers, and packets that would configure this host are also
/// refused before they reach the device.
fn warn(device: &str, failed: &[SysctlError]) {
    static SAID: Once = Once::new();
    let Some(first) = failed.first() else {
        return;
    };
    SAID.call_once(|| {
        say(format_args!(
            "warning: {} settings of {device} that keep the tunnel's peer from \
             configuring this host are not set: {first}",
            failed.len()
        ));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::test_namespace::{self, ip};

    fn name() -> InterfaceName {
        "tun7".parse().unwrap()
    }

    fn wrong(ipv6: Ipv6) -> Vec<String> {
        let all = settings("tun7", ipv6).into_iter();
        all.filter(|(key, value)| key.read().unwrap() != *value)
            .map(|(key, _)| key.to_string())
            .collect()
    }

    #[test]
    fn a_fresh_device_has_them_all_before_it_is_up() {
        test_namespace::run(async {
            ip("tuntap add dev tun7 mode tun");
            let key = |leaf| SysctlKey::ipv4(&name(), leaf).unwrap();
            let rp_filter = key("rp_filter").read().unwrap();
            assert!(!wrong(Ipv6::On).is_empty());
            set(&name(), Ipv6::On);
            assert_eq!(wrong(Ipv6::On), Vec::<String>::new());
            assert_eq!(wrong(Ipv6::Off), ["net/ipv6/conf/tun7/disable_ipv6"]);
            set(&name(), Ipv6::Off);
            assert_eq!(wrong(Ipv6::Off), Vec::<String>::new());
            assert_eq!(key("rp_filter").read().unwrap(), rp_filter);
            assert!(Difference::of("tun7", Ipv6::Off).differing.is_empty());
        });
    }

    /// Below 1280 bytes the kernel has no IPv6 on a device, and no settings for it.
    #[test]
    fn a_family_that_is_absent_is_passed_over() {
        test_namespace::run(async {
            ip("tuntap add dev tun7 mode tun");
            ip("link set dev tun7 mtu 1000");
            let accept_ra = SysctlKey::ipv6(&name(), "accept_ra").unwrap();
            assert!(matches!(accept_ra.read(), Err(SysctlError::Absent { .. })));
            set(&name(), Ipv6::Off);
            let key = SysctlKey::ipv4(&name(), "accept_redirects").unwrap();
            assert_eq!(key.read().unwrap(), "0");
        });
    }
}
