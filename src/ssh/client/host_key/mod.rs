//! Verifies the server's identity: checks its key or certificate against the known_hosts
//! files and the user's answer, as ssh does (StrictHostKeyChecking and related options in
//! ssh_config(5)).

pub mod algorithms;
pub(in crate::ssh) mod certificate;
pub(in crate::ssh) mod key_line;
pub mod known_hosts;
pub(in crate::ssh) mod known_hosts_add;
pub(in crate::ssh) mod names;
pub(in crate::ssh) mod plain;
pub(in crate::ssh) mod record;
pub(in crate::ssh) mod revoked_keys;
pub(in crate::ssh) mod text;

#[cfg(test)]
pub(in crate::ssh) mod case;
#[cfg(test)]
pub(in crate::ssh) mod certificate_tests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKeyOrCertificate};
use thiserror::Error;

use super::prompt::Prompter;
use algorithms::HostKeyAlgorithms;
use known_hosts::KnownHosts;
use names::HostNames;
use text::Presented;

use crate::config::invoker::Invoker;
use crate::config::ssh::options::SshOptions;

/// The trust in the server after the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostTrust {
    /// The key is the known one, or the user accepted it.
    Verified,
    /// The key is not the known one or is revoked, and `StrictHostKeyChecking no` continues
    /// nevertheless. No secret may be sent and no tunnel opened, because an attacker may be
    /// in the middle.
    Unverified,
}

/// Why the server is refused. The details have been shown already.
#[derive(Debug, Error)]
pub enum HostKeyError {
    /// The key is unknown or not the known one.
    #[error("Host key verification failed.")]
    VerificationFailed,
    /// The key is wrong and tunnels are disabled, and `ExitOnForwardFailure` forbids
    /// continuing without tunnels.
    #[error("Error: forwarding disabled due to host key check failure")]
    ForwardingDisabled,
    /// An RSA key shorter than `RequiredRSASize`.
    #[error("Bad server host key: Invalid key length ({bits} bits, RequiredRSASize is {required})")]
    KeyLength {
        /// The key's length in bits.
        bits: usize,
        /// The minimum length in bits.
        required: u32,
    },
    /// A file of `RevokedHostKeys` cannot be used.
    #[error("cannot check the host key against the revoked keys in {}", .file.display())]
    RevokedHostKeys {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

/// The host key check of one connection. Clones share its outcome.
#[derive(Debug, Clone)]
pub struct HostKeyCheck(Arc<Inner>);

/// The inputs and the outcome of a check.
#[derive(Debug)]
pub(in crate::ssh) struct Inner {
    pub(in crate::ssh) options: SshOptions,
    pub(in crate::ssh) invoker: Invoker,
    pub(in crate::ssh) prompter: Prompter,
    pub(in crate::ssh) names: HostNames,
    trust: OnceLock<HostTrust>,
}

impl HostKeyCheck {
    /// For a connection with `options`; `peer` is the server's address, `None` behind a
    /// proxy.
    pub fn new(
        options: &SshOptions,
        invoker: &Invoker,
        prompter: Prompter,
        peer: Option<SocketAddr>,
    ) -> Self {
        Self(Arc::new(Inner {
            options: options.clone(),
            invoker: invoker.clone(),
            prompter,
            names: HostNames::new(options, peer),
            trust: OnceLock::new(),
        }))
    }

    /// The host key algorithms to offer to the server.
    pub fn algorithms(&self) -> HostKeyAlgorithms {
        let known = self.0.known_hosts();
        let names = self.0.names.all();
        let mut names = names.iter();
        let authority_known = names.any(|name| !known.about(name).authorities.is_empty());
        let keys = known.about(&self.0.names.lookup());
        algorithms::choose(&self.0.options, &keys, authority_known)
    }

    /// Checks the key or certificate that the server presented. May prompt the user, and
    /// may add a line to the first of the user's known_hosts files.
    pub async fn check(
        &self,
        presented: &PublicKeyOrCertificate,
    ) -> Result<HostTrust, HostKeyError> {
        let trust = self.0.decide(presented).await?;
        Ok(*self.0.trust.get_or_init(|| trust))
    }

    /// The outcome of the check; `None` until it has succeeded.
    pub fn trust(&self) -> Option<HostTrust> {
        self.0.trust.get().copied()
    }
}

impl Inner {
    async fn decide(&self, presented: &PublicKeyOrCertificate) -> Result<HostTrust, HostKeyError> {
        let plain = presented.public_key();
        let certificate = presented.certificate();
        self.check_length(plain.key_data())?;
        self.check_revoked_files(plain.key_data(), certificate)?;
        if self.options.no_host_authentication_for_localhost && self.names.is_localhost() {
            tracing::debug!("forcing acceptance of the host key for localhost");
            return Ok(HostTrust::Verified);
        }
        let known = self.known_hosts();
        if let Some(certificate) = certificate {
            if let Some(trust) = self.check_certificate(certificate, &known)? {
                return Ok(trust);
            }
            tracing::debug!("no matching authority found: falling back to the plain key");
        }
        self.check_plain(plain.key_data(), &known).await
    }

    /// `None` if the certificate does not apply: the plain key is checked instead.
    fn check_certificate(
        &self,
        certificate: &Certificate,
        known: &KnownHosts,
    ) -> Result<Option<HostTrust>, HostKeyError> {
        for host in self.names.all() {
            let about = known.about(&host);
            let keys = [certificate.signature_key(), certificate.public_key()];
            if keys.into_iter().any(|key| about.is_revoked(key)) {
                let key = KeyData::Certificate(Box::new(certificate.clone()));
                return self.revoked(&self.presented(&host, "", &key)).map(Some);
            }
            let authority = certificate.signature_key();
            if !about.authorities.iter().any(|line| line.key == *authority) {
                continue;
            }
            let name = self.names.principal();
            let algorithms = &self.options.ca_signature_algorithms;
            let now = certificate::now();
            let checked = certificate::check(certificate, name, now, algorithms);
            if let Err(error) = checked {
                self.prompter.error(&error.to_string());
                return Ok(None);
            }
            return Ok(Some(HostTrust::Verified));
        }
        Ok(None)
    }

    fn check_length(&self, key: &KeyData) -> Result<(), HostKeyError> {
        let required = self.options.required_rsa_size;
        match key.rsa().map(|rsa| rsa.key_size() as usize) {
            Some(bits) if bits < required as usize => {
                Err(HostKeyError::KeyLength { bits, required })
            }
            _ => Ok(()),
        }
    }

    fn check_revoked_files(
        &self,
        key: &KeyData,
        certificate: Option<&Certificate>,
    ) -> Result<(), HostKeyError> {
        let files = &self.options.revoked_host_keys;
        let listed = revoked_keys::file_with(files, key, certificate, &self.invoker)
            .map_err(|(file, source)| HostKeyError::RevokedHostKeys { file, source })?;
        let Some(file) = listed else {
            return Ok(());
        };
        let presented = self.presented("", "", key);
        self.prompter.error(&format!(
            "Host key {} {} revoked by file {}",
            presented.kind(),
            presented.fingerprint(),
            file.display()
        ));
        Err(HostKeyError::VerificationFailed)
    }

    pub(in crate::ssh) fn presented<'a>(
        &self,
        host: &'a str,
        address: &'a str,
        key: &'a KeyData,
    ) -> Presented<'a> {
        Presented {
            host,
            address,
            key,
            hash: self.options.fingerprint_hash,
        }
    }

    fn known_hosts(&self) -> KnownHosts {
        let user = self.options.user_known_hosts.iter();
        KnownHosts::load(user.chain(&self.options.global_known_hosts), &self.invoker)
    }
}
