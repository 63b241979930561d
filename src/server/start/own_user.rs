//! Runs the server as its own user: creates as root what that user needs, then drops
//! root.
//!
//! The user owns the host key, the leases, and a part of /run/sshvpn with the server's
//! journals and sockets.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid};
use thiserror::Error;

use crate::config::serve::defaults::LEASES;
use crate::config::serve::request::ServeRequest;
use crate::config::serve::settings::ServeSettings;
use crate::host::journal::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::process::failure::Failure;
use crate::sandbox::capabilities::{Capabilities, Capability};
use crate::sandbox::user::{Account, AccountError};
use crate::ssh::server::host_keys::{self, HostKeyFileError};

/// Capabilities until the server listens: for its ports, and to drop the others.
const UNTIL_IT_LISTENS: Capabilities = Capabilities::NET_ADMIN
    .with(Capability::NetBindService)
    .with(Capability::SetPcap);

/// Why the server cannot run as its own user.
#[derive(Debug, Error)]
pub enum OwnUserError {
    /// The user cannot be looked up or assumed.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The user's group has other members, who could access the journals.
    #[error(
        "--user {user}: its group {group} has other members ({members}): the user needs a group of its own"
    )]
    Group {
        /// The user.
        user: String,
        /// Its primary group.
        group: String,
        /// The group's other members.
        members: String,
    },
    /// The directory of the journals cannot be used.
    #[error("the undo journal: {0}")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The host key cannot be read or generated.
    #[error(transparent)]
    HostKey(#[from] HostKeyFileError),
    /// The place of the leases cannot be created or handed over.
    #[error("cannot make {path} for the user {user}: {source}")]
    Leases {
        /// The directory or the file.
        path: PathBuf,
        /// The intended owner.
        user: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// `--prepare`: creates what the user needs; returns the exit code.
pub fn prepare(request: &ServeRequest) -> Result<u8, Failure> {
    let Some(account) = account(request).map_err(Failure::local)? else {
        return Ok(0);
    };
    if !Uid::effective().is_root() {
        let error = AccountError::NotRoot(account.name);
        return Err(Failure::local(error));
    }
    make_ready(request, &account).map_err(Failure::local)?;
    Ok(0)
}

/// Creates what the requested user needs, then becomes that user.
pub(in crate::server) fn assume(request: &ServeRequest) -> Result<(), OwnUserError> {
    let Some(account) = account(request)? else {
        return Ok(());
    };
    if Uid::effective().is_root() {
        make_ready(request, &account)?;
    }
    Ok(account.assume(UNTIL_IT_LISTENS)?)
}

/// Becomes the requested user, for whom nothing is made; for `--check`.
pub(super) fn assume_to_check(request: &ServeRequest) -> Result<(), OwnUserError> {
    let Some(account) = account(request)? else {
        return Ok(());
    };
    require_own_group(&account)?;
    Ok(account.assume(UNTIL_IT_LISTENS)?)
}

fn account(request: &ServeRequest) -> Result<Option<Account>, OwnUserError> {
    let Some(name) = &request.user else {
        return Ok(None);
    };
    let account = Account::find(name)?;
    if account.uid.is_root() {
        return Err(AccountError::Root(account.name).into());
    }
    Ok(Some(account))
}

fn make_ready(request: &ServeRequest, account: &Account) -> Result<(), OwnUserError> {
    require_own_group(account)?;
    RuntimeDir::share_with(account.uid, account.gid)?;
    // The server reports errors in the settings when it has read them as that user.
    let Ok(settings) = request.load() else {
        return Ok(());
    };
    for path in &settings.host_keys {
        // In a directory of its own, the user generates the key itself.
        if is_roots(path.parent()) {
            host_keys::make_for(path, (account.uid, account.gid))?;
        }
    }
    make_place_of_leases(&settings, account)
}

/// All members of the group may read the journals that root creates.
fn require_own_group(account: &Account) -> Result<(), OwnUserError> {
    let group = Group::from_gid(account.gid).ok().flatten();
    let name = group.as_ref().map(|group| group.name.clone());
    let members = group.map(|group| group.mem).unwrap_or_default();
    let others: Vec<String> = members
        .into_iter()
        .filter(|member| *member != account.name)
        .collect();
    if others.is_empty() && account.gid != Gid::from_raw(0) {
        return Ok(());
    }
    Err(OwnUserError::Group {
        user: account.name.clone(),
        group: name.unwrap_or_else(|| account.gid.to_string()),
        members: match others.is_empty() {
            true => "root".to_owned(),
            false => others.join(", "),
        },
    })
}

/// Whether only root can write to a directory, or it does not exist.
fn is_roots(directory: Option<&Path>) -> bool {
    match directory.map(fs::metadata) {
        Some(Ok(found)) => found.uid() == 0,
        Some(Err(error)) => error.kind() == io::ErrorKind::NotFound,
        None => false,
    }
}

/// Creates a missing directory for the user. The default directory may exist from an
/// earlier run as root: it is handed over.
fn make_place_of_leases(settings: &ServeSettings, account: &Account) -> Result<(), OwnUserError> {
    let leases = &settings.network.leases;
    let Some(directory) = leases.parent().filter(|_| settings.network.assign) else {
        return Ok(());
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        let user = account.name.clone();
        move |source| OwnUserError::Leases { path, user, source }
    };
    let made = DirBuilder::new().mode(0o700).create(directory);
    let is_new = match made {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(failed(directory)(error)),
    };
    if !is_new && (leases != Path::new(LEASES) || !is_roots(Some(directory))) {
        return Ok(());
    }
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    // The file first: until the directory is handed over, only root can replace the file.
    for path in [leases.as_path(), directory] {
        match lchown(path, Some(uid), Some(gid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(failed(path))?,
        }
    }
    Ok(())
}
