//! Scenarios of `sshvpn` in place of `ssh`: tunnels (`-w`), forwards, commands.

mod command;
mod forward;
mod frames;
mod hardened;
mod rekey;
mod tunnel;
