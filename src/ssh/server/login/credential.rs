//! By what a client shows who it is: plain data, verified by the layer that
//! makes it, judged by whoever knows the rules.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

pub use crate::config::keys::key_blob::KeyBlob;

/// One login that is tried.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The user name that is given; no system account stands behind it.
    pub user: &'a str,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// What is shown.
    pub credential: &'a Credential,
    /// False where its signature says that nobody touched the security key
    /// (OpenSSH PROTOCOL.u2f). Other keys, and those that have not signed yet,
    /// count as touched.
    pub touched: bool,
    /// When.
    pub now: SystemTime,
}

/// What a client shows.
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

/// The fields of a user certificate, whose signature by `authority` is verified.
/// Whether the authority is trusted, the time is right, and the options are
/// understood is for others to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCertificate {
    /// The key that it is about.
    pub key: KeyBlob,
    /// The key that signed it.
    pub authority: KeyBlob,
    /// What the authority calls it.
    pub key_id: String,
    /// Its number; zero where the authority does not count.
    pub serial: u64,
    /// The names that it is good for; for all where there is none.
    pub principals: Vec<String>,
    /// Its first moment, since 1970.
    pub valid_after: Duration,
    /// The first moment after it, since 1970.
    pub valid_before: Duration,
    /// What must be understood and kept to, by name and data.
    pub critical_options: Vec<(String, String)>,
    /// What it may do, by name and data.
    pub extensions: Vec<(String, String)>,
}
