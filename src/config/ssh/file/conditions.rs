//! Evaluates the conditions of a `Match` line, ssh_config(5).

use std::process::Stdio;

use ipnetwork::IpNetwork;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use super::line::Line;
use crate::config::invoker::Invoker;
use crate::config::ssh::pattern::matches_list;
use crate::config::ssh::tokens::{COMMON, Tokens};

/// The values that conditions test.
pub(super) struct MatchFacts<'a> {
    /// Host, users and the like; the host is the given one or its HostName.
    pub tokens: &'a Tokens,
    /// The user whose settings are read, and who runs the commands of `exec`.
    pub invoker: &'a Invoker,
    /// The value of `Tag`.
    pub tag: &'a str,
    /// The value of `SessionType`, in lower case.
    pub session_type: &'a str,
    /// The command given on the command line.
    pub command: &'a str,
    /// Whether the files are being read for the second time.
    pub final_pass: bool,
    /// Whether the commands of `exec` run; if not, they count as failed.
    pub runs_commands: bool,
}

/// The result of a `Match` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Whether all conditions hold.
    pub holds: bool,
    /// Whether it requires a second reading of the files.
    pub wants_final_pass: bool,
}

/// Evaluates the conditions of `line`. After a condition that does not hold, no commands are run.
pub(super) fn evaluate(line: &Line, facts: &MatchFacts<'_>) -> Result<Outcome, String> {
    let mut words = line.words.iter().map(String::as_str);
    let mut outcome = Outcome {
        holds: true,
        wants_final_pass: false,
    };
    let mut count = 0;
    while let Some(word) = words.next() {
        let (negated, word) = match word.strip_prefix('!') {
            Some(word) => (true, word),
            None => (false, word),
        };
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name.to_ascii_lowercase(), Some(value)),
            None => (word.to_ascii_lowercase(), None),
        };
        let holds = match name.as_str() {
            // ssh allows one condition before it, as in `final all`.
            "all" if count > 1 || words.next().is_some() => {
                return Err("all cannot be combined with other conditions".into());
            }
            "all" => true,
            "canonical" => facts.final_pass,
            "final" => {
                outcome.wants_final_pass |= !negated;
                facts.final_pass
            }
            _ => {
                let missing = || format!("Match {name} needs an argument");
                let argument = attached.or_else(|| words.next()).ok_or_else(missing)?;
                let may_be_empty = matches!(name.as_str(), "tagged" | "command");
                if argument.is_empty() && !may_be_empty {
                    return Err(missing());
                }
                condition(&name, argument, facts, outcome.holds)?
            }
        };
        count += 1;
        outcome.holds &= holds != negated;
    }
    if count == 0 {
        return Err("Match needs a condition".into());
    }
    Ok(outcome)
}

fn condition(
    name: &str,
    argument: &str,
    facts: &MatchFacts<'_>,
    so_far: bool,
) -> Result<bool, String> {
    let tokens = facts.tokens;
    Ok(match name {
        "host" => matches_host(&tokens.host, argument),
        "originalhost" => matches_host(&tokens.original_host, argument),
        "user" => matches_list(&tokens.remote_user, argument),
        "localuser" => matches_list(&tokens.local_user, argument),
        "tagged" => matches_or_both_empty(facts.tag, argument),
        "command" => matches_or_both_empty(facts.command, argument),
        "sessiontype" => {
            let session = match (facts.session_type, facts.command) {
                (explicit @ ("none" | "subsystem"), _) => explicit,
                (_, "") => "shell",
                _ => "exec",
            };
            matches_list(session, argument)
        }
        "localnetwork" => is_in_local_network(argument)?,
        "exec" => {
            let command = tokens.expand("Match exec", argument, COMMON);
            let command = command.map_err(|error| error.to_string())?;
            so_far && facts.runs_commands && succeeds(&command, facts.invoker)?
        }
        "version" => {
            return Err("Match version is supported only with the ssh program: install it".into());
        }
        _ => return Err(format!("unknown Match condition {name}")),
    })
}

/// Host names match regardless of case.
fn matches_host(host: &str, list: &str) -> bool {
    matches_list(&host.to_ascii_lowercase(), &list.to_ascii_lowercase())
}

fn matches_or_both_empty(value: &str, list: &str) -> bool {
    if value.is_empty() {
        list.is_empty()
    } else {
        matches_list(value, list)
    }
}

/// Runs `command` in the invoker's shell, as ssh does: with /dev/null as standard input and output.
fn succeeds(command: &str, invoker: &Invoker) -> Result<bool, String> {
    let shell = invoker.variable("SHELL");
    let status = invoker
        .command(shell.unwrap_or_else(|| "/bin/sh".into()))
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("Match exec {command}: {error}"))?;
    match status.code() {
        Some(code) => Ok(code == 0),
        None => Err(format!("Match exec {command}: ended by a signal")),
    }
}

/// Whether an interface that is up has an address in one of the networks.
fn is_in_local_network(list: &str) -> Result<bool, String> {
    let network = |text: &str| {
        let parsed = text.parse::<IpNetwork>();
        parsed.map_err(|error| format!("Match localnetwork {text}: {error}"))
    };
    let networks: Vec<IpNetwork> = list.split(',').map(network).collect::<Result<_, _>>()?;
    let interfaces = getifaddrs().map_err(|error| format!("Match localnetwork: {error}"))?;
    let mut addresses = interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| interface.address.as_ref().and_then(ip_address));
    Ok(addresses.any(|address| networks.iter().any(|network| network.contains(address))))
}

fn ip_address(address: &SockaddrStorage) -> Option<std::net::IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ssh::options_build::tokens;
    use crate::config::ssh::tokens::tests::alice;
    use crate::config::ssh::values::SshValues;

    fn outcome(text: &str, final_pass: bool) -> Result<Outcome, String> {
        let values = SshValues::from([
            ("hostname", vec!["h.example".to_owned()]),
            ("user", vec!["bob".to_owned()]),
        ]);
        let invoker = Invoker {
            via_sudo: false,
            ..alice()
        };
        let tokens = tokens(&values, "H", &invoker).map_err(|error| error.to_string())?;
        let facts = MatchFacts {
            tokens: &tokens,
            invoker: &invoker,
            tag: "lab",
            session_type: "default",
            command: "",
            final_pass,
            runs_commands: true,
        };
        evaluate(&Line::parse(text)?.ok_or("empty")?, &facts)
    }

    fn holds(text: &str) -> bool {
        outcome(text, false).unwrap().holds
    }

    #[test]
    fn each_condition() {
        for (text, expected) in [
            ("Match all", true),
            ("Match !all", false),
            ("Match host h.*,other", true),
            ("Match host H", false),
            ("Match originalhost h", true),
            ("Match !originalhost h", false),
            ("Match user bob localuser alice", true),
            ("Match user bob localuser root", false),
            ("Match host=*.example user=!x,b*", true),
            ("Match tagged lab", true),
            ("Match command \"\"", true),
            ("Match command x", false),
            ("Match sessiontype shell", true),
            ("Match exec true", true),
            ("Match exec \"test %r = bob\"", true),
            ("Match exec false", false),
            ("Match !exec false # comment", true),
            ("Match localnetwork 127.0.0.0/8", true),
            ("Match localnetwork 203.0.113.0/24", false),
            ("Match final", false),
            ("Match !canonical", true),
        ] {
            assert_eq!(holds(text), expected, "{text}");
        }
        assert!(outcome("Match final host h*", true).unwrap().holds);
    }

    #[test]
    fn a_second_pass_has_to_be_asked_for() {
        assert!(outcome("Match final", false).unwrap().wants_final_pass);
        assert!(!outcome("Match !final", false).unwrap().wants_final_pass);
        assert!(!outcome("Match canonical", false).unwrap().wants_final_pass);
    }

    #[test]
    fn commands_do_not_run_after_a_condition_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let touch = format!("exec \"touch {}\"", mark.display());
        assert!(!holds(&format!("Match user nobody {touch}")));
        assert!(!mark.exists());
        assert!(holds(&format!("Match user bob {touch}")));
        assert!(mark.exists());
    }

    #[test]
    fn nonsense_is_an_error() {
        for wrong in [
            "Match host",
            "Match foo x",
            "Match user x host x all",
            "Match all host x",
            "Match user \"\"",
            "Match # x",
            "Match exec %z",
            "Match localnetwork x",
            "Match version *",
            "Match exec \"kill -9 $$\"",
        ] {
            assert!(outcome(wrong, false).is_err(), "{wrong}");
        }
    }
}
