//! Parses the options in front of a key.

use std::time::SystemTime;

use thiserror::Error;

use crate::config::forward_place::{Place, PlaceError};
use crate::config::keys::absolute_time::parse_absolute_time;
use crate::config::keys::source_pattern::{SourceError, SourcePatterns};
use crate::types::UnitRequest;

/// Options for features that sshvpn does not have: a terminal, X11, an agent, a file of commands.
const WITHOUT_MEANING: [&str; 4] = ["agent-forwarding", "x11-forwarding", "pty", "user-rc"];

/// The options of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOptions {
    /// `cert-authority`: the key does not log in; it signs certificates that do.
    pub cert_authority: bool,
    /// `principals=`: the certificate must have one of these names.
    pub principals: Option<Vec<String>>,
    /// `from=`.
    pub from: Option<SourcePatterns>,
    /// `expiry-time=`: the last valid moment; the earliest if the option is repeated.
    pub expiry: Option<SystemTime>,
    /// `restrict`: allow only what the same line grants.
    pub restrict: bool,
    /// `tunnel=`: allow a tunnel with this unit.
    pub tunnel: Option<UnitRequest>,
    /// `port-forwarding`, or `no-port-forwarding` or `restrict`; the last of them applies.
    pub port_forwarding: Option<bool>,
    /// `no-touch-required`: accept a security key's signature without a touch.
    pub no_touch: bool,
    /// `permitopen=`.
    pub permit_open: Vec<Place>,
    /// `permitlisten=`.
    pub permit_listen: Vec<Place>,
}

/// The reason why options are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OptionError {
    /// The option is not in sshd(8).
    #[error("unknown option '{0}'; refused because it may be a restriction")]
    Unknown(String),
    /// Unexpected text follows an option.
    #[error("option '{0}' must be followed by a comma, or by a space and the key")]
    Separator(String),
    /// A value is not quoted.
    #[error("the value of '{0}' must be in double quotes: {0}=\"…\"")]
    Unquoted(String),
    /// The option may occur only once.
    #[error("option '{0}' occurs twice")]
    Twice(String),
    /// sshvpn runs no commands.
    #[error("command= is not supported, since no command is ever run: remove it")]
    Command,
    /// sshvpn starts no process that could have an environment.
    #[error("environment= is not supported, since no command is ever run: remove it")]
    Environment,
    /// The signature's user verification flag is not checked.
    #[error("verify-required is not supported, since sshvpn does not check for a PIN: remove it")]
    VerifyRequired,
    /// Not a list of source addresses.
    #[error("from=: {0}")]
    From(#[from] SourceError),
    /// Not an absolute time.
    #[error("expiry-time=\"{0}\" is not YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]")]
    Expiry(String),
    /// Not a unit number or `any`.
    #[error("tunnel=\"{0}\" is neither a number from 0 to 2147483646 nor any")]
    Tunnel(String),
    /// Not a host and port.
    #[error("{option}=: {source}")]
    Place {
        /// The option.
        option: &'static str,
        /// The reason.
        source: PlaceError,
    },
    /// `principals=` without `cert-authority`.
    #[error("principals= needs cert-authority on the same line")]
    PrincipalsWithoutAuthority,
    /// A list with an empty name.
    #[error("principals= must be a list of names, separated by commas")]
    Principals,
    /// The options are not UTF-8.
    #[error("the options are not UTF-8")]
    NotText,
}

impl KeyOptions {
    /// Parses the options in front of a key.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        if text.contains([char::REPLACEMENT_CHARACTER, '\0']) {
            return Err(OptionError::NotText);
        }
        let mut options = KeyOptions::default();
        let mut verify = false;
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(['=', ',', '"']).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            let lower = name.to_ascii_lowercase();
            rest = match after.strip_prefix('=') {
                Some(quoted) => {
                    let (value, after) =
                        dequote(quoted).ok_or_else(|| OptionError::Unquoted(lower.clone()))?;
                    options.set(&lower, value)?;
                    after
                }
                None => {
                    options.switch(&lower, &mut verify)?;
                    after
                }
            };
            rest = match rest.strip_prefix(',') {
                Some(next) => next,
                None if rest.is_empty() => rest,
                None => return Err(OptionError::Separator(lower)),
            };
        }
        if verify {
            return Err(OptionError::VerifyRequired);
        }
        if options.principals.is_some() && !options.cert_authority {
            return Err(OptionError::PrincipalsWithoutAuthority);
        }
        Ok(options)
    }

    /// Parses an option without a value.
    fn switch(&mut self, name: &str, verify: &mut bool) -> Result<(), OptionError> {
        let (plain, on) = match name.strip_prefix("no-") {
            Some(plain) => (plain, false),
            None => (name, true),
        };
        match (plain, on) {
            // sshd ignores an empty option too.
            ("", true) => {}
            ("restrict", true) => {
                self.restrict = true;
                self.port_forwarding = Some(false);
            }
            ("cert-authority", true) => self.cert_authority = true,
            ("port-forwarding", on) => self.port_forwarding = Some(on),
            ("verify-required", on) => *verify = on,
            ("touch-required", on) => self.no_touch = !on,
            (known, _) if WITHOUT_MEANING.contains(&known) => {}
            ("command", true) => return Err(OptionError::Command),
            (
                "principals" | "from" | "expiry-time" | "environment" | "permitopen"
                | "permitlisten" | "tunnel",
                true,
            ) => return Err(OptionError::Unquoted(name.to_owned())),
            _ => return Err(OptionError::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// Parses an option with a value.
    fn set(&mut self, name: &str, value: String) -> Result<(), OptionError> {
        let twice = || OptionError::Twice(name.to_owned());
        match name {
            "from" => {
                let list = SourcePatterns::parse(&value)?;
                only_once(&mut self.from, list).ok_or_else(twice)?;
            }
            "principals" => {
                let names: Vec<String> = value.split(',').map(str::to_owned).collect();
                if names.iter().any(String::is_empty) {
                    return Err(OptionError::Principals);
                }
                only_once(&mut self.principals, names).ok_or_else(twice)?;
            }
            "tunnel" => {
                let unit = value.parse().map_err(|_| OptionError::Tunnel(value))?;
                only_once(&mut self.tunnel, unit).ok_or_else(twice)?;
            }
            "expiry-time" => {
                let time = parse_absolute_time(&value).ok_or(OptionError::Expiry(value))?;
                self.expiry = Some(self.expiry.map_or(time, |earlier| earlier.min(time)));
            }
            "permitopen" => self
                .permit_open
                .push(
                    Place::parse_open(&value).map_err(|source| OptionError::Place {
                        option: "permitopen",
                        source,
                    })?,
                ),
            "permitlisten" => {
                self.permit_listen
                    .push(
                        Place::parse_listen(&value).map_err(|source| OptionError::Place {
                            option: "permitlisten",
                            source,
                        })?,
                    )
            }
            "command" => return Err(OptionError::Command),
            "environment" => return Err(OptionError::Environment),
            _ => return Err(OptionError::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

fn only_once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    match place.replace(value) {
        None => Some(()),
        Some(_) => None,
    }
}

/// A value in double quotes, in which `\"` is a quote, and the text that follows it.
fn dequote(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let end = rest.find('"')?;
        let (part, after) = rest.split_at_checked(end)?;
        rest = after.strip_prefix('"')?;
        match part.strip_suffix('\\') {
            Some(part) => {
                value.push_str(part);
                value.push('"');
            }
            None => {
                value.push_str(part);
                return Some((value, rest));
            }
        }
    }
}
