//! Private keys in files: OpenSSH's own format, PEM (PKCS#1, SEC 1) and PKCS#8, each plain
//! or encrypted.

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{PrivateKey, decode_secret_key};
use thiserror::Error;

use super::secret::{Secret, wiping_stack};

/// Why a text is not a usable private key. The error contains no part of the key.
#[derive(Debug, Error)]
pub enum KeyFormatError {
    /// Not a private key, or a malformed one.
    #[error("not a private key of a supported type ({0})")]
    Unusable(String),
    /// The encryption is not supported.
    #[error("encrypted with {0}; convert the key with ssh-keygen -p")]
    Cipher(String),
    /// The passphrase is wrong.
    #[error("incorrect passphrase supplied to decrypt private key")]
    Passphrase,
}

/// A private key as far as it can be read without a passphrase.
#[derive(Debug)]
pub(in crate::ssh) enum Decoded {
    /// It was not encrypted.
    Key(Box<PrivateKey>),
    /// A passphrase is needed.
    Encrypted,
}

/// Decodes `text` without a passphrase.
pub(in crate::ssh) fn decode(text: &str) -> Result<Decoded, KeyFormatError> {
    if is_encrypted(text)? {
        return Ok(Decoded::Encrypted);
    }
    match wiping_stack(|| decode_secret_key(text, None).map(Box::new)) {
        Ok(key) => Ok(Decoded::Key(key)),
        Err(error) => Err(KeyFormatError::Unusable(error.to_string())),
    }
}

/// Decodes an encrypted key.
pub(in crate::ssh) fn decrypt(
    text: &str,
    passphrase: &Secret,
) -> Result<Box<PrivateKey>, KeyFormatError> {
    let decode = || decode_secret_key(text, Some(passphrase.expose())).map(Box::new);
    // With a wrong passphrase the result is random and fails in many ways.
    wiping_stack(decode).map_err(|error| {
        tracing::debug!("decrypting a private key: {error}");
        KeyFormatError::Passphrase
    })
}

/// The public key, if the text has it unencrypted.
pub(in crate::ssh) fn public_half(text: &str) -> Option<KeyData> {
    let public = |key: &PrivateKey| key.public_key().key_data().clone();
    match wiping_stack(|| PrivateKey::from_openssh(text).map(|key| public(&key))) {
        Ok(key) => Some(key),
        Err(_) => match decode(text).ok()? {
            Decoded::Key(key) => Some(public(&key)),
            Decoded::Encrypted => None,
        },
    }
}

/// Whether a passphrase is needed; an error if the encryption is not supported.
fn is_encrypted(text: &str) -> Result<bool, KeyFormatError> {
    let mut lines = text.lines().map(str::trim);
    let Some(begin) = lines.find(|line| line.starts_with("-----BEGIN ")) else {
        return Err(KeyFormatError::Unusable("no BEGIN line".to_owned()));
    };
    match begin {
        "-----BEGIN OPENSSH PRIVATE KEY-----" => {
            let encrypted =
                wiping_stack(|| PrivateKey::from_openssh(text).map(|key| key.is_encrypted()));
            encrypted.map_err(|error| KeyFormatError::Unusable(error.to_string()))
        }
        "-----BEGIN ENCRYPTED PRIVATE KEY-----" => Ok(true),
        // RFC 1421, section 4.6.1.3: the cipher of a PEM file.
        _ => match lines.find_map(|line| line.strip_prefix("DEK-Info: ")) {
            Some(cipher) => supported_pem(begin, cipher).map(|()| true),
            None => Ok(false),
        },
    }
}

/// Whether the key library supports this PEM encryption.
fn supported_pem(begin: &str, info: &str) -> Result<(), KeyFormatError> {
    let cipher = info.split(',').next().unwrap_or_default();
    let supported = begin == "-----BEGIN RSA PRIVATE KEY-----" && cipher == "AES-128-CBC";
    match supported {
        true => Ok(()),
        false => {
            let kind = begin.trim_matches('-').trim_start_matches("BEGIN ");
            Err(KeyFormatError::Cipher(format!("{cipher} ({kind})")))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// First lines of keys, and lines that may follow them.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned()),
            Just("-----BEGIN RSA PRIVATE KEY-----".to_owned()),
            Just("-----BEGIN EC PRIVATE KEY-----".to_owned()),
            Just("-----BEGIN PRIVATE KEY-----".to_owned()),
            Just("-----BEGIN ENCRYPTED PRIVATE KEY-----".to_owned()),
            Just("PuTTY-User-Key-File-2: ssh-rsa".to_owned()),
            Just("DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF".to_owned()),
            "DEK-Info: AES-128-CBC,[0-9A-F]{0,40}",
            "(b3BlbnNzaC1rZXktdjEA)?[A-Za-z0-9+/]{0,64}={0,2}",
            "\\PC{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn no_text_panics(lines in proptest::collection::vec(line(), 0..6)) {
            let text = lines.join("\n");
            let _ = decode(&text);
            let _ = public_half(&text);
            let _ = decrypt(&text, &Secret::new("x".to_owned()));
        }
    }
}
