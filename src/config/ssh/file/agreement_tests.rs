//! Compares our parser of configuration files with ssh's.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::config::ssh::options::SshOptions;
use crate::config::ssh::options_build::build;
use crate::config::ssh::{ask_ssh, defaults};

/// A configuration file, and the arguments of ssh.
struct Case {
    config: &'static str,
    destination: &'static str,
    adjust: fn(&mut SshArgs),
}

const fn case(config: &'static str, destination: &'static str) -> Case {
    Case {
        config,
        destination,
        adjust: |_| {},
    }
}

fn arguments(directory: &TempDir, case: &Case) -> SshArgs {
    let file = directory.path().join("config");
    let config = case
        .config
        .replace("@DIR@", directory.path().to_str().unwrap());
    fs::write(&file, config).unwrap();
    let mut args = SshArgs {
        destination: case.destination.into(),
        config_file: Some(file),
        ..SshArgs::default()
    };
    (case.adjust)(&mut args);
    args
}

/// The settings from ssh, and those from our parser. `None` if there is no ssh here.
fn both(case: &Case, directory: &TempDir) -> Option<[Result<SshOptions, ConfigError>; 2]> {
    let invoker = Invoker::detect().unwrap();
    let args = arguments(directory, case);
    let builtin = defaults::values();
    let asked = ask_ssh::ask("ssh", &args, &invoker).transpose()?;
    let mut nothing = SshArgs {
        destination: "localhost".into(),
        ..SshArgs::default()
    };
    nothing.config_file = Some("none".into());
    // Use this ssh's defaults for both, so that the version of ssh does not matter.
    let mut defaults = ask_ssh::ask("ssh", &nothing, &invoker).unwrap()?.defaults;
    defaults.fill_from(&builtin);
    let theirs = asked.and_then(|answer| build(answer.values, &defaults, &args, &invoker));
    let ours = read(&args, &invoker, &defaults)
        .and_then(|values| build(values, &defaults, &args, &invoker));
    Some([theirs, ours])
}

const AGREED: &[Case] = &[
    case("", "me@Host.Example"),
    case("HostName %h.example\nPort 2222\nUser u\nPort 1\n", "box"),
    case(
        "host BOX\nport 1\nHost b?x !bax *.lab\n Port=2\nHost *\nPort 3",
        "bax",
    ),
    case("Host b?x !bax *.lab\n Port=2\nHost *\nPort 3", "box"),
    case(
        "\tHost \"a b\" box # c\n  User=\"x y\" # z\nUser z\n",
        "box",
    ),
    case(
        "IdentityFile ~/a\nIdentityFile ~/a\nHost x\nIdentityFile ~/no\nHost *\nIdentityFile %d/k_%r_%%\nCertificateFile ~/c\n",
        "box",
    ),
    case(
        "IdentityFile none\nIdentityAgent none\nIdentitiesOnly yes\n",
        "box",
    ),
    case(
        "IdentityAgent ~/%r-%C.sock\nUserKnownHostsFile ~/%n ~/b\nGlobalKnownHostsFile /x ~/y\n",
        "q@box",
    ),
    case(
        "IdentityAgent $SOME_AGENT\nUserKnownHostsFile none\nHostKeyAlias ALias\n",
        "box",
    ),
    case(
        "ConnectTimeout 1m30\nServerAliveInterval 2h\nRekeyLimit 1G 1h\nServerAliveCountMax 7\n",
        "box",
    ),
    case(
        "RekeyLimit default none\nConnectTimeout none\nEscapeChar ^B\nRequestTTY force\n",
        "box",
    ),
    case(
        "EscapeChar none\nStrictHostKeyChecking accept-new\nAddressFamily inet6\nBindAddress ::1\n",
        "box",
    ),
    case(
        "Tunnel yes\nTunnelDevice 3\nLogLevel debug2\nHashKnownHosts yes\nCheckHostIP yes\n",
        "box",
    ),
    case(
        "Tunnel ethernet\nTunnelDevice any:4\nExitOnForwardFailure yes\nFingerprintHash md5\n",
        "box",
    ),
    case(
        "PreferredAuthentications publickey,password\nPasswordAuthentication no\nChallengeResponseAuthentication no\nPubkeyAuthentication unbound\nNumberOfPasswordPrompts 1\n",
        "box",
    ),
    case(
        "Ciphers +3des-cbc\nMACs -umac-*,hmac-sha1*\nKexAlgorithms ^curve25519-sha256\nHostKeyAlgorithms +ssh-rsa\nPubkeyAcceptedKeyTypes ssh-ed25519\nCASignatureAlgorithms -rsa*\n",
        "box",
    ),
    case(
        "MACs hmac-sha2-256-etm@openssh.com\nPubkeyAcceptedAlgorithms *ed25519*\nHostKeyAlgorithms ^ssh-rsa*\n",
        "box",
    ),
    case("ProxyCommand = nc  -x 'p q' %h %p %% # no comment\n", "box"),
    case(
        "ProxyCommand none\nRemoteCommand echo %h %r %% \"a  b\"\n",
        "box",
    ),
    case("ProxyJump a,u@b:23\nProxyCommand x\n", "box"),
    case("ProxyJump ssh://u@10.0.0.1:23\n", "box"),
    case("ProxyCommand x\nProxyJump a\n", "box"),
    case("ProxyJump none\nProxyCommand x\nProxyJump a\n", "box"),
    case(
        "SendEnv A B_* C\nSendEnv -B* D\nSetEnv X=1 \"Y=2 3\"\nSetEnv Z=4\n",
        "box",
    ),
    case(
        "StdinNull yes\nSessionType none\nForkAfterAuthentication yes\nBatchMode no\n",
        "box",
    ),
    case("Match host box\nPort 1\nMatch all\nPort 2\n", "box"),
    case(
        "HostName real\nMatch host box\nPort 1\nMatch host REAL\nPort 2\n",
        "box",
    ),
    case(
        "HostName real\nMatch originalhost box user u,!v localuser *\nPort 2\n",
        "u@box",
    ),
    case(
        "Match !originalhost box\nPort 1\nMatch user v\nPort 2\nMatch exec \"test %r = w\"\nPort 3\n",
        "w@box",
    ),
    case(
        "Match exec \"test '%n' = other\"\nPort 1\nMatch !exec false\nPort 2\n",
        "box",
    ),
    case(
        "Match final host real\nPort 7\nMatch all\nHostName real\n",
        "box",
    ),
    case("Match canonical\nPort 7\nMatch !canonical\nUser x\n", "box"),
    case(
        "Host real\nPort 9\nHost box\nHostName real\nMatch final all\n",
        "box",
    ),
    case(
        "CanonicalizeHostname yes\nCanonicalDomains invalid\nHost box\nUser x\nMatch canonical\nPort 4\n",
        "box",
    ),
    case(
        "CanonicalizeHostname always\nCanonicalizeMaxDots 0\nProxyCommand x\nMatch final\nPort 4\n",
        "a.b",
    ),
    case("Include @DIR@/[ab]*.conf\nUser last\n", "box"),
    case(
        "Host other\nInclude @DIR@/a.conf\nHost *\nUser last\n",
        "box",
    ),
    case("Include @DIR@/missing.conf @DIR@/b.conf\nPort 3\n", "box"),
    case(
        "IgnoreUnknown foo*,Bar\nFoobar x y\nBAR\tz\nProtocol 2\nUseRoaming no\nPort 5\n",
        "box",
    ),
    case(
        "LocalForward 8080 a:80\nForwardX11 yes\nControlMaster auto\nControlPath ~/%C\nCompression yes\n",
        "box",
    ),
    case(
        "KeepAlive no\nNoHostAuthenticationForLocalhost yes\nConnectionAttempts 4\nBindInterface lo\nRequiredRSASize 2048\n",
        "::1",
    ),
    case("Port 5\nUser u\n", "ssh://v@box:6/"),
    case("Host 0:0:0:0:0:0:0:1\nPort 6\n", "0:0:0:0:0:0:0:1"),
    case("Port 5\r\nUser u\r\n\r\n# x\r\nHost * \x0c\nPort 7", "box"),
    Case {
        config: "Port 5\nUser u\nTunnel ethernet\nTunnelDevice 9:9\nIdentityFile ~/k\nAddressFamily any\nBindAddress 1.2.3.4\n",
        destination: "w@box",
        adjust: |args| {
            args.port = Some(77);
            args.login = Some("l".into());
            args.tunnel_device = Some("1:2".parse().unwrap());
            args.identities = vec!["/etc/passwd".into(), "/no/such/file".into()];
            args.address_family = Some(AddressFamily::Inet);
            args.bind_address = Some("5.6.7.8".into());
            args.ciphers = Some("+3des-cbc".into());
            args.macs = Some("hmac-sha2-256".into());
        },
    },
    Case {
        config: "ProxyCommand x\nPort 5\nConnectTimeout 3\n",
        destination: "box",
        adjust: |args| {
            args.jump = Some("a,b".into());
            args.options = [
                "Port=6",
                "connecttimeout 9",
                "SetEnv=A=1",
                "Tunnel = ethernet",
            ]
            .map(str::to_owned)
            .to_vec();
            args.tunnel_device = Some(Default::default());
            args.command = vec!["run".into(), "x y".into()];
            args.verbosity = 1;
        },
    },
    Case {
        config: "Port 5\n",
        destination: "box",
        adjust: |args| args.config_file = Some("none".into()),
    },
];

#[test]
fn we_read_as_ssh_does() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("a.conf", "Host other\nPort 1\nHost box\nPort 2\n");
    write(
        "b.conf",
        "User included\nIdentityFile ~/b\nMatch host nothing\n",
    );
    write("c.conf", "Port 99\n");
    for case in AGREED {
        let Some([theirs, ours]) = both(case, &directory) else {
            eprintln!("skipped: there is no ssh to compare with");
            return;
        };
        let (theirs, ours) = (theirs.unwrap(), ours.unwrap());
        assert_eq!(ours, theirs, "{:?} for {}", case.config, case.destination);
    }
}

const REFUSED: &[Case] = &[
    case("Foo bar\n", "box"),
    case("Port\n", "box"),
    case("Port 0\n", "box"),
    case("Port 1 2\n", "box"),
    case("User \"x\n", "box"),
    case("Match foo\n", "box"),
    case("Match user\n", "box"),
    case("Match\n", "box"),
    case("Host other\nInclude ~/x \"\"\n", "box"),
    case("ConnectTimeout 5 minutes\n", "box"),
    case("BatchMode perhaps\n", "box"),
    case("ProxyJump a:b:c\n", "box"),
    case("SetEnv X\n", "box"),
    case("IdentityAgent ${SSHVPN_NO_SUCH_VARIABLE}\n", "box"),
    case("UserKnownHostsFile %z\n", "box"),
    case("HostName %p\n", "box"),
    case("ProxyJump box\n", "box"),
    case("ForkAfterAuthentication yes\n", "box"),
    case("Ciphers -*\n", "box"),
    case("Ciphers aes*\n", "box"),
    case("Include @DIR@/loop.conf\n", "box"),
    case("Include @DIR@/writable.conf\n", "box"),
    case("RekeyLimit 1\n", "box"),
    Case {
        config: "RemoteCommand x\n",
        destination: "box",
        adjust: |args| args.command = vec!["y".into()],
    },
    Case {
        config: "",
        destination: "box",
        adjust: |args| args.options = vec!["Host=x".into()],
    },
    Case {
        config: "",
        destination: "box",
        adjust: |args| args.config_file = Some("/no/such/file".into()),
    },
];

#[test]
fn we_refuse_what_ssh_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(
        path("loop.conf"),
        format!("Include {}\n", path("loop.conf").display()),
    )
    .unwrap();
    fs::write(path("writable.conf"), "Port 1\n").unwrap();
    fs::set_permissions(path("writable.conf"), fs::Permissions::from_mode(0o666)).unwrap();
    for case in REFUSED {
        let Some([theirs, ours]) = both(case, &directory) else {
            eprintln!("skipped: there is no ssh to compare with");
            return;
        };
        assert!(theirs.is_err(), "ssh takes {:?}", case.config);
        assert!(ours.is_err(), "we take {:?}", case.config);
    }
}
