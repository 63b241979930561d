//! Tests of parsing the remote host's facts.

use super::*;
use proptest::prelude::*;

const BASTION: &str = "system Linux\nuid 1000\nlogin alice\nsudo yes\nip yes\ntun yes\nipv6 yes\n\
    nft yes\ndevice tun5 0x1801 1000 1500 0x1003\ndevice tun0 0x1001 -1 1400\ndevice tap1 0x1002 1000 1500\n\
    device docker0 zz\naddress eth0 192.0.2.7/24\naddress tun5 10.9.0.1/32 10.9.0.2/32\n\
    address bad/name 10.0.0.1/8\nroute 10.1.0.0/16\nroute 10.2.3.4\nroute nonsense\nadvertised eth0\n\
    way 10.1.0.0 eth1\nthrough eth1 10.1.0.0/16\nthrough eth0 ::/0\nthrough bad/name 10.3.0.0/16\nend\n";

#[test]
fn a_bastion_is_read() {
    let facts = parse("bastion", BASTION, "").unwrap();
    assert_eq!(facts.privilege, Privilege::Sudo);
    assert_eq!(facts.devices.len(), 3);
    assert!(facts.devices.iter().any(|d| d.unit.get() == 5 && d.ours));
    assert!(facts.devices.iter().any(|d| d.unit.get() == 0 && !d.ours));
    assert_eq!(facts.free_unit(Mode::PointToPoint).get(), 1);
    assert_eq!(facts.free_unit(Mode::Ethernet).get(), 0);
    assert_eq!(facts.addresses.len(), 2);
    let networks = facts.networks();
    for expected in [
        "192.0.2.0/24",
        "192.0.2.7/32",
        "10.9.0.2/32",
        "10.9.0.1/32",
        "10.1.0.0/16",
        "10.2.3.4/32",
    ] {
        assert!(networks.contains(&expected.parse().unwrap()), "{expected}");
    }
    assert_eq!(facts.ways.len(), 1);
    assert_eq!(facts.through.len(), 2);
}

#[test]
fn the_only_device_that_is_new_is_the_tunnels() {
    let text = "system Linux\nuid 0\nip yes\ntun yes\ndevice tun0 0x1001 0 1500 0x1 0\nend\n";
    let facts = parse("b", text, "").unwrap();
    let new = |names, mode| facts.new_unit(names, mode).map(Unit::get);
    assert_eq!(new("tun0 tun7 tap7 vpn3 ", Mode::PointToPoint), Some(7));
    assert_eq!(new("tun0 tun7 tap4", Mode::Ethernet), Some(4));
    // Another tunnel came up meanwhile.
    assert_eq!(new("tun0 tun1 tun2", Mode::PointToPoint), None);
    assert_eq!(new("tun0", Mode::PointToPoint), None);
    assert_eq!(new("tun+5 tun-1 tun99999999999", Mode::PointToPoint), None);
}

#[test]
fn what_is_missing_is_named() {
    let without = |line: &str| {
        parse("b", &BASTION.replace(line, ""), "")
            .unwrap_err()
            .to_string()
    };
    assert!(without("ip yes\n").contains("install iproute2"));
    assert!(without("\ntun yes").contains("/dev/net/tun"));
    assert!(without("end\n").contains("runs no commands"));
    assert!(without("system Linux\n").contains("Linux"));
    let refused = BASTION.replace("sudo yes", "sudo no sudo: a password is required");
    let facts = parse("b", &refused, "").unwrap();
    assert_eq!(facts.privilege, Privilege::None);
    assert!(
        facts
            .no_privilege("b")
            .to_string()
            .contains("asks for a password")
    );
}

proptest! {
    #[test]
    fn nothing_that_it_says_panics(text in "(?s).{0,400}") {
        let _ = parse("b", &text, &text);
    }

    #[test]
    fn no_list_of_words_panics(lines in proptest::collection::vec("(system|uid|device|address|route|way|sudo|end|iptables|through)( [ -~]{0,20}){0,4}", 0..20)) {
        let text = format!("{}\nsystem Linux\nip yes\ntun yes\nend\n", lines.join("\n"));
        if let Ok(facts) = parse("b", &text, "") {
            let _ = facts.networks();
        }
    }
}
