//! Scenarios of `sshvpn -w`, in place of `ssh -w`.

mod command;
mod frames;
mod rekey;
mod tunnel;
