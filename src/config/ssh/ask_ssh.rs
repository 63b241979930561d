//! Gets the settings from the ssh program: `ssh -G`.

use std::ffi::OsString;
use std::io;
use std::process::{Output, Stdio};

use tracing::{debug, warn};

use super::args::SshArgs;
use super::key_exchange::MlKem;
use super::values::SshValues;
use crate::config::error::ConfigError;
use crate::config::invoker::Invoker;

/// Keywords for which `ssh -G` prints all values on one line.
pub(crate) const WORD_LISTS: [&str; 6] = [
    "permitremoteopen",
    "globalknownhostsfile",
    "userknownhostsfile",
    "revokedhostkeys",
    "rekeylimit",
    "canonicaldomains",
];

/// The settings that ssh uses for a destination, and its defaults.
#[derive(Debug)]
pub(crate) struct SshAnswer {
    /// The settings for the destination.
    pub values: SshValues,
    /// The defaults of this version of ssh.
    pub defaults: SshValues,
}

/// Asks `program` (ssh, found in PATH) for the settings of `args`. Returns `None` if there is no
/// such program.
pub(crate) fn ask(
    program: &str,
    args: &SshArgs,
    invoker: &Invoker,
) -> Result<Option<SshAnswer>, ConfigError> {
    let host = args.destination()?.host;
    let nothing = ["-F", "none", "--", "localhost"].map(OsString::from);
    let Some(defaults) = run(program, nothing.to_vec(), &host, invoker)? else {
        return Ok(None);
    };
    let ml_kem = MlKem::of(&defaults);
    let arguments = ml_kem.arguments(args).to_ssh()?;
    let values = run(program, arguments, &host, invoker)?.unwrap_or_default();
    let mut answer = SshAnswer { values, defaults };
    ml_kem.add(&mut answer, args, invoker);
    Ok(Some(answer))
}

fn run(
    program: &str,
    arguments: Vec<OsString>,
    host: &str,
    invoker: &Invoker,
) -> Result<Option<SshValues>, ConfigError> {
    let output = invoker
        .command(program)
        .arg("-G")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => read_output(&output, host)
            .map_err(|error| explained(error, invoker))
            .map(Some),
        // PermissionDenied also results from a search of PATH that contains a directory which the
        // invoker may not enter, such as one of root's.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            debug!("no {program} to run: {error}");
            Ok(None)
        }
        Err(source) => Err(ConfigError::System {
            what: "run ssh -G",
            source,
        }),
    }
}

/// Under sudo ssh runs as the invoker, which may be why it cannot read a file.
fn explained(error: ConfigError, invoker: &Invoker) -> ConfigError {
    match error {
        ConfigError::SshRefused { host, message }
            if invoker.via_sudo && message.ends_with("Permission denied") =>
        {
            let message = format!("{message} {}", invoker.reads_as());
            ConfigError::SshRefused { host, message }
        }
        other => other,
    }
}

fn read_output(output: &Output, host: &str) -> Result<SshValues, ConfigError> {
    let refused = |message: String| ConfigError::SshRefused {
        host: host.to_owned(),
        message,
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let said: Vec<&str> = messages(&stderr).collect();
        return Err(refused(if said.is_empty() {
            format!("ssh -G ended with {} and no message", output.status)
        } else {
            said.join("; ")
        }));
    }
    for line in messages(&stderr) {
        warn!("ssh: {line}");
    }
    let stdout = std::str::from_utf8(&output.stdout)
        .map_err(|_| refused("a setting is not UTF-8 text".into()))?;
    Ok(parse(stdout))
}

/// The lines of ssh's standard error that concern the user: no debug messages, and no message about
/// the missing terminal.
fn messages(stderr: &str) -> impl Iterator<Item = &str> {
    stderr.lines().map(str::trim).filter(|line| {
        let noise = line.is_empty()
            || line.starts_with("debug")
            || line.starts_with("OpenSSH_")
            || line.starts_with("Pseudo-terminal will not be allocated");
        if noise {
            debug!("ssh -G: {line}");
        }
        !noise
    })
}

/// Parses the output of `ssh -G`: lines with a keyword, a space, and the value.
pub(crate) fn parse(stdout: &str) -> SshValues {
    let mut values = SshValues::default();
    for line in stdout.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let key = key.to_ascii_lowercase();
        if key.is_empty() {
            continue;
        }
        if WORD_LISTS.contains(&key.as_str()) {
            let words = value.split_ascii_whitespace().map(str::to_owned).collect();
            values.set(&key, words);
        } else {
            values.push(&key, value.to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use proptest::prelude::*;

    use super::*;
    use crate::config::ssh::tokens::tests::alice;

    fn output(code: i32, stdout: &str, stderr: &str) -> Output {
        Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn lines_become_values() {
        let text = "user root\nidentityfile ~/a b\nidentityfile ~/c\n\
            userknownhostsfile /x /y\nproxycommand nc  -x %h\nlogverbose\n\n";
        let values = read_output(&output(0, text, ""), "h").unwrap();
        assert_eq!(values.all("identityfile"), ["~/a b", "~/c"]);
        assert_eq!(values.all("userknownhostsfile"), ["/x", "/y"]);
        assert_eq!(values.first("proxycommand"), Some("nc  -x %h"));
        assert_eq!(values.first("logverbose"), Some(""));
        assert_eq!(values.first("port"), None);
    }

    #[test]
    fn what_ssh_says_is_the_error() {
        let said = "debug1: x\nPseudo-terminal will not be allocated because stdin is not a \
            terminal.\r\n/c: line 1: Bad configuration option: foo\r\n/c: terminating\n";
        let error = read_output(&output(255, "", said), "box").unwrap_err();
        assert_eq!(
            error.to_string(),
            "ssh does not accept the settings for box: \
            /c: line 1: Bad configuration option: foo; /c: terminating"
        );
        let silent = read_output(&output(1, "", ""), "box").unwrap_err();
        assert!(silent.to_string().contains("no message"));
    }

    #[test]
    fn no_ssh_is_not_an_error() {
        let args = SshArgs {
            destination: "h".into(),
            ..SshArgs::default()
        };
        let invoker = Invoker {
            via_sudo: false,
            ..alice()
        };
        let answer = ask("no-such-program-as-this", &args, &invoker).unwrap();
        assert!(answer.is_none());
    }

    #[test]
    fn under_sudo_ssh_reads_the_invokers_files() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can run ssh as another user");
            return;
        }
        let invoker = Invoker {
            uid: nobody.uid,
            gid: nobody.gid,
            groups: vec![nobody.gid],
            ..alice()
        };
        let args = SshArgs {
            destination: "h".into(),
            ..SshArgs::default()
        };
        let Some(answer) = ask("ssh", &args, &invoker).unwrap() else {
            eprintln!("skipped: there is no ssh here");
            return;
        };
        let known_hosts = nobody.dir.join(".ssh/known_hosts");
        let first = answer.values.first("userknownhostsfile").unwrap();
        assert_eq!(std::path::Path::new(first), known_hosts);
        assert_eq!(answer.values.first("user"), Some("nobody"));
    }

    proptest! {
        #[test]
        fn no_output_panics(text in any::<String>()) {
            parse(&text);
        }
    }
}
