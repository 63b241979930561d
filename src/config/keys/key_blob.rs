//! Public keys in wire format, as in files, logins and rules.

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;

use super::base64;
use super::wire_reader::WireReader;

/// The minimum size of an RSA key, in bits.
const MIN_RSA_BITS: usize = 2048;
/// The maximum size of an RSA key that aws-lc verifies, in bits.
const MAX_RSA_BITS: usize = 8192;

/// The type of DSA keys.
const DSA: &str = "ssh-dss";

/// A public key in wire format (RFC 4253, section 6.6): equal keys have equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyBlob(pub Vec<u8>);

/// The reason why a text is not a public key that can be used for a login.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Unknown key type.
    #[error("'{0}' is not a key type: copy the line from the .pub file")]
    UnknownType(String),
    /// A DSA key.
    #[error("DSA keys are not supported: use an ed25519 key")]
    Dsa,
    /// A certificate instead of a key.
    #[error("a certificate is not allowed here: give the key of its authority, or the plain key")]
    Certificate,
    /// The data is not a key of that type.
    #[error("the data after {0} is not a key of that type: copy the line from the .pub file")]
    Malformed(String),
    /// An RSA key that is too short or too long.
    #[error("an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits; this one has {0}")]
    RsaSize(usize),
}

impl KeyBlob {
    /// Parses the key type and the base64 data of a line.
    pub fn parse(kind: &str, text: &str) -> Result<Self, KeyError> {
        let form = form(kind)?;
        let (key, bits) = Self::read(form, kind, text)?;
        if form == Form::Rsa && !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        Ok(key)
    }

    /// Parses a key that is refused on use; accepts weak keys too: DSA keys, and RSA keys of any
    /// size.
    pub fn parse_revoked(kind: &str, text: &str) -> Result<Self, KeyError> {
        let form = match kind {
            DSA => Form::Dsa,
            kind => form(kind)?,
        };
        Self::read(form, kind, text).map(|(key, _)| key)
    }

    /// Returns the key and its size in bits.
    fn read(form: Form, kind: &str, text: &str) -> Result<(Self, usize), KeyError> {
        let malformed = || KeyError::Malformed(kind.to_owned());
        let bytes = base64::decode(text).ok_or_else(malformed)?;
        let mut reader = WireReader::new(&bytes);
        if reader.string() != Some(kind.as_bytes()) {
            return Err(malformed());
        }
        let bits = form.read(&mut reader).ok_or_else(malformed)?;
        if !reader.is_empty() {
            return Err(malformed());
        }
        Ok((Self(bytes), bits))
    }

    /// Whether `word` is a known key type, so that a key begins there.
    pub(crate) fn is_type(word: &str) -> bool {
        !matches!(form(word), Err(KeyError::UnknownType(_)))
    }

    /// The key type, for instance `ssh-ed25519`.
    pub fn kind(&self) -> Option<&str> {
        let name = WireReader::new(&self.0).string()?;
        std::str::from_utf8(name).ok()
    }

    /// The fingerprint in the format of `ssh-keygen -l`: `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        let hash = digest(&SHA256, &self.0);
        format!("SHA256:{}", base64::encode_unpadded(hash.as_ref()))
    }
}

/// The fields that follow the key type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Ed25519,
    Ecdsa {
        curve: &'static str,
        point: usize,
    },
    Rsa,
    Dsa,
    /// An ed25519 security key with its application string (OpenSSH PROTOCOL.u2f).
    SecurityEd25519,
    SecurityEcdsa,
}

impl Form {
    /// Reads the fields; returns the key's size in bits.
    fn read(self, reader: &mut WireReader<'_>) -> Option<usize> {
        match self {
            Form::Ed25519 => (reader.string()?.len() == 32).then_some(256),
            Form::Ecdsa { curve, point } => {
                let named = reader.string()? == curve.as_bytes();
                let key = reader.string()?;
                let uncompressed = key.first() == Some(&4) && key.len() == point;
                (named && uncompressed).then_some(point / 2 * 8)
            }
            Form::Rsa => {
                reader.positive()?;
                let modulus = reader.positive()?;
                let unused = modulus.first()?.leading_zeros() as usize;
                Some(modulus.len() * 8 - unused)
            }
            Form::Dsa => {
                let prime = reader.positive()?;
                let others = [(); 3].map(|()| reader.positive());
                others
                    .iter()
                    .all(Option::is_some)
                    .then_some(prime.len() * 8)
            }
            Form::SecurityEd25519 => {
                let bits = Form::Ed25519.read(reader)?;
                reader.string().map(|_application| bits)
            }
            Form::SecurityEcdsa => {
                let bits = P256.read(reader)?;
                reader.string().map(|_application| bits)
            }
        }
    }
}

const P256: Form = Form::Ecdsa {
    curve: "nistp256",
    point: 65,
};

fn form(kind: &str) -> Result<Form, KeyError> {
    Ok(match kind {
        "ssh-ed25519" => Form::Ed25519,
        "ecdsa-sha2-nistp256" => P256,
        "ecdsa-sha2-nistp384" => Form::Ecdsa {
            curve: "nistp384",
            point: 97,
        },
        "ecdsa-sha2-nistp521" => Form::Ecdsa {
            curve: "nistp521",
            point: 133,
        },
        "ssh-rsa" => Form::Rsa,
        "sk-ssh-ed25519@openssh.com" => Form::SecurityEd25519,
        "sk-ecdsa-sha2-nistp256@openssh.com" => Form::SecurityEcdsa,
        DSA | "ssh-dss-cert-v01@openssh.com" => return Err(KeyError::Dsa),
        other => {
            let plain = other.strip_suffix("-cert-v01@openssh.com");
            let known = plain.is_some_and(|plain| {
                form(plain).is_ok() || form(&format!("{plain}@openssh.com")).is_ok()
            });
            return Err(match known {
                true => KeyError::Certificate,
                false => KeyError::UnknownType(other.to_owned()),
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn a_key_has_a_kind_and_the_fingerprint_that_ssh_keygen_shows() {
        let key = KeyBlob::parse("ssh-ed25519", ED25519).unwrap();
        assert_eq!(key.kind(), Some("ssh-ed25519"));
        assert_eq!(
            key.fingerprint(),
            "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE"
        );
    }

    #[test]
    fn keys_of_every_kind_are_those_of_ssh_keygen() {
        let directory = tempfile::tempdir().unwrap();
        for (kind, bits) in [
            ("ed25519", "256"),
            ("ecdsa", "256"),
            ("ecdsa", "384"),
            ("ecdsa", "521"),
            ("rsa", "2048"),
        ] {
            let path = directory.path().join(format!("{kind}{bits}"));
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-N", "", "-t", kind, "-b", bits, "-f"])
                .arg(&path)
                .status();
            assert!(made.unwrap().success());
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let mut fields = public.split(' ');
            let (kind, text) = (fields.next().unwrap(), fields.next().unwrap());
            let key = KeyBlob::parse(kind, text).unwrap();
            assert_eq!(key.kind(), Some(kind));
        }
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        let cut = &ED25519[..64];
        let rsa = crate::ssh::test_settings::RSA_KEY;
        let (rsa_kind, rsa_text) = rsa.split_once(' ').unwrap();
        for (kind, text, expected) in [
            ("ssh-rsa", ED25519, "is not a key of that type"),
            ("ssh-ed25519", cut, "is not a key of that type"),
            ("ssh-ed25519", "", "is not a key of that type"),
            ("ssh-dss", ED25519, "DSA"),
            ("ssh-ed25519-cert-v01@openssh.com", ED25519, "certificate"),
            (
                "sk-ssh-ed25519-cert-v01@openssh.com",
                ED25519,
                "certificate",
            ),
            ("ssh-ed448", ED25519, "is not a key type"),
            (rsa_kind, rsa_text, "this one has 1024"),
        ] {
            let error = KeyBlob::parse(kind, text).unwrap_err().to_string();
            assert!(error.contains(expected), "{kind}: {error}");
        }
    }
}
