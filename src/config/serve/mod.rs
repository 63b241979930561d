//! The settings of `sshvpn serve`: its configuration file, what the command line
//! puts in place of it, and the files that it names.
//!
//! ```text
//!   file (values) ─► request, which adds the command line ─► checks ─► settings
//! ```

mod checks;
pub mod defaults;
pub mod error;
pub mod file;
pub mod request;
pub mod settings;
mod values;
