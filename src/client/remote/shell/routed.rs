//! The networks of a remote host without sshvpn, for `--route auto`. Its output is untrusted:
//! unreadable lines are skipped, and the number of networks is limited.

use ipnetwork::IpNetwork;

use super::script::Script;
use super::{PROBE_LIMIT, PROBE_TIMEOUT, RemoteShellError, in_time, script};
use crate::client::remote::login::NoCommands;
use crate::ssh::client::connect::Connection;
use crate::ssh::client::prompt::terminal_text;

/// The script. POSIX sh.
const ROUTED: &str = include_str!("routed.sh");
/// Networks that are kept, at most.
const MOST: usize = 200_000;

/// Reads the connected and routed networks of the remote host.
pub async fn networks(connection: &Connection) -> Result<Vec<IpNetwork>, RemoteShellError> {
    let script = Script {
        name: "sshvpn-routed",
        text: ROUTED,
    };
    let command = script.command("", &[]);
    let finished = in_time(connection, "list its networks", PROBE_TIMEOUT, async {
        let run = connection.run("a shell", &command, script.input(), PROBE_LIMIT);
        Ok(run.await?)
    })
    .await?;
    let text = String::from_utf8_lossy(&finished.output);
    let text = script::output(&text).unwrap_or(&text);
    match parse(text) {
        Some(networks) => Ok(networks),
        None => {
            let complaint = String::from_utf8_lossy(&finished.error_output);
            let refused = NoCommands {
                host: connection.host().to_owned(),
                said: terminal_text::line(complaint.trim())
                    .chars()
                    .take(200)
                    .collect(),
            };
            Err(RemoteShellError::RemoteFacts(refused.into()))
        }
    }
}

/// The networks, sorted; `None` if the script did not run to its end.
fn parse(text: &str) -> Option<Vec<IpNetwork>> {
    let mut networks = Vec::new();
    for line in text.lines() {
        if line == "end" {
            networks.sort();
            networks.dedup();
            return Some(networks);
        }
        let network = line.strip_prefix("routed ");
        let network = network.and_then(|text| text.parse::<IpNetwork>().ok());
        let network = network.and_then(|it| IpNetwork::new(it.network(), it.prefix()).ok());
        if networks.len() < MOST {
            networks.extend(network);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_nonsense_is_skipped() {
        let text = "routed 10.1.0.0/16\nrouted 10.2.3.4\nrouted fd00::/8\nrouted x\nrouted 10.0.0.0/99\n\
                    other 10.9.0.0/16\nrouted 10.1.0.0/16\nend\nrouted 10.7.0.0/16\n";
        let networks: Vec<String> = parse(text)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(networks, ["10.1.0.0/16", "10.2.3.4/32", "fd00::/8"]);
        assert_eq!(parse("routed 10.1.0.0/16\n"), None);
    }
}
