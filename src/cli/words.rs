//! Words that read as subcommands but are none in this version: reserved names, and names with a
//! typing error. Without this they would be hosts to log in to.

use clap::CommandFactory;

use super::{Cli, SessionArgs};

/// Names that later versions may give to subcommands.
const RESERVED: [&str; 6] = ["doctor", "down", "exec", "logs", "ping", "status"];

impl SessionArgs {
    /// Why the destination is no host but a reserved name; `None` with `-w`, or after `--`.
    pub fn reserved_word(&self, line: impl IntoIterator<Item = String>) -> Option<String> {
        let word = self.destination.as_deref()?;
        let meant = self.device.is_some() || line.into_iter().any(|word| word == "--");
        if meant || !RESERVED.contains(&word) {
            return None;
        }
        let instead = match word {
            "down" => {
                "; Ctrl-C or SIGTERM takes a tunnel down, 'sshvpn cleanup' what a killed one left"
            }
            "status" => "; 'sshvpn serve --status' shows the clients of a server",
            "exec" => "; for a tunnel, 'sshvpn up [user@]HOST'",
            _ => "",
        };
        Some(format!(
            "this version has no command '{word}'{instead}; for a host of this name: sshvpn -- {word}"
        ))
    }

    /// The subcommand that the destination resembles.
    pub fn resembled_command(&self) -> Option<String> {
        let word = self.destination.as_deref()?;
        Cli::command()
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .find(|name| is_one_error_apart(word, name))
    }
}

/// Whether one letter is missing, added, changed or swapped with the next.
fn is_one_error_apart(typed: &str, name: &str) -> bool {
    let (typed, name) = (typed.as_bytes(), name.as_bytes());
    let same = |(a, b): &(&u8, &u8)| a == b;
    let start = typed.iter().zip(name).take_while(same).count();
    let end = typed
        .iter()
        .rev()
        .zip(name.iter().rev())
        .take_while(same)
        .count();
    let (long, short) = (typed.len().max(name.len()), typed.len().min(name.len()));
    if long != short {
        return long == short + 1 && start + end >= short;
    }
    let middle = long.saturating_sub(start + end);
    let swapped =
        || typed.get(start) == name.get(start + 1) && typed.get(start + 1) == name.get(start);
    middle == 1 || (middle == 2 && swapped())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn reserved(line: &[&str]) -> Option<String> {
        let line: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        let cli = Cli::try_parse_from(&line).unwrap();
        cli.session.reserved_word(line)
    }

    #[test]
    fn a_reserved_name_is_no_host_unless_it_is_meant() {
        for word in RESERVED {
            let text = reserved(&["sshvpn", word]).expect(word);
            assert!(text.contains(&format!("'{word}'")), "{text}");
            assert!(!Cli::is_subcommand(word), "{word} is a subcommand now");
            assert_eq!(reserved(&["sshvpn", "--", word]), None);
            assert_eq!(reserved(&["sshvpn", "-w", "0:1", word]), None);
        }
        assert!(reserved(&["sshvpn", "status", "--json"]).is_some());
        assert!(reserved(&["sshvpn", "-v", "ping", "host"]).is_some());
        assert_eq!(reserved(&["sshvpn", "root@status"]), None);
        assert_eq!(reserved(&["sshvpn", "statuses"]), None);
    }

    #[test]
    fn a_typing_error_is_known() {
        for (typed, name, expected) in [
            ("clenup", "cleanup", true),
            ("cleanupp", "cleanup", true),
            ("celanup", "cleanup", true),
            ("cleanuq", "cleanup", true),
            ("srvee", "serve", false),
            ("serv", "serve", true),
            ("upp", "up", true),
            ("pu", "up", true),
            ("agnet", "agent", true),
            ("agents2", "agent", false),
            ("up", "up", false),
            ("host", "up", false),
            ("", "up", false),
        ] {
            assert_eq!(is_one_error_apart(typed, name), expected, "{typed} {name}");
        }
    }
}
