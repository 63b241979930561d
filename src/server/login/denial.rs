//! Why somebody may not come in. This is for the log: a client is only ever told
//! that it may not.

use std::net::IpAddr;

use thiserror::Error;

/// Why a login is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denial {
    /// No file lists the key.
    #[error("the key is in no authorized_keys file")]
    UnknownKey,
    /// Nobody trusts who signed the certificate.
    #[error("no file trusts the certificate's authority {authority}")]
    UnknownAuthority {
        /// Its fingerprint.
        authority: String,
    },
    /// The line of the key is one that lets nobody in.
    #[error("{place} was refused when it was read: {problem}")]
    RefusedLine {
        /// File and line.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Its time is over.
    #[error("{place}: expiry-time= is over")]
    Expired {
        /// File and line.
        place: String,
    },
    /// From elsewhere than from where it may be used.
    #[error("{place} does not permit {address}")]
    Source {
        /// File and line, or "the certificate's source-address".
        place: String,
        /// Where the client is.
        address: IpAddr,
    },
    /// The key, or the certificate, is not good any more.
    #[error("the {what} is revoked")]
    Revoked {
        /// What of it.
        what: &'static str,
    },
    /// Its signature says that nobody touched it.
    #[error("the security key was not touched, and no-touch-required is not there")]
    NotTouched,
    /// The certificate's time has not come.
    #[error("the certificate is not yet valid")]
    NotYetValid,
    /// The certificate's time is over.
    #[error("the certificate has expired")]
    CertificateExpired,
    /// It is for nobody by name.
    #[error("the certificate has no principals")]
    NoPrincipals,
    /// It is for others.
    #[error("the certificate is not for {wanted}")]
    OtherPrincipal {
        /// The user name, or that of the line's `principals=` none is there.
        wanted: String,
    },
    /// It asks for something that is not done here.
    #[error("the certificate has the critical option '{name}', which is not kept to here")]
    CriticalOption {
        /// Its name.
        name: String,
    },
    /// An option with something else in it than belongs there.
    #[error("the certificate's option '{name}' cannot be read")]
    MalformedOption {
        /// Its name.
        name: String,
    },
}
