//! Translates algorithm names of ssh_config into what a client offers, and lists what a
//! server offers: only what russh implements and what is sound today, which is AEAD, or
//! counter mode with a MAC over SHA-2.

use std::borrow::Cow;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};

use super::error::ConnectError;
use crate::config::ssh::options::SshOptions;

/// Key exchanges that a client can offer.
pub(super) const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_G14_SHA256,
];

/// Ciphers that a client or a server can offer, in sshvpn's order: AES-GCM first where the
/// processor has AES instructions.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

/// MACs that a client or a server can offer, SHA-2: encrypt-then-MAC first. The plain ones
/// are for hosts whose hardening guide (DISA STIG, FIPS) permits no others. They are sound with
/// the ciphers in counter mode beside which alone they are used, and no attacker can have them
/// chosen in place of the first ones, because both lists are part of what the host key signs.
pub(super) const MACS: &[mac::Name] = &[
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256,
    mac::HMAC_SHA512,
];

/// The ciphers of OpenSSH's default list, sorted: a user without a choice gets sshvpn's
/// order.
const OPENSSH_DEFAULT_CIPHERS: &[&str] = &[
    "aes128-ctr",
    "aes128-gcm@openssh.com",
    "aes192-ctr",
    "aes256-ctr",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
];

/// The client's algorithms, except those of host keys, which
/// [`HostKeyCheck`](super::client::host_key::HostKeyCheck) orders.
pub fn preferred(options: &SshOptions) -> Result<Preferred, ConnectError> {
    let mut kex = chosen("KexAlgorithms", &options.kex_algorithms, KEX)?;
    if !kex.contains(&kex::MLKEM768X25519_SHA256) {
        tracing::debug!("key exchange without a post-quantum algorithm, as configured");
    }
    kex.extend([
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    ]);
    Ok(Preferred {
        kex: Cow::Owned(kex),
        cipher: Cow::Owned(ciphers(&options.ciphers)?),
        mac: Cow::Owned(chosen("MACs", &options.macs, MACS)?),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::default()
    })
}

/// Key exchanges that a server offers. None over finite fields: every client of the last
/// ten years supports a curve, and 8192 bits take so much processor time that a few
/// unauthenticated clients could stop a server.
const SERVER_KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// What a server offers, of the host key algorithms those that it has keys for. The same
/// list tells clients which signatures to use (RFC 8308, `server-sig-algs`).
pub(super) fn offered() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(SERVER_KEX),
        key: Cow::Owned(signatures()),
        cipher: Cow::Owned(our_ciphers()),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::default()
    }
}

/// Signature algorithms with SHA-2 or with a fixed hash.
fn signatures() -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    let rsa = |hash| Algorithm::Rsa { hash: Some(hash) };
    vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        rsa(HashAlg::Sha512),
        rsa(HashAlg::Sha256),
        Algorithm::SkEd25519,
        Algorithm::SkEcdsaSha2NistP256,
    ]
}

/// All ciphers, in sshvpn's order.
pub(super) fn our_ciphers() -> Vec<cipher::Name> {
    let mut ours = CIPHERS.to_vec();
    if !processor_has_aes() {
        ours.rotate_left(2);
    }
    ours
}

fn ciphers(configured: &[String]) -> Result<Vec<cipher::Name>, ConnectError> {
    let mut sorted: Vec<&str> = configured.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    if sorted == OPENSSH_DEFAULT_CIPHERS {
        return Ok(our_ciphers());
    }
    chosen("Ciphers", configured, CIPHERS)
}

fn processor_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The configured names that are supported, in the configured order.
fn chosen<N: AsRef<str> + Clone>(
    key: &'static str,
    configured: &[String],
    ours: &[N],
) -> Result<Vec<N>, ConnectError> {
    let names: Vec<N> = configured
        .iter()
        .filter_map(|wanted| ours.iter().find(|name| name.as_ref() == wanted))
        .cloned()
        .collect();
    if names.is_empty() {
        return Err(ConnectError::NoAlgorithm {
            key,
            configured: configured.join(","),
            supported: ours.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(","),
        });
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ssh::defaults;

    fn names(list: &str) -> Vec<String> {
        list.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn a_choice_is_kept_in_its_order() {
        let list = names("aes256-ctr,3des-cbc,aes128-gcm@openssh.com");
        assert_eq!(
            ciphers(&list).unwrap(),
            [cipher::AES_256_CTR, cipher::AES_128_GCM]
        );
    }

    #[test]
    fn no_choice_means_ours() {
        let list = names(
            "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,\
             aes128-gcm@openssh.com,aes256-gcm@openssh.com",
        );
        let first = ciphers(&list).unwrap()[0];
        let expected = if processor_has_aes() {
            cipher::AES_128_GCM
        } else {
            cipher::CHACHA20_POLY1305
        };
        assert_eq!(first, expected);
    }

    #[test]
    fn nothing_in_common_says_what_there_is() {
        let error = chosen("MACs", &names("hmac-md5"), MACS)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("MACs") && error.contains("hmac-sha2-256-etm"),
            "{error}"
        );
    }

    #[test]
    fn encrypt_then_mac_comes_first() {
        let is_etm = |name: &mac::Name| name.as_ref().ends_with("-etm@openssh.com");
        assert!(MACS.is_sorted_by_key(|name| !is_etm(name)));
        let defaults = defaults::values();
        let openssh = names(defaults.first("macs").unwrap());
        assert_eq!(chosen("MACs", &openssh, MACS).unwrap(), MACS);
    }
}
