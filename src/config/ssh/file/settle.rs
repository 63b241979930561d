//! Applies ssh's last steps after all files are read: determines the host's name, and expands the
//! values that `ssh -G` prints expanded.

use std::net::{IpAddr, ToSocketAddrs};

use super::{Reader, algorithms};
use crate::config::error::ConfigError;
use crate::config::ssh::defaults::ALGORITHM_KEYS;
use crate::config::ssh::destination::{JumpHop, parse_jump_list};
use crate::config::ssh::syntax::parse_flag;
use crate::config::ssh::tokens::{COMMON, Tokens, USER};
use crate::config::ssh::value_reader::expand_path;
use crate::config::ssh::values::SshValues;

impl Reader<'_> {
    /// Replaces `HostName` by the name to connect to: expanded, in lower case, and canonical if
    /// `CanonicalizeHostname` requires it.
    pub(super) fn settle_host_name(&mut self) -> Result<(), ConfigError> {
        let name = self.host_name()?.to_ascii_lowercase();
        let name = match name.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => self.canonicalize(name)?,
        };
        self.collected.values.set("hostname", vec![name]);
        Ok(())
    }

    fn canonicalize(&mut self, name: String) -> Result<String, ConfigError> {
        let values = &self.collected.values;
        let text = |key| values.first(key).filter(|value| !is_none(value));
        let how = text("canonicalizehostname")
            .unwrap_or("no")
            .to_ascii_lowercase();
        let straight = text("proxyjump").is_none() && text("proxycommand").is_none();
        let wanted = match parse_flag(&how) {
            Some(yes) => yes && straight,
            None if how == "always" => true,
            None => {
                let problem = "must be yes, no or always";
                return Err(ConfigError::value("canonicalizehostname", &how, problem));
            }
        };
        self.wants_final_pass |= wanted || how == "yes" || how == "true";
        if let Some(rules) = text("canonicalizepermittedcnames")
            && wanted
        {
            let problem = "following CNAMEs is supported only with the ssh program: install it";
            return Err(ConfigError::value(
                "canonicalizepermittedcnames",
                rules,
                problem,
            ));
        }
        let max_dots = text("canonicalizemaxdots").and_then(|dots| dots.parse().ok());
        let anchored = name.ends_with('.');
        let dots = name.matches('.').count();
        if !wanted || name.contains('%') || (!anchored && dots > max_dots.unwrap_or(1)) {
            return Ok(name);
        }
        let candidates = if anchored {
            vec![name.trim_end_matches('.').to_owned()]
        } else {
            let domains = values.all("canonicaldomains").iter();
            let domains = domains.take_while(|domain| !is_none(domain));
            domains.map(|domain| format!("{name}.{domain}")).collect()
        };
        let found = candidates.into_iter().find(|name| exists(name));
        let fallback = text("canonicalizefallbacklocal").and_then(parse_flag);
        match found {
            Some(found) => Ok(found),
            None if fallback.unwrap_or(true) => Ok(name),
            None => Err(ConfigError::value(
                "canonicaldomains",
                &values.all("canonicaldomains").join(" "),
                format!("none of these domains has a host {name}"),
            )),
        }
    }
}

/// Whether the resolver finds the fully qualified `name`.
fn exists(name: &str) -> bool {
    let addresses = (format!("{name}."), 22).to_socket_addrs();
    addresses.is_ok_and(|mut addresses| addresses.next().is_some())
}

fn is_none(value: &str) -> bool {
    value.eq_ignore_ascii_case("none")
}

/// Sets user and port, expands the values that `ssh -G` expands, and refuses the values that ssh
/// refuses before it connects. `user_given`: the command line names the user.
pub(super) fn finish(
    reader: Reader<'_>,
    defaults: &SshValues,
    user_given: bool,
) -> Result<SshValues, ConfigError> {
    let invoker = reader.invoker;
    let command_given = !reader.command.is_empty();
    let typed_host = reader.typed_host;
    let mut values = reader.collected.values;
    if let Some(alias) = values.first("hostkeyalias") {
        values.set("hostkeyalias", vec![alias.to_ascii_lowercase()]);
    }
    let mut tokens = crate::config::ssh::options_build::tokens(&values, &typed_host, invoker)?;
    if values.contains("user") && !user_given {
        let user = tokens.remote_user.clone();
        tokens.remote_user = tokens.expand_with_environment("user", &user, USER, invoker)?;
    }
    values.set("user", vec![tokens.remote_user.clone()]);
    expand_values(&mut values, &tokens, invoker)?;
    for key in ALGORITHM_KEYS {
        let Some(value) = values.first(key) else {
            continue;
        };
        let default = defaults.first(key).unwrap_or_default();
        let list = algorithms::assemble(key, value, default)
            .ok_or_else(|| ConfigError::value(key, value, "accepts names only, no patterns"))?;
        values.set(key, vec![list]);
    }
    refuse_contradictions(&values, &tokens, command_given)?;
    Ok(values)
}

fn expand_values(
    values: &mut SshValues,
    tokens: &Tokens,
    invoker: &crate::config::invoker::Invoker,
) -> Result<(), ConfigError> {
    if let Some(command) = values.first("remotecommand") {
        let command = tokens.expand("remotecommand", command, COMMON)?;
        values.set("remotecommand", vec![command]);
    }
    for key in [
        "identityagent",
        "userknownhostsfile",
        "revokedhostkeys",
        "controlpath",
    ] {
        let expand = |path: &String| {
            if is_none(path) {
                return Ok(path.clone());
            }
            expand_path(tokens, key, path, invoker)
        };
        let expanded: Vec<String> = values
            .all(key)
            .iter()
            .map(expand)
            .collect::<Result<_, _>>()?;
        if !expanded.is_empty() {
            values.set(key, expanded);
        }
    }
    let expand = |pair: &String| match pair.split_once('=') {
        Some((name, value)) => {
            let value = tokens.expand_with_environment("setenv", value, COMMON, invoker)?;
            Ok(format!("{name}={value}"))
        }
        None => Ok(pair.clone()),
    };
    let pairs: Vec<String> = values
        .all("setenv")
        .iter()
        .map(expand)
        .collect::<Result<_, _>>()?;
    if !pairs.is_empty() {
        values.set("setenv", pairs);
    }
    Ok(())
}

fn refuse_contradictions(
    values: &SshValues,
    tokens: &Tokens,
    command_given: bool,
) -> Result<(), ConfigError> {
    let text = |key| values.first(key).filter(|value| !is_none(value));
    let remote_command = text("remotecommand");
    if let Some(command) = remote_command
        && command_given
    {
        let problem = "cannot be combined with a command on the command line";
        return Err(ConfigError::value("remotecommand", command, problem));
    }
    let forks = text("forkafterauthentication").and_then(parse_flag) == Some(true);
    let no_session = values.first("sessiontype").is_some_and(is_none);
    if forks && !command_given && remote_command.is_none() && !no_session {
        let problem = "needs a command to run in the background";
        return Err(ConfigError::value(
            "forkafterauthentication",
            "yes",
            problem,
        ));
    }
    let hops = text("proxyjump").map(parse_jump_list).transpose()?;
    match hops.unwrap_or_default().pop() {
        Some(JumpHop { user, host, port })
            if host == tokens.host
                && user.as_ref().is_none_or(|user| *user == tokens.remote_user)
                && port.unwrap_or(22).to_string() == tokens.port =>
        {
            Err(ConfigError::JumpLoop(host))
        }
        _ => Ok(()),
    }
}
