//! The options that have the same meaning as in ssh(1).

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::config::congestion::CongestionControl;
use crate::config::ssh::args::{AddressFamily, SshArgs};

/// The ssh options of every command that dials.
#[derive(Debug, Clone, Default, Args)]
pub struct SshFlags {
    /// Port on the host
    #[arg(short = 'p', value_name = "PORT", help_heading = "As in ssh")]
    pub port: Option<u16>,
    /// Name to log in with
    #[arg(short = 'l', value_name = "LOGIN", help_heading = "As in ssh")]
    pub login: Option<String>,
    /// Private key file; may be repeated
    #[arg(short = 'i', value_name = "FILE", help_heading = "As in ssh")]
    pub identities: Vec<PathBuf>,
    /// Configuration file instead of ~/.ssh/config; 'none' for no file
    #[arg(short = 'F', value_name = "FILE", help_heading = "As in ssh")]
    pub config_file: Option<PathBuf>,
    /// Jump hosts, separated by commas, each in the form of HOST
    #[arg(short = 'J', value_name = "HOSTS", help_heading = "As in ssh")]
    pub jump: Option<String>,
    /// Any ssh_config(5) setting, as Keyword=value; may be repeated
    #[arg(short = 'o', value_name = "OPTION", help_heading = "As in ssh")]
    pub options: Vec<String>,
    /// IPv4 only
    #[arg(short = '4', overrides_with = "inet6", help_heading = "As in ssh")]
    pub inet: bool,
    /// IPv6 only
    #[arg(short = '6', overrides_with = "inet", help_heading = "As in ssh")]
    pub inet6: bool,
    /// Connect from this address
    #[arg(short = 'b', value_name = "ADDRESS", help_heading = "As in ssh")]
    pub bind_address: Option<String>,
    /// Connect from this interface
    #[arg(short = 'B', value_name = "INTERFACE", help_heading = "As in ssh")]
    pub bind_interface: Option<String>,
    /// Ciphers, best first, separated by commas
    #[arg(short = 'c', value_name = "CIPHERS", help_heading = "As in ssh")]
    pub ciphers: Option<String>,
    /// MACs, best first, separated by commas
    #[arg(short = 'm', value_name = "MACS", help_heading = "As in ssh")]
    pub macs: Option<String>,
    /// Congestion control of the SSH connection's TCP, such as bbr [default: this host's]
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<CongestionControl>,
    /// Print more; up to three times
    #[arg(short = 'v', action = ArgAction::Count, help_heading = "As in ssh")]
    pub verbosity: u8,
    /// Print less: no progress, no notices
    #[arg(short = 'q', help_heading = "As in ssh")]
    pub quiet: bool,
    /// Go into the background once everything is up
    #[arg(short = 'f', help_heading = "As in ssh")]
    pub background: bool,
}

impl SshFlags {
    /// The options with `destination`, in the form that `config` takes.
    pub fn to_args(&self, destination: &str) -> SshArgs {
        SshArgs {
            destination: destination.to_owned(),
            port: self.port,
            login: self.login.clone(),
            identities: self.identities.clone(),
            config_file: self.config_file.clone(),
            jump: self.jump.clone(),
            options: self.options.clone(),
            address_family: match (self.inet, self.inet6) {
                (true, _) => Some(AddressFamily::Inet),
                (_, true) => Some(AddressFamily::Inet6),
                _ => None,
            },
            bind_address: self.bind_address.clone(),
            bind_interface: self.bind_interface.clone(),
            ciphers: self.ciphers.clone(),
            macs: self.macs.clone(),
            congestion: self.congestion.clone(),
            verbosity: self.verbosity,
            quiet: self.quiet,
            ..SshArgs::default()
        }
    }
}
