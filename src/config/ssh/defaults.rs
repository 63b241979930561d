//! OpenSSH's defaults: ssh_config(5), and `ssh -Q` for the names of algorithms (OpenSSH 10).

use super::values::SshValues;

const KEX: &str = "mlkem768x25519-sha256,sntrup761x25519-sha512,\
sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,\
ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,\
diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,\
diffie-hellman-group18-sha512,diffie-hellman-group14-sha256";

const CIPHERS: &str = "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,\
aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr";

const MACS: &str = "umac-64-etm@openssh.com,umac-128-etm@openssh.com,\
hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,\
umac-64@openssh.com,umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1";

const HOST_KEYS: &str = "ssh-ed25519-cert-v01@openssh.com,\
ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp384-cert-v01@openssh.com,\
ecdsa-sha2-nistp521-cert-v01@openssh.com,sk-ssh-ed25519-cert-v01@openssh.com,\
sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,\
rsa-sha2-256-cert-v01@openssh.com,ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,\
ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,\
rsa-sha2-512,rsa-sha2-256";

const CA_SIGNATURES: &str = "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,\
ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,\
rsa-sha2-512,rsa-sha2-256";

/// Keywords whose value is a list of algorithms, which accept ssh_config's `+`, `-` and `^`.
pub(crate) const ALGORITHM_KEYS: [&str; 6] = [
    "kexalgorithms",
    "ciphers",
    "macs",
    "hostkeyalgorithms",
    "pubkeyacceptedalgorithms",
    "casignaturealgorithms",
];

/// Every signature algorithm that OpenSSH knows, in its own order, which is the order of the names
/// that match a pattern.
pub(crate) const SIGNATURE_ALGORITHMS: [&str; 19] = [
    "ssh-ed25519",
    "ssh-ed25519-cert-v01@openssh.com",
    "sk-ssh-ed25519@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
    "ssh-rsa-cert-v01@openssh.com",
    "rsa-sha2-256",
    "rsa-sha2-256-cert-v01@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-512-cert-v01@openssh.com",
];

/// The defaults of keywords with one value.
const SINGLE: &[(&str, &str)] = &[
    ("kexalgorithms", KEX),
    ("ciphers", CIPHERS),
    ("macs", MACS),
    ("hostkeyalgorithms", HOST_KEYS),
    ("pubkeyacceptedalgorithms", HOST_KEYS),
    ("casignaturealgorithms", CA_SIGNATURES),
    ("port", "22"),
    ("addressfamily", "any"),
    ("batchmode", "no"),
    ("canonicalizefallbacklocal", "yes"),
    ("canonicalizehostname", "no"),
    ("canonicalizemaxdots", "1"),
    ("checkhostip", "no"),
    ("connectionattempts", "1"),
    ("connecttimeout", "none"),
    ("escapechar", "~"),
    ("exitonforwardfailure", "no"),
    ("fingerprinthash", "sha256"),
    ("forkafterauthentication", "no"),
    ("hashknownhosts", "no"),
    ("identitiesonly", "no"),
    ("kbdinteractiveauthentication", "yes"),
    ("loglevel", "INFO"),
    ("nohostauthenticationforlocalhost", "no"),
    ("numberofpasswordprompts", "3"),
    ("passwordauthentication", "yes"),
    (
        "preferredauthentications",
        "gssapi-with-mic,hostbased,publickey,keyboard-interactive,password",
    ),
    ("proxyusefdpass", "no"),
    ("pubkeyauthentication", "yes"),
    ("requesttty", "auto"),
    ("requiredrsasize", "1024"),
    ("serveralivecountmax", "3"),
    ("serveraliveinterval", "0"),
    ("sessiontype", "default"),
    ("stdinnull", "no"),
    ("stricthostkeychecking", "ask"),
    ("tcpkeepalive", "yes"),
    ("tunnel", "no"),
    ("tunneldevice", "any:any"),
    ("clearallforwardings", "no"),
    ("gatewayports", "no"),
    ("streamlocalbindmask", "0177"),
    ("streamlocalbindunlink", "no"),
    ("permitremoteopen", "any"),
    ("compression", "no"),
    ("controlmaster", "no"),
    ("controlpersist", "no"),
    ("gssapiauthentication", "no"),
    ("hostbasedauthentication", "no"),
];

/// The values of every keyword that has a default.
pub(crate) fn values() -> SshValues {
    let mut values = SshValues::default();
    for &(key, value) in SINGLE {
        values.push(key, value.to_owned());
    }
    let several: [(&str, &[&str]); 4] = [
        ("rekeylimit", &["0", "0"]),
        (
            "identityfile",
            &[
                "~/.ssh/id_rsa",
                "~/.ssh/id_ecdsa",
                "~/.ssh/id_ecdsa_sk",
                "~/.ssh/id_ed25519",
                "~/.ssh/id_ed25519_sk",
            ],
        ),
        (
            "globalknownhostsfile",
            &["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"],
        ),
        (
            "userknownhostsfile",
            &["~/.ssh/known_hosts", "~/.ssh/known_hosts2"],
        ),
    ];
    for (key, several) in several {
        values.set(key, several.iter().map(|&value| value.into()).collect());
    }
    values
}
