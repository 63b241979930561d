//! Scenarios of `sshvpn -w`, in place of `ssh -w`.

mod command;
mod frames;
mod hardened;
mod rekey;
mod tunnel;
