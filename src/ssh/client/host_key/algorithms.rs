//! Chooses the host key algorithms to offer, and their order: those of known keys come
//! first, so that a server with several keys presents one that the user has accepted
//! (order_hostkeyalgs of OpenSSH).

use russh::keys::Algorithm;

use super::key_line::{CERTIFICATE_SUFFIX, same_kind};
use super::known_hosts::HostKeys;
use crate::config::ssh::options::SshOptions;

/// The algorithms to offer, best first; russh offers those of certificates first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostKeyAlgorithms {
    /// For plain keys: `russh::Preferred::key`.
    pub plain: Vec<Algorithm>,
    /// For certificates: `russh::Preferred::host_key_certificates`. Empty if no known
    /// authority can have signed the host's certificate.
    pub certificates: Vec<Algorithm>,
}

/// Chooses from `HostKeyAlgorithms` the algorithms that russh can negotiate.
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
        // A stable sort: the order within both groups stays.
        chosen.plain.sort_by_key(|algorithm| !is_known(algorithm));
    }
    chosen
}

/// Whether russh can verify a key exchange with it; for RSA only with SHA-2, whatever is
/// configured.
fn is_supported(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { hash: Some(_) }
    )
}
