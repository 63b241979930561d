//! `sshvpn serve --check`: reads everything that a server would read, and reports errors
//! or a summary.

use std::fmt;

use crate::config::serve::error::ServeConfigError;
use crate::config::serve::request::ServeRequest;
use crate::config::serve::settings::ServeSettings;
use crate::server::login::policy::{Policy, PolicyError, Warning};

/// Why a server would not start.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ServeConfigError),
    /// A file that the configuration names is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The summary. `Display` prints one line per fact, without a line break at the end.
#[derive(Debug)]
pub struct Summary {
    settings: ServeSettings,
    keys: usize,
    /// The warnings that the server would print at its start.
    pub warnings: Vec<Warning>,
}

/// Reads the settings and the files that they name; changes nothing.
pub fn check(request: &ServeRequest) -> Result<Summary, CheckFailure> {
    let settings = request.load()?;
    let (policy, mut warnings) = Policy::load(&settings)?;
    warnings.extend(policy.idle_rules(request.config_path()));
    Ok(Summary {
        keys: policy.key_count(),
        settings,
        warnings,
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        writeln!(f, "listens on {}", list(&settings.listen))?;
        for path in &settings.host_keys {
            let found = match path.exists() {
                true => "",
                false => " (will be generated)",
            };
            writeln!(f, "host key {}{found}", path.display())?;
        }
        writeln!(
            f,
            "keys and authorities: {}, rules: {}",
            self.keys,
            settings.clients.len()
        )?;
        if settings.disable_forwarding {
            writeln!(
                f,
                "no tunnels and no forwards for any client (disable-forwarding)"
            )?;
        }
        let network = &settings.network;
        match (network.assign, network.pools.is_empty()) {
            (false, _) => writeln!(f, "assigns no addresses")?,
            (true, true) => writeln!(f, "addresses from unused private networks")?,
            (true, false) => writeln!(f, "addresses from {}", list(&network.pools))?,
        }
        match network.routes.is_empty() {
            true => write!(
                f,
                "clients reach only this host, unless a rule names routes"
            ),
            false => {
                let how = if network.nat {
                    "with NAT"
                } else {
                    "without NAT"
                };
                write!(f, "clients reach {} {how}", list(&network.routes))
            }
        }
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_would_be_is_summed_up_and_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        let host_key = directory.path().join("host");
        fs::write(&keys, "garbage\n").unwrap();
        let config = directory.path().join("serve.toml");
        fs::write(&config, "[network]\nroute = [\"10.1.0.0/16\"]\n").unwrap();
        let request = ServeRequest {
            config: Some(config),
            authorized_keys: vec![keys.clone()],
            host_keys: vec![host_key.clone()],
            no_nat: true,
            ..ServeRequest::default()
        };
        let summary = check(&request).unwrap();
        let text = summary.to_string();
        for said in [
            "listens on [::]:2222\n",
            "host (will be generated)\n",
            "keys and authorities: 0, rules: 0",
            "unused private networks",
            "10.1.0.0/16 without NAT",
        ] {
            assert!(text.contains(said), "{text}");
        }
        let warning = summary.warnings.first().unwrap().to_string();
        assert!(
            warning.contains("keys:1: there is no key on this line"),
            "{warning}"
        );
        assert!(!host_key.exists());
        fs::write(request.config_path(), "nonsense = 1").unwrap();
        assert!(matches!(check(&request), Err(CheckFailure::Config(_))));
    }
}
