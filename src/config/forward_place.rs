//! Host and port patterns of TCP forwards: `permitopen=` and `permitlisten=` of sshd(8), and the
//! same keys of a server's configuration.

use std::fmt;

use serde::Deserialize;
use thiserror::Error;

/// The limit of a host name, in bytes (`NI_MAXHOST`).
const MAX_HOST: usize = 1024;

/// A place of `permitopen=` or `permitlisten=` (sshd(8)): a host, as the client requests it, and a
/// port; `None` matches any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name or address; compared as text, ignoring case.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
}

/// The text is not a place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{text}' is not {wanted}: the port from 1 to 65535 or '*', an IPv6 address in []")]
pub struct PlaceError {
    text: String,
    wanted: &'static str,
}

impl Place {
    /// Parses `HOST:PORT`, where either may be `*`.
    pub fn parse_open(text: &str) -> Result<Self, PlaceError> {
        split(text).ok_or_else(|| PlaceError {
            text: text.to_owned(),
            wanted: "HOST:PORT",
        })
    }

    /// Parses `[HOST:]PORT`; without a host it matches any.
    pub fn parse_listen(text: &str) -> Result<Self, PlaceError> {
        let place = match text.contains(':') {
            true => split(text),
            false => port(text).map(|port| Place { host: None, port }),
        };
        place.ok_or_else(|| PlaceError {
            text: text.to_owned(),
            wanted: "[HOST:]PORT",
        })
    }
}

fn split(text: &str) -> Option<Place> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':')?)
        }
        None => text.split_once(':')?,
    };
    let sound = |c: char| c.is_ascii_graphic() && !matches!(c, '[' | ']' | '/');
    if host.is_empty() || host.len() >= MAX_HOST || !host.chars().all(sound) {
        return None;
    }
    Some(Place {
        host: (host != "*").then(|| host.to_owned()),
        port: port(rest)?,
    })
}

/// Parses a port or `*`. The outer `None` means neither.
fn port(text: &str) -> Option<Option<u16>> {
    if text == "*" {
        return Some(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = text.parse().ok().filter(|&port| digits && port != 0)?;
    Some(Some(port))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => f.write_str("*")?,
            Some(host) if host.contains(':') => write!(f, "[{host}]")?,
            Some(host) => f.write_str(host)?,
        }
        match self.port {
            None => f.write_str(":*"),
            Some(port) => write!(f, ":{port}"),
        }
    }
}

/// A place to connect to, in a configuration file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct OpenPlace(pub(crate) Place);

impl TryFrom<String> for OpenPlace {
    type Error = PlaceError;

    fn try_from(text: String) -> Result<Self, PlaceError> {
        Place::parse_open(&text).map(OpenPlace)
    }
}

/// A place to listen at, in a configuration file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ListenPlace(pub(crate) Place);

impl TryFrom<String> for ListenPlace {
    type Error = PlaceError;

    fn try_from(text: String) -> Result<Self, PlaceError> {
        Place::parse_listen(&text).map(ListenPlace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back() {
        for text in ["db.lab:5432", "*:443", "[::1]:22", "10.0.0.1:*", "*:*"] {
            assert_eq!(Place::parse_open(text).unwrap().to_string(), text);
        }
        assert_eq!(Place::parse_listen("8080").unwrap().to_string(), "*:8080");
        assert_eq!(Place::parse_listen("*").unwrap().to_string(), "*:*");
        assert_eq!(Place::parse_listen("a:1").unwrap().to_string(), "a:1");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for wrong in [
            "",
            "host",
            ":80",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:http",
            "::1:22",
            "[::1]22",
            "[]:1",
            "a b:1",
            "a:1:2",
        ] {
            assert!(Place::parse_open(wrong).is_err(), "{wrong}");
        }
        assert!(Place::parse_open("8080").is_err());
        assert!(Place::parse_listen("0").is_err());
    }
}
