//! Changes the user id of this process, keeping the capabilities that it still needs.

use std::ffi::CString;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Gid, Uid, User, fork, getgrouplist, setgroups, setresgid, setresuid,
};
use thiserror::Error;

use super::SandboxError;
use super::capabilities::{Capabilities, refused, set_permitted};

/// Drops the supplementary groups, which give access to files. A process that may not drop them (in
/// a user namespace without setgroups(2), or as a service's own user) keeps those that it was given
/// on purpose.
pub fn leave_groups() -> Result<(), SandboxError> {
    match setgroups(&[]) {
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(refused("the supplementary groups")(errno)),
    }
}

/// Runs `work` in a child process, whose exit code is the result of `work`. Call it while this
/// process has one thread.
pub fn in_child(work: impl FnOnce() -> u8) -> nix::Result<u8> {
    // SAFETY: there is no other thread, so the child may do what any process may.
    match unsafe { fork() }? {
        ForkResult::Child => std::process::exit(work().into()),
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
                Ok(_) => return Ok(u8::MAX),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        },
    }
}

/// A user that this process can become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: Uid,
    /// Its first group.
    pub gid: Gid,
    /// All its groups.
    groups: Vec<Gid>,
}

/// The reason why this process cannot become a user.
#[derive(Debug, Error)]
pub enum AccountError {
    /// There is no such user.
    #[error(
        "there is no user '{0}' on this host (packaging/sshvpn.sysusers creates one: run systemd-sysusers)"
    )]
    Unknown(String),
    /// The passwd database cannot be read.
    #[error("cannot look up the user '{name}': {errno}")]
    Database {
        /// The user.
        name: String,
        /// The reason.
        errno: Errno,
    },
    /// The user is root.
    #[error("--user {0}: this user is root; name an unprivileged user")]
    Root(String),
    /// Only root can become another user.
    #[error("--user {0}: only root can become another user")]
    NotRoot(String),
    /// The kernel refused.
    #[error(transparent)]
    Refused(#[from] SandboxError),
}

impl Account {
    /// Looks up the user `name`.
    pub fn find(name: &str) -> Result<Self, AccountError> {
        let failed = |errno| {
            let name = name.to_owned();
            AccountError::Database { name, errno }
        };
        let user = User::from_name(name).map_err(failed)?;
        let user = user.ok_or_else(|| AccountError::Unknown(name.to_owned()))?;
        Self::of(user).map_err(failed)
    }

    /// The user with this id.
    pub fn of_uid(uid: Uid) -> Option<Self> {
        let user = User::from_uid(uid).ok().flatten()?;
        Self::of(user).ok()
    }

    fn of(user: User) -> nix::Result<Self> {
        let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
        Ok(Self {
            groups: getgrouplist(&name, user.gid)?,
            name: user.name,
            uid: user.uid,
            gid: user.gid,
        })
    }

    /// Makes this process run as that user, with its groups and with `kept` of its capabilities.
    /// Call it while the process has one thread. A process that runs as this user already is left
    /// unchanged.
    pub fn assume(&self, kept: Capabilities) -> Result<(), AccountError> {
        if self.uid.is_root() {
            return Err(AccountError::Root(self.name.clone()));
        }
        if Uid::effective() == self.uid {
            return Ok(());
        }
        if !Uid::effective().is_root() {
            return Err(AccountError::NotRoot(self.name.clone()));
        }
        let kept = kept.that_we_have()?;
        prctl::set_keepcaps(true).map_err(refused("root's user id"))?;
        setgroups(&self.groups).map_err(refused("root's groups"))?;
        setresgid(self.gid, self.gid, self.gid).map_err(refused("root's group id"))?;
        setresuid(self.uid, self.uid, self.uid).map_err(refused("root's user id"))?;
        prctl::set_keepcaps(false).map_err(refused("root's capabilities"))?;
        Ok(set_permitted(kept).map_err(refused("root's capabilities"))?)
    }
}
