//! The options of ssh(1) on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use super::destination::{Destination, JumpHop, format_jump_list, is_valid_user};
use super::forward::{Forward, Kind, Target};
use crate::config::congestion::CongestionControl;
use crate::config::error::ConfigError;
use crate::types::TunnelDevice;

/// `AddressFamily`, `-4`, `-6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// IPv4 only.
    Inet,
    /// IPv6 only.
    Inet6,
}

/// `-O`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlCommand {
    /// Whether the connection is up, and its process id.
    Check,
    /// Add the forwards of `-L`, `-R` and `-D`.
    Forward,
    /// Remove them.
    Cancel,
    /// End the connection.
    Exit,
    /// Close the control socket.
    Stop,
}

impl std::str::FromStr for ControlCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "check" => ControlCommand::Check,
            "forward" => ControlCommand::Forward,
            "cancel" => ControlCommand::Cancel,
            "exit" => ControlCommand::Exit,
            "stop" => ControlCommand::Stop,
            _ => return Err("must be check, forward, cancel, exit or stop".to_owned()),
        })
    }
}

/// ssh(1)'s options, as given.
#[derive(Debug, Clone, Default)]
pub struct SshArgs {
    /// `[user@]host` or `ssh://[user@]host[:port]`.
    pub destination: String,
    /// `-p`.
    pub port: Option<u16>,
    /// `-l`.
    pub login: Option<String>,
    /// `-i`, in order.
    pub identities: Vec<PathBuf>,
    /// `-F`; `none` reads no file.
    pub config_file: Option<PathBuf>,
    /// `-J`.
    pub jump: Option<String>,
    /// `-o`, in order.
    pub options: Vec<String>,
    /// `-4`, `-6`.
    pub address_family: Option<AddressFamily>,
    /// `-b`.
    pub bind_address: Option<String>,
    /// `-B`.
    pub bind_interface: Option<String>,
    /// `-c`.
    pub ciphers: Option<String>,
    /// `-m`.
    pub macs: Option<String>,
    /// `-w`: the devices; requests a tunnel even if ssh_config has `Tunnel no`.
    pub tunnel_device: Option<TunnelDevice>,
    /// `-L`, `-R`, `-D`, in order.
    pub forwards: Vec<(Kind, Forward)>,
    /// `-W`.
    pub stdio_forward: Option<Target>,
    /// `-S`.
    pub control_path: Option<PathBuf>,
    /// The command after the destination, by words.
    pub command: Vec<String>,
    /// `--congestion`, which ssh does not have.
    pub congestion: Option<CongestionControl>,
    /// The number of `-v`.
    pub verbosity: u8,
    /// `-q`.
    pub quiet: bool,
}

impl SshArgs {
    /// The parsed destination.
    pub fn destination(&self) -> Result<Destination, ConfigError> {
        let destination: Destination = self.destination.parse()?;
        match &self.login {
            Some(login) if !is_valid_user(login) => Err(ConfigError::Destination(login.clone())),
            _ => Ok(destination),
        }
    }

    /// The arguments for ssh(1), with the destination. `-v` and `-q` are left out: they would only
    /// change the output of ssh itself; so are the forwards, of which ssh takes fewer forms.
    pub fn to_ssh(&self) -> Result<Vec<OsString>, ConfigError> {
        let destination = self.destination()?;
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        if let Some(file) = &self.config_file {
            add("-F", file.into());
        }
        if let Some(port) = self.port {
            add("-p", port.to_string().into());
        }
        for (flag, value) in [
            ("-l", &self.login),
            ("-J", &self.jump),
            ("-b", &self.bind_address),
            ("-B", &self.bind_interface),
            ("-c", &self.ciphers),
            ("-m", &self.macs),
        ] {
            if let Some(value) = value {
                add(flag, value.into());
            }
        }
        for identity in &self.identities {
            add("-i", identity.into());
        }
        for option in &self.options {
            add("-o", option.into());
        }
        if let Some(port) = destination.port {
            // ssh uses the first `-p`. A URI could not contain an IPv6 address.
            add("-p", port.to_string().into());
        }
        if let Some(device) = self.tunnel_device {
            add("-w", format!("{}:{}", device.local, device.remote).into());
        }
        if let Some(path) = &self.control_path {
            add("-S", path.into());
        }
        if let Some(target) = &self.stdio_forward {
            add("-W", target.to_string().into());
        }
        match self.address_family {
            Some(AddressFamily::Inet) => arguments.push("-4".into()),
            Some(AddressFamily::Inet6) => arguments.push("-6".into()),
            Some(AddressFamily::Any) | None => {}
        }
        arguments.push("--".into());
        arguments.push(destination.to_string().into());
        arguments.extend(self.command.iter().map(Into::into));
        Ok(arguments)
    }

    /// The arguments with which ssh would be started to reach `hop`: the given configuration file
    /// and verbosity, all other settings are the hop's own. `before` are the hops on the way to it.
    pub fn for_hop(&self, hop: &JumpHop, before: &[JumpHop]) -> SshArgs {
        SshArgs {
            destination: hop.host.clone(),
            port: hop.port,
            login: hop.user.clone(),
            config_file: self.config_file.clone(),
            congestion: self.congestion.clone(),
            verbosity: self.verbosity,
            jump: (!before.is_empty()).then(|| format_jump_list(before)),
            ..SshArgs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ssh::destination::parse_jump_list;

    #[test]
    fn arguments_for_ssh_keep_their_meaning() {
        let args = SshArgs {
            destination: "u@[::1]".into(),
            port: Some(23),
            options: vec!["Tunnel=ethernet".into()],
            tunnel_device: Some("0:any".parse().unwrap()),
            address_family: Some(AddressFamily::Inet6),
            command: vec!["uptime".into()],
            ..SshArgs::default()
        };
        let expected = [
            "-p",
            "23",
            "-o",
            "Tunnel=ethernet",
            "-w",
            "0:any",
            "-6",
            "--",
            "u@::1",
            "uptime",
        ];
        assert_eq!(args.to_ssh().unwrap(), expected);
    }

    #[test]
    fn a_hop_takes_nothing_of_the_main_host_but_the_configuration() {
        let args = SshArgs {
            destination: "main".into(),
            port: Some(23),
            login: Some("me".into()),
            config_file: Some("/c".into()),
            options: vec!["User=x".into()],
            verbosity: 2,
            ..SshArgs::default()
        };
        let hops = parse_jump_list("a,u@b:24").unwrap();
        let hop = args.for_hop(&hops[1], &hops[..1]);
        let expected = ["-F", "/c", "-p", "24", "-l", "u", "-J", "a", "--", "b"];
        assert_eq!(hop.to_ssh().unwrap(), expected);
        assert_eq!(hop.verbosity, 2);
    }
}
