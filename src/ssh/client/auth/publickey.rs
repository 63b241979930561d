//! The `publickey` method (RFC 4252, section 7): offers one candidate after the other, and
//! signs if the server accepts the key.

use std::collections::VecDeque;
use std::io;

use russh::client::{AuthResult, Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::candidates::{self, Candidate, SignedBy};
use super::identity::{self, Public};
use super::key_signer::KeySigner;
use super::ssh_agent::{self, Agent};
use super::{Attempt, AuthError, Person};
use crate::config::ssh::pattern::matches_any;
use crate::ssh::client::transport::plain;

/// The keys of one authentication.
pub(in crate::ssh) struct PublicKeys {
    queue: VecDeque<Candidate>,
    agent: Option<Agent>,
    /// The longest SHA-2 hash that the server accepts for RSA keys (RFC 8308,
    /// server-sig-algs), once it was asked. `Some(None)` if it does not say: then only
    /// SHA-1 is certain (RFC 8332, section 3.3), which is not supported.
    rsa: Option<Option<HashAlg>>,
}

/// The user's agent and its keys; `None` if no agent answers.
async fn agent_of<H: Handler>(
    handle: &Handle<H>,
    person: &Person<'_>,
) -> Option<(Agent, Vec<AgentIdentity>)> {
    let socket = person.options.identity_agent.as_ref()?;
    match ssh_agent::connect(socket, person.invoker).await {
        Ok(stream) => Agent::ask(stream, handle.agent_session_binding()).await,
        Err(error) => {
            // Root could use the agent, so the user expects that it is used.
            if person.invoker.via_sudo && error.kind() == io::ErrorKind::PermissionDenied {
                person.prompter.error(&format!(
                    "The agent at {} is not used: {} cannot: {}",
                    socket.display(),
                    person.invoker.name,
                    plain(&error)
                ));
            }
            tracing::debug!("agent at {}: {error}", socket.display());
            None
        }
    }
}

impl PublicKeys {
    /// Reads the configured files, and lists the agent's keys.
    pub(in crate::ssh) async fn collect<H: Handler>(
        handle: &Handle<H>,
        person: &Person<'_>,
    ) -> Self {
        let options = person.options;
        let (agent, held) = match agent_of(handle, person).await {
            Some((agent, held)) => (Some(agent), held),
            None => (None, Vec::new()),
        };
        let (identities, certificates) = identity::load(options, person.invoker);
        let queue = candidates::arrange(identities, certificates, held, options);
        for candidate in &queue {
            tracing::debug!("will attempt key: {} {}", candidate.label, candidate.kind());
        }
        Self {
            queue,
            agent,
            rsa: None,
        }
    }

    /// Allows every key to be offered again after a partial success.
    pub(in crate::ssh) fn reset(&mut self) {
        for candidate in &mut self.queue {
            candidate.tried = false;
        }
    }

    /// Offers the next key that is left.
    pub(in crate::ssh) async fn attempt<H: Handler>(
        &mut self,
        handle: &mut Handle<H>,
        person: &Person<'_>,
    ) -> Result<Attempt, AuthError> {
        while let Some(mut candidate) = self.queue.pop_front() {
            if candidate.tried {
                self.queue.push_front(candidate);
                break;
            }
            candidate.tried = true;
            self.queue.push_back(candidate.clone());
            if let Some(result) = self.offer(handle, &candidate, person).await? {
                return Ok(Attempt::Answered(result));
            }
        }
        Ok(Attempt::NothingToSend)
    }

    /// `None` if the key was of no use and the next one follows.
    async fn offer<H: Handler>(
        &mut self,
        handle: &mut Handle<H>,
        candidate: &Candidate,
        person: &Person<'_>,
    ) -> Result<Option<AuthResult>, AuthError> {
        let Some(signed_by) = candidates::signer(candidate, &self.queue) else {
            return Ok(None);
        };
        let mut public = candidate.public.clone();
        let mut loaded = None;
        if let (Public::Unknown, SignedBy::File(path)) = (&public, &signed_by) {
            // The public key is known only after the private key is decrypted.
            match person.private_key(path).await {
                Ok(key) => {
                    public = Public::Key(key.public_key().key_data().clone());
                    loaded = Some(key);
                }
                Err(error) => return person.explain(candidate, error.into()).map(|()| None),
            }
        }
        let Some(hash) = self.signature_hash(handle, &public, person).await else {
            tracing::debug!("{}: no mutual signature algorithm", candidate.label);
            return Ok(None);
        };
        tracing::debug!(
            "offering public key: {} {}",
            candidate.label,
            candidate.kind()
        );
        let mut signer = KeySigner {
            agent: self.agent.as_mut(),
            signed_by,
            expected: public.key().cloned(),
            loaded,
            person,
        };
        let user = &person.options.user;
        let answer = match public {
            Public::Key(key) => {
                let key = PublicKey::new(key, "");
                handle
                    .authenticate_publickey_with(user, key, hash, &mut signer)
                    .await
            }
            Public::Certificate(certificate) => {
                handle
                    .authenticate_certificate_with(user, *certificate, hash, &mut signer)
                    .await
            }
            Public::Unknown => return Ok(None),
        };
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => person.explain(candidate, error).map(|()| None),
        }
    }

    /// The hash for an RSA signature that both sides accept, `Some(None)` for other keys;
    /// `None` if there is no common algorithm.
    async fn signature_hash<H: Handler>(
        &mut self,
        handle: &Handle<H>,
        public: &Public,
        person: &Person<'_>,
    ) -> Option<Option<HashAlg>> {
        let accepted = &person.options.pubkey_accepted_algorithms;
        if !matches!(public.key()?, KeyData::Rsa(_)) {
            return candidates::is_accepted(public, accepted).then_some(None);
        }
        let best = match self.rsa {
            Some(best) => best,
            None => {
                let said = handle.best_supported_rsa_hash().await.ok().flatten();
                *self.rsa.insert(said.flatten())
            }
        };
        rsa_hash(public, best, accepted).map(Some)
    }
}

/// The first accepted RSA algorithm that the server accepts as well.
fn rsa_hash(public: &Public, best: Option<HashAlg>, accepted: &[String]) -> Option<HashAlg> {
    let taken: &[HashAlg] = match best {
        Some(HashAlg::Sha512) => &[HashAlg::Sha512, HashAlg::Sha256],
        Some(_) => &[HashAlg::Sha256],
        None => &[],
    };
    let name = |hash: HashAlg| {
        let algorithm = Algorithm::Rsa { hash: Some(hash) };
        match public {
            Public::Certificate(_) => algorithm.to_certificate_type(),
            _ => algorithm.as_str().to_owned(),
        }
    };
    accepted.iter().find_map(|pattern| {
        let matching = |hash: &&HashAlg| matches_any(&name(**hash), [pattern.as_str()]);
        taken.iter().find(matching).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::client::host_key::key_line;
    use crate::ssh::test_settings;

    fn rsa_key() -> Public {
        let key = key_line::parse(test_settings::RSA_KEY).unwrap();
        Public::Key(key.key_data().clone())
    }

    #[test]
    fn the_rsa_hash_is_one_that_both_sides_accept() {
        let key = rsa_key();
        let names = |list: &str| list.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let sha2 = names("ssh-ed25519 rsa-sha2-512 rsa-sha2-256");
        let both = Some(HashAlg::Sha512);
        assert_eq!(rsa_hash(&key, both, &sha2), Some(HashAlg::Sha512));
        let short = names("rsa-sha2-256 rsa-sha2-512");
        assert_eq!(rsa_hash(&key, both, &short), Some(HashAlg::Sha256));
        let only_256 = Some(HashAlg::Sha256);
        assert_eq!(rsa_hash(&key, only_256, &sha2), Some(HashAlg::Sha256));
        // SHA-1 is refused even if the user configures it.
        let sha1 = names("ssh-rsa");
        assert_eq!(rsa_hash(&key, None, &sha2), None);
        assert_eq!(rsa_hash(&key, None, &sha1), None);
        assert_eq!(rsa_hash(&key, both, &sha1), None);
    }
}
