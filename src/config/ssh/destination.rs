//! Parses destinations and lists of jump hosts as ssh(1) does.

use std::fmt;
use std::str::FromStr;

use crate::config::error::ConfigError;

/// A parsed destination. Only the URI form has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The user to log in as.
    pub user: Option<String>,
    /// The host as typed, without the brackets of an IPv6 address.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
}

impl FromStr for Destination {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let parsed = match text.strip_prefix("ssh://") {
            Some(uri) => parse_uri(uri),
            None => parse_plain(text),
        };
        parsed
            .filter(Destination::is_valid)
            .ok_or_else(|| ConfigError::Destination(text.to_owned()))
    }
}

impl Destination {
    fn is_valid(&self) -> bool {
        is_valid_host(&self.host) && self.user.as_deref().is_none_or(is_valid_user)
    }
}

/// Without the port, in the form in which ssh also accepts an IPv6 address.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)
    }
}

/// One jump host of `-J` or `ProxyJump`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JumpHop {
    /// The user to log in as.
    pub user: Option<String>,
    /// The host, as ssh_config's `Host` matches it.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
}

impl FromStr for JumpHop {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let parsed = match text.strip_prefix("ssh://") {
            Some(uri) => parse_uri(uri),
            None => parse_host_port(text),
        };
        let listable = |user: &str| !user.contains(',');
        let hop = parsed
            .filter(Destination::is_valid)
            .filter(|hop| hop.user.as_deref().is_none_or(listable));
        hop.map(|Destination { user, host, port }| JumpHop { user, host, port })
            .ok_or_else(|| ConfigError::JumpHosts(text.to_owned()))
    }
}

impl fmt::Display for JumpHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Parses the hosts of `-J` or `ProxyJump`, nearest first; `none` gives an empty list.
pub fn parse_jump_list(text: &str) -> Result<Vec<JumpHop>, ConfigError> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    text.split(',').map(str::parse).collect()
}

/// The list in the form that [`parse_jump_list`] reads.
pub(crate) fn format_jump_list(hops: &[JumpHop]) -> String {
    let hops: Vec<String> = hops.iter().map(JumpHop::to_string).collect();
    hops.join(",")
}

/// Parses `[user@]host`, and removes the brackets of an IPv6 address.
fn parse_plain(text: &str) -> Option<Destination> {
    let (user, host) = split_user(text)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None => host,
    };
    Some(Destination {
        user,
        host: non_empty(host)?,
        port: None,
    })
}

/// Parses `[user@]host[:port]`, with an IPv6 address in brackets.
fn parse_host_port(text: &str) -> Option<Destination> {
    let (user, rest) = split_user(text)?;
    let (host, after) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => match rest.find(':') {
            Some(colon) => rest.split_at_checked(colon)?,
            None => (rest, ""),
        },
    };
    let port = match after.strip_prefix(':') {
        Some("") => None,
        Some(port) => Some(parse_port(port)?),
        None if after.is_empty() => None,
        None => return None,
    };
    Some(Destination {
        user,
        host: non_empty(host)?,
        port,
    })
}

/// Parses the text after `ssh://`: connection parameters after the user's `;` are ignored, a path
/// is refused (draft-salowey-secsh-uri, as ssh reads it).
fn parse_uri(text: &str) -> Option<Destination> {
    let (user, rest) = match text.split_once('@') {
        Some((info, rest)) => {
            let user = info.split_once(';').map_or(info, |(user, _)| user);
            (Some(non_empty(&decode_percent(user)?)?), rest)
        }
        None => (None, text),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') || rest.contains('@') {
        return None;
    }
    let destination = parse_host_port(rest)?;
    Some(Destination {
        user,
        ..destination
    })
}

/// A user name may contain `@`; a host never does.
fn split_user(text: &str) -> Option<(Option<String>, &str)> {
    match text.rsplit_once('@') {
        Some((user, host)) => Some((Some(non_empty(user)?), host)),
        None => Some((None, text)),
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A port number from 1 to 65535.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn decode_percent(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Whether ssh accepts the host on the command line, since it may become part of the shell command
/// of a ProxyCommand. Brackets and slashes belong to other forms.
fn is_valid_host(host: &str) -> bool {
    let harmful =
        |c: char| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){},[]/".contains(c);
    !host.starts_with('-') && !host.contains(harmful)
}

/// Whether ssh accepts the user name on the command line.
pub(crate) fn is_valid_user(user: &str) -> bool {
    let harmful = |c: char| c.is_control() || "'`\";&<>|(){}".contains(c);
    let dash_after_space = || {
        let pairs = user.chars().zip(user.chars().skip(1));
        pairs
            .into_iter()
            .any(|(a, b)| a.is_whitespace() && b == '-')
    };
    !user.starts_with('-')
        && !user.ends_with('\\')
        && !user.contains(harmful)
        && !dash_after_space()
}

#[cfg(test)]
mod tests;
