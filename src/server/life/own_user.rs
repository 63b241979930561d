//! A server as a user of its own: what root makes for that user, and leaving root.
//!
//! The user's own are the host key, the leases, and a part of /run/sshvpn with its
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

/// What it still needs until it listens: its ports, and to drop the rest.
const UNTIL_IT_LISTENS: Capabilities = Capabilities::NET_ADMIN
    .with(Capability::NetBindService)
    .with(Capability::SetPcap);

/// Why a server does not run as a user of its own.
#[derive(Debug, Error)]
pub enum OwnUserError {
    /// The user.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A group with others in it, to whom the journals would be open.
    #[error(
        "--user {user}: its group {group} has other members ({members}): the user needs a group of its own"
    )]
    Group {
        /// The user.
        user: String,
        /// Its first group.
        group: String,
        /// Who else is in it.
        members: String,
    },
    /// The place of journals.
    #[error("the undo journal: {0}")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The host key.
    #[error(transparent)]
    HostKey(#[from] HostKeyFileError),
    /// The place of the leases.
    #[error("cannot make {path} for the user {user}: {source}")]
    Leases {
        /// The directory or the file.
        path: PathBuf,
        /// Whose it should be.
        user: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// `--prepare`: makes what the user needs; yields the exit code.
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

/// Becomes the user that is asked for, and makes before what it needs.
pub(in crate::server) fn assume(request: &ServeRequest) -> Result<(), OwnUserError> {
    let Some(account) = account(request)? else {
        return Ok(());
    };
    if Uid::effective().is_root() {
        make_ready(request, &account)?;
    }
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
    // What is wrong with them the server says, when it has read them as that user.
    let Ok(settings) = request.load() else {
        return Ok(());
    };
    for path in &settings.host_keys {
        // In a directory of its own the user makes it by itself.
        if is_roots(path.parent()) {
            host_keys::make_for(path, (account.uid, account.gid))?;
        }
    }
    make_place_of_leases(&settings, account)
}

/// All who are in the group may read root's journals.
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

/// Whether root alone decides what is in a directory, or none is there.
fn is_roots(directory: Option<&Path>) -> bool {
    match directory.map(fs::metadata) {
        Some(Ok(found)) => found.uid() == 0,
        Some(Err(error)) => error.kind() == io::ErrorKind::NotFound,
        None => false,
    }
}

/// A directory that is not there is made for the user. The usual one may be there from
/// a time when root served: it is handed over.
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
    // The file first: until then nobody but root can put another in its place.
    for path in [leases.as_path(), directory] {
        match lchown(path, Some(uid), Some(gid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(failed(path))?,
        }
    }
    Ok(())
}
