//! Which chains drop a tunnel's packets: listings as nft 1.0.6 and iptables 1.8.9 print them.

use super::*;
use proptest::prelude::*;

fn ways() -> BTreeSet<InterfaceName> {
    ["lan".parse().unwrap(), "lan2".parse().unwrap()].into()
}

/// The chains that drop, of a tunnel tun3 to 10.20.0.0/16 and fd20::/64.
fn dropping(rulesets: &Rulesets, family: Family) -> Vec<String> {
    let networks = ["10.20.0.0/16", "fd20::/64"].map(|network| network.parse().unwrap());
    let tunnel = Tunnel {
        device: Device::Named("tun3"),
        named: Named::Device("tun3"),
        networks: &networks,
        inbound: false,
        among_clients: &[],
    };
    let found = rulesets.dropping(&Forwarded {
        tunnel: &tunnel,
        family,
        ways: &ways(),
    });
    found.iter().map(|found| found.chain.clone()).collect()
}

fn iptables(listing: &str) -> bool {
    let mut rulesets = Rulesets::default();
    rulesets.add_iptables(Ruleset::Legacy(Family::V4), "filter", listing);
    assert!(dropping(&rulesets, Family::V6).is_empty());
    !dropping(&rulesets, Family::V4).is_empty()
}

/// The chains that drop in nft's listing of one chain of the table `inet t` with these rules.
fn nft(policy: &str, rules: &[&str]) -> [bool; 2] {
    let mut json = format!(
        r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {{"table": {{"family": "inet", "name": "t", "handle": 2}}}}, {{"chain": {{"family": "inet", "table": "t", "name": "f", "handle": 2, "type": "filter", "hook": "forward", "prio": 10, "policy": "{policy}"}}}}, {{"chain": {{"family": "inet", "table": "t", "name": "g", "handle": 3}}}}"#
    );
    for rule in rules {
        let chain = if rule.starts_with('>') { "g" } else { "f" };
        let rule = rule.trim_start_matches('>');
        json.push_str(&format!(
            r#", {{"rule": {{"family": "inet", "table": "t", "chain": "{chain}", "handle": 5, "expr": [{rule}]}}}}"#
        ));
    }
    json.push_str("]}\n");
    let mut rulesets = Rulesets::default();
    assert!(rulesets.add_nft(&json), "{json}");
    [Family::V4, Family::V6].map(|family| !dropping(&rulesets, family).is_empty())
}

#[test]
fn a_listing_of_iptables_is_followed() {
    assert!(iptables(
        "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n"
    ));
    assert!(!iptables(
        "-P INPUT DROP\n-P FORWARD ACCEPT\n-P OUTPUT DROP\n"
    ));
    // Oracle's images.
    assert!(iptables(
        "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n"
    ));
    // Docker's chains.
    let docker = "-P FORWARD DROP\n-N DOCKER\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n\
        -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n\
        -A DOCKER-USER -j RETURN\n";
    assert!(iptables(docker));
    for (rules, drops) in [
        ("-A FORWARD -i tun3 -j ACCEPT\n", true),
        (
            "-A FORWARD -i tun+ -j ACCEPT\n-A FORWARD -o tun+ -j ACCEPT\n",
            false,
        ),
        (
            "-A FORWARD ! -i docker0 -m conntrack --ctstate NEW -j ACCEPT\n\
             -A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT\n",
            false,
        ),
        // What accepts some packets alone is not relied on.
        ("-A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT\n", true),
        ("-A FORWARD -d 10.20.7.0/24 -j ACCEPT\n", true),
        (
            "-A FORWARD -d 10.0.0.0/8 -j ACCEPT\n-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n",
            false,
        ),
        (
            "-A FORWARD -g sub\n-A sub -m comment --comment \"all \\\" -j DROP\" -j ACCEPT\n",
            false,
        ),
        (
            "-A FORWARD -j sub\n-A sub -i lan -j RETURN\n-A sub -j ACCEPT\n",
            true,
        ),
        // Our own rules do not count: they are made anew.
        (
            "-A FORWARD -m comment --comment \"sshvpn serve\" -j ACCEPT\n",
            true,
        ),
    ] {
        assert_eq!(
            iptables(&format!("-P FORWARD DROP\n{rules}")),
            drops,
            "{rules}"
        );
    }
    for (rules, drops) in [
        ("-A FORWARD -p tcp -m tcp --dport 25 -j DROP\n", false),
        ("-A FORWARD -m conntrack --ctstate INVALID -j DROP\n", false),
        ("-A FORWARD -i eth0 -j DROP\n-A FORWARD -j LOG\n", false),
        ("-A FORWARD -i lan -o tun+ -j DROP\n", true),
        (
            "-A FORWARD -o lan2 -j REJECT --reject-with icmp-port-unreachable\n",
            true,
        ),
        (
            "-A FORWARD -m comment --comment \"no way\" -j REJECT\n",
            true,
        ),
    ] {
        assert_eq!(
            iptables(&format!("-P FORWARD ACCEPT\n{rules}")),
            drops,
            "{rules}"
        );
    }
}

#[test]
fn a_ruleset_of_nft_is_followed() {
    const STATE: &str = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}"#;
    const STATES: &str = r#"{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}], ["established", {"accept": null}], ["related", {"accept": null}]]}}}"#;
    const IIF: &str = r#"{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["lo", {"accept": null}], ["tun3", {"jump": {"target": "g"}}]]}}}"#;
    const OWN: &str = r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": {"set": ["eth0", "tun*"]}}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}"#;
    const REJECT: &str = r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#;
    const SIX: &str = r#"{"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv6"}}, {"drop": null}"#;
    const NOT_MINE: &str = r#"{"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": {"prefix": {"addr": "10.30.0.0", "len": 16}}}}, {"drop": null}"#;
    const SSH: &str = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}, {"accept": null}"#;
    const LISTED: &str = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "@listed"}}, {"drop": null}"#;
    const FAST: &str = r#"{"limit": {"rate": 3, "burst": 5, "per": "second"}}, {"accept": null}"#;
    const DNAT: &str = r#"{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"accept": null}"#;
    for (policy, rules, drops) in [
        ("accept", &[][..], [false, false]),
        ("drop", &[], [true, true]),
        ("drop", &[STATE], [true, true]),
        ("drop", &[STATE, OWN], [false, false]),
        ("drop", &[STATES, OWN], [false, false]),
        ("drop", &[STATES, IIF], [true, true]),
        (
            "drop",
            &[STATES, IIF, r#">{"accept": null}"#],
            [false, false],
        ),
        ("accept", &[STATES, DNAT, REJECT], [true, true]),
        ("accept", &[SSH, FAST, SIX], [false, true]),
        ("accept", &[NOT_MINE], [true, false]),
        ("accept", &[LISTED], [false, false]),
        (
            "accept",
            &[
                r#"{"jump": {"target": "g"}}"#,
                REJECT,
                ">{\"return\": null}",
            ],
            [true, true],
        ),
        (
            "accept",
            &[
                r#"{"goto": {"target": "g"}}"#,
                REJECT,
                ">{\"return\": null}",
            ],
            [false, false],
        ),
        (
            "accept",
            &[
                r#"{"jump": {"target": "g"}}"#,
                ">{\"jump\": {\"target\": \"f\"}}",
            ],
            [false, false],
        ),
    ] {
        assert_eq!(nft(policy, rules), drops, "{policy} {rules:?}");
    }
}

#[test]
fn rules_of_iptables_nft_are_followed_as_far_as_nft_names_them() {
    const REJECT: &str = r#"{"xt": {"type": "match", "name": "comment"}}, {"counter": {"packets": 0, "bytes": 0}}, {"xt": {"type": "target", "name": "REJECT"}}"#;
    const PORT: &str = r#"{"xt": {"type": "match", "name": "tcp"}}, {"counter": {"packets": 0, "bytes": 0}}, {"drop": null}"#;
    assert_eq!(nft("accept", &[REJECT]), [true, true]);
    assert_eq!(nft("accept", &[PORT]), [false, false]);
    assert_eq!(
        nft("accept", &[r#"{"xt": null}, {"drop": null}"#]),
        [false, false]
    );
}

#[test]
fn a_listing_that_was_cut_off_is_read_as_far_as_it_is_whole() {
    let whole = r#"{"nftables": [{"chain": {"family": "ip", "table": "a", "name": "f", "hook": "forward", "policy": "drop"}}, {"chain": {"family": "ip", "table": "b", "name": "f", "hook": "forward", "policy": "drop"}}, {"rule": {"family": "ip", "table": "b", "chain": "f", "expr": [{"accept": null}]}}]}"#;
    let mut read = Rulesets::default();
    assert!(read.add_nft(whole));
    assert_eq!(dropping(&read, Family::V4), ["f"]);
    // The second table's rule is missing.
    let mut read = Rulesets::default();
    assert!(read.add_nft(&whole[..whole.len() - 20]));
    assert_eq!(dropping(&read, Family::V4).len(), 1);
    for no in ["", "{}", "nft: no"] {
        assert!(!Rulesets::default().add_nft(no), "{no}");
    }
}

fn found(ruleset: Ruleset, table: &str, chain: &str) -> Dropping {
    Dropping {
        ruleset,
        family: Family::V4,
        table: table.to_owned(),
        chain: chain.to_owned(),
    }
}

#[test]
fn a_chain_of_iptables_is_mended_and_others_are_named() {
    let nft = |family| Ruleset::Nft(family);
    let mend = |ruleset, table| found(ruleset, table, "FORWARD").mend();
    assert_eq!(mend(nft(NftFamily::Ip), "filter"), Some(Mend::Iptables));
    assert_eq!(
        mend(Ruleset::Legacy(Family::V6), "filter"),
        Some(Mend::Legacy)
    );
    assert_eq!(mend(Ruleset::Legacy(Family::V6), "mangle"), None);
    assert_eq!(mend(nft(NftFamily::Inet), "filter"), None);
    let said = found(nft(NftFamily::Inet), "filter", "forward").advice(Named::Device("tun3"));
    assert!(
        said.starts_with("chain 'forward' of nftables' table 'inet filter' drops the tunnel's IPv4 packets; to let them pass: nft insert rule inet filter forward iifname tun3 accept; "),
        "{said}"
    );
    let said =
        found(nft(NftFamily::Inet), "firewalld", "filter_FORWARD").advice(Named::Device("tun3"));
    assert!(
        said.ends_with(": firewall-cmd --zone=trusted --add-interface=tun3"),
        "{said}"
    );
    let said = found(nft(NftFamily::Inet), "filter", "forward").advice(Named::Group(7));
    assert!(
        said.contains(
            "forward iifgroup 7 accept; nft insert rule inet filter forward oifgroup 7 ct "
        ),
        "{said}"
    );
    // A name from a remote host becomes no command.
    let said = found(nft(NftFamily::Inet), "a;id", "\u{1b}[2J").advice(Named::Device("tun3"));
    assert_eq!(
        said,
        "chain '?[2J' of nftables' table 'inet a;id' drops the tunnel's IPv4 packets"
    );
}

#[test]
fn a_new_device_is_known_by_the_beginning_of_its_name() {
    let ways = ways();
    let drops = |listing: &str| {
        let mut rulesets = Rulesets::default();
        rulesets.add_iptables(Ruleset::Legacy(Family::V4), "filter", listing);
        let tunnel = Tunnel {
            device: Device::Beginning(&["tun", "tap"]),
            named: Named::Group(7),
            networks: &[],
            inbound: true,
            among_clients: &[Family::V4],
        };
        let none = BTreeSet::new();
        let obstacles = rulesets.obstacles(&tunnel, |_| &none);
        assert_eq!(obstacles, rulesets.obstacles(&tunnel, |_| &ways));
        !obstacles.legacy.is_empty()
    };
    let accept = |name: &str| {
        format!("-P FORWARD DROP\n-A FORWARD -i {name} -j ACCEPT\n-A FORWARD -o {name} -j ACCEPT\n")
    };
    assert!(!drops(&accept("t+")));
    for narrower in ["tun+", "tun7", "eth0"] {
        assert!(drops(&accept(narrower)), "{narrower}");
    }
}

proptest! {
    #[test]
    fn no_listing_panics(text in "(?s).{0,400}", words in proptest::collection::vec("(-A|-P|-N|-j|-g|FORWARD|x|!|-i|-s|--ctstate|\"|\n| ){1,3}", 0..40)) {
        let mut rulesets = Rulesets::default();
        for listing in [&text, &words.join(" ")] {
            rulesets.add_iptables(Ruleset::Legacy(Family::V4), "filter", listing);
            rulesets.add_nft(listing);
            rulesets.add_nft(&format!("{{\"nftables\": [{listing}"));
        }
        dropping(&rulesets, Family::V4);
    }

    #[test]
    fn no_ruleset_panics(parts in proptest::collection::vec(prop_oneof![
        Just(r#"{"chain": {"family": "ip", "table": "t", "name": "f", "hook": "forward"}},"#),
        Just(r#"{"rule": {"family": "ip", "table": "t", "chain": "f", "expr": [{"jump": {"target": "f"}}]}},"#),
        Just(r#"{"rule": {"family": "ip", "table": "t", "chain": "f", "expr": [{"vmap": {"key": 1, "data": {"set": [[1], 2, [{"x": 3}, {"accept": 4}]]}}}]}},"#),
        Just(r#"{"rule": {"family": "ip", "table": "t", "chain": "f", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"set": [{"prefix": {"addr": "x", "len": 300}}, 7]}}}, []]}},"#),
        Just("[[[[["), Just("]"), Just("null,"),
    ], 0..12)) {
        let mut rulesets = Rulesets::default();
        rulesets.add_nft(&format!("{{\"nftables\": [{}", parts.concat()));
        dropping(&rulesets, Family::V4);
    }
}
