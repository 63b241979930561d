//! Why a login is denied. This text is for the log; the client learns only that the
//! login failed.

use std::net::IpAddr;

use thiserror::Error;

/// Why a login is denied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denial {
    /// No file lists the key.
    #[error("the key is in no authorized_keys file")]
    UnknownKey,
    /// No file trusts the certificate's authority.
    #[error("no file trusts the certificate's authority {authority}")]
    UnknownAuthority {
        /// The authority's fingerprint.
        authority: String,
    },
    /// The key's line has an error, so it admits no login.
    #[error("{place} is refused because of an error in the line: {problem}")]
    RefusedLine {
        /// File and line.
        place: String,
        /// The error in the line.
        problem: String,
    },
    /// The line's `expiry-time=` has passed.
    #[error("{place}: its expiry-time= has passed")]
    Expired {
        /// File and line.
        place: String,
    },
    /// The client's address is outside of those from which the key may be used.
    #[error("{place} does not permit {address}")]
    Source {
        /// File and line, or "the certificate's source-address".
        place: String,
        /// The client's address.
        address: IpAddr,
    },
    /// The key or the certificate is revoked.
    #[error("the {what} is revoked")]
    Revoked {
        /// Which of the two, in words.
        what: &'static str,
    },
    /// The signature says that the user did not touch the security key.
    #[error("the security key was not touched, and no-touch-required is not set")]
    NotTouched,
    /// The certificate's validity has not begun.
    #[error("the certificate is not yet valid")]
    NotYetValid,
    /// The certificate's validity has ended.
    #[error("the certificate has expired")]
    CertificateExpired,
    /// The certificate names no principal.
    #[error("the certificate has no principals")]
    NoPrincipals,
    /// The certificate names other principals.
    #[error("the certificate is not for {wanted}")]
    OtherPrincipal {
        /// The user name, or the line's `principals=`, of which the certificate has none.
        wanted: String,
    },
    /// The certificate demands an unsupported option.
    #[error("the certificate has the critical option '{name}', which is not supported")]
    CriticalOption {
        /// The option's name.
        name: String,
    },
    /// An option has unexpected data.
    #[error("the certificate's option '{name}' cannot be read")]
    MalformedOption {
        /// The option's name.
        name: String,
    },
}
