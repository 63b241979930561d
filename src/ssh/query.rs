//! The names of the algorithms that a client can use, by ssh's names of the lists (`ssh -Q`).

use super::algorithms;

/// Types of keys in files. Those of security keys sign by an agent alone.
const PLAIN_KEYS: [&str; 5] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
];

/// Signature algorithms of RSA keys: those with SHA-2.
const RSA: [&str; 2] = ["rsa-sha2-256", "rsa-sha2-512"];

/// The list that ssh(1) calls `name`; `None` for other names.
pub fn list(name: &str) -> Option<Vec<String>> {
    let ciphers = || algorithms::our_ciphers().into_iter();
    let has_tag = |name: &str| name.contains("gcm") || name.contains("poly1305");
    Some(match name.to_ascii_lowercase().as_str() {
        "cipher" | "ciphers" => ciphers().map(|name| name.as_ref().to_owned()).collect(),
        "cipher-auth" => {
            let names = ciphers().map(|name| name.as_ref().to_owned());
            names.filter(|name| has_tag(name)).collect()
        }
        "mac" | "macs" => texts(algorithms::MACS),
        "kex" | "kexalgorithms" => texts(algorithms::KEX),
        "key-plain" => PLAIN_KEYS.map(str::to_owned).to_vec(),
        "key-cert" => PLAIN_KEYS.map(certificate).to_vec(),
        "key" => {
            let both = PLAIN_KEYS.into_iter();
            both.flat_map(|name| [name.to_owned(), certificate(name)])
                .collect()
        }
        "key-sig" | "sig" | "hostkeyalgorithms" | "pubkeyacceptedalgorithms" => {
            let signatures = PLAIN_KEYS.into_iter().filter(|name| *name != "ssh-rsa");
            let signatures = signatures.chain(RSA);
            signatures
                .flat_map(|name| [name.to_owned(), certificate(name)])
                .collect()
        }
        "compression" => vec!["none".to_owned()],
        "protocol-version" => vec!["2".to_owned()],
        "help" => [
            "cipher",
            "cipher-auth",
            "compression",
            "kex",
            "key",
            "key-cert",
            "key-plain",
            "key-sig",
            "mac",
            "protocol-version",
            "sig",
        ]
        .map(str::to_owned)
        .to_vec(),
        _ => return None,
    })
}

fn texts<N: AsRef<str>>(names: &[N]) -> Vec<String> {
    names.iter().map(|name| name.as_ref().to_owned()).collect()
}

/// The name of the certificate for keys of type `plain`.
fn certificate(plain: &str) -> String {
    format!("{plain}-cert-v01@openssh.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_the_names_of_ssh() {
        let has = |query: &str, name: &str| list(query).unwrap().iter().any(|known| known == name);
        assert!(has("cipher", "aes256-ctr") && !has("cipher-auth", "aes256-ctr"));
        assert!(has("MACs", "hmac-sha2-256-etm@openssh.com"));
        assert!(has("key-cert", "ssh-ed25519-cert-v01@openssh.com"));
        assert!(has("key-sig", "rsa-sha2-512") && !has("key-sig", "ssh-rsa"));
        assert_eq!(list("x11"), None);
    }
}
