//! `sshvpn serve --check`: reads everything that a server would read and looks at all that it would
//! open; reports each obstacle to a start, or a summary.

use std::fmt;

use super::host;
use super::listen::Bound;
use super::serve_error::ServeError;
use crate::config::serve::request::ServeRequest;
use crate::config::serve::settings::ServeSettings;
use crate::host::change::sysctl;
use crate::host::netlink::Netlink;
use crate::process::message::say;
use crate::server::address::pool::Pools;
use crate::server::login::policy::{Policy, Warning};
use crate::server::report::audit::AuditError;
use crate::server::report::metrics::MetricsError;
use crate::server::report::status;
use crate::ssh::server::host_keys;

/// The exit code if there is an obstacle.
const OBSTACLE: u8 = 2;

/// Checks, prints what it found, and returns the exit code.
pub async fn run(request: &ServeRequest) -> u8 {
    let checked = check(request).await;
    for warning in &checked.warnings {
        say(format_args!("sshvpn: serve: warning: {warning}"));
    }
    for obstacle in &checked.obstacles {
        say(format_args!("sshvpn: serve: {obstacle}"));
    }
    match checked.summary {
        Some(summary) if checked.obstacles.is_empty() => {
            say(summary);
            0
        }
        _ => OBSTACLE,
    }
}

/// The result.
#[derive(Debug, Default)]
struct Checked {
    /// If the settings and the files of keys can be read.
    summary: Option<Summary>,
    /// Why a server would not start, or not work.
    obstacles: Vec<ServeError>,
    /// The warnings that the server would print at its start.
    warnings: Vec<Warning>,
}

/// What the settings say. `Display` prints one line per fact, without a line break at the end.
#[derive(Debug)]
struct Summary {
    settings: ServeSettings,
    keys: usize,
}

/// Reads the settings and the files that they name, and looks at this host; changes nothing.
async fn check(request: &ServeRequest) -> Checked {
    let mut checked = Checked::default();
    let settings = match request.load() {
        Ok(settings) => settings,
        Err(error) => {
            checked.obstacles.push(error.into());
            return checked;
        }
    };
    match Policy::load(&settings) {
        Ok((policy, warnings)) => {
            checked.warnings = warnings;
            let doubtful = policy.doubtful_rules(request.config_path());
            checked.warnings.extend(doubtful);
            checked.summary = Some(Summary {
                keys: policy.key_count(),
                settings: settings.clone(),
            });
        }
        Err(error) => checked.obstacles.push(error.into()),
    }
    checked.obstacles.extend(of_files(&settings));
    checked.obstacles.extend(of_listeners(&settings).await);
    checked.obstacles.extend(of_host(&settings).await);
    checked
}

fn of_files(settings: &ServeSettings) -> Vec<ServeError> {
    let keys = settings.host_keys.iter();
    let keys = keys.filter_map(|path| host_keys::check(path).err());
    let mut found: Vec<ServeError> = keys.map(ServeError::from).collect();
    found.extend(
        AuditError::check(&settings.audit)
            .err()
            .map(ServeError::from),
    );
    found
}

/// A running server has these addresses itself; a service manager hands them over.
async fn of_listeners(settings: &ServeSettings) -> Vec<ServeError> {
    if status::any_server() || std::env::var_os("LISTEN_FDS").is_some() {
        return Vec::new();
    }
    let listen = Bound::check(&settings.listen).into_iter();
    let mut found: Vec<ServeError> = listen.map(ServeError::from).collect();
    if let Some(address) = settings.metrics {
        let metrics = MetricsError::check(address).await;
        found.extend(metrics.err().map(ServeError::from));
    }
    found
}

async fn of_host(settings: &ServeSettings) -> Vec<ServeError> {
    let facts = async {
        let netlink = Netlink::open()?;
        let facts = netlink.facts().await?;
        Ok((netlink, facts))
    };
    let (netlink, facts) = match facts.await {
        Ok(found) => found,
        Err(error) => return vec![host::ServeHostError::Net(error).into()],
    };
    let pools = match Pools::choose(settings, None, &facts, sysctl::has_ipv6(), 0) {
        Ok(pools) => pools,
        Err(error) => return vec![error.into()],
    };
    let overlaps = pools.overlaps(&facts, settings.network.bridge.as_ref());
    let mut found: Vec<ServeError> = overlaps.into_iter().map(ServeError::from).collect();
    let of_host = host::check(&netlink, settings, &pools).await;
    found.extend(of_host.into_iter().map(ServeError::from));
    found
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

    #[tokio::test]
    async fn what_would_be_is_summed_up_and_nothing_is_made() {
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
        let checked = check(&request).await;
        let text = checked.summary.unwrap().to_string();
        for said in [
            "listens on [::]:2222\n",
            "host (will be generated)\n",
            "keys and authorities: 0, rules: 0",
            "unused private networks",
            "10.1.0.0/16 without NAT",
        ] {
            assert!(text.contains(said), "{text}");
        }
        let warning = checked.warnings.first().unwrap().to_string();
        assert!(
            warning.contains("keys:1: there is no key on this line"),
            "{warning}"
        );
        assert!(!host_key.exists());
        fs::write(request.config_path(), "nonsense = 1").unwrap();
        let checked = check(&request).await;
        assert!(matches!(checked.obstacles[..], [ServeError::Config(_)]));
    }
}
