//! Checks of `up`'s values that need no host: what can never work is refused before a login.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::UpArgs;
use crate::client::up::Carrier;
use crate::config::ssh::destination::Destination;
use crate::host::plan::addressing;
use crate::types::Mode;
use crate::types::family::is_within;

/// Networks whose packets no router forwards.
const NOT_ROUTED: [(&str, &str); 9] = [
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("0.0.0.0/8", "unspecified"),
    ("::/128", "unspecified"),
    ("255.255.255.255/32", "broadcast"),
];

/// An error names the first value that can never work.
pub(super) fn check(args: &UpArgs, mode: Mode) -> Result<(), String> {
    args.destination
        .parse::<Destination>()
        .map_err(|error| error.to_string())?;
    for route in &args.routes {
        check_route(route)?;
    }
    check_addresses(args, mode)
}

fn check_route(route: &IpNetwork) -> Result<(), String> {
    // 0.0.0.0/1 and its like contain such networks, and are routed.
    let kind = NOT_ROUTED.iter().find(|(network, _)| {
        let network = network.parse();
        network.is_ok_and(|network: IpNetwork| is_within(route, &network))
    });
    match kind {
        None => Ok(()),
        Some((_, kind)) => Err(format!(
            "--route {route}: packets to {kind} addresses are not forwarded; name a network \
             behind HOST"
        )),
    }
}

fn check_addresses(args: &UpArgs, mode: Mode) -> Result<(), String> {
    let given: [(&str, Option<IpAddr>); 2] = [
        ("--address", args.address),
        ("--peer-address", args.peer_address),
    ];
    for (option, address) in given {
        if let Some(address) = address.filter(|address| !addressing::is_unicast(*address)) {
            return Err(format!(
                "{option} {address}: not the address of a host; give a unicast address"
            ));
        }
    }
    // A server chooses its own address.
    if args.via.map(Carrier::from) != Some(Carrier::Serve)
        && let (Some(local), Some(remote)) = (args.address, args.peer_address)
    {
        addressing::pair_of(local, remote, mode).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;

    fn refused(options: &str, part: &str) {
        let error = request(&format!("up {options} host")).unwrap_err();
        assert!(error.contains(part), "{options}: {error}");
    }

    #[test]
    fn routes_that_no_router_takes_are_refused() {
        for (route, kind) in [
            ("224.0.0.0/4", "multicast"),
            ("239.1.2.3", "multicast"),
            ("ff02::/16", "multicast"),
            ("127.0.0.0/8", "loopback"),
            ("::1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("fe80::/64", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("255.255.255.255", "broadcast"),
        ] {
            refused(&format!("--route {route}"), kind);
        }
        for route in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "::/0",
            "::/1",
            "fd00::/8",
            "10.0.0.0/8",
        ] {
            request(&format!("up --route {route} host")).expect(route);
        }
    }

    #[test]
    fn addresses_that_cannot_be_a_pair_are_refused() {
        for (addresses, part) in [
            ("--address 10.0.0.1 --peer-address fd00::1", "same family"),
            (
                "--address 10.0.0.1 --peer-address 10.0.0.1",
                "both 10.0.0.1",
            ),
            ("--address 224.0.0.1", "--address 224.0.0.1"),
            ("--address 0.0.0.0", "unicast"),
            ("--peer-address ::1", "--peer-address ::1"),
            (
                "--tap --address 10.0.0.1 --peer-address 192.168.0.1",
                "closer together",
            ),
        ] {
            refused(addresses, part);
        }
        for good in [
            "--address 10.0.0.1 --peer-address 192.168.0.1",
            "--address fd00::1 --peer-address fd00::2",
            "--tap --address 10.0.0.1 --peer-address 10.0.0.2",
            "--peer-address 10.0.0.1",
        ] {
            request(&format!("up {good} host")).expect(good);
        }
    }

    #[test]
    fn a_destination_that_is_none_is_a_wrong_command_line() {
        use super::super::tests::Line;
        use clap::Parser;
        let mut line = Line::try_parse_from(["up", "host"]).unwrap();
        for wrong in ["", "@host", "ssh://", "-x"] {
            line.up.destination = wrong.to_owned();
            assert!(line.up.to_request().is_err(), "'{wrong}'");
        }
    }
}
