//! The options in front of a key, from text to what they mean here.

use std::time::SystemTime;

use thiserror::Error;

use crate::config::forward_place::{Place, PlaceError};
use crate::config::keys::absolute_time::parse_absolute_time;
use crate::config::keys::source_pattern::{SourceError, SourcePatterns};
use crate::types::UnitRequest;

/// Options that switch something on or off that there is not: a terminal, X11,
/// an agent, a file of commands.
const WITHOUT_MEANING: [&str; 4] = ["agent-forwarding", "x11-forwarding", "pty", "user-rc"];

/// What the options of a line allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOptions {
    /// `cert-authority`: not the key logs in, but who has its certificate.
    pub cert_authority: bool,
    /// `principals=`: of the certificate's names one has to be here.
    pub principals: Option<Vec<String>>,
    /// `from=`.
    pub from: Option<SourcePatterns>,
    /// `expiry-time=`: the last moment; of several the first.
    pub expiry: Option<SystemTime>,
    /// `restrict`: nothing but what the same line gives.
    pub restrict: bool,
    /// `tunnel=`: a tunnel, with this unit.
    pub tunnel: Option<UnitRequest>,
    /// `port-forwarding`, or `no-port-forwarding` and `restrict`, whichever is last.
    pub port_forwarding: Option<bool>,
    /// `no-touch-required`: a security key need not have been touched.
    pub no_touch: bool,
    /// `permitopen=`.
    pub permit_open: Vec<Place>,
    /// `permitlisten=`.
    pub permit_listen: Vec<Place>,
}

/// Why options cannot be kept to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OptionError {
    /// Not an option of sshd(8).
    #[error("unknown option '{0}': nobody can say what it was to prevent")]
    Unknown(String),
    /// Something follows an option that does not belong there.
    #[error("option '{0}' has to be followed by a comma, or by the key after a space")]
    Separator(String),
    /// A value without quotes.
    #[error("the value of '{0}' has to stand in double quotes: {0}=\"…\"")]
    Unquoted(String),
    /// An option that may be there once.
    #[error("option '{0}' is there twice")]
    Twice(String),
    /// Commands are not run.
    #[error("command= cannot be kept to, since no command is ever run: remove it")]
    Command,
    /// There is no environment.
    #[error("environment= cannot be kept to, since no command is ever run: remove it")]
    Environment,
    /// It cannot be seen from here whether the user was verified.
    #[error("verify-required cannot be kept to: whether a PIN was asked for is not checked here")]
    VerifyRequired,
    /// Not a list of addresses.
    #[error("from=: {0}")]
    From(#[from] SourceError),
    /// Not a time.
    #[error("expiry-time=\"{0}\" is not YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]")]
    Expiry(String),
    /// Not a unit.
    #[error("tunnel=\"{0}\" is neither a number from 0 to 2147483646 nor any")]
    Tunnel(String),
    /// Not a place.
    #[error("{option}=: {source}")]
    Place {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        source: PlaceError,
    },
    /// Names of a certificate for a key that is no authority.
    #[error("principals= needs cert-authority on the same line")]
    PrincipalsWithoutAuthority,
    /// A list of names with a hole in it.
    #[error("principals= has to be a list of names, separated by commas")]
    Principals,
    /// Bytes that are no text.
    #[error("the options are not UTF-8")]
    NotText,
}

impl KeyOptions {
    /// Reads what stands in front of a key.
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

    /// An option without a value.
    fn switch(&mut self, name: &str, verify: &mut bool) -> Result<(), OptionError> {
        let (plain, on) = match name.strip_prefix("no-") {
            Some(plain) => (plain, false),
            None => (name, true),
        };
        match (plain, on) {
            // sshd reads over what stands between two commas, too.
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

    /// An option with a value.
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

/// A value in double quotes, in which `\"` is a quote, and what follows it.
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
