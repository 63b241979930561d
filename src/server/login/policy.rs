//! Decides about a login: returns a grant, or the reason for the denial. Only a line, a
//! certificate or a rule grants anything, and none can grant what another forbids.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ipnetwork::IpNetwork;

use super::certificate::{self, Names};
use super::denial::Denial;
use super::grant::{CertificateIdentity, ForwardRule, Grant, Group, Identity, Place, TunnelGrant};
use super::key_files::{Entry, KeyFiles};
use crate::config::keys::authorized_keys::KeyOptions;
use crate::config::keys::revocation_list::CertificateName;
use crate::config::serve::settings::{ClientLimits, ClientMatch, ClientRule, ServeSettings};
use crate::ssh::server::login::credential::{Attempt, Credential, KeyBlob, UserCertificate};
use crate::types::{Mode, Unit, UnitRequest};

pub use super::key_files::{PolicyError, Warning};

/// All rules of a server, as they were read.
#[derive(Debug)]
pub struct Policy {
    files: KeyFiles,
    rules: Vec<ClientRule>,
    routes: Vec<IpNetwork>,
    limits: ClientLimits,
    disable_forwarding: bool,
    /// Units that a line or a rule names.
    reserved: Arc<BTreeSet<Unit>>,
}

/// The basis of a permitted login.
struct Entrance<'a> {
    /// The options of the line of the key or of its authority.
    options: Option<&'a KeyOptions>,
    /// Whether the credential permits TCP forwards at all.
    port_forwarding: bool,
    /// Whether a security key may sign without a touch.
    no_touch: bool,
}

impl Policy {
    /// Reads the files that the settings name. The warnings are about lines that permit no
    /// login.
    pub fn load(settings: &ServeSettings) -> Result<(Self, Vec<Warning>), PolicyError> {
        let (files, warnings) = KeyFiles::load(settings)?;
        let by_rule = settings.clients.iter().filter_map(|rule| rule.unit);
        let reserved = files.units().chain(by_rule).collect();
        let policy = Self {
            reserved: Arc::new(reserved),
            files,
            rules: settings.clients.clone(),
            routes: settings.network.routes.clone(),
            limits: settings.limits,
            disable_forwarding: settings.disable_forwarding,
        };
        Ok((policy, warnings))
    }

    /// The number of keys and authorities that admit a login.
    pub fn key_count(&self) -> usize {
        self.files.count()
    }

    /// Warns about rules of the configuration at `path` that match no login, or every one.
    pub fn doubtful_rules(&self, path: &Path) -> Vec<Warning> {
        [self.idle_rules(path), self.rules_for_all(path)].concat()
    }

    /// Rules without a condition that grant something: they match every key that may log in.
    fn rules_for_all(&self, path: &Path) -> Vec<Warning> {
        let rules = self.rules.iter().enumerate();
        let for_all = rules.filter(|(_, rule)| rule.who == ClientMatch::default());
        let warnings = for_all.filter_map(|(index, rule)| {
            let mut granted = Vec::new();
            let mut grant = |named: bool, what| granted.extend(named.then_some(what));
            grant(!rule.tunnel.is_empty(), "a tunnel");
            grant(rule.routes.is_some(), "its routes");
            grant(!rule.groups.is_empty(), "its groups");
            let forwards = !rule.permit_open.is_empty() || !rule.permit_listen.is_empty();
            grant(forwards, "its TCP forwards");
            let unmatched = match self.rules.len() - index - 1 {
                0 => "",
                _ => ", and later rules never match",
            };
            (!granted.is_empty()).then(|| Warning {
                path: path.to_owned(),
                line: None,
                text: format!(
                    "[[client]] number {} has no key, user, certificate or authority: every login \
                     gets {}{unmatched}",
                    index + 1,
                    granted.join(", ")
                ),
            })
        });
        warnings.collect()
    }

    fn idle_rules(&self, path: &Path) -> Vec<Warning> {
        let known = self.files.authorities();
        let named = self
            .rules
            .iter()
            .filter_map(|rule| rule.who.authority.as_ref());
        let unknown = named.filter(|authority| !known.contains(*authority));
        let warning = |authority: &String| Warning {
            path: path.to_owned(),
            line: None,
            text: format!(
                "authority = \"{authority}\" never matches: no file of authorities has this key"
            ),
        };
        unknown.map(warning).collect()
    }

    /// Decides about one login attempt.
    pub fn judge(&self, attempt: &Attempt<'_>) -> Result<Grant, Denial> {
        if self.files.revoked.revokes_key(attempt.credential.key()) {
            return Err(Denial::Revoked { what: "key" });
        }
        let entrance = match attempt.credential {
            Credential::Key(key) => self.enter_by_key(key, attempt)?,
            Credential::Certificate(certificate) => {
                self.enter_by_certificate(certificate, attempt)?
            }
        };
        if !attempt.touched && !entrance.no_touch {
            return Err(Denial::NotTouched);
        }
        Ok(self.grant(&entrance, attempt))
    }

    /// Units that grants name: a client whose own grant names no unit gets none of these.
    pub(in crate::server) fn reserved_units(&self) -> &Arc<BTreeSet<Unit>> {
        &self.reserved
    }

    /// Addresses and networks that rules give to the clients of these groups.
    pub(in crate::server) fn places_of(&self, groups: &BTreeSet<Group>) -> Vec<IpNetwork> {
        let shares = |rule: &&ClientRule| {
            let mut own = rule.groups.iter();
            own.any(|group| groups.iter().any(|Group(named)| named == group))
        };
        let rules = self.rules.iter().filter(shares);
        let places = rules.flat_map(|rule| {
            let addresses = rule.addresses.iter().copied().map(IpNetwork::from);
            addresses.chain(rule.sources.iter().copied())
        });
        places.collect()
    }

    /// Whether some rule gives this address to certain clients.
    pub(in crate::server) fn is_fixed(&self, address: IpAddr) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.addresses.contains(&address))
    }

    fn enter_by_key(&self, key: &KeyBlob, attempt: &Attempt<'_>) -> Result<Entrance<'_>, Denial> {
        let mut denial = None;
        for entry in self.files.lines_of(key) {
            let options = readable(entry)?;
            if options.cert_authority {
                continue;
            }
            match check_line(entry, options, attempt) {
                Ok(()) => {
                    return Ok(Entrance {
                        options: Some(options),
                        port_forwarding: true,
                        no_touch: options.no_touch,
                    });
                }
                // As with sshd, a later line of the same key may permit the login.
                Err(reason) => denial = denial.or(Some(reason)),
            }
        }
        Err(denial.unwrap_or(Denial::UnknownKey))
    }

    fn enter_by_certificate(
        &self,
        certificate: &UserCertificate,
        attempt: &Attempt<'_>,
    ) -> Result<Entrance<'_>, Denial> {
        let authority = &certificate.authority;
        if self.files.revoked.revokes_key(authority) {
            return Err(Denial::Revoked {
                what: "key of the certificate's authority",
            });
        }
        if self.files.revoked.revokes_certificate(CertificateName {
            authority,
            serial: certificate.serial,
            key_id: &certificate.key_id,
        }) {
            return Err(Denial::Revoked {
                what: "certificate",
            });
        }
        let mut denial = None;
        for entry in self.files.lines_of(authority) {
            let options = readable(entry)?;
            if !options.cert_authority {
                continue;
            }
            let names = match &options.principals {
                Some(names) => Names::OneOf(names),
                None => Names::User(attempt.user),
            };
            let entered = check_line(entry, options, attempt)
                .and_then(|()| enter(certificate, names, attempt, Some(options)));
            match entered {
                Ok(entrance) => return Ok(entrance),
                Err(reason) => denial = denial.or(Some(reason)),
            }
        }
        if self.files.is_user_authority(authority) {
            return enter(certificate, Names::User(attempt.user), attempt, None);
        }
        Err(denial.unwrap_or_else(|| Denial::UnknownAuthority {
            authority: authority.fingerprint(),
        }))
    }

    fn grant(&self, entrance: &Entrance<'_>, attempt: &Attempt<'_>) -> Grant {
        let identity = identity(attempt);
        let rule = self.rule_for(&identity, attempt.credential, entrance.options);
        let (open, listen) = match self.disable_forwarding || !entrance.port_forwarding {
            true => (ForwardRule::Nothing, ForwardRule::Nothing),
            false => forwards(entrance.options, rule),
        };
        let upload = rule.and_then(|rule| rule.upload);
        let download = rule.and_then(|rule| rule.download);
        Grant {
            tunnel: match self.disable_forwarding {
                true => None,
                false => self.tunnel(entrance.options, rule),
            },
            identity,
            open,
            listen,
            upload: upload.or(self.limits.upload),
            download: download.or(self.limits.download),
        }
    }

    /// The first rule that matches the client.
    fn rule_for(
        &self,
        identity: &Identity,
        credential: &Credential,
        options: Option<&KeyOptions>,
    ) -> Option<&ClientRule> {
        let certificate = match credential {
            Credential::Key(_) => None,
            Credential::Certificate(certificate) => Some(certificate.as_ref()),
        };
        let vouched = certificate.is_some_and(|shown| vouches(shown, options, &identity.user));
        self.rules
            .iter()
            .find(|rule| is_about(rule, identity, certificate, vouched))
    }

    fn tunnel(
        &self,
        options: Option<&KeyOptions>,
        rule: Option<&ClientRule>,
    ) -> Option<TunnelGrant> {
        let by_line = options.and_then(|options| options.tunnel);
        let restricted = options.is_some_and(|options| options.restrict);
        let listed = rule.map_or(&[][..], |rule| rule.tunnel.as_slice());
        let modes = match (listed.is_empty(), by_line) {
            (false, Some(_)) => listed.to_vec(),
            (false, None) if !restricted => listed.to_vec(),
            // A line does not say in which mode a tunnel is.
            (true, Some(_)) => vec![Mode::PointToPoint, Mode::Ethernet],
            _ => return None,
        };
        let unit = match by_line {
            Some(UnitRequest::Unit(unit)) => Some(unit),
            _ => rule.and_then(|rule| rule.unit),
        };
        Some(TunnelGrant {
            modes,
            unit,
            addresses: rule.map_or_else(Vec::new, |rule| rule.addresses.clone()),
            sources: rule.map_or_else(Vec::new, |rule| rule.sources.clone()),
            routes: rule
                .and_then(|rule| rule.routes.clone())
                .unwrap_or_else(|| self.routes.clone()),
            groups: rule.map_or_else(BTreeSet::new, |rule| {
                rule.groups.iter().cloned().map(Group).collect()
            }),
        })
    }
}

/// A line with an error ends the search, so that no laxer line after it applies.
fn readable(entry: &Entry) -> Result<&KeyOptions, Denial> {
    entry.read.as_ref().map_err(|problem| Denial::RefusedLine {
        place: entry.place.to_string(),
        problem: problem.to_string(),
    })
}

/// Checks the conditions of a line.
fn check_line(entry: &Entry, options: &KeyOptions, attempt: &Attempt<'_>) -> Result<(), Denial> {
    let expired = |last: SystemTime| last < attempt.now;
    if options.expiry.is_some_and(expired) {
        return Err(Denial::Expired {
            place: entry.place.to_string(),
        });
    }
    let address = peer(attempt);
    match &options.from {
        Some(from) if !from.permit(address) => Err(Denial::Source {
            place: format!("{}: from=", entry.place),
            address,
        }),
        _ => Ok(()),
    }
}

fn enter<'a>(
    certificate: &UserCertificate,
    names: Names<'_>,
    attempt: &Attempt<'_>,
    options: Option<&'a KeyOptions>,
) -> Result<Entrance<'a>, Denial> {
    let permissions = certificate::check(certificate, names, peer(attempt), attempt.now)?;
    Ok(Entrance {
        options,
        port_forwarding: permissions.port_forwarding,
        // As with sshd, the authority's line needs this option as well.
        no_touch: permissions.no_touch && options.is_none_or(|options| options.no_touch),
    })
}

/// The client's address; an IPv4 client of an IPv6 socket counts as IPv4.
fn peer(attempt: &Attempt<'_>) -> IpAddr {
    attempt.peer.ip().to_canonical()
}

fn identity(attempt: &Attempt<'_>) -> Identity {
    Identity {
        user: attempt.user.to_owned(),
        fingerprint: attempt.credential.key().fingerprint(),
        certificate: match attempt.credential {
            Credential::Key(_) => None,
            Credential::Certificate(certificate) => Some(CertificateIdentity {
                key_id: certificate.key_id.clone(),
                serial: certificate.serial,
                authority: certificate.authority.fingerprint(),
            }),
        },
    }
}

/// Whether the certificate's authority vouches for the user name. If the authority's
/// line has `principals=`, it vouches only for those names.
fn vouches(certificate: &UserCertificate, options: Option<&KeyOptions>, user: &String) -> bool {
    let trusted = options.and_then(|options| options.principals.as_ref());
    certificate.principals.contains(user) && trusted.is_none_or(|names| names.contains(user))
}

/// Whether a rule matches. Without `vouched` the user name is only the client's claim.
fn is_about(
    rule: &ClientRule,
    identity: &Identity,
    certificate: Option<&UserCertificate>,
    vouched: bool,
) -> bool {
    let who = &rule.who;
    let key = who.key.as_ref();
    let user = who.user.as_ref();
    let id = who.certificate.as_ref();
    let vouched = vouched || key.is_some() || id.is_some();
    key.is_none_or(|key| *key == identity.fingerprint)
        && user.is_none_or(|user| *user == identity.user && vouched)
        && id.is_none_or(|id| certificate.is_some_and(|shown| shown.key_id == *id))
        && who.authority.as_ref().is_none_or(|authority| {
            let shown = identity.certificate.as_ref();
            shown.is_some_and(|shown| shown.authority == *authority)
        })
}

/// The rules for connections and for listeners: the line's and the rule's together.
fn forwards(options: Option<&KeyOptions>, rule: Option<&ClientRule>) -> (ForwardRule, ForwardRule) {
    let switch = options.and_then(|options| options.port_forwarding);
    if switch == Some(false) {
        return (ForwardRule::Nothing, ForwardRule::Nothing);
    }
    let join = |by_line: &[Place], by_rule: &[Place]| match (switch, by_line) {
        // As with sshd: all places, unless the line lists some.
        (Some(true), []) => ForwardRule::Anything,
        _ if by_line.is_empty() && by_rule.is_empty() => ForwardRule::Nothing,
        _ => ForwardRule::Places([by_line, by_rule].concat()),
    };
    let line = |places: fn(&KeyOptions) -> &[Place]| options.map_or(&[][..], places);
    let open = line(|options| &options.permit_open);
    let listen = line(|options| &options.permit_listen);
    let (rule_open, rule_listen) = rule.map_or((&[][..], &[][..]), |rule| {
        (rule.permit_open.as_slice(), rule.permit_listen.as_slice())
    });
    (join(open, rule_open), join(listen, rule_listen))
}

#[cfg(test)]
mod certificate_tests;
#[cfg(test)]
mod tests;
