//! What stood on the command line, in ssh's own terms: options of ssh(1),
//! the destination, and lists of jump hosts.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::ConfigError;
use super::types::TunnelDevice;

/// `AddressFamily`, `-4`, `-6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// IPv4 only.
    Inet,
    /// IPv6 only.
    Inet6,
}

/// ssh(1)'s options, as given.
#[derive(Debug, Clone, Default)]
pub struct SshArgs {
    /// `[user@]host` or `ssh://[user@]host[:port]`.
    pub destination: String,
    /// `-p`.
    pub port: Option<u16>,
    /// `-l`.
    pub login: Option<String>,
    /// `-i`, in order.
    pub identities: Vec<PathBuf>,
    /// `-F`; `none` reads no file.
    pub config_file: Option<PathBuf>,
    /// `-J`.
    pub jump: Option<String>,
    /// `-o`, in order.
    pub options: Vec<String>,
    /// `-4`, `-6`.
    pub address_family: Option<AddressFamily>,
    /// `-b`.
    pub bind_address: Option<String>,
    /// `-B`.
    pub bind_interface: Option<String>,
    /// `-c`.
    pub ciphers: Option<String>,
    /// `-m`.
    pub macs: Option<String>,
    /// `-w`: this device, and a tunnel even where ssh_config says `Tunnel no`.
    pub tunnel_device: Option<TunnelDevice>,
    /// The command after the destination, by words.
    pub command: Vec<String>,
    /// How often `-v`.
    pub verbosity: u8,
    /// `-q`.
    pub quiet: bool,
}

impl SshArgs {
    /// The destination, taken apart.
    pub fn destination(&self) -> Result<Destination, ConfigError> {
        let destination: Destination = self.destination.parse()?;
        match &self.login {
            Some(login) if !is_valid_user(login) => Err(ConfigError::Destination(login.clone())),
            _ => Ok(destination),
        }
    }

    /// The same as arguments for ssh(1), the destination among them. `-v` and
    /// `-q` are left out: they would only change what ssh itself prints.
    pub fn to_ssh(&self) -> Result<Vec<OsString>, ConfigError> {
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        if let Some(file) = &self.config_file {
            add("-F", file.into());
        }
        if let Some(port) = self.port {
            add("-p", port.to_string().into());
        }
        for (flag, value) in [
            ("-l", &self.login),
            ("-J", &self.jump),
            ("-b", &self.bind_address),
            ("-B", &self.bind_interface),
            ("-c", &self.ciphers),
            ("-m", &self.macs),
        ] {
            if let Some(value) = value {
                add(flag, value.into());
            }
        }
        for identity in &self.identities {
            add("-i", identity.into());
        }
        for option in &self.options {
            add("-o", option.into());
        }
        if let Some(device) = self.tunnel_device {
            add("-w", format!("{}:{}", device.local, device.remote).into());
        }
        match self.address_family {
            Some(AddressFamily::Inet) => arguments.push("-4".into()),
            Some(AddressFamily::Inet6) => arguments.push("-6".into()),
            Some(AddressFamily::Any) | None => {}
        }
        arguments.push("--".into());
        arguments.push(self.destination()?.to_string().into());
        arguments.extend(self.command.iter().map(Into::into));
        Ok(arguments)
    }

    /// What ssh would be started with to reach `hop`: the configuration file
    /// and the verbosity are the ones given, everything else is the hop's own.
    /// `before` are the hops on the way to it.
    pub fn for_hop(&self, hop: &JumpHop, before: &[JumpHop]) -> SshArgs {
        SshArgs {
            destination: hop.host.clone(),
            port: hop.port,
            login: hop.user.clone(),
            config_file: self.config_file.clone(),
            verbosity: self.verbosity,
            jump: (!before.is_empty()).then(|| format_jump_list(before)),
            ..SshArgs::default()
        }
    }
}

/// A destination, taken apart. The port only comes with the URI form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Who to log in as.
    pub user: Option<String>,
    /// The host as typed, without the brackets of an IPv6 address.
    pub host: String,
    /// Which port.
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

/// In the form that ssh takes: as a URI only where there is a port.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port.is_some() {
            f.write_str("ssh://")?;
        }
        if let Some(user) = &self.user {
            match self.port {
                Some(_) => write!(f, "{}@", encode_user(user))?,
                None => write!(f, "{user}@")?,
            }
        }
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// One jump host of `-J` or `ProxyJump`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JumpHop {
    /// Who to log in as.
    pub user: Option<String>,
    /// The host, as ssh_config's `Host` would match it.
    pub host: String,
    /// Which port.
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

/// The hosts of `-J` or `ProxyJump`, nearest first; none for `none`.
pub fn parse_jump_list(text: &str) -> Result<Vec<JumpHop>, ConfigError> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    text.split(',').map(str::parse).collect()
}

fn format_jump_list(hops: &[JumpHop]) -> String {
    let hops: Vec<String> = hops.iter().map(JumpHop::to_string).collect();
    hops.join(",")
}

/// `[user@]host`; brackets around an IPv6 address are taken off.
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

/// `[user@]host[:port]`, where an IPv6 address stands in brackets.
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

/// What follows `ssh://`: connection parameters after the user's `;` are
/// ignored, a path is refused (draft-salowey-secsh-uri, as ssh reads it).
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

/// A name may itself hold `@`; a host never does.
fn split_user(text: &str) -> Option<(Option<String>, &str)> {
    match text.rsplit_once('@') {
        Some((user, host)) => Some((Some(non_empty(user)?), host)),
        None => Some((None, text)),
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A port number; 0 is none.
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

fn encode_user(user: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    user.bytes()
        .map(|byte| match byte {
            byte if plain(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02x}"),
        })
        .collect()
}

/// What ssh lets a host on the command line be, since it may end up in the
/// shell command of a ProxyCommand. Brackets and slashes belong to other forms.
fn is_valid_host(host: &str) -> bool {
    let harmful =
        |c: char| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){},[]/".contains(c);
    !host.starts_with('-') && !host.contains(harmful)
}

/// The same for a user's name.
fn is_valid_user(user: &str) -> bool {
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
#[path = "ssh_args_tests.rs"]
mod tests;
