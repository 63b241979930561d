//! The settings of `sshvpn serve`: its configuration file, what the command line
//! puts in place of it, and the files that it names.

pub mod settings;
