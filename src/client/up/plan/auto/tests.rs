//! Tests of what `--route auto` takes and leaves out.

use super::*;
use crate::client::up::test_request::request;
use crate::host::plan::facts::{AddressFacts, InterfaceIndex, LinkFacts};

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// A laptop with eth0 in 192.168.1.0/24.
fn laptop() -> HostFacts {
    HostFacts {
        links: vec![LinkFacts {
            index: InterfaceIndex(2),
            name: "eth0".to_owned(),
            kind: None,
            mtu: 1500,
            up: true,
            loopback: false,
            tx_queue_length: 1000,
            gso_max_size: None,
            address_generation: None,
            master: None,
            group: 0,
        }],
        addresses: vec![AddressFacts {
            index: InterfaceIndex(2),
            address: "192.168.1.7".parse().unwrap(),
            prefix: 24,
            peer: None,
            no_dad: false,
        }],
        ..HostFacts::default()
    }
}

fn chosen(
    request: &UpRequest,
    remote: &[&str],
    permitted: Option<&[&str]>,
    ipv6: bool,
) -> Result<Auto, AutoError> {
    let permitted = permitted.map(networks);
    choose(&AutoInput {
        host: "bastion",
        request,
        local: &laptop(),
        first_hop: &["203.0.113.5".parse().unwrap()],
        networks: &networks(remote),
        permitted: permitted.as_deref(),
        ipv6,
    })
}

#[test]
fn what_conflicts_is_left_out_with_its_reason() {
    let remote = [
        "0.0.0.0/0",
        "10.1.0.0/16",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "192.168.0.0/16",
        "192.168.1.0/25",
        "203.0.113.0/24",
        "fd12::/48",
        "fe80::/64",
    ];
    let auto = chosen(&request(&[]), &remote, None, false).unwrap();
    assert_eq!(
        auto.lines(),
        [
            "--route auto takes 10.1.0.0/16, 192.168.0.0/16",
            "--route auto leaves out 192.168.1.0/25: this host has 192.168.1.0/24 itself, on eth0",
            "--route auto leaves out 203.0.113.0/24: the SSH connection runs to 203.0.113.5 in it",
            "--route auto leaves out fd12::/48: the tunnel has no IPv6",
        ]
    );
    let auto = chosen(&request(&[]), &["fd12::/48"], None, true).unwrap();
    assert_eq!(auto.taken, networks(&["fd12::/48"]));
}

#[test]
fn what_the_user_named_or_excluded_is_not_taken_again() {
    let mut wanted = request(&["10.0.0.0/8"]);
    wanted.excludes = networks(&["172.16.0.0/12"]);
    let remote = ["10.1.0.0/16", "172.16.5.0/24", "198.51.100.0/24"];
    let auto = chosen(&wanted, &remote, None, true).unwrap();
    assert_eq!(auto.taken, networks(&["198.51.100.0/24"]));
    assert!(auto.left.is_empty());
    // The user's own route is enough.
    assert!(chosen(&wanted, &["10.1.0.0/16"], None, true).is_ok());
    wanted.excludes = networks(&["203.0.113.5/32"]);
    let around = chosen(&wanted, &["203.0.113.0/24"], None, true).unwrap();
    assert_eq!(around.taken, networks(&["203.0.113.0/24"]));
}

#[test]
fn nothing_and_too_much_are_errors() {
    let nothing = chosen(&request(&[]), &["0.0.0.0/0"], None, true);
    assert_eq!(nothing, Err(AutoError::Nothing("bastion".to_owned())));
    let forbidden = chosen(
        &request(&[]),
        &["10.1.0.0/16"],
        Some(&["10.2.0.0/16"]),
        true,
    );
    assert!(forbidden.is_err());
    let many: Vec<String> = (0..1025u32)
        .map(|n| format!("10.{}.{}.0/24", n >> 8, n & 255))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let many = chosen(&request(&[]), &many, None, true).unwrap_err();
    assert!(many.to_string().contains("has 1025 networks"), "{many}");
}
