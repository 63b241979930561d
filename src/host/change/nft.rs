//! The `nft` program (nft(8)): the one way to nftables. Commands go in as text
//! on its standard input, in one transaction.

use thiserror::Error;

use crate::host::program::{Program, ProgramError};

/// Why the firewall was not changed or read.
#[derive(Debug, Error)]
pub enum NftError {
    /// Not installed.
    #[error("there is no 'nft' program on this host: install nftables")]
    Missing,
    /// It did not run, or said no.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// An interface with a name that the rules cannot hold.
    #[error(
        "no firewall rules can be made for the interface '{0}': choose a name of letters, digits, '_', '-' and '.'"
    )]
    Name(String),
}

impl NftError {
    /// Whether it is certain that nothing was changed: its input is one transaction.
    pub fn nothing_changed(&self) -> bool {
        match self {
            NftError::Program(error) => matches!(error, ProgramError::Refused { .. }),
            NftError::Missing | NftError::Name(_) => true,
        }
    }

    /// Whether what was asked about is not there (ENOENT, in the C locale).
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            NftError::Program(ProgramError::Refused { complaint, .. })
                if complaint.contains("No such file or directory")
        )
    }
}

/// The program as found on this host.
#[derive(Debug, Clone)]
pub struct Nft {
    program: Program,
}

impl Nft {
    /// Looks for it.
    pub fn find() -> Option<Self> {
        Program::find("nft").map(|program| Self { program })
    }

    /// The same, where it is needed.
    pub fn require() -> Result<Self, NftError> {
        Self::find().ok_or(NftError::Missing)
    }

    /// Carries out `commands`, all of them or none; `action` says what they do,
    /// to follow "cannot".
    pub async fn apply(&self, action: &'static str, commands: &str) -> Result<(), NftError> {
        self.program.run(action, &["-f", "-"], commands).await?;
        Ok(())
    }

    /// What it prints for these arguments.
    pub async fn list(&self, action: &'static str, arguments: &[&str]) -> Result<String, NftError> {
        Ok(self.program.run(action, arguments, "").await?)
    }
}
