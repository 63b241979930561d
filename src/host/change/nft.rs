//! Runs the `nft` program (nft(8)), the only access to nftables. It takes the commands on standard
//! input as one transaction.

use thiserror::Error;

use crate::host::program::{Program, ProgramError};

/// The reason why the firewall was not changed or read.
#[derive(Debug, Error)]
pub enum NftError {
    /// The program is not installed.
    #[error("there is no 'nft' program on this host: install nftables")]
    Missing,
    /// The program did not run or reported an error.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The interface's name cannot be used in the rules.
    #[error(
        "cannot make firewall rules for the interface '{0}': choose a name of letters, digits, '_', '-' and '.'"
    )]
    Name(String),
}

impl NftError {
    /// Whether it is certain that nothing was changed: the input is one transaction.
    pub fn nothing_changed(&self) -> bool {
        match self {
            NftError::Program(error) => matches!(error, ProgramError::Refused { .. }),
            NftError::Missing | NftError::Name(_) => true,
        }
    }

    /// Whether the requested object does not exist (ENOENT, in the C locale).
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            NftError::Program(ProgramError::Refused { complaint, .. })
                if complaint.contains("No such file or directory")
        )
    }
}

/// The nft program that was found on this host.
#[derive(Debug, Clone)]
pub struct Nft {
    program: Program,
}

impl Nft {
    /// Looks for the program.
    pub fn find() -> Option<Self> {
        Program::find("nft").map(|program| Self { program })
    }

    /// The program, if the kernel has what it needs: it may be installed where nf_tables is not.
    pub async fn usable() -> Option<Self> {
        let nft = Self::find()?;
        match nft
            .list("list the firewall tables", &["list", "tables"])
            .await
        {
            Ok(_) => Some(nft),
            Err(error) => {
                tracing::debug!(%error, "nft is not used");
                None
            }
        }
    }

    /// Looks for the program; returns an error if it is missing.
    pub fn require() -> Result<Self, NftError> {
        Self::find().ok_or(NftError::Missing)
    }

    /// Runs all of `commands` or none; `action` is the purpose, to follow "cannot".
    pub async fn apply(&self, action: &'static str, commands: &str) -> Result<(), NftError> {
        self.program.run(action, &["-f", "-"], commands).await?;
        Ok(())
    }

    /// The ruleset in JSON, without the contents of sets; empty if this nft prints no JSON.
    pub async fn ruleset(&self) -> String {
        let action = "list the ruleset";
        // Versions before 0.9.1 have no -t.
        for arguments in [
            &["-j", "-t", "list", "ruleset"][..],
            &["-j", "list", "ruleset"],
        ] {
            match self.list(action, arguments).await {
                Ok(text) => return text,
                Err(error) => tracing::debug!(%error, "no ruleset in JSON"),
            }
        }
        String::new()
    }

    /// The program's output for these arguments.
    pub async fn list(&self, action: &'static str, arguments: &[&str]) -> Result<String, NftError> {
        Ok(self.program.run(action, arguments, "").await?)
    }
}
