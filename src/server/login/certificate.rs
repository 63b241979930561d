//! Checks a user certificate by its own contents (OpenSSH PROTOCOL.certkeys). Whether
//! its authority is trusted is decided by the policy.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::denial::Denial;
use crate::config::keys::source_pattern::parse_networks;
use crate::ssh::server::login::credential::UserCertificate;

/// Extensions whose data must be empty, as for sshd.
const FLAGS: [&str; 6] = [
    "no-touch-required",
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
];

/// The principal that a certificate has to name.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) enum Names<'a> {
    /// The user name that the client gave.
    User(&'a str),
    /// One of the `principals=` of the authority's line.
    OneOf(&'a [String]),
}

/// What a valid certificate permits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::server) struct Permissions {
    /// `permit-port-forwarding`: TCP forwards, if they are granted.
    pub port_forwarding: bool,
    /// `no-touch-required`: a security key may sign without a touch.
    pub no_touch: bool,
}

/// Checks time, names and options.
pub(in crate::server) fn check(
    certificate: &UserCertificate,
    names: Names<'_>,
    peer: IpAddr,
    now: SystemTime,
) -> Result<Permissions, Denial> {
    check_time(certificate, now)?;
    check_names(certificate, names)?;
    check_critical_options(certificate, peer)?;
    let mut permissions = Permissions::default();
    for (name, data) in &certificate.extensions {
        // An unknown extension grants nothing here.
        if FLAGS.contains(&name.as_str()) && !data.is_empty() {
            return Err(Denial::MalformedOption { name: name.clone() });
        }
        permissions.port_forwarding |= name == "permit-port-forwarding";
        permissions.no_touch |= name == "no-touch-required";
    }
    Ok(permissions)
}

fn check_time(certificate: &UserCertificate, now: SystemTime) -> Result<(), Denial> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if now < certificate.valid_after {
        return Err(Denial::NotYetValid);
    }
    if now >= certificate.valid_before {
        return Err(Denial::CertificateExpired);
    }
    Ok(())
}

fn check_names(certificate: &UserCertificate, names: Names<'_>) -> Result<(), Denial> {
    let principals = &certificate.principals;
    // Such a certificate would be valid for any name.
    if principals.is_empty() {
        return Err(Denial::NoPrincipals);
    }
    let (found, wanted) = match names {
        Names::User(user) => (
            principals.iter().any(|principal| principal == user),
            user.to_owned(),
        ),
        Names::OneOf(names) => (
            principals.iter().any(|principal| names.contains(principal)),
            names.join(" or "),
        ),
    };
    match found {
        true => Ok(()),
        false => Err(Denial::OtherPrincipal { wanted }),
    }
}

fn check_critical_options(certificate: &UserCertificate, peer: IpAddr) -> Result<(), Denial> {
    for (name, data) in &certificate.critical_options {
        if name != "source-address" {
            return Err(Denial::CriticalOption { name: name.clone() });
        }
        let networks =
            parse_networks(data).map_err(|_| Denial::MalformedOption { name: name.clone() })?;
        let address = peer.to_canonical();
        if !networks.iter().any(|network| network.contains(address)) {
            return Err(Denial::Source {
                place: "the certificate's source-address".to_owned(),
                address,
            });
        }
    }
    Ok(())
}
