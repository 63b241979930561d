//! Authenticates to the server with one method after the other, as ssh does (RFC 4252;
//! PreferredAuthentications in ssh_config(5)).

pub(in crate::ssh) mod candidates;
pub mod identity;
pub(in crate::ssh) mod interactive;
pub(in crate::ssh) mod key_signer;
pub mod private_key;
pub(in crate::ssh) mod publickey;
pub mod secret;
pub mod ssh_agent;

#[cfg(test)]
pub(in crate::ssh) mod certificate_tests;
#[cfg(test)]
pub(in crate::ssh) mod interactive_tests;
#[cfg(test)]
pub(in crate::ssh) mod login_tests;

use russh::MethodKind;
use russh::client::{AuthResult, Handle, Handler};
use thiserror::Error;

use super::host_key::HostTrust;
use super::prompt::Prompter;
use crate::config::invoker::Invoker;
use crate::config::ssh::options::SshOptions;
use interactive::Interactive;
use publickey::PublicKeys;

/// ssh's order, without the methods that sshvpn does not implement.
const DEFAULT_ORDER: [Method; 3] = [
    Method::PublicKey,
    Method::KeyboardInteractive,
    Method::Password,
];

/// Why the server denied the login.
#[derive(Debug, Error)]
pub enum AuthError {
    /// Every method that both sides support was tried.
    #[error("{user}@{host}: Permission denied ({methods}).")]
    Denied {
        /// The login's user.
        user: String,
        /// The server.
        host: String,
        /// The methods that the server accepts, separated by commas.
        methods: String,
    },
    /// The server offered no method at first, or closed the connection.
    #[error(
        "{user}@{host}: the server offers no method of login, or closed the connection before the first \
         try; its PubkeyAuthentication, PasswordAuthentication and KbdInteractiveAuthentication may be off"
    )]
    NoMethod {
        /// The login's user.
        user: String,
        /// The server.
        host: String,
    },
    /// The server closed the connection, for example after too many attempts, or has no
    /// method left.
    #[error(
        "{user}@{host}: the server ended the authentication after {tries} tries; if those were too many keys, name the one to use (-i KEY -o IdentitiesOnly=yes)"
    )]
    Disconnected {
        /// The login's user.
        user: String,
        /// The server.
        host: String,
        /// The number of requests that were answered before.
        tries: u32,
    },
    /// The user interrupted a prompt.
    #[error("interrupted")]
    Interrupted,
    /// The server asked too many questions.
    #[error("{host}: the server asks too many questions during authentication")]
    TooManyQuestions {
        /// The server.
        host: String,
    },
    /// The connection failed.
    #[error("{user}@{host}: authentication failed")]
    Connection {
        /// The login's user.
        user: String,
        /// The server.
        host: String,
        /// russh's error.
        source: Box<russh::Error>,
    },
}

/// A method that sshvpn implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    PublicKey,
    KeyboardInteractive,
    Password,
}

impl Method {
    fn named(name: &str) -> Option<Self> {
        match name {
            "publickey" => Some(Method::PublicKey),
            "keyboard-interactive" => Some(Method::KeyboardInteractive),
            "password" => Some(Method::Password),
            _ => None,
        }
    }

    fn kind(self) -> MethodKind {
        match self {
            Method::PublicKey => MethodKind::PublicKey,
            Method::KeyboardInteractive => MethodKind::KeyboardInteractive,
            Method::Password => MethodKind::Password,
        }
    }
}

/// The result of one attempt at a method.
pub(in crate::ssh) enum Attempt {
    /// The server replied.
    Answered(AuthResult),
    /// The method has nothing (more) to send.
    NothingToSend,
}

/// The user who authenticates, and how to prompt them.
pub(in crate::ssh) struct Person<'a> {
    pub(in crate::ssh) options: &'a SshOptions,
    pub(in crate::ssh) invoker: &'a Invoker,
    pub(in crate::ssh) prompter: &'a Prompter,
    /// The number of requests that were answered.
    tries: std::sync::atomic::AtomicU32,
}

impl Person<'_> {
    /// The host as ssh names it.
    pub(in crate::ssh) fn host(&self) -> String {
        self.options.host.to_lowercase()
    }

    pub(in crate::ssh) fn disconnected(&self) -> AuthError {
        let (user, host) = (self.options.user.clone(), self.host());
        match self.tries.load(std::sync::atomic::Ordering::Relaxed) {
            0 => AuthError::NoMethod { user, host },
            tries => AuthError::Disconnected { user, host, tries },
        }
    }

    pub(in crate::ssh) fn failed(&self, source: russh::Error) -> AuthError {
        match source {
            russh::Error::SendError | russh::Error::RecvError => self.disconnected(),
            source => AuthError::Connection {
                user: self.options.user.clone(),
                host: self.host(),
                source: Box::new(source),
            },
        }
    }

    fn denied(&self, offered: &[MethodKind]) -> AuthError {
        let names: Vec<&str> = offered.iter().map(<&str>::from).collect();
        AuthError::Denied {
            user: self.options.user.clone(),
            host: self.host(),
            methods: names.join(","),
        }
    }
}

/// Authenticates the session of `handle` as `options.user`. Sends no password and answers
/// no question to a server that is not [`HostTrust::Verified`].
pub async fn authenticate<H: Handler>(
    handle: &mut Handle<H>,
    trust: HostTrust,
    options: &SshOptions,
    invoker: &Invoker,
    prompter: &Prompter,
) -> Result<(), AuthError> {
    let person = Person {
        options,
        invoker,
        prompter,
        tries: 0.into(),
    };
    // "none" makes the server list its methods.
    let answer = handle
        .authenticate_none(&options.user)
        .await
        .map_err(|error| person.failed(error))?;
    let Some((mut offered, _)) = refused(answer, &person)? else {
        return Ok(());
    };
    let mut methods = enabled(options, trust);
    let mut keys = None;
    let mut interactive = Interactive::default();
    while let Some(method) = next(&methods, &offered) {
        let attempt = match method {
            Method::PublicKey => {
                if keys.is_none() {
                    keys = Some(PublicKeys::collect(handle, &person).await);
                }
                match &mut keys {
                    Some(keys) => keys.attempt(handle, &person).await?,
                    None => Attempt::NothingToSend,
                }
            }
            Method::KeyboardInteractive => {
                interactive.keyboard_interactive(handle, &person).await?
            }
            Method::Password => interactive.password(handle, &person).await?,
        };
        let answer = match attempt {
            Attempt::Answered(answer) => answer,
            Attempt::NothingToSend => {
                methods.retain(|other| *other != method);
                continue;
            }
        };
        let Some((remaining, partial)) = refused(answer, &person)? else {
            tracing::debug!("authenticated to {} using {method:?}", person.host());
            return Ok(());
        };
        if partial {
            tracing::debug!("authenticated using {method:?} with partial success");
            if let Some(keys) = &mut keys {
                keys.reset();
            }
        }
        offered = remaining;
    }
    Err(person.denied(&offered))
}

/// The methods that the configuration allows, in order.
fn enabled(options: &SshOptions, trust: HostTrust) -> Vec<Method> {
    let named = options.preferred_authentications.iter();
    let mut methods: Vec<Method> = named.filter_map(|name| Method::named(name)).collect();
    if options.preferred_authentications.is_empty() {
        methods.extend(DEFAULT_ORDER);
    }
    let may_be_asked = trust == HostTrust::Verified && !options.batch_mode;
    methods.retain(|method| match method {
        Method::PublicKey => options.pubkey_authentication,
        Method::KeyboardInteractive => may_be_asked && options.kbd_interactive_authentication,
        Method::Password => may_be_asked && options.password_authentication,
    });
    methods
}

/// The first of `methods` that the server offers.
fn next(methods: &[Method], offered: &[MethodKind]) -> Option<Method> {
    let mut methods = methods.iter().copied();
    methods.find(|method| offered.contains(&method.kind()))
}

/// The methods that the server offers after a refusal, and whether it was a partial
/// success; `None` after a success.
fn refused(
    answer: AuthResult,
    person: &Person<'_>,
) -> Result<Option<(Vec<MethodKind>, bool)>, AuthError> {
    match answer {
        AuthResult::Success => Ok(None),
        // russh also reports a closed connection like this, and closes the connection
        // itself when the server offers no method.
        AuthResult::Failure {
            remaining_methods, ..
        } if remaining_methods.is_empty() => Err(person.disconnected()),
        AuthResult::Failure {
            remaining_methods,
            partial_success,
        } => {
            let tries = &person.tries;
            tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tracing::debug!("authentications that can continue: {remaining_methods:?}");
            Ok(Some((remaining_methods.to_vec(), partial_success)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::test_settings;

    #[test]
    fn methods_are_those_of_both_sides_in_our_order() {
        let mut options = test_settings::options();
        let preferred = ["hostbased", "password", "publickey"];
        options.preferred_authentications = preferred.map(str::to_owned).to_vec();
        let methods = enabled(&options, HostTrust::Verified);
        assert_eq!(methods, [Method::Password, Method::PublicKey]);
        let offered = [MethodKind::HostBased, MethodKind::PublicKey];
        assert_eq!(next(&methods, &offered), Some(Method::PublicKey));
        assert_eq!(next(&methods, &[MethodKind::HostBased]), None);
        options.preferred_authentications.clear();
        assert_eq!(enabled(&options, HostTrust::Verified), DEFAULT_ORDER);
    }

    #[test]
    fn no_secret_for_a_server_that_is_not_verified() {
        let options = test_settings::options();
        let methods = enabled(&options, HostTrust::Unverified);
        assert_eq!(methods, [Method::PublicKey]);
    }

    #[test]
    fn batch_mode_asks_nothing() {
        let mut options = test_settings::options();
        options.batch_mode = true;
        let methods = enabled(&options, HostTrust::Verified);
        assert_eq!(methods, [Method::PublicKey]);
    }
}
