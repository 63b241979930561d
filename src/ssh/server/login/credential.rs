//! The client's credentials as plain data: the layer that creates them has verified them,
//! and the gate judges them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

pub use crate::config::keys::key_blob::KeyBlob;

/// One login attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The user name of the login; there is no system account behind it.
    pub user: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
    /// The credential that the client presents.
    pub credential: &'a Credential,
    /// False if the signature says that the security key was not touched (OpenSSH
    /// PROTOCOL.u2f). Other keys, and keys that have not signed yet, count as touched.
    pub touched: bool,
    /// The time of the attempt.
    pub now: SystemTime,
}

/// A client's credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A public key.
    Key(KeyBlob),
    /// A user certificate (OpenSSH PROTOCOL.certkeys).
    Certificate(Box<UserCertificate>),
}

impl Credential {
    /// The key that signs.
    pub fn key(&self) -> &KeyBlob {
        match self {
            Credential::Key(key) => key,
            Credential::Certificate(certificate) => &certificate.key,
        }
    }
}

/// The fields of a user certificate whose signature by `authority` is verified. The gate
/// decides whether the authority is trusted, the certificate is valid at this time, and the
/// options are supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCertificate {
    /// The certified key.
    pub key: KeyBlob,
    /// The authority's key.
    pub authority: KeyBlob,
    /// The authority's name for the certificate.
    pub key_id: String,
    /// The serial number; 0 if the authority does not number its certificates.
    pub serial: u64,
    /// The user names that it is valid for; empty for all.
    pub principals: Vec<String>,
    /// Start of its validity, since 1970.
    pub valid_after: Duration,
    /// End of its validity (exclusive), since 1970.
    pub valid_before: Duration,
    /// Critical options as name and data; an unsupported one makes the certificate invalid.
    pub critical_options: Vec<(String, String)>,
    /// Extensions as name and data: what the certificate permits.
    pub extensions: Vec<(String, String)>,
}
