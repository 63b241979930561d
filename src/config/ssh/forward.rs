//! Forwards as ssh(1) writes them: `-L`, `-R`, `-D`, and LocalForward, RemoteForward and
//! DynamicForward of ssh_config(5).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// ssh's limit of a host's name (NI_MAXHOST).
const MAX_HOST: usize = 1025;
/// The longest path of a Unix socket that the kernel takes (sun_path, its final 0 excluded).
const MAX_PATH: usize = 107;

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port.
    Port {
        /// The address as it is written: none where it is left out, empty or `*` for all.
        bind: Option<String>,
        /// The port; 0 for any that is free.
        port: u16,
    },
    /// A Unix socket.
    Socket(PathBuf),
}

/// A place to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A host, by name or address, and its port.
    Host {
        /// The name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Socket(PathBuf),
}

/// A listener, and the place that its connections lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The listener.
    pub listen: Listen,
    /// The place; none where each connection names its own (SOCKS).
    pub target: Option<Target>,
}

/// The forwards of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `-L`.
    Local,
    /// `-R`.
    Remote,
    /// `-D`.
    Dynamic,
}

/// The text is not a forward.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{text}' is not a forward: it must be {expected}")]
pub struct ForwardError {
    text: String,
    expected: &'static str,
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Kind::Local => {
                "[bind_address:]port:host:hostport, [bind_address:]port:remote_socket, \
                 local_socket:host:hostport or local_socket:remote_socket, an IPv6 address in []"
            }
            Kind::Remote => {
                "[bind_address:]port[:host:hostport], [bind_address:]port:local_socket, \
                 remote_socket:host:hostport or remote_socket:local_socket, an IPv6 address in []"
            }
            Kind::Dynamic => "[bind_address:]port, an IPv6 address in []",
        }
    }

    /// Parses a forward in the form of the command line.
    pub fn parse(self, text: &str) -> Result<Forward, ForwardError> {
        self.read(text).ok_or_else(|| ForwardError {
            text: text.to_owned(),
            expected: self.expected(),
        })
    }

    /// Parses the value of ssh_config's keyword, which has a space between the listener and the
    /// place; `ssh -G` prints it alike.
    pub fn parse_value(self, text: &str) -> Result<Forward, ForwardError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        // `ssh -G` prints a remote dynamic forward with the place 0 or [socks]:0.
        let joined = match words.as_slice() {
            [listen, "0" | "[socks]:0"] if self == Kind::Remote => (*listen).to_owned(),
            [listen, place] if self != Kind::Dynamic => format!("{listen}:{place}"),
            [listen] => (*listen).to_owned(),
            _ => String::new(),
        };
        self.read(&joined).ok_or_else(|| ForwardError {
            text: text.to_owned(),
            expected: self.expected(),
        })
    }

    fn read(self, text: &str) -> Option<Forward> {
        let fields = fields(text)?;
        let dynamic = |listen: Listen| Forward {
            listen,
            target: None,
        };
        let to = |listen: Listen, target: Target| Forward {
            listen,
            target: Some(target),
        };
        let forward = match fields.as_slice() {
            [one] => dynamic(one.listen(None)?),
            [bind, one] if !bind.is_path() && !one.is_path() => dynamic(one.listen(Some(bind))?),
            [one, socket] => to(one.listen(None)?, Target::Socket(socket.path()?)),
            [bind, one, socket] if socket.is_path() => {
                to(one.listen(Some(bind))?, Target::Socket(socket.path()?))
            }
            [one, host, port] => to(one.listen(None)?, host.target(port)?),
            [bind, one, host, port] => to(one.listen(Some(bind))?, host.target(port)?),
            _ => return None,
        };
        forward.fits(self).then_some(forward)
    }
}

impl Forward {
    /// Whether a forward of `kind` may have this form.
    pub(crate) fn fits(&self, kind: Kind) -> bool {
        match (kind, &self.target) {
            (Kind::Local | Kind::Remote, Some(_)) | (Kind::Remote, None) => true,
            (Kind::Dynamic, None) => matches!(self.listen, Listen::Port { .. }),
            (Kind::Local, None) | (Kind::Dynamic, Some(_)) => false,
        }
    }

    /// The forward as an option of ssh_config(5).
    pub(crate) fn to_option(&self, kind: Kind) -> String {
        let keyword = match kind {
            Kind::Local => "LocalForward",
            Kind::Remote => "RemoteForward",
            Kind::Dynamic => "DynamicForward",
        };
        match &self.target {
            Some(target) => format!("{keyword}={} {target}", self.listen),
            None => format!("{keyword}={}", self.listen),
        }
    }
}

/// A part of a forward between colons.
#[derive(Debug)]
struct Field {
    text: String,
    bracketed: bool,
}

impl Field {
    fn is_path(&self) -> bool {
        self.text.contains('/')
    }

    fn path(&self) -> Option<PathBuf> {
        let fits = self.is_path() && self.text.len() <= MAX_PATH;
        fits.then(|| PathBuf::from(&self.text))
    }

    fn port(&self) -> Option<u16> {
        let digits = !self.bracketed && self.text.bytes().all(|byte| byte.is_ascii_digit());
        self.text.parse().ok().filter(|_| digits)
    }

    fn host(&self) -> Option<&str> {
        let sound = |c: char| c.is_ascii_graphic() && c != '/';
        let fits = self.text.len() < MAX_HOST && self.text.chars().all(sound);
        fits.then_some(self.text.as_str())
    }

    fn listen(&self, bind: Option<&Field>) -> Option<Listen> {
        if self.is_path() {
            return match bind {
                None => self.path().map(Listen::Socket),
                Some(_) => None,
            };
        }
        let bind = match bind {
            None => None,
            Some(bind) => Some(bind.host()?.to_owned()),
        };
        let port = self.port()?;
        Some(Listen::Port { bind, port })
    }

    fn target(&self, port: &Field) -> Option<Target> {
        let host = self.host().filter(|host| !host.is_empty())?.to_owned();
        let port = port.port().filter(|&port| port != 0)?;
        Some(Target::Host { host, port })
    }
}

/// The parts of `text`, at most four; a part in brackets may contain colons, and a backslash
/// keeps the character after it.
fn fields(text: &str) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut rest = text.trim().chars().peekable();
    loop {
        let bracketed = rest.next_if_eq(&'[').is_some();
        let mut field = String::new();
        let mut closed = !bracketed;
        while let Some(character) = rest.next() {
            match character {
                ']' if !closed => {
                    closed = true;
                    if !matches!(rest.peek(), None | Some(':')) {
                        return None;
                    }
                }
                ':' if closed => {
                    fields.push(Field {
                        text: std::mem::take(&mut field),
                        bracketed,
                    });
                    break;
                }
                '\\' => field.push(rest.next()?),
                other => field.push(other),
            }
            if rest.peek().is_none() {
                fields.push(Field {
                    text: std::mem::take(&mut field),
                    bracketed,
                });
                return (closed && fields.len() <= 4).then_some(fields);
            }
        }
        if rest.peek().is_none() || fields.len() > 4 {
            return None;
        }
    }
}

impl Target {
    /// Parses `HOST:PORT`, as `-W` takes it.
    fn of_pair(text: &str) -> Option<Self> {
        match fields(text)?.as_slice() {
            [socket] => socket.path().map(Target::Socket),
            [host, port] => host.target(port),
            _ => None,
        }
    }
}

impl FromStr for Target {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        Target::of_pair(text).ok_or_else(|| ForwardError {
            text: text.to_owned(),
            expected: "HOST:PORT, an IPv6 address in []",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Target::Host { host, port } => write!(f, "{host}:{port}"),
            Target::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Port { bind: None, port } => write!(f, "{port}"),
            Listen::Port {
                bind: Some(bind),
                port,
            } if bind.contains(':') => write!(f, "[{bind}]:{port}"),
            Listen::Port {
                bind: Some(bind),
                port,
            } => write!(f, "{bind}:{port}"),
            Listen::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
