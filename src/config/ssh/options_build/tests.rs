//! Tests the conversion of values to settings: expansion, the meaning of `none`, and the refused
//! values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::ssh::defaults;
use crate::config::ssh::options::{LogLevel, Proxy, RekeyLimit, StrictHostKeyChecking};
use crate::config::ssh::tokens::tests::alice;

fn options(pairs: &[(&str, &str)]) -> Result<SshOptions, ConfigError> {
    let args = SshArgs {
        destination: "me@Box".into(),
        ..SshArgs::default()
    };
    options_for(pairs, &args)
}

fn options_for(pairs: &[(&str, &str)], args: &SshArgs) -> Result<SshOptions, ConfigError> {
    let mut values = SshValues::from([
        ("user", vec!["me".into()]),
        ("hostname", vec!["box".into()]),
    ]);
    for (key, value) in pairs {
        values.push(key, (*value).to_owned());
    }
    build(values, &defaults::values(), args, &alice())
}

#[test]
fn defaults_are_those_of_ssh_config() {
    let options = options(&[]).unwrap();
    assert_eq!(
        (options.destination.as_str(), options.host.as_str()),
        ("Box", "box")
    );
    assert_eq!((options.port, options.user.as_str()), (22, "me"));
    assert_eq!(options.strict_host_key_checking, StrictHostKeyChecking::Ask);
    assert_eq!(options.connect_timeout, None);
    assert_eq!(options.server_alive_interval, None);
    assert_eq!(options.server_alive_count_max, 3);
    assert_eq!(options.rekey_limit, RekeyLimit::default());
    assert_eq!(options.tunnel, None);
    assert_eq!(options.tunnel_device, Default::default());
    assert_eq!(options.escape_char, Some(b'~'));
    assert_eq!(options.proxy, None);
    assert_eq!(
        options.identity_agent.as_deref(),
        Some(Path::new("/run/agent"))
    );
    assert!(!options.identity_files_explicit && !options.host_key_algorithms_explicit);
    assert_eq!(
        options.identity_files[0],
        Path::new("/home/alice/.ssh/id_rsa")
    );
    assert_eq!(
        options.user_known_hosts[0],
        Path::new("/home/alice/.ssh/known_hosts")
    );
    assert_eq!(options.preferred_authentications[2], "publickey");
    assert_eq!(options.log_level, LogLevel::Info);
}

#[test]
fn paths_and_commands_are_expanded() {
    let options = options(&[
        ("identityfile", "~/k-%r@%h"),
        ("identityfile", "none"),
        ("identityfile", "${HOME}/%n.%u"),
        ("certificatefile", "~/%i%%"),
        ("proxycommand", "nc -X 5 %h %p # %n %r"),
        ("userknownhostsfile", "/as/it/is%h"),
        ("globalknownhostsfile", "none"),
        ("hostkeyalias", "alias"),
    ])
    .unwrap();
    let files = ["/home/alice/k-me@box", "/home/alice/Box.alice"].map(PathBuf::from);
    assert_eq!(options.identity_files, files);
    assert!(options.identity_files_explicit);
    assert_eq!(
        options.certificate_files,
        [PathBuf::from("/home/alice/1000%")]
    );
    let command = Proxy::Command("nc -X 5 box 22 # Box me".into());
    assert_eq!(options.proxy, Some(command));
    assert_eq!(options.user_known_hosts, [PathBuf::from("/as/it/is%h")]);
    assert!(options.global_known_hosts.is_empty());
    assert_eq!(options.host_key_alias.as_deref(), Some("alias"));
}

#[test]
fn agents() {
    let agent = |value| options(&[("identityagent", value)]).unwrap().identity_agent;
    assert_eq!(agent("none"), None);
    assert_eq!(agent("SSH_AUTH_SOCK"), Some("/run/agent".into()));
    assert_eq!(agent("$SSH_AUTH_SOCK"), Some("/run/agent".into()));
    assert_eq!(agent("$HOME"), Some("/home/alice".into()));
    assert_eq!(agent("$NO_SUCH_VARIABLE"), None);
    assert_eq!(agent("~/agent"), Some("/home/alice/agent".into()));
    assert!(options(&[("identityagent", "$")]).is_err());
}

#[test]
fn jumps_take_tokens_of_the_destination() {
    let options = options(&[("proxyjump", "%r@gw-%n:2222,[::1]")]).unwrap();
    let hops = parse_jump_list("me@gw-Box:2222,[::1]").unwrap();
    assert_eq!(options.proxy, Some(Proxy::Jump(hops)));
}

#[test]
fn typed_values() {
    let mut pairs = vec![
        ("connecttimeout", "1h30m"),
        ("serveraliveinterval", "15"),
        ("rekeylimit", "1G"),
        ("rekeylimit", "1h"),
        ("tunnel", "Ethernet"),
        ("tunneldevice", "3:any"),
        ("stricthostkeychecking", "accept-new"),
        ("setenv", "A=b c=d"),
        ("escapechar", "none"),
        ("pubkeyauthentication", "unbound"),
        ("ciphers", "a,b"),
    ];
    let typed = options(&pairs).unwrap();
    assert_eq!(typed.connect_timeout, Some(Duration::from_secs(5400)));
    assert_eq!(typed.server_alive_interval, Some(Duration::from_secs(15)));
    assert_eq!(typed.rekey_limit.bytes, Some(1 << 30));
    assert_eq!(typed.rekey_limit.time, Some(Duration::from_secs(3600)));
    assert_eq!(typed.tunnel, Some(crate::types::Mode::Ethernet));
    assert_eq!(typed.tunnel_device, "3:any".parse().unwrap());
    assert_eq!(
        typed.strict_host_key_checking,
        StrictHostKeyChecking::AcceptNew
    );
    assert_eq!(typed.set_env, [("A".into(), "b c=d".into())]);
    assert_eq!(typed.escape_char, None);
    assert!(typed.pubkey_authentication);
    assert_eq!(typed.ciphers, ["a", "b"]);
    pairs.push(("sendenv", "L*"));
    pairs.push(("sendenv", "A"));
    let environment = ["LANG", "A", "B"].map(|name| (name.to_owned(), "x".to_owned()));
    let sent = options(&pairs).unwrap().environment(environment);
    let expected = [("LANG", "x"), ("A", "b c=d")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(sent, expected);
}

#[test]
fn verbosity_wins_over_the_configuration() {
    let level = |verbosity, quiet| {
        let args = SshArgs {
            destination: "h".into(),
            verbosity,
            quiet,
            ..SshArgs::default()
        };
        options_for(&[("loglevel", "VERBOSE")], &args)
            .unwrap()
            .log_level
    };
    assert_eq!(level(0, false), LogLevel::Verbose);
    assert_eq!(level(1, false), LogLevel::Debug1);
    assert_eq!(level(9, false), LogLevel::Debug3);
    assert_eq!(level(0, true), LogLevel::Quiet);
}

#[test]
fn errors_name_the_keyword_and_the_value() {
    for (key, value) in [
        ("port", "0"),
        ("port", "65536"),
        ("connectionattempts", "0"),
        ("addressfamily", "inet7"),
        ("batchmode", "perhaps"),
        ("connecttimeout", "5 minutes"),
        ("rekeylimit", "15"),
        ("rekeylimit", "1Q"),
        ("tunnel", "l2"),
        ("tunneldevice", "1:2:3"),
        ("setenv", "A"),
        ("fingerprinthash", "crc32"),
        ("identityfile", "%"),
        ("identityfile", "${NO_SUCH_VARIABLE}"),
        ("proxycommand", "-"),
        ("proxycommand", "nc %d"),
        ("loglevel", "LOUD"),
        ("escapechar", "ab"),
        ("macs", ","),
    ] {
        let error = options(&[(key, value)]).unwrap_err().to_string();
        assert!(
            error.contains(key) && error.contains(value),
            "{key} {value}: {error}"
        );
    }
    assert!(options(&[("proxyjump", "a:x")]).is_err());
    let descriptor = options(&[("proxycommand", "nc"), ("proxyusefdpass", "yes")]);
    assert!(descriptor.is_err());
}

proptest! {
    #[test]
    fn no_values_panic(
        key in prop::sample::select(vec![
            "port", "hostname", "user", "identityfile", "certificatefile", "identityagent",
            "userknownhostsfile", "globalknownhostsfile", "proxyjump", "proxycommand",
            "rekeylimit", "connecttimeout", "escapechar", "setenv", "sendenv", "tunneldevice",
            "ciphers", "remotecommand", "loglevel", "hostkeyalias",
        ]),
        value in "[~%$a-z0-9=:,@\\[\\]^\\\\{}/é]{0,12}|\\PC{0,12}",
    ) {
        let mut values = SshValues::default();
        values.push(key, value);
        let args = SshArgs { destination: "h".into(), ..SshArgs::default() };
        let _ = build(values, &defaults::values(), &args, &alice());
    }
}

#[test]
fn the_command_is_the_one_given_or_the_one_configured() {
    assert_eq!(options(&[]).unwrap().remote_command, None);
    let configured = options(&[("remotecommand", "tmux attach")]).unwrap();
    assert_eq!(configured.remote_command.as_deref(), Some("tmux attach"));
    let args = SshArgs {
        destination: "box".into(),
        command: vec!["id".into(), "-u  root".into()],
        ..SshArgs::default()
    };
    let given = options_for(&[], &args).unwrap();
    assert_eq!(given.remote_command.as_deref(), Some("id -u  root"));
}
