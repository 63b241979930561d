//! Signs with one key after the server has accepted it: by the agent, or with the private
//! key, which is loaded only then.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{HashAlg, PrivateKey, signing};
use thiserror::Error;

use super::candidates::{Candidate, SignedBy};
use super::identity::{self, IdentityError};
use super::secret::wiping_stack;
use super::ssh_agent::Agent;
use super::{AuthError, Person};

/// The sizes of RSA keys that aws-lc can sign with, in bits.
const RSA_BITS: RangeInclusive<u32> = 2048..=8192;

/// Why a signature could not be made.
#[derive(Debug, Error)]
pub(in crate::ssh) enum SignError {
    /// The session has ended.
    #[error("the connection is closed")]
    Closed,
    /// The agent failed or refused.
    #[error("{0}")]
    Agent(russh::keys::Error),
    /// The private key could not be loaded.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The private key does not match the public key beside it.
    #[error("private key {} contents do not match public", .0.display())]
    Mismatch(PathBuf),
    /// An RSA key that is too short or too long.
    #[error("the RSA key has {0} bits; 2048 to 8192 are supported")]
    RsaLength(u32),
    /// The key cannot sign.
    #[error("{0}")]
    Key(String),
}

impl From<russh::SendError> for SignError {
    fn from(_: russh::SendError) -> Self {
        SignError::Closed
    }
}

/// Signs for one candidate when the server accepts its key.
pub(in crate::ssh) struct KeySigner<'a> {
    /// The agent, if there is one.
    pub(in crate::ssh) agent: Option<&'a mut Agent>,
    /// What signs.
    pub(in crate::ssh) signed_by: SignedBy,
    /// The public key that must verify the signature.
    pub(in crate::ssh) expected: Option<KeyData>,
    /// The private key, if it is loaded already.
    pub(in crate::ssh) loaded: Option<Box<PrivateKey>>,
    /// The user to prompt for a passphrase.
    pub(in crate::ssh) person: &'a Person<'a>,
}

impl russh::Signer for KeySigner<'_> {
    type Error = SignError;

    /// Ignores the identity that russh names: it is the one that was offered, and what
    /// signs for it is already chosen.
    async fn auth_sign(
        &mut self,
        _offered: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        match (&self.signed_by, self.agent.as_mut()) {
            (SignedBy::Agent(identity), Some(agent)) => agent
                .sign(identity, hash, data)
                .await
                .map_err(SignError::Agent),
            (SignedBy::Agent(_), None) => Err(SignError::Key("the agent is gone".to_owned())),
            (SignedBy::File(path), _) => {
                let key = match self.loaded.take() {
                    Some(key) => key,
                    None => self.person.private_key(path).await?,
                };
                if self.expected.as_ref() != Some(key.public_key().key_data()) {
                    return Err(SignError::Mismatch(path.clone()));
                }
                append_signature(&key, hash, data)
            }
        }
    }
}

/// Appends the signature of `data` to it, as the string that ends a publickey request (RFC
/// 4252, section 7).
fn append_signature(
    key: &PrivateKey,
    hash: Option<HashAlg>,
    mut data: Vec<u8>,
) -> Result<Vec<u8>, SignError> {
    if let Some(rsa) = key.public_key().key_data().rsa()
        && !RSA_BITS.contains(&rsa.key_size())
    {
        return Err(SignError::RsaLength(rsa.key_size()));
    }
    let signed = wiping_stack(|| signing::sign(key.key_data(), hash, &data));
    let signature = signed.map_err(|error| SignError::Key(error.to_string()))?;
    signature
        .encode_prefixed(&mut data)
        .map_err(|error| SignError::Key(error.to_string()))?;
    Ok(data)
}

impl Person<'_> {
    /// Loads the private key in `path`.
    pub(in crate::ssh) async fn private_key(
        &self,
        path: &Path,
    ) -> Result<Box<PrivateKey>, IdentityError> {
        identity::load_private(path, self.invoker, self.options, self.prompter).await
    }

    /// Reports why a key failed; an error if no other key can be tried.
    pub(in crate::ssh) fn explain(
        &self,
        candidate: &Candidate,
        error: SignError,
    ) -> Result<(), AuthError> {
        match error {
            SignError::Closed => return Err(self.disconnected()),
            SignError::Identity(IdentityError::Interrupted) => return Err(AuthError::Interrupted),
            SignError::Identity(IdentityError::NoPassphrase(path)) => {
                tracing::debug!("no passphrase for {}: next key", path.display());
            }
            SignError::Identity(IdentityError::Read { path, source }) => {
                let reason = nix::errno::Errno::from_raw(source.raw_os_error().unwrap_or(0));
                let reason = reason.desc();
                let text = format!("no such identity: {}: {reason}", path.display());
                match self.options.identity_files_explicit {
                    true => self.prompter.info(&text),
                    false => tracing::debug!("{text}"),
                }
            }
            SignError::Identity(error) => self.prompter.error(&error.to_string()),
            SignError::Agent(error) => self.prompter.error(&format!(
                "signing failed for {} \"{}\" from agent: {error}",
                candidate.kind(),
                candidate.label
            )),
            SignError::Mismatch(_) | SignError::RsaLength(_) | SignError::Key(_) => {
                self.prompter.error(&format!(
                    "signing failed for {} \"{}\": {error}",
                    candidate.kind(),
                    candidate.label
                ))
            }
        }
        Ok(())
    }
}
