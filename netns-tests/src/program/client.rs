//! The client programs. Most scenarios of `-w` run with both: `ssh` validates the lab, and `sshvpn`
//! has to behave in the same way.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A client program; both take the same flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The distribution's `ssh`.
    Ssh,
    /// The `sshvpn` of this workspace, or the program in `SSHVPN_BIN`.
    Sshvpn,
}

impl Client {
    /// The path of the program.
    pub fn program(self) -> Result<String> {
        let path = match self {
            Client::Ssh => PathBuf::from("/usr/bin/ssh"),
            Client::Sshvpn => sshvpn()?,
        };
        path.into_os_string()
            .into_string()
            .ok()
            .context("a path that is not UTF-8")
    }

    /// The command line: the program, then `arguments`.
    pub fn command(self, arguments: &[&str]) -> Result<Vec<String>> {
        let mut command = vec![self.program()?];
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Ok(command)
    }
}

fn sshvpn() -> Result<PathBuf> {
    let path = match env::var_os("SSHVPN_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
            workspace.join(target).join("release/sshvpn")
        }
    };
    ensure!(
        path.is_file(),
        "{} does not exist: run scripts/test",
        path.display()
    );
    let path = path
        .canonicalize()
        .with_context(|| format!("{}", path.display()))?;
    Ok(path)
}

/// Makes a test of each named function for each client: `ssh::NAME`, `sshvpn::NAME`.
#[macro_export]
macro_rules! with_each_client {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod ssh {
            $(#[test] $(#[$attribute])* fn $name() -> anyhow::Result<()> {
                super::$name($crate::Client::Ssh)
            })*
        }
        mod sshvpn {
            $(#[test] $(#[$attribute])* fn $name() -> anyhow::Result<()> {
                super::$name($crate::Client::Sshvpn)
            })*
        }
    };
}
