//! Which host key algorithms are offered, and in what order: those of keys
//! that are already known come first, so that a server with several keys
//! shows one the user has accepted (order_hostkeyalgs of OpenSSH).

use russh::keys::Algorithm;

use super::key_line::{CERTIFICATE_SUFFIX, same_kind};
use super::known_hosts::HostKeys;
use crate::config::ssh::options::SshOptions;

/// Algorithms to offer, best first; russh offers the certificate ones first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostKeyAlgorithms {
    /// For plain keys: `russh::Preferred::key`.
    pub plain: Vec<Algorithm>,
    /// For certificates: `russh::Preferred::host_key_certificates`. Empty
    /// when no known authority could have signed the host's certificate.
    pub certificates: Vec<Algorithm>,
}

/// Chooses among `HostKeyAlgorithms` what russh can negotiate.
pub(in crate::ssh) fn choose(
    options: &SshOptions,
    known: &HostKeys<'_>,
    authority_known: bool,
) -> HostKeyAlgorithms {
    let mut chosen = HostKeyAlgorithms::default();
    for name in &options.host_key_algorithms {
        let (algorithm, list) = match name.ends_with(CERTIFICATE_SUFFIX) {
            true => (Algorithm::new_certificate(name), &mut chosen.certificates),
            false => (Algorithm::new(name), &mut chosen.plain),
        };
        match algorithm {
            Ok(algorithm) if is_supported(&algorithm) && !list.contains(&algorithm) => {
                list.push(algorithm);
            }
            _ => {}
        }
    }
    if !authority_known {
        chosen.certificates.clear();
    }
    let is_known = |algorithm: &Algorithm| {
        let mut keys = known.keys.iter();
        keys.any(|line| same_kind(algorithm, &line.key.algorithm()) && !known.is_revoked(&line.key))
    };
    let best_is_known = chosen.plain.first().is_some_and(is_known);
    if !options.host_key_algorithms_explicit && !best_is_known {
        // Stable: within both groups the order stays.
        chosen.plain.sort_by_key(|algorithm| !is_known(algorithm));
    }
    chosen
}

/// What can verify a key exchange; for RSA by SHA-2 alone, whatever is configured.
fn is_supported(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { hash: Some(_) }
    )
}
