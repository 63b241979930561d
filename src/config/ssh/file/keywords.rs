//! The keywords of ssh_config(5) and their kinds of arguments.

/// The kind of arguments, and the effect of a second occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One argument; the first occurrence applies.
    Word,
    /// Several arguments; the first occurrence applies.
    Words,
    /// The rest of the line; the first occurrence applies.
    Command,
    /// One argument; every occurrence applies, equal ones once.
    EachWord,
    /// Several arguments as one value; every occurrence applies.
    EachLine,
    /// `SendEnv`: patterns; `-pattern` removes.
    SendEnv,
    /// `SetEnv`: `NAME=VALUE`; the first line applies.
    SetEnv,
    /// `ProxyJump`, which excludes `ProxyCommand`.
    ProxyJump,
    /// `RefuseConnection`: an error if the line applies.
    Refuse,
    /// `Host`, `Match`, `Include`.
    Structure,
    /// Has no effect any longer.
    Deprecated,
    /// Has no effect in OpenSSH, which prints a warning.
    Unsupported,
}

/// The keyword `name`, in lower case, by the name that `ssh -G` uses.
pub(super) fn look_up(name: &str) -> Option<(&str, Kind)> {
    let name = match name {
        "challengeresponseauthentication" | "skeyauthentication" | "tisauthentication" => {
            "kbdinteractiveauthentication"
        }
        "dsaauthentication" => "pubkeyauthentication",
        "identityfile2" => "identityfile",
        "keepalive" => "tcpkeepalive",
        "smartcarddevice" => "pkcs11provider",
        "hostbasedkeytypes" => "hostbasedacceptedalgorithms",
        "pubkeyacceptedkeytypes" => "pubkeyacceptedalgorithms",
        other => other,
    };
    let kind = match name {
        "host" | "match" | "include" => Kind::Structure,
        "proxycommand" | "localcommand" | "remotecommand" | "knownhostscommand" => Kind::Command,
        "proxyjump" => Kind::ProxyJump,
        "refuseconnection" => Kind::Refuse,
        "identityfile" | "certificatefile" => Kind::EachWord,
        "localforward" | "remoteforward" | "dynamicforward" => Kind::EachLine,
        "sendenv" => Kind::SendEnv,
        "setenv" => Kind::SetEnv,
        "userknownhostsfile"
        | "globalknownhostsfile"
        | "revokedhostkeys"
        | "rekeylimit"
        | "canonicaldomains"
        | "canonicalizepermittedcnames"
        | "addkeystoagent"
        | "ipqos"
        | "logverbose"
        | "permitremoteopen"
        | "channeltimeout" => Kind::Words,
        "protocol"
        | "cipher"
        | "fallbacktorsh"
        | "globalknownhostsfile2"
        | "rhostsauthentication"
        | "userknownhostsfile2"
        | "useroaming"
        | "usersh"
        | "useprivilegedport" => Kind::Deprecated,
        "afstokenpassing"
        | "kerberosauthentication"
        | "kerberostgtpassing"
        | "rsaauthentication"
        | "rhostsrsaauthentication"
        | "compressionlevel" => Kind::Unsupported,
        name if WORD.contains(&name) => Kind::Word,
        _ => return None,
    };
    Some((name, kind))
}

/// The keywords that take one argument.
const WORD: &[&str] = &[
    "addressfamily",
    "batchmode",
    "bindaddress",
    "bindinterface",
    "canonicalizefallbacklocal",
    "canonicalizehostname",
    "canonicalizemaxdots",
    "casignaturealgorithms",
    "checkhostip",
    "ciphers",
    "clearallforwardings",
    "compression",
    "connectionattempts",
    "connecttimeout",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "hashknownhosts",
    "hostbasedacceptedalgorithms",
    "hostbasedauthentication",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "ignoreunknown",
    "kbdinteractiveauthentication",
    "kbdinteractivedevices",
    "kexalgorithms",
    "loglevel",
    "macs",
    "nohostauthenticationforlocalhost",
    "numberofpasswordprompts",
    "obscurekeystroketiming",
    "passwordauthentication",
    "permitlocalcommand",
    "pkcs11provider",
    "port",
    "preferredauthentications",
    "proxyusefdpass",
    "pubkeyacceptedalgorithms",
    "pubkeyauthentication",
    "requesttty",
    "requiredrsasize",
    "securitykeyprovider",
    "serveralivecountmax",
    "serveraliveinterval",
    "sessiontype",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "stricthostkeychecking",
    "syslogfacility",
    "tag",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "updatehostkeys",
    "user",
    "verifyhostkeydns",
    "versionaddendum",
    "visualhostkey",
    "warnweakcrypto",
    "xauthlocation",
];
