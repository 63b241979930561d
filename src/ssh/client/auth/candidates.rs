//! Chooses the keys to offer to the server, and their order (pubkey_prepare of OpenSSH):
//! certificates named by the configuration, keys of the agent that are also configured,
//! other keys of the agent, other configured files.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate};

use super::identity::{Identity, Public};
use crate::config::ssh::options::SshOptions;
use crate::config::ssh::pattern::matches_any;
use crate::ssh::client::host_key::key_line;

/// One key or certificate to offer.
#[derive(Debug, Clone)]
pub(in crate::ssh) struct Candidate {
    /// The public key or certificate.
    pub(in crate::ssh) public: Public,
    /// The file, or the agent's comment, for messages.
    pub(in crate::ssh) label: String,
    /// The agent's entry, if the agent has the key.
    pub(in crate::ssh) in_agent: Option<AgentIdentity>,
    /// The file, if the key is configured.
    pub(in crate::ssh) path: Option<PathBuf>,
    /// Whether it was offered since the last (partial) success.
    pub(in crate::ssh) tried: bool,
}

/// What signs for a candidate.
#[derive(Debug, Clone)]
pub(in crate::ssh) enum SignedBy {
    /// The agent, with this entry.
    Agent(Box<AgentIdentity>),
    /// The private key in this file.
    File(PathBuf),
}

impl Candidate {
    fn of_file(identity: Identity) -> Self {
        Self {
            label: identity.path.display().to_string(),
            public: identity.public,
            in_agent: None,
            path: Some(identity.path),
            tried: false,
        }
    }

    fn of_agent(identity: AgentIdentity) -> Self {
        Self {
            label: identity.comment().to_owned(),
            public: public_of(&identity),
            in_agent: Some(identity),
            path: None,
            tried: false,
        }
    }

    /// The type of key, for messages.
    pub(in crate::ssh) fn kind(&self) -> &'static str {
        match &self.public {
            Public::Key(key) => key_line::kind(key),
            Public::Certificate(certificate) => {
                key_line::kind(&KeyData::Certificate(certificate.clone()))
            }
            Public::Unknown => "unknown",
        }
    }

    /// Whether something can sign for it, and the configuration allows it.
    fn is_usable(&self, options: &SshOptions) -> bool {
        if let Public::Certificate(certificate) = &self.public
            && certificate.cert_type() != CertType::User
        {
            tracing::debug!("ignoring {}: not a user certificate", self.label);
            return false;
        }
        let hardware = matches!(
            self.public.key().map(KeyData::algorithm),
            Some(Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
        );
        let is_plain = matches!(self.public, Public::Key(_));
        if hardware && is_plain && self.in_agent.is_none() {
            tracing::debug!("ignoring {}: its authenticator needs the agent", self.label);
            return false;
        }
        let allowed = is_accepted(&self.public, &options.pubkey_accepted_algorithms);
        if !allowed {
            tracing::debug!("skipping {}: not in PubkeyAcceptedAlgorithms", self.label);
        }
        allowed
    }
}

/// The public key or certificate of an agent's entry.
fn public_of(identity: &AgentIdentity) -> Public {
    match identity {
        AgentIdentity::PublicKey { key, .. } => Public::Key(key.key_data().clone()),
        AgentIdentity::Certificate { certificate, .. } => {
            Public::Certificate(Box::new(certificate.clone()))
        }
    }
}

/// Whether one of the signature algorithms of a key is among `accepted`.
pub(in crate::ssh) fn is_accepted(public: &Public, accepted: &[String]) -> bool {
    let patterns = || accepted.iter().map(String::as_str);
    let names = match public {
        Public::Key(key) => algorithm_names(&key.algorithm(), |a| a.as_str().to_owned()),
        Public::Certificate(certificate) => {
            algorithm_names(&certificate.algorithm(), Algorithm::to_certificate_type)
        }
        // Checked once the private key is decrypted.
        Public::Unknown => return true,
    };
    names.iter().any(|name| matches_any(name, patterns()))
}

fn algorithm_names(algorithm: &Algorithm, name: impl Fn(&Algorithm) -> String) -> Vec<String> {
    use russh::keys::HashAlg::{Sha256, Sha512};
    match algorithm {
        Algorithm::Rsa { .. } => [Sha512, Sha256]
            .into_iter()
            .map(|hash| name(&Algorithm::Rsa { hash: Some(hash) }))
            .collect(),
        other => vec![name(other)],
    }
}

/// The candidates in the order in which they are offered, each key once.
pub(in crate::ssh) fn arrange(
    identities: Vec<Identity>,
    certificates: Vec<Identity>,
    agent: Vec<AgentIdentity>,
    options: &SshOptions,
) -> VecDeque<Candidate> {
    let mut files: Vec<Candidate> = identities.into_iter().map(Candidate::of_file).collect();
    let mut ordered: Vec<Candidate> = certificates.into_iter().map(Candidate::of_file).collect();
    let mut others = Vec::new();
    for identity in agent {
        let public = public_of(&identity);
        let configured = files.iter().position(|file| same(&file.public, &public));
        match configured {
            Some(index) => {
                let mut candidate = files.remove(index);
                candidate.in_agent = Some(identity);
                ordered.push(candidate);
            }
            None if options.identities_only => {}
            None => others.push(Candidate::of_agent(identity)),
        }
    }
    let mut queue: VecDeque<Candidate> = VecDeque::new();
    for candidate in ordered.into_iter().chain(others).chain(files) {
        let known = queue.iter().any(|other| match &candidate.public {
            Public::Unknown => other.path == candidate.path,
            public => same(&other.public, public),
        });
        if !known && candidate.is_usable(options) {
            queue.push_back(candidate);
        }
    }
    queue
}

/// Whether both are the same key or the same certificate.
fn same(one: &Public, other: &Public) -> bool {
    match (one, other) {
        (Public::Key(one), Public::Key(other)) => one == other,
        (Public::Certificate(one), Public::Certificate(other)) => one == other,
        _ => false,
    }
}

/// What signs for `candidate`; for a certificate, the agent or file that has its key.
pub(in crate::ssh) fn signer(candidate: &Candidate, all: &VecDeque<Candidate>) -> Option<SignedBy> {
    if let Some(identity) = &candidate.in_agent {
        return Some(SignedBy::Agent(Box::new(identity.clone())));
    }
    let path = candidate.path.clone()?;
    let Public::Certificate(certificate) = &candidate.public else {
        return Some(SignedBy::File(path));
    };
    let holder = all
        .iter()
        .find(|other| is_key_of(other, certificate))
        .or_else(|| all.iter().find(|other| may_be_key_of(other, &path)));
    match holder {
        Some(Candidate {
            in_agent: Some(identity),
            ..
        }) => Some(SignedBy::Agent(Box::new(identity.clone()))),
        Some(Candidate {
            path: Some(path), ..
        }) => Some(SignedBy::File(path.clone())),
        _ => Some(SignedBy::File(path)),
    }
}

fn is_key_of(candidate: &Candidate, certificate: &Certificate) -> bool {
    matches!(&candidate.public, Public::Key(key) if key == certificate.public_key())
}

/// Whether `candidate` is an encrypted key that is known only by its file name, and that
/// name fits `certificate`.
fn may_be_key_of(candidate: &Candidate, certificate: &Path) -> bool {
    let (Public::Unknown, Some(key)) = (&candidate.public, &candidate.path) else {
        return false;
    };
    let key = key.as_os_str().as_encoded_bytes();
    let certificate = certificate.as_os_str().as_encoded_bytes();
    let rest = certificate.strip_prefix(key);
    matches!(rest, Some(b"" | b".pub" | b"-cert.pub"))
}

#[cfg(test)]
mod tests;
