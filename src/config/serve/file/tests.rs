use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::serve::settings::{LoginSettings, Overflow, Penalties};

const EXAMPLE: &str = include_str!("../../../../packaging/serve.toml");

fn read(text: &str) -> ServeSettings {
    parse(text.as_bytes()).unwrap().settings
}

/// The example with all that it shows switched on.
fn enabled() -> String {
    let shown = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| !rest.starts_with(' '))
    };
    let lines = EXAMPLE.lines().map(|line| match shown(line) {
        true => line.trim_start_matches('#'),
        false => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn no_file_and_the_example_as_it_is_are_the_defaults() {
    assert_eq!(read(""), ServeSettings::default());
    assert_eq!(read(EXAMPLE), ServeSettings::default());
}

#[test]
fn the_example_shows_every_key_and_mostly_its_default() {
    let all = enabled();
    let settings = read(&all);
    crate::config::serve::checks::check(&settings).unwrap();
    let usual = ServeSettings::default();
    assert_eq!(settings.listen, usual.listen);
    assert_eq!(settings.host_keys, usual.host_keys);
    assert_eq!(settings.authorized_keys, usual.authorized_keys);
    let login = LoginSettings {
        exempt: Vec::new(),
        ..settings.login
    };
    assert_eq!(login, usual.login);
    assert_eq!(settings.network.leases, usual.network.leases);
    assert_eq!(settings.network.mtu, usual.network.mtu);
    assert_eq!(settings.limits.clients, usual.limits.clients);
    // A key that is known and not shown would be told by the error of one that is unknown.
    for table in [
        "",
        "[login]\n",
        "[network]\n",
        "[limits]\n",
        "[audit]\n",
        "[metrics]\n",
        "[[client]]\n",
    ] {
        let error = parse(format!("{table}nonsense = 1").as_bytes()).unwrap_err();
        let (_, known) = error.split_once("expected ").unwrap();
        for key in known.split('`').skip(1).step_by(2) {
            let shown = all.contains(&format!("\n{key} =")) || all.contains(&format!("[{key}]"));
            assert!(shown, "{table}{key}");
        }
    }
    let penalties = "[login]\nper-source-penalties = { nonsense = 1 }";
    let error = parse(penalties.as_bytes()).unwrap_err();
    let (_, known) = error.split_once("expected ").unwrap();
    for key in known.split('`').skip(1).step_by(2) {
        assert!(all.contains(&format!(" {key} =")), "{key}");
    }
}

#[test]
fn every_key_reaches_its_setting() {
    let settings = read(
        "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\n\
         host-key = [\"h\"]\nauthorized-keys = [\"a\"]\ntrusted-user-ca-keys = [\"c\"]\n\
         revoked-keys = \"r\"\n\
         [login]\ngrace-time = 0\nmax-auth-tries = 3\nmax-startups = 20\n\
         per-source-max-startups = 5\ncrowded-grace-time = 7\n\
         per-network-max-startups = \"none\"\nper-network-block-size = \"16:40\"\nper-source-net-block-size = \"24:56\"\n\
         per-source-penalties = { authfail = \"1m\", max = 3600 }\n\
         per-source-penalty-exempt = [\"10.0.0.0/8\"]\ndisable-forwarding = true\n\
         [network]\npool = [\"10.9.0.0/24\"]\nassign = true\nleases = \"l\"\nmtu = 1400\n\
         route = [\"10.1.0.0/16\"]\nnat = false\ninbound = true\ndns-server = [\"10.1.0.53\"]\n\
         dns-search = [\"lab\"]\nbridge = \"br0\"\n\
         [limits]\nclients = 2\nper-key = 3\nchannels = 4\nupload = \"8mbit\"\ndownload = 7\n\
         [audit]\nfile = \"f\"\njournald = false\n[metrics]\nlisten = \"127.0.0.1:9\"\nnames = [\"vpn.example\"]\n\
         [[client]]\nkey = \"SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE\"\n\
         user = \"u\"\ncertificate = \"i\"\n\
         authority = \"SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE\"\ntunnel = [\"ethernet\"]\nunit = 5\n\
         address = [\"10.9.0.5\"]\nsource = [\"10.7.0.0/16\"]\nroute = []\ngroup = [\"g\"]\n\
         permit-open = [\"a:1\"]\npermit-listen = [\"2\"]\nupload = 1\ndownload = 2\n",
    );
    let usual = ServeSettings::default();
    assert_eq!(settings.listen.len(), 2);
    assert_eq!(settings.host_keys, [PathBuf::from("h")]);
    assert_eq!(settings.authorized_keys, [PathBuf::from("a")]);
    assert_eq!(settings.user_authorities, [PathBuf::from("c")]);
    assert_eq!(settings.revoked_keys, Some("r".into()));
    assert!(settings.disable_forwarding);
    let login = settings.login;
    assert_eq!(login.grace_time, None);
    assert_eq!(login.max_auth_tries, 3);
    assert_eq!(
        (login.max_startups.start, login.max_startups.full),
        (20, 20)
    );
    assert_eq!(login.per_source_max_startups, Some(5));
    assert_eq!(login.source_block, (24, 56));
    assert_eq!(login.crowded_grace_time, Some(Duration::from_secs(7)));
    assert_eq!(login.per_network_max_startups, None);
    assert_eq!(login.network_block, (16, 40));
    let penalties = Penalties {
        authfail: Duration::from_secs(60),
        max: Duration::from_secs(3600),
        ..Penalties::default()
    };
    assert_eq!(login.penalties, Some(penalties));
    assert_eq!(login.exempt.len(), 1);
    let network = settings.network;
    assert_eq!((network.pools.len(), network.routes.len()), (1, 1));
    assert_eq!(network.leases, PathBuf::from("l"));
    assert_eq!(network.mtu.get(), 1400);
    assert!(!network.nat && network.inbound && network.assign);
    assert_eq!(
        (network.dns_servers.len(), network.dns_search.len()),
        (1, 1)
    );
    assert_eq!(network.bridge, "br0".parse().ok());
    let limits = settings.limits;
    assert_eq!((limits.clients, limits.per_key, limits.channels), (2, 3, 4));
    assert_eq!((limits.upload, limits.download), (Some(1_000_000), Some(7)));
    assert_eq!(settings.audit.file, Some("f".into()));
    assert!(!settings.audit.journald);
    assert_eq!(settings.metrics, "127.0.0.1:9".parse().ok());
    assert_ne!(usual.metrics, settings.metrics);
    assert_eq!(settings.metrics_names, ["vpn.example".parse().unwrap()]);
    let rule = settings.clients.first().unwrap();
    assert_eq!(rule.who.user.as_deref(), Some("u"));
    assert_eq!(rule.who.certificate.as_deref(), Some("i"));
    assert!(rule.who.key.as_ref().unwrap().starts_with("SHA256:T7Sv"));
    assert_eq!(rule.who.authority, rule.who.key);
    assert_eq!(rule.tunnel, [Mode::Ethernet]);
    assert_eq!(rule.unit, Unit::new(5).ok());
    assert_eq!((rule.addresses.len(), rule.sources.len()), (1, 1));
    assert_eq!(rule.routes, Some(Vec::new()));
    assert_eq!(rule.groups, ["g"]);
    assert_eq!((rule.permit_open.len(), rule.permit_listen.len()), (1, 1));
    assert_eq!((rule.upload, rule.download), (Some(1), Some(2)));
}

#[test]
fn penalties_can_be_switched_off() {
    let penalties = |value: &str| {
        let text = format!("[login]\nper-source-penalties = {value}");
        read(&text).login.penalties
    };
    assert_eq!(penalties("false"), None);
    assert_eq!(penalties("true"), Some(Penalties::default()));
    assert_eq!(penalties("{}"), Some(Penalties::default()));
}

#[test]
fn both_families_overflow_alike_unless_it_is_said() {
    use Overflow::{DenyAll, Permissive};
    for (words, expected) in [
        ("", (Permissive, Permissive)),
        ("overflow = \"deny-all\"", (DenyAll, DenyAll)),
        ("overflow6 = \"deny-all\"", (Permissive, DenyAll)),
        (
            "overflow6 = \"permissive\", overflow = \"deny-all\"",
            (DenyAll, Permissive),
        ),
    ] {
        let text = format!("[login]\nper-source-penalties = {{ {words} }}");
        let penalties = read(&text).login.penalties.unwrap();
        assert_eq!(
            (penalties.overflow, penalties.overflow6),
            expected,
            "{words}"
        );
    }
    let text = "[login]\nper-source-penalties = { max-sources4 = 7, max-sources6 = 8 }";
    let penalties = read(text).login.penalties.unwrap();
    assert_eq!((penalties.max_sources4, penalties.max_sources6), (7, 8));
}

#[test]
fn what_is_not_understood_is_told_with_its_line_and_what_would_be() {
    for (text, line, said) in [
        ("\nlisten = \"[::]:22\"", 2, "expected a sequence"),
        ("listen = [\"2222\"]", 1, "invalid socket address"),
        (
            "no-such-key = 1",
            1,
            "unknown field `no-such-key`, expected one of",
        ),
        ("[login]\n\ngrace-time = \"soon\"", 3, "\"1h30m\""),
        ("[login]\nmax-startups = \"10:30\"", 2, "START:RATE:FULL"),
        ("[login]\nmax-auth-tries = 0", 2, "from 1 on"),
        ("[login]\nper-source-net-block-size = \"33\"", 2, "32:128"),
        ("[login]\nper-source-penalties = 5", 2, "false, or a table"),
        (
            "[login]\nper-source-penalties = { nonsense = 5 }",
            2,
            "expected one of `authfail`",
        ),
        (
            "[login]\nper-source-penalties = { min = 9, max = 8 }",
            2,
            "min is larger",
        ),
        (
            "[login]\nper-source-penalties = { overflow = \"no\" }",
            2,
            "\"permissive\" or \"deny-all\"",
        ),
        (
            "[login]\nper-source-penalties = { max-sources6 = 0 }",
            2,
            "from 1 on",
        ),
        (
            "[network]\npool = [\"10.9.0.1/24\"]",
            2,
            "did you mean 10.9.0.0/24?",
        ),
        ("[network]\nmtu = 20", 2, "68"),
        ("[network]\nbridge = \"a/b\"", 2, "interface name"),
        ("[limits]\nupload = \"fast\"", 2, "\"100mbit\""),
        ("[limits]\nupload = -1", 2, "more than nothing"),
        ("[[client]]\nkey = \"MD5:aa\"", 2, "ssh-keygen -l"),
        ("[[client]]\nauthority = \"CA\"", 2, "ssh-keygen -l"),
        ("[[client]]\nunit = -1", 2, "-1"),
        ("[[client]]\ntunnel = [\"yes\"]", 2, "point-to-point"),
        ("[[client]]\npermit-open = [\"80\"]", 2, "HOST:PORT"),
        (
            "[[client]]\naddress = [\"10.0.0.0/8\"]",
            2,
            "invalid IP address",
        ),
        ("a = b = c", 1, ""),
        ("# \u{e9}\n\n[", 3, ""),
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        let place = format!("line {line}: ");
        assert!(
            error.starts_with(&place) && error.contains(said),
            "{text}: {error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
    let error = parse(b"# fine\n\xff").unwrap_err();
    assert_eq!(error, "line 2: not UTF-8");
}

#[test]
fn rules_and_pools_know_their_lines() {
    let text = "\n[[client]]\nuser = \"a\"\n\n[network]\npool = []\n\n[[client]]\nuser = \"b\"\n";
    let lines = parse(text.as_bytes()).unwrap().lines;
    assert_eq!(lines.pool, Some(6));
    assert_eq!(lines.clients, [2, 8]);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,80}", content: Vec<u8>) {
        let _ = parse(text.as_bytes());
        let _ = parse(&content);
    }
}
