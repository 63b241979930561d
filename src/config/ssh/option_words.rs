//! Converts the words of ssh_config(5) values to the types of [`SshOptions`].
//!
//! [`SshOptions`]: super::options::SshOptions

use std::time::Duration;

use super::args::AddressFamily;
use super::options::{FingerprintHash, LogLevel, RequestTty, SessionType, StrictHostKeyChecking};
use super::syntax::{parse_flag, parse_time};

/// A number above 0.
pub(crate) fn positive(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&number| number > 0)
}

/// A time; 0 and `none` give no time.
pub(crate) fn optional_time(text: &str) -> Option<Option<Duration>> {
    if text == "none" {
        return Some(None);
    }
    parse_time(text).map(|time| (!time.is_zero()).then_some(time))
}

pub(crate) fn address_family(text: &str) -> Option<AddressFamily> {
    match text.to_ascii_lowercase().as_str() {
        "any" => Some(AddressFamily::Any),
        "inet" => Some(AddressFamily::Inet),
        "inet6" => Some(AddressFamily::Inet6),
        _ => None,
    }
}

pub(crate) fn strict_host_key_checking(text: &str) -> Option<StrictHostKeyChecking> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(StrictHostKeyChecking::Yes),
        "ask" => Some(StrictHostKeyChecking::Ask),
        "accept-new" => Some(StrictHostKeyChecking::AcceptNew),
        "no" | "false" | "off" => Some(StrictHostKeyChecking::No),
        _ => None,
    }
}

pub(crate) fn fingerprint_hash(text: &str) -> Option<FingerprintHash> {
    match text.to_ascii_lowercase().as_str() {
        "sha256" => Some(FingerprintHash::Sha256),
        "md5" => Some(FingerprintHash::Md5),
        _ => None,
    }
}

pub(crate) fn pubkey_authentication(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "unbound" | "host-bound" => Some(true),
        other => parse_flag(other),
    }
}

pub(crate) fn request_tty(text: &str) -> Option<RequestTty> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Some(RequestTty::Auto),
        "force" => Some(RequestTty::Force),
        other => parse_flag(other).map(|yes| if yes { RequestTty::Yes } else { RequestTty::No }),
    }
}

pub(crate) fn session_type(text: &str) -> Option<SessionType> {
    match text.to_ascii_lowercase().as_str() {
        "default" => Some(SessionType::Default),
        "none" => Some(SessionType::None),
        "subsystem" => Some(SessionType::Subsystem),
        _ => None,
    }
}

pub(crate) fn log_level(text: &str) -> Option<LogLevel> {
    match text.to_ascii_uppercase().as_str() {
        "QUIET" | "SILENT" => Some(LogLevel::Quiet),
        "FATAL" => Some(LogLevel::Fatal),
        "ERROR" => Some(LogLevel::Error),
        "INFO" => Some(LogLevel::Info),
        "VERBOSE" => Some(LogLevel::Verbose),
        "DEBUG" | "DEBUG1" => Some(LogLevel::Debug1),
        "DEBUG2" => Some(LogLevel::Debug2),
        "DEBUG3" => Some(LogLevel::Debug3),
        _ => None,
    }
}
