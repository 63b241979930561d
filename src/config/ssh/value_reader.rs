//! Converts the values of one keyword to the type of a setting.

use std::path::PathBuf;
use std::time::Duration;

use tracing::debug;

use super::args::SshArgs;
use super::destination::parse_jump_list;
use super::forward::{Forward, Kind};
use super::option_words::{address_family, log_level, optional_time};
use super::options::{
    ControlSocket, ForwardSettings, LogLevel, PermitRemoteOpen, Proxy, RekeyLimit,
};
use super::syntax::{parse_flag, parse_size, parse_time};
use super::tokens::{self, Tokens};
use super::values::SshValues;
use crate::config::error::ConfigError;
use crate::config::forward_place::Place;
use crate::config::invoker::Invoker;
use crate::types::ParseError;

/// Settings that change ssh's behaviour and that sshvpn does not support, with the values that
/// request nothing.
const NOT_TAKEN_UP: [(&str, &[&str]); 8] = [
    ("compression", &["no"]),
    ("gssapiauthentication", &["no"]),
    ("hostbasedauthentication", &["no"]),
    ("knownhostscommand", &["none"]),
    ("localcommand", &["none"]),
    ("pkcs11provider", &["none"]),
    ("verifyhostkeydns", &["no", "false"]),
    ("forwardagent", &["no"]),
];

/// Reads the values of one destination.
pub(crate) struct Reader<'a> {
    /// The values that ssh would use.
    pub values: &'a SshValues,
    /// The values of the tokens in them.
    pub tokens: &'a Tokens,
    /// The user whose home directory, agent and environment apply.
    pub invoker: &'a Invoker,
}

impl Reader<'_> {
    /// A value; `none` gives no value.
    pub fn text(&self, key: &str) -> Option<String> {
        let value = self.values.first(key)?;
        (!value.eq_ignore_ascii_case("none")).then(|| value.to_owned())
    }

    fn required(&self, key: &str) -> Result<&str, ConfigError> {
        let value = self.values.first(key);
        value.ok_or_else(|| ConfigError::value(key, "", "is missing"))
    }

    pub fn parsed<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let value = self.required(key)?;
        parse(value).ok_or_else(|| ConfigError::value(key, value, format!("must be {expected}")))
    }

    pub fn typed<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, ParseError>,
    ) -> Result<T, ConfigError> {
        let value = self.required(key)?;
        parse(value).map_err(|error| ConfigError::parse(key, value, &error))
    }

    pub fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        self.parsed(key, "yes or no", parse_flag)
    }

    pub fn number(&self, key: &str) -> Result<u32, ConfigError> {
        self.parsed(key, "a number", |text| text.parse().ok())
    }

    /// A time; 0 and `none` give no time.
    pub fn time(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        self.parsed(key, "a time such as 90, 5m or 1h30m", optional_time)
    }

    /// The names of a comma-separated list.
    pub fn list(&self, key: &str) -> Vec<String> {
        let value = self.values.first(key).unwrap_or_default();
        let names = value.split(',').filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }

    /// The same; an empty list is an error, since it would rule out any connection.
    pub fn algorithms(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let names = self.list(key);
        if names.is_empty() {
            let value = self.values.first(key).unwrap_or_default();
            return Err(ConfigError::value(key, value, "leaves no algorithm"));
        }
        Ok(names)
    }

    /// Paths in which `ssh -G` has expanded everything except the tilde.
    pub fn plain_paths(&self, key: &str) -> Result<Vec<PathBuf>, ConfigError> {
        let paths = self.values.all(key).iter().filter(|path| !is_none(path));
        paths.map(|path| self.invoker.expand_tilde(path)).collect()
    }

    /// Paths in which `ssh -G` has expanded nothing.
    pub fn expanded_paths(&self, key: &str) -> Result<Vec<PathBuf>, ConfigError> {
        let paths = self.values.all(key).iter().filter(|path| !is_none(path));
        paths
            .map(|path| expand_path(self.tokens, key, path, self.invoker).map(PathBuf::from))
            .collect()
    }

    pub fn identity_agent(&self) -> Result<Option<PathBuf>, ConfigError> {
        let from_environment = || self.invoker.agent_socket.clone();
        match self.values.first("identityagent") {
            None | Some("SSH_AUTH_SOCK") => Ok(from_environment()),
            Some("none") => Ok(None),
            Some(value) => match value.strip_prefix('$') {
                Some("SSH_AUTH_SOCK") => Ok(from_environment()),
                Some(name) if !name.is_empty() && !name.contains(['=', '\0', '{']) => {
                    Ok(self.invoker.variable(name).map(PathBuf::from))
                }
                Some(_) => Err(ConfigError::value(
                    "identityagent",
                    value,
                    "is not the name of a variable",
                )),
                None => self.invoker.expand_tilde(value).map(Some),
            },
        }
    }

    pub fn proxy(&self) -> Result<Option<Proxy>, ConfigError> {
        let expand = |key, value: &str| self.tokens.expand(key, value, tokens::PROXY);
        if let Some(list) = self.text("proxyjump") {
            let hops = parse_jump_list(&expand("proxyjump", &list)?)?;
            return Ok(Some(Proxy::Jump(hops)));
        }
        let Some(command) = self.text("proxycommand") else {
            return Ok(None);
        };
        let unsupported = |problem: &str| ConfigError::value("proxycommand", &command, problem);
        if command == "-" {
            return Err(unsupported(
                "standard input as the connection is not supported",
            ));
        }
        if self.flag("proxyusefdpass")? {
            return Err(unsupported("ProxyUseFdpass yes is not supported"));
        }
        expand("proxycommand", &command).map(|command| Some(Proxy::Command(command)))
    }

    /// The forwards of the command line, and those of the configuration behind them.
    pub fn forwards(&self, args: &SshArgs) -> Result<ForwardSettings, ConfigError> {
        let cleared = self.flag("clearallforwardings")?;
        let all = |kind: Kind, key: &str| {
            if cleared {
                return Ok(Vec::new());
            }
            let given = args.forwards.iter().filter(|(of, _)| *of == kind);
            let mut all: Vec<Forward> = given.map(|(_, forward)| forward.clone()).collect();
            for value in self.values.all(key) {
                // `ssh -G` prints the listeners of local sockets under both keywords.
                if kind == Kind::Dynamic && value.starts_with('/') {
                    continue;
                }
                let forward = kind.parse_value(value);
                all.push(
                    forward.map_err(|error| ConfigError::value(key, value, error.to_string()))?,
                );
            }
            Ok(all)
        };
        Ok(ForwardSettings {
            local: all(Kind::Local, "localforward")?,
            remote: all(Kind::Remote, "remoteforward")?,
            dynamic: all(Kind::Dynamic, "dynamicforward")?,
            stdio: args.stdio_forward.clone(),
            gateway_ports: self.flag("gatewayports")?,
            socket_mask: self.parsed(
                "streamlocalbindmask",
                "an octal number up to 0777",
                |text| {
                    u32::from_str_radix(text, 8)
                        .ok()
                        .filter(|&mask| mask <= 0o777)
                },
            )?,
            unlink_socket: self.flag("streamlocalbindunlink")?,
            permit_remote_open: self.permit_remote_open()?,
            address_family: self.parsed("addressfamily", "any, inet or inet6", address_family)?,
        })
    }

    /// The path is expanded already.
    pub fn control_path(&self) -> Result<Option<PathBuf>, ConfigError> {
        let path = self.text("controlpath");
        path.map(|path| self.invoker.expand_tilde(&path))
            .transpose()
    }

    /// The control socket to listen at. `ask` is taken as `yes`: only the same user reaches it.
    pub fn control(&self) -> Result<Option<ControlSocket>, ConfigError> {
        let (wanted, auto) = self.parsed(
            "controlmaster",
            "yes, no, ask, auto or autoask",
            |text| match text.to_ascii_lowercase().as_str() {
                "auto" | "autoask" => Some((true, true)),
                "ask" => Some((true, false)),
                other => parse_flag(other).map(|wanted| (wanted, false)),
            },
        )?;
        let persist = self.parsed(
            "controlpersist",
            "yes, no or a time",
            |text| match parse_flag(&text.to_ascii_lowercase()) {
                Some(true) => Some(Some(Duration::ZERO)),
                Some(false) => Some(None),
                None => parse_time(text).map(Some),
            },
        )?;
        let path = self.control_path()?.filter(|_| wanted);
        Ok(path.map(|path| ControlSocket {
            path,
            auto,
            persist,
        }))
    }

    fn permit_remote_open(&self) -> Result<PermitRemoteOpen, ConfigError> {
        let words = self.values.all("permitremoteopen");
        match words
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .as_slice()
        {
            [] | ["any"] => return Ok(PermitRemoteOpen::Any),
            ["none"] => return Ok(PermitRemoteOpen::Places(Vec::new())),
            _ => {}
        }
        let places = words.iter().map(|word| {
            Place::parse_open(word)
                .map_err(|error| ConfigError::value("permitremoteopen", word, error.to_string()))
        });
        places
            .collect::<Result<_, _>>()
            .map(PermitRemoteOpen::Places)
    }

    pub fn rekey_limit(&self) -> Result<RekeyLimit, ConfigError> {
        let values = self.values.all("rekeylimit");
        let wrong = || {
            let problem = "must be a size of at least 16 bytes, such as 1G, and may end in a time";
            ConfigError::value("rekeylimit", &values.join(" "), problem)
        };
        let bytes = match values.first().map(String::as_str) {
            None | Some("default") => 0,
            Some(size) => parse_size(size)
                .filter(|&bytes| bytes == 0 || bytes >= 16)
                .ok_or_else(wrong)?,
        };
        let time = match values.get(1) {
            None => None,
            Some(time) => optional_time(time).ok_or_else(wrong)?,
        };
        Ok(RekeyLimit {
            bytes: (bytes != 0).then_some(bytes),
            time,
        })
    }

    pub fn set_env(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let pairs = self.values.all("setenv").iter().map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| ConfigError::value("setenv", pair, "must be NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        });
        pairs.collect()
    }

    /// `-q` and `-v` take precedence over the configuration.
    pub fn log_level(&self, args: &SshArgs) -> Result<LogLevel, ConfigError> {
        let configured = self.parsed("loglevel", "one of QUIET to DEBUG3", log_level)?;
        Ok(match (args.quiet, args.verbosity) {
            (true, _) => LogLevel::Quiet,
            (false, 0) => configured,
            (false, 1) => LogLevel::Debug1,
            (false, 2) => LogLevel::Debug2,
            (false, _) => LogLevel::Debug3,
        })
    }

    pub fn mention_what_is_not_taken_up(&self) {
        for (key, nothing) in NOT_TAKEN_UP {
            if let Some(value) = self.values.first(key)
                && !nothing.contains(&value.to_ascii_lowercase().as_str())
            {
                debug!("{key} {value}: ignored, sshvpn does not support this setting");
            }
        }
    }
}

/// Expands tilde, tokens and variables in `path`, in ssh's order.
pub(crate) fn expand_path(
    tokens: &Tokens,
    key: &str,
    path: &str,
    invoker: &Invoker,
) -> Result<String, ConfigError> {
    let path = invoker.expand_tilde(path)?;
    let path = path
        .to_str()
        .ok_or_else(|| ConfigError::value(key, &path.to_string_lossy(), "is not UTF-8"))?;
    tokens.expand_with_environment(key, path, tokens::COMMON, invoker)
}

fn is_none(path: &str) -> bool {
    path.eq_ignore_ascii_case("none")
}
