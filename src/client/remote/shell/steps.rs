//! The changes on the remote host, as shell commands and the commands that undo them. Pure. Every
//! word from outside is a parsed type or quoted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::facts::{Device, RemoteFacts};
use super::quote;
use crate::host::change::firewall::{self, TUNNEL_GROUP};
use crate::host::change::iptables::{self, Rule};
use crate::host::change::protection::{self, Ipv6};
use crate::host::change::sysctl::SysctlKey;
use crate::host::plan::addressing::AddressPair;
use crate::types::{InterfaceName, Mode, Mtu, Unit};

/// One change of the remote host's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The action, for "cannot ACTION".
    pub what: String,
    /// Commands that undo it, noted before it is done; they do nothing if there
    /// is nothing to undo. `$HOLDER` stands for the process id of the process
    /// that runs them.
    pub undo: Vec<String>,
    /// The command that does it.
    pub command: String,
}

/// How the remote host forwards packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// Whether it replaces their source by its own address (NAT).
    pub nat: bool,
    /// Networks whose hosts may open connections to the local host.
    pub inbound: Vec<IpNetwork>,
    /// The interfaces by which it reaches IPv4 networks.
    pub ways4: BTreeSet<InterfaceName>,
    /// Whether IPv6 networks are among the routes.
    pub ipv6: bool,
}

/// The plan for the remote host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The remote device's unit.
    pub unit: Unit,
    /// The device's mode.
    pub mode: Mode,
    /// Whether the device existed, persistent, before this tunnel.
    pub preexisting: bool,
    /// Addresses of the tunnel.
    pub addresses: Vec<AddressPair>,
    /// Its MTU.
    pub mtu: Mtu,
    /// The forwarding, if a route leads beyond the remote host.
    pub forwarding: Option<Forwarding>,
}

/// Makes a device that `login` may open without being root.
pub fn make_device(unit: Unit, mode: Mode, login: &str) -> Step {
    let name = unit.device_name(mode);
    let kind = mode.prefix();
    Step {
        what: format!("make the device {name}"),
        undo: vec![format!("ip tuntap del dev {name} mode {kind}")],
        command: format!("ip tuntap add dev {name} mode {kind} user {}", quote(login)),
    }
}

/// Prints the names of the tun and tap devices, separated by spaces.
pub fn list_devices() -> Step {
    Step {
        what: "list the devices".to_owned(),
        undo: Vec::new(),
        command: "for device in /sys/class/net/*; do [ -e \"$device/tun_flags\" ] && \
                  printf \"%s \" \"${device##*/}\"; done; :"
            .to_owned(),
    }
}

/// The first step: keeps packets of the client from configuring the remote host through the
/// device. Prints the settings that could not be changed.
pub fn protect(plan: &Plan, facts: &RemoteFacts) -> Step {
    let name = plan.unit.device_name(plan.mode);
    let own = |pair: &AddressPair| pair.remote.is_ipv6();
    // Turning IPv6 off would remove addresses that the user has given the device.
    let premade = facts
        .addresses
        .iter()
        .any(|found| found.interface.as_str() == name && protection::is_given_ipv6(found.address));
    let ipv6 = Ipv6::agreed(premade || plan.addresses.iter().any(own));
    let settings = protection::settings(&name, ipv6);
    let words: String = settings
        .iter()
        .map(|(key, value)| format!(" {} {}", quote(key.as_str()), quote(value)))
        .collect();
    // Below an MTU of 1280 there are no settings for IPv6.
    let mtu = format!("ip link set dev {name} mtu {}", plan.mtu);
    let mut undo = Vec::new();
    if let Some(device) = device_before(plan, facts) {
        undo.push(format!("ip link set dev {name} mtu {}", device.mtu));
        let release =
            |(key, _): &(SysctlKey, _)| format!("release {} $HOLDER", quote(key.as_str()));
        undo.extend(settings.iter().map(release));
    }
    let by = if plan.preexisting { "hold" } else { "put" };
    Step {
        what: format!("refuse router advertisements, redirects and source routes by {name}"),
        undo,
        command: format!("{mtu} && each {by}{words}"),
    }
}

/// The device before this tunnel, if it existed.
fn device_before<'a>(plan: &Plan, facts: &'a RemoteFacts) -> Option<&'a Device> {
    let mut devices = facts.devices.iter().filter(|_| plan.preexisting);
    devices.find(|device| device.unit == plan.unit && device.mode == plan.mode)
}

/// The steps that bring the remote host's part up, in order, after [`protect`].
pub fn bring_up(plan: &Plan, facts: &RemoteFacts) -> Vec<Step> {
    let name = plan.unit.device_name(plan.mode);
    // The link before its addresses: an IPv6 peer address given to a link that is down loses
    // the route to its peer when the link comes up (net/ipv6/addrconf.c,
    // fixup_permanent_addr).
    let mut steps = firewall(&name, plan, facts);
    steps.push(link_up(&name, plan, facts));
    steps.extend(
        plan.addresses
            .iter()
            .map(|pair| address(&name, plan.mode, pair)),
    );
    if let Some(forwarding) = &plan.forwarding {
        steps.extend(forward(&name, forwarding, facts));
    }
    steps
}

fn address(name: &str, mode: Mode, pair: &AddressPair) -> Step {
    let family = if pair.remote.is_ipv4() { "-4" } else { "-6" };
    let address = match mode {
        Mode::PointToPoint => format!("{} peer {}", pair.remote, pair.local),
        Mode::Ethernet => format!("{}/{}", pair.remote, pair.prefix),
    };
    let add = format!("ip {family} addr add {address} dev {name}");
    // Duplicate address detection would delay the address; busybox's ip cannot turn it off.
    let command = match pair.remote.is_ipv4() {
        true => add,
        false => format!("{add} nodad 2>/dev/null || {add}"),
    };
    Step {
        what: format!("give {name} the address {}", pair.remote),
        undo: vec![format!("ip {family} addr del {address} dev {name}")],
        command,
    }
}

/// Sets the device up, in the group by which other tunnels' rules know it; some small `ip`
/// programs cannot set a group.
fn link_up(name: &str, plan: &Plan, facts: &RemoteFacts) -> Step {
    let undo = device_before(plan, facts).map(|device| {
        let state = if device.up { "up" } else { "down" };
        [
            format!("ip link set dev {name} group {}", device.group),
            format!("ip link set dev {name} {state}"),
        ]
    });
    Step {
        what: format!("set {name} up"),
        undo: undo.into_iter().flatten().collect(),
        command: format!(
            "ip link set dev {name} group {TUNNEL_GROUP} 2>/dev/null; ip link set dev {name} up"
        ),
    }
}

fn forward(name: &str, forwarding: &Forwarding, facts: &RemoteFacts) -> Vec<Step> {
    let mut steps = Vec::new();
    let own = (!forwarding.ways4.is_empty()).then(|| name.to_owned());
    for way in own
        .into_iter()
        .chain(forwarding.ways4.iter().map(ToString::to_string))
    {
        steps.push(hold(&format!("net/ipv4/conf/{way}/forwarding"), 1));
    }
    if forwarding.ipv6 {
        // An interface that forwards no longer takes router advertisements
        // unless told to (kernel: Documentation/networking/ip-sysctl.rst, accept_ra).
        let others = facts.advertised.iter().filter(|it| it.as_str() != name);
        for interface in others {
            steps.push(hold(&format!("net/ipv6/conf/{interface}/accept_ra"), 2));
        }
        steps.push(hold("net/ipv6/conf/all/forwarding", 1));
    }
    steps.extend(accept(name, forwarding, facts));
    steps
}

/// Sets a sysctl that several tunnels may need; it is restored once the last one has released it.
fn hold(file: &str, value: u32) -> Step {
    let what = format!("set {file} to {value}");
    let file = quote(file);
    Step {
        what,
        undo: vec![format!("release {file} $HOLDER")],
        command: format!("hold {file} {value}"),
    }
}

/// Rules that block connections to the local host, NAT for its addresses, and clamping of TCP's
/// segment size to the path's MTU. Without NAT a failure is not fatal: the local host blocks
/// connections as well.
fn firewall(name: &str, plan: &Plan, facts: &RemoteFacts) -> Vec<Step> {
    let forwarding = plan.forwarding.as_ref();
    let steps = match facts.nft {
        true => vec![nftables(name, plan, forwarding)],
        false => by_iptables(name, plan, forwarding, facts),
    };
    let needed = forwarding.is_some_and(|forwarding| forwarding.nat);
    let optional = |step: Step| Step {
        command: format!("{{ {}; }} || echo \"not done: $?\"", step.command),
        ..step
    };
    match needed {
        true => steps,
        false => steps.into_iter().map(optional).collect(),
    }
}

fn inbound(forwarding: Option<&Forwarding>) -> &[IpNetwork] {
    forwarding.map_or(&[], |forwarding| &forwarding.inbound)
}

/// The rules as one nftables table.
fn nftables(name: &str, plan: &Plan, forwarding: Option<&Forwarding>) -> Step {
    let mut rules = String::new();
    if let Some(forwarding) = forwarding.filter(|forwarding| forwarding.nat) {
        rules.push_str("chain post { type nat hook postrouting priority 100; policy accept; ");
        for local in nat_sources(plan, forwarding) {
            let family = if local.is_ipv4() { "ip" } else { "ip6" };
            rules.push_str(&format!(
                "{family} saddr {local} oifname != \"{name}\" masquerade; "
            ));
        }
        rules.push_str("}; ");
    }
    rules.push_str("chain forward { type filter hook forward priority -150; policy accept; ");
    for side in ["iifname", "oifname"] {
        rules.push_str(&format!(
            "{side} \"{name}\" tcp flags syn tcp option maxseg size set rt mtu; "
        ));
    }
    for rule in firewall::closed(inbound(forwarding), false, "accept") {
        rules.push_str(&format!("oifname \"{name}\" {rule}; "));
    }
    rules.push_str("};");
    let table = format!("inet sshvpn_{name}");
    Step {
        what: "add the nftables rules".to_owned(),
        undo: vec![format!("nft delete table {table}")],
        command: format!("nft {}", quote(&format!("table {table} {{ {rules} }}"))),
    }
}

fn nat_sources(plan: &Plan, forwarding: &Forwarding) -> Vec<IpAddr> {
    plan.addresses
        .iter()
        .map(|pair| pair.local)
        .filter(|local| {
            if local.is_ipv4() {
                !forwarding.ways4.is_empty()
            } else {
                forwarding.ipv6
            }
        })
        .collect()
}

/// The same rules by iptables, for hosts without nft.
fn by_iptables(
    name: &str,
    plan: &Plan,
    forwarding: Option<&Forwarding>,
    facts: &RemoteFacts,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(forwarding) = forwarding.filter(|forwarding| forwarding.nat) {
        for local in nat_sources(plan, forwarding) {
            let rule = iptables::masquerade(name, local);
            steps.push(iptables_rule(local.is_ipv4(), &rule));
        }
    }
    for (ipv4, there) in [
        (true, facts.iptables),
        (false, facts.ip6tables && facts.ipv6),
    ] {
        if there {
            let inbound = of_family(inbound(forwarding), ipv4);
            steps.push(closed(name, ipv4, &inbound));
            let rules = iptables::clamp(name);
            steps.extend(rules.iter().map(|rule| iptables_rule(ipv4, rule)));
        }
    }
    steps
}

fn of_family(networks: &[IpNetwork], ipv4: bool) -> Vec<IpNetwork> {
    let networks = networks.iter().copied();
    networks.filter(|it| it.is_ipv4() == ipv4).collect()
}

/// A separate chain that blocks connections to the local host.
fn closed(name: &str, ipv4: bool, inbound: &[IpNetwork]) -> Step {
    let program = if ipv4 { "iptables" } else { "ip6tables" };
    let in_mangle = |what: String| format!("{program} -w -t mangle {what}");
    let chain = iptables::closed(name, inbound, false);
    let (own, entrance) = (&chain.name, chain.entrance.text(None));
    let rules = chain.rules.iter().map(|rule| format!("-A {own} {rule}"));
    let makes = [format!("-N {own}")].into_iter().chain(rules);
    let makes = makes.chain([format!("{} {entrance}", chain.entrance.command)]);
    let commands: Vec<String> = makes.map(in_mangle).collect();
    Step {
        what: format!("add {program} rules"),
        // The last of these runs first.
        undo: [
            format!("-X {own}"),
            format!("-F {own}"),
            format!("-D {entrance}"),
        ]
        .map(in_mangle)
        .into(),
        command: commands.join(" && "),
    }
}

/// Rules that accept the tunnel's packets where iptables' FORWARD chain drops by default (hosts
/// with Docker, for instance); no other table can do that.
fn accept(name: &str, forwarding: &Forwarding, facts: &RemoteFacts) -> Vec<Step> {
    let families = [
        (true, facts.forward_drop && !forwarding.ways4.is_empty()),
        (false, facts.forward_drop6 && forwarding.ipv6),
    ];
    let mut steps = Vec::new();
    for (ipv4, wanted) in families {
        if wanted {
            let rules = iptables::let_through(name, &of_family(&forwarding.inbound, ipv4));
            steps.extend(rules.iter().map(|rule| iptables_rule(ipv4, rule)));
        }
    }
    steps
}

fn iptables_rule(ipv4: bool, rule: &Rule) -> Step {
    let program = if ipv4 { "iptables" } else { "ip6tables" };
    let (table, command, text) = (rule.table, rule.command, rule.text(None));
    Step {
        what: format!("add an {program} rule"),
        undo: vec![format!("{program} -w -t {table} -D {text}")],
        command: format!("{program} -w -t {table} {command} {text}"),
    }
}

#[cfg(test)]
mod tests;
