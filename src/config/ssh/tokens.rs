//! Expands tokens and environment variables in values: ssh_config(5), sections TOKENS and
//! ENVIRONMENT VARIABLES.

use std::fmt::Write;

use sha1::{Digest, Sha1};

use crate::config::error::ConfigError;
use crate::config::invoker::Invoker;

/// The tokens that most keywords accept.
pub(crate) const COMMON: &str = "CLdhijklnpru";
/// The tokens of `User`: those that do not need the user's name.
pub(crate) const USER: &str = "Ldhijklnpu";
/// The tokens of `ProxyCommand` and `ProxyJump`.
pub(crate) const PROXY: &str = "hknpr";

/// The values of the tokens.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    /// `%h`.
    pub host: String,
    /// `%n`.
    pub original_host: String,
    /// `%k`.
    pub key_alias: String,
    /// `%p`.
    pub port: String,
    /// `%r`.
    pub remote_user: String,
    /// `%j`: the last jump host, or an empty text.
    pub jump_host: String,
    /// `%d`.
    pub home: String,
    /// `%u`.
    pub local_user: String,
    /// `%i`.
    pub user_id: String,
    /// `%l`; `%L` is the part before its first dot.
    pub local_host: String,
}

impl Tokens {
    /// The value of the token `%name`.
    fn value(&self, name: char) -> Option<String> {
        let short = || self.local_host.split('.').next().unwrap_or("").to_owned();
        Some(match name {
            'C' => self.connection_hash(),
            'L' => short(),
            'd' => self.home.clone(),
            'h' => self.host.clone(),
            'i' => self.user_id.clone(),
            'j' => self.jump_host.clone(),
            'k' => self.key_alias.clone(),
            'l' => self.local_host.clone(),
            'n' => self.original_host.clone(),
            'p' => self.port.clone(),
            'r' => self.remote_user.clone(),
            'u' => self.local_user.clone(),
            _ => return None,
        })
    }

    /// `%C`: the SHA-1 of `%l%h%p%r%j`, in hexadecimal.
    fn connection_hash(&self) -> String {
        let mut hash = Sha1::new();
        for part in [
            &self.local_host,
            &self.host,
            &self.port,
            &self.remote_user,
            &self.jump_host,
        ] {
            hash.update(part.as_bytes());
        }
        hash.finalize()
            .iter()
            .fold(String::new(), |mut text, byte| {
                // Writing to a String does not fail.
                let _ = write!(text, "{byte:02x}");
                text
            })
    }

    /// Replaces the tokens in `value` of `key`; only those in `allowed` may occur.
    pub fn expand(&self, key: &str, value: &str, allowed: &str) -> Result<String, ConfigError> {
        expand_with(
            key,
            value,
            |name| self.value(name).filter(|_| allowed.contains(name)),
            None,
        )
    }

    /// The same, and replaces `${NAME}` by the environment variable.
    pub fn expand_with_environment(
        &self,
        key: &str,
        value: &str,
        allowed: &str,
        invoker: &Invoker,
    ) -> Result<String, ConfigError> {
        let token = |name| self.value(name).filter(|_| allowed.contains(name));
        expand_with(key, value, token, Some(invoker))
    }
}

/// Expands `HostName`, whose `%h` is the given host.
pub(crate) fn expand_host_name(value: &str, given: &str) -> Result<String, ConfigError> {
    let token = |name| (name == 'h').then(|| given.to_owned());
    expand_with("HostName", value, token, None)
}

fn expand_with(
    key: &str,
    value: &str,
    token: impl Fn(char) -> Option<String>,
    environment: Option<&Invoker>,
) -> Result<String, ConfigError> {
    let wrong = |problem: String| ConfigError::value(key, value, problem);
    let mut expanded = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or("");
        if let ('$', Some(invoker), Some(after)) = (c, environment, rest.strip_prefix('{')) {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| wrong("'${' without '}'".into()))?;
            expanded.push_str(&variable(invoker, name).map_err(wrong)?);
            rest = after;
        } else if c == '%' {
            let mut following = rest.chars();
            match following.next() {
                Some('%') => expanded.push('%'),
                Some(name) => expanded.push_str(
                    &token(name)
                        .ok_or_else(|| wrong(format!("%{name} is not a token of this keyword")))?,
                ),
                None => return Err(wrong("'%' at the end; write '%%'".into())),
            }
            rest = following.as_str();
        } else {
            expanded.push(c);
        }
    }
    Ok(expanded)
}

fn variable(invoker: &Invoker, name: &str) -> Result<String, String> {
    // The environment cannot contain such names, and getenv would panic on some.
    let valid = !name.is_empty() && !name.contains(['=', '\0']);
    let value = valid.then(|| invoker.variable(name)).flatten();
    let value = value.ok_or_else(|| format!("the environment variable {name} is not set"))?;
    value
        .into_string()
        .map_err(|_| format!("the environment variable {name} is not UTF-8"))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn alice() -> Invoker {
        Invoker {
            uid: 1000.into(),
            gid: 1000.into(),
            groups: vec![1000.into()],
            name: "alice".into(),
            home: "/home/alice".into(),
            agent_socket: Some("/run/agent".into()),
            via_sudo: true,
        }
    }

    fn tokens() -> Tokens {
        Tokens {
            host: "h.example".into(),
            original_host: "h".into(),
            key_alias: "alias".into(),
            port: "22".into(),
            remote_user: "bob".into(),
            jump_host: String::new(),
            home: "/home/alice".into(),
            local_user: "alice".into(),
            user_id: "1000".into(),
            local_host: "laptop.lan".into(),
        }
    }

    #[test]
    fn every_token() {
        let all = "%% %d %h %i %j %k %l %L %n %p %r %u";
        let expected = "% /home/alice h.example 1000  alias laptop.lan laptop h 22 bob alice";
        assert_eq!(tokens().expand("k", all, COMMON).unwrap(), expected);
        // printf laptop.lanh.example22bob | sha1sum
        let hash = tokens().expand("k", "%C", COMMON).unwrap();
        assert_eq!(hash, "ee555aa639e81aa3040e7880e1aad596db701c17");
        assert_eq!(expand_host_name("%h.lan%%", "x").unwrap(), "x.lan%");
        for wrong in ["%", "a%", "%T", "%é"] {
            assert!(tokens().expand("k", wrong, COMMON).is_err(), "{wrong}");
        }
        assert!(tokens().expand("k", "%d", PROXY).is_err());
        assert!(tokens().expand("k", "%r", USER).is_err());
    }

    #[test]
    fn variables_are_the_invokers() {
        let expand = |value| tokens().expand_with_environment("k", value, COMMON, &alice());
        assert_eq!(expand("${HOME}/%r$x$").unwrap(), "/home/alice/bob$x$");
        for wrong in ["${", "${}", "${NO_SUCH_VARIABLE}", "${a=b}", "${\0}"] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
        assert_eq!(tokens().expand("k", "${HOME}", COMMON).unwrap(), "${HOME}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[%${}a-zéC]{0,16}|\\PC{0,16}") {
            let _ = tokens().expand_with_environment("k", &text, COMMON, &alice());
        }
    }
}
