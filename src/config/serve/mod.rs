//! The settings of `sshvpn serve`: its configuration file, the command line that
//! overrides it, and the files that it names.
//!
//! ```text
//!   file (values) ─► request, which applies the command line ─► checks ─► settings
//! ```

mod checks;
pub mod defaults;
pub mod error;
pub mod file;
pub mod request;
pub mod settings;
mod values;
