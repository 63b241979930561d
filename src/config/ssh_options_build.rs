//! From keywords and their values to [`SshOptions`].

use std::path::PathBuf;
use std::time::Duration;

use tracing::debug;

use super::error::ConfigError;
use super::invoker::Invoker;
use super::ssh_args::{SshArgs, parse_jump_list, parse_port};
use super::ssh_option_words::{
    address_family, fingerprint_hash, log_level, optional_time, positive, pubkey_authentication,
    request_tty, session_type, strict_host_key_checking,
};
use super::ssh_options::{LogLevel, Proxy, RekeyLimit, SshOptions};
use super::ssh_syntax::{parse_escape_char, parse_flag, parse_size};
use super::ssh_tokens::{self, Tokens};
use super::ssh_values::SshValues;
use super::types::parse_tunnel;

/// Settings that change what ssh does and that we have no part in, with the
/// values that ask for nothing.
const NOT_TAKEN_UP: [(&str, &[&str]); 10] = [
    ("compression", &["no"]),
    ("controlmaster", &["no", "false"]),
    ("controlpath", &["none"]),
    ("gssapiauthentication", &["no"]),
    ("hostbasedauthentication", &["no"]),
    ("knownhostscommand", &["none"]),
    ("localcommand", &["none"]),
    ("pkcs11provider", &["none"]),
    ("verifyhostkeydns", &["no", "false"]),
    ("forwardagent", &["no"]),
];

/// Reads `values`, and `defaults` where they say nothing. `values` is what
/// `ssh -G` prints for `args`: some of its values are expanded already.
pub(crate) fn build(
    mut values: SshValues,
    defaults: &SshValues,
    args: &SshArgs,
    invoker: &Invoker,
) -> Result<SshOptions, ConfigError> {
    let configured = |key| values.contains(key) && values.all(key) != defaults.all(key);
    let identity_files_explicit = configured("identityfile");
    let host_key_algorithms_explicit = configured("hostkeyalgorithms");
    values.fill_from(defaults);
    let typed_host = args.destination()?.host;
    let tokens = tokens(&values, &typed_host, invoker)?;
    let reader = Reader {
        values: &values,
        tokens: &tokens,
        invoker,
    };
    reader.mention_what_is_not_taken_up();
    Ok(SshOptions {
        destination: typed_host,
        host: tokens.host.clone(),
        port: reader.parsed("port", "a port from 1 to 65535", parse_port)?,
        user: tokens.remote_user.clone(),
        address_family: reader.parsed("addressfamily", "any, inet or inet6", address_family)?,
        bind_address: reader.text("bindaddress"),
        bind_interface: reader.text("bindinterface"),
        connect_timeout: reader.time("connecttimeout")?,
        connection_attempts: reader.parsed("connectionattempts", "a number above 0", positive)?,
        tcp_keep_alive: reader.flag("tcpkeepalive")?,
        proxy: reader.proxy()?,
        host_key_alias: reader.text("hostkeyalias"),
        user_known_hosts: reader.plain_paths("userknownhostsfile")?,
        global_known_hosts: reader.plain_paths("globalknownhostsfile")?,
        revoked_host_keys: reader.plain_paths("revokedhostkeys")?,
        strict_host_key_checking: reader.parsed(
            "stricthostkeychecking",
            "yes, no, ask or accept-new",
            strict_host_key_checking,
        )?,
        hash_known_hosts: reader.flag("hashknownhosts")?,
        check_host_ip: reader.flag("checkhostip")?,
        no_host_authentication_for_localhost: reader.flag("nohostauthenticationforlocalhost")?,
        fingerprint_hash: reader.parsed("fingerprinthash", "sha256 or md5", fingerprint_hash)?,
        required_rsa_size: reader.number("requiredrsasize")?,
        identity_files: reader.expanded_paths("identityfile")?,
        identity_files_explicit,
        certificate_files: reader.expanded_paths("certificatefile")?,
        identities_only: reader.flag("identitiesonly")?,
        identity_agent: reader.identity_agent()?,
        preferred_authentications: reader.list("preferredauthentications"),
        pubkey_authentication: reader.parsed(
            "pubkeyauthentication",
            "yes, no, unbound or host-bound",
            pubkey_authentication,
        )?,
        password_authentication: reader.flag("passwordauthentication")?,
        kbd_interactive_authentication: reader.flag("kbdinteractiveauthentication")?,
        number_of_password_prompts: reader.number("numberofpasswordprompts")?,
        batch_mode: reader.flag("batchmode")?,
        pubkey_accepted_algorithms: reader.algorithms("pubkeyacceptedalgorithms")?,
        ciphers: reader.algorithms("ciphers")?,
        kex_algorithms: reader.algorithms("kexalgorithms")?,
        macs: reader.algorithms("macs")?,
        host_key_algorithms: reader.algorithms("hostkeyalgorithms")?,
        host_key_algorithms_explicit,
        ca_signature_algorithms: reader.algorithms("casignaturealgorithms")?,
        rekey_limit: reader.rekey_limit()?,
        server_alive_interval: reader.time("serveraliveinterval")?,
        server_alive_count_max: reader.number("serveralivecountmax")?,
        tunnel: reader.typed("tunnel", parse_tunnel)?,
        tunnel_device: reader.typed("tunneldevice", str::parse)?,
        exit_on_forward_failure: reader.flag("exitonforwardfailure")?,
        request_tty: reader.parsed("requesttty", "no, yes, force or auto", request_tty)?,
        remote_command: reader.text("remotecommand"),
        session_type: reader.parsed("sessiontype", "none, subsystem or default", session_type)?,
        stdin_null: reader.flag("stdinnull")?,
        fork_after_authentication: reader.flag("forkafterauthentication")?,
        send_env: values.all("sendenv").to_vec(),
        set_env: reader.set_env()?,
        escape_char: reader.parsed("escapechar", "a character, ^X or none", parse_escape_char)?,
        log_level: reader.log_level(args)?,
    })
}

/// The values of the tokens, once host, port and user are known.
pub(crate) fn tokens(
    values: &SshValues,
    typed_host: &str,
    invoker: &Invoker,
) -> Result<Tokens, ConfigError> {
    let text = |key, otherwise: &str| values.first(key).unwrap_or(otherwise).to_owned();
    let local_host = nix::unistd::gethostname().map_err(|errno| ConfigError::System {
        what: "reading the host's name",
        source: errno.into(),
    })?;
    let hops = values.first("proxyjump").map(parse_jump_list).transpose();
    let last_hop = hops?.unwrap_or_default().pop();
    Ok(Tokens {
        host: text("hostname", typed_host),
        original_host: typed_host.to_owned(),
        key_alias: text("hostkeyalias", typed_host),
        port: text("port", "22"),
        remote_user: text("user", &invoker.name),
        jump_host: last_hop.map(|hop| hop.host).unwrap_or_default(),
        home: invoker.home.to_string_lossy().into_owned(),
        local_user: invoker.name.clone(),
        user_id: invoker.uid.to_string(),
        local_host: local_host.to_string_lossy().into_owned(),
    })
}

struct Reader<'a> {
    values: &'a SshValues,
    tokens: &'a Tokens,
    invoker: &'a Invoker,
}

impl Reader<'_> {
    /// A value where `none` means that there is none.
    fn text(&self, key: &str) -> Option<String> {
        let value = self.values.first(key)?;
        (!value.eq_ignore_ascii_case("none")).then(|| value.to_owned())
    }

    fn required(&self, key: &str) -> Result<&str, ConfigError> {
        let value = self.values.first(key);
        value.ok_or_else(|| ConfigError::value(key, "", "is missing"))
    }

    fn parsed<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let value = self.required(key)?;
        parse(value).ok_or_else(|| ConfigError::value(key, value, format!("has to be {expected}")))
    }

    fn typed<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, super::types::ParseError>,
    ) -> Result<T, ConfigError> {
        let value = self.required(key)?;
        parse(value).map_err(|error| ConfigError::parse(key, value, &error))
    }

    fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        self.parsed(key, "yes or no", parse_flag)
    }

    fn number(&self, key: &str) -> Result<u32, ConfigError> {
        self.parsed(key, "a number", |text| text.parse().ok())
    }

    /// A time where 0 and `none` mean that there is none.
    fn time(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        self.parsed(key, "a time such as 90, 5m or 1h30m", optional_time)
    }

    /// Names separated by commas.
    fn list(&self, key: &str) -> Vec<String> {
        let value = self.values.first(key).unwrap_or_default();
        let names = value.split(',').filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }

    /// The same, where having none would rule out any connection.
    fn algorithms(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let names = self.list(key);
        if names.is_empty() {
            let value = self.values.first(key).unwrap_or_default();
            return Err(ConfigError::value(key, value, "leaves no algorithm"));
        }
        Ok(names)
    }

    /// Paths in which `ssh -G` leaves nothing but the tilde.
    fn plain_paths(&self, key: &str) -> Result<Vec<PathBuf>, ConfigError> {
        let paths = self.values.all(key).iter().filter(|path| !is_none(path));
        paths.map(|path| self.invoker.expand_tilde(path)).collect()
    }

    /// Paths in which `ssh -G` expands nothing.
    fn expanded_paths(&self, key: &str) -> Result<Vec<PathBuf>, ConfigError> {
        let paths = self.values.all(key).iter().filter(|path| !is_none(path));
        paths
            .map(|path| expand_path(self.tokens, key, path, self.invoker).map(PathBuf::from))
            .collect()
    }

    fn identity_agent(&self) -> Result<Option<PathBuf>, ConfigError> {
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
                    "names no variable",
                )),
                None => self.invoker.expand_tilde(value).map(Some),
            },
        }
    }

    fn proxy(&self) -> Result<Option<Proxy>, ConfigError> {
        let expand = |key, value: &str| self.tokens.expand(key, value, ssh_tokens::PROXY);
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
                "the standard input cannot be the connection here",
            ));
        }
        if self.flag("proxyusefdpass")? {
            return Err(unsupported("ProxyUseFdpass yes is not supported"));
        }
        expand("proxycommand", &command).map(|command| Some(Proxy::Command(command)))
    }

    fn rekey_limit(&self) -> Result<RekeyLimit, ConfigError> {
        let values = self.values.all("rekeylimit");
        let wrong = || {
            let problem =
                "has to be a size of at least 16 bytes, such as 1G, and may end in a time";
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

    fn set_env(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let pairs = self.values.all("setenv").iter().map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| ConfigError::value("setenv", pair, "has to be NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        });
        pairs.collect()
    }

    /// `-q` and `-v` win over the configuration.
    fn log_level(&self, args: &SshArgs) -> Result<LogLevel, ConfigError> {
        let configured = self.parsed("loglevel", "one of QUIET to DEBUG3", log_level)?;
        Ok(match (args.quiet, args.verbosity) {
            (true, _) => LogLevel::Quiet,
            (false, 0) => configured,
            (false, 1) => LogLevel::Debug1,
            (false, 2) => LogLevel::Debug2,
            (false, _) => LogLevel::Debug3,
        })
    }

    fn mention_what_is_not_taken_up(&self) {
        for (key, nothing) in NOT_TAKEN_UP {
            if let Some(value) = self.values.first(key)
                && !nothing.contains(&value.to_ascii_lowercase().as_str())
            {
                debug!("{key} {value}: left to ssh, not done here");
            }
        }
    }
}

/// `path` with tilde, tokens and variables replaced, in ssh's order.
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
    tokens.expand_with_environment(key, path, ssh_tokens::COMMON, invoker)
}

fn is_none(path: &str) -> bool {
    path.eq_ignore_ascii_case("none")
}

#[cfg(test)]
#[path = "ssh_options_tests.rs"]
mod tests;
