//! The user who runs sshvpn, also through sudo, doas or pkexec: sshvpn uses that user's ~/.ssh and
//! agent.

pub mod elevation;
pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod ssh_agent;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, getppid, getuid};

use super::error::ConfigError;
use identity::give_up_ambient;
use ssh_agent::agent_of_ancestors;

/// The variable that contains the agent's socket (ssh-agent(1)).
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// The user who runs sshvpn, also through sudo and the like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoker {
    /// User id.
    pub uid: Uid,
    /// Group id.
    pub gid: Gid,
    /// All groups, from the group database.
    pub groups: Vec<Gid>,
    /// Login name.
    pub name: String,
    /// Home directory from the passwd database, which ssh uses instead of `$HOME`.
    pub home: PathBuf,
    /// The agent's socket (`SSH_AUTH_SOCK`), if any.
    pub agent_socket: Option<PathBuf>,
    /// Whether the process runs as root on behalf of `name`, through sudo or the like.
    pub via_sudo: bool,
}

impl Invoker {
    /// Determines the invoker from the process's ids and, for root, from the variables in which
    /// sudo(8), doas(1) and pkexec(1) name their caller.
    pub fn detect() -> Result<Self, ConfigError> {
        let mut invoker = match Self::behind_root()? {
            Some(invoker) => invoker,
            None => Self::from_passwd(getuid())?,
        };
        invoker.agent_socket = std::env::var_os(AGENT_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        if invoker.agent_socket.is_none() && invoker.via_sudo {
            invoker.agent_socket = agent_of_ancestors(getppid().as_raw(), &invoker);
        }
        Ok(invoker)
    }

    fn from_passwd(uid: Uid) -> Result<Self, ConfigError> {
        let user = look_up(User::from_uid(uid))?.ok_or(ConfigError::NoSuchUser(uid))?;
        let gid = user.gid;
        Ok(Self::new(user, gid, false))
    }

    fn new(user: User, gid: Gid, via_sudo: bool) -> Self {
        Self {
            groups: groups_of(&user),
            uid: user.uid,
            gid,
            name: user.name,
            home: user.dir,
            agent_socket: None,
            via_sudo,
        }
    }

    /// The user on whose behalf this process is root.
    fn behind_root() -> Result<Option<Self>, ConfigError> {
        match geteuid().is_root() {
            true => Self::behind_root_in(|name| std::env::var(name).ok()),
            false => Ok(None),
        }
    }

    /// The same from these variables. doas and sudo may pass on the variables of each other from
    /// their caller (`keepenv`, `sudo -E`), so all of them must agree.
    fn behind_root_in(
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let mut found: Option<Self> = None;
        for name in elevation::CALLERS {
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
                continue;
            };
            let caller = match name {
                "SUDO_UID" if elevation::is_root(name, &value) => None,
                "SUDO_UID" => {
                    let of_sudo = |name| variable(name).unwrap_or_default();
                    let (user, gid) = (of_sudo("SUDO_USER"), of_sudo("SUDO_GID"));
                    Some(Self::from_sudo_variables(user, value.clone(), gid)?)
                }
                "DOAS_USER" => Self::from_caller(name, &value, User::from_name(&value))?,
                _ => {
                    let uid = value.parse().map(Uid::from_raw);
                    Self::from_caller(name, &value, uid.map_or(Ok(None), User::from_uid))?
                }
            };
            let Some(caller) = caller else { continue };
            match &found {
                Some(other) if other.uid != caller.uid => {
                    return Err(ConfigError::Callers {
                        variable: name,
                        value,
                        other: other.name.clone(),
                    });
                }
                Some(_) => {}
                None => found = Some(caller),
            }
        }
        Ok(found)
    }

    /// The user whom `variable` names; `None` for root.
    fn from_caller(
        variable: &'static str,
        value: &str,
        user: nix::Result<Option<User>>,
    ) -> Result<Option<Self>, ConfigError> {
        let user = look_up(user)?.ok_or_else(|| ConfigError::Caller {
            variable,
            value: value.to_owned(),
        })?;
        let gid = user.gid;
        Ok((!user.uid.is_root()).then(|| Self::new(user, gid, true)))
    }

    fn from_sudo_variables(name: String, uid: String, gid: String) -> Result<Self, ConfigError> {
        let ids = uid.parse().ok().zip(gid.parse().ok());
        let invoker = match ids {
            Some((uid, gid)) => {
                let found = look_up(User::from_uid(Uid::from_raw(uid)))?;
                found.map(|user| (user, Gid::from_raw(gid)))
            }
            None => None,
        };
        match invoker {
            Some((user, gid))
                if !user.uid.is_root() && user.name == name && groups_of(&user).contains(&gid) =>
            {
                Ok(Self::new(user, gid, true))
            }
            _ => Err(ConfigError::Sudo { name, uid, gid }),
        }
    }

    /// A command that runs `program` as the invoker: under sudo with the invoker's ids and groups,
    /// and `HOME`, `USER`, `LOGNAME` and `SSH_AUTH_SOCK` set. The program gets no capabilities.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let identity = self.via_sudo.then(|| self.identity());
        let become_invoker = move || match &identity {
            Some(identity) => identity.assume(),
            None => give_up_ambient(),
        };
        // SAFETY: the closure makes system calls alone, and allocates nothing.
        unsafe { command.pre_exec(become_invoker) };
        if self.via_sudo {
            command
                .env("HOME", &self.home)
                .env("USER", &self.name)
                .env("LOGNAME", &self.name);
            match &self.agent_socket {
                Some(socket) => command.env(AGENT_VARIABLE, socket),
                None => command.env_remove(AGENT_VARIABLE),
            };
        }
        command
    }

    /// The environment variable `name` as the invoker's programs see it.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        if self.via_sudo {
            match name {
                "HOME" => return Some(self.home.clone().into()),
                "USER" | "LOGNAME" => return Some(self.name.clone().into()),
                AGENT_VARIABLE => return self.agent_socket.clone().map(Into::into),
                _ => {}
            }
        }
        std::env::var_os(name)
    }

    /// Replaces a leading `~` or `~user` of `path` by that user's home directory.
    pub fn expand_tilde(&self, path: &str) -> Result<PathBuf, ConfigError> {
        let Some(rest) = path.strip_prefix('~') else {
            return Ok(PathBuf::from(path));
        };
        let (user, below) = rest.split_once('/').unwrap_or((rest, ""));
        let home = if user.is_empty() {
            self.home.clone()
        } else {
            let found = look_up(User::from_name(user))?;
            let found = found.ok_or_else(|| ConfigError::NoSuchHome {
                path: path.to_owned(),
                user: user.to_owned(),
            })?;
            found.dir
        };
        let below = below.trim_start_matches('/');
        Ok(if below.is_empty() {
            home
        } else {
            home.join(below)
        })
    }
}

fn look_up(user: nix::Result<Option<User>>) -> Result<Option<User>, ConfigError> {
    user.map_err(|errno| ConfigError::System {
        what: "read the passwd database",
        source: errno.into(),
    })
}

/// The groups of `user`, including the group in the passwd database.
fn groups_of(user: &User) -> Vec<Gid> {
    let name = std::ffi::CString::new(user.name.as_str()).ok();
    name.and_then(|name| getgrouplist(&name, user.gid).ok())
        .unwrap_or_else(|| vec![user.gid])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn someone() -> User {
        // Every system with Debian's base-passwd has this user.
        User::from_name("nobody").unwrap().unwrap()
    }

    fn sudo(name: &str, uid: u32, gid: u32) -> Result<Invoker, ConfigError> {
        Invoker::from_sudo_variables(name.into(), uid.to_string(), gid.to_string())
    }

    #[test]
    fn sudo_variables_have_to_describe_one_user() {
        let user = someone();
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        let invoker = sudo("nobody", uid, gid).unwrap();
        assert!(invoker.via_sudo);
        assert_eq!(invoker.home, user.dir);
        assert!(sudo("nobody", uid, 1).is_err());
        assert!(sudo("root", uid, gid).is_err());
        assert!(sudo("nobody", 0, gid).is_err());
        let text = Invoker::from_sudo_variables("nobody".into(), "x".into(), "0".into());
        assert!(matches!(text, Err(ConfigError::Sudo { .. })));
    }

    /// The name of the user on whose behalf a process with these variables is root.
    fn behind(variables: &[(&str, &str)]) -> Result<Option<String>, ConfigError> {
        let value = |name| {
            let mut named = variables.iter().filter(|(it, _)| *it == name);
            named.next().map(|(_, value)| value.to_string())
        };
        Ok(Invoker::behind_root_in(value)?.map(|invoker| invoker.name))
    }

    /// doas with `keepenv` and `sudo -E` pass on the caller's environment, in which the caller may
    /// have set the variables of the other program.
    #[test]
    fn callers_of_two_programs_have_to_agree() {
        let daemon = User::from_name("daemon").unwrap().unwrap();
        let nobody = someone();
        let of = |user: &User| (user.uid.to_string(), user.gid.to_string());
        let (uid, gid) = of(&daemon);
        let other = of(&nobody).0;
        let sudo = [
            ("SUDO_USER", "daemon"),
            ("SUDO_UID", uid.as_str()),
            ("SUDO_GID", gid.as_str()),
        ];
        let and = |name, value| [&sudo[..], &[(name, value)]].concat();
        for doas in ["root", "daemon"] {
            assert_eq!(behind(&and("DOAS_USER", doas)).unwrap().unwrap(), "daemon");
        }
        for (name, value) in [("DOAS_USER", "nobody"), ("PKEXEC_UID", other.as_str())] {
            assert!(matches!(
                behind(&and(name, value)),
                Err(ConfigError::Callers { .. })
            ));
        }
        let unknown = behind(&and("DOAS_USER", "no.such.user"));
        assert!(matches!(unknown, Err(ConfigError::Caller { .. })));
        for uid in ["0", "00", "+0"] {
            let of_root = [
                ("SUDO_USER", "root"),
                ("SUDO_UID", uid),
                ("SUDO_GID", "0"),
                ("DOAS_USER", "nobody"),
            ];
            assert_eq!(behind(&of_root).unwrap().unwrap(), "nobody", "{uid}");
            assert_eq!(behind(&of_root[..3]).unwrap(), None, "{uid}");
            assert_eq!(behind(&[("PKEXEC_UID", uid)]).unwrap(), None, "{uid}");
        }
        let alone = behind(&[("SUDO_UID", uid.as_str()), ("DOAS_USER", "nobody")]);
        assert!(matches!(alone, Err(ConfigError::Sudo { .. })));
        assert!(sudo_of_root_is_refused());
    }

    fn sudo_of_root_is_refused() -> bool {
        ["0", "00", "+0"].iter().all(|uid| {
            Invoker::from_sudo_variables("root".into(), uid.to_string(), "0".into()).is_err()
        })
    }

    #[test]
    fn tilde_is_the_passwd_home() {
        let invoker = Invoker {
            home: "/home/alice".into(),
            ..Invoker::from_passwd(getuid()).unwrap()
        };
        let expanded = |path| invoker.expand_tilde(path).unwrap();
        assert_eq!(expanded("~"), Path::new("/home/alice"));
        assert_eq!(expanded("~//.ssh/x"), Path::new("/home/alice/.ssh/x"));
        assert_eq!(expanded("/a/~"), Path::new("/a/~"));
        assert_eq!(expanded("~nobody/k"), someone().dir.join("k"));
        assert!(invoker.expand_tilde("~no.such.user/k").is_err());
    }

    #[test]
    fn commands_under_sudo_run_as_the_invoker() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can run commands as another user");
            return;
        }
        let user = someone();
        let mut invoker = sudo("nobody", user.uid.as_raw(), user.gid.as_raw()).unwrap();
        invoker.agent_socket = Some("/run/agent".into());
        let mut command = invoker.command("sh");
        command.args(["-c", "echo $(id -u) $(id -G) $HOME $LOGNAME $SSH_AUTH_SOCK"]);
        let output = command.current_dir("/").output().unwrap();
        let expected = format!(
            "{} {} {} nobody /run/agent\n",
            user.uid,
            user.gid,
            user.dir.display()
        );
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert_eq!(invoker.variable("USER").unwrap(), "nobody");
    }
}
