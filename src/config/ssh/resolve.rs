//! The settings for a destination and for the hosts on the way to it: asked
//! of the ssh program where there is one, else read from the files it reads.

use super::args::SshArgs;
use super::destination::JumpHop;
use super::options::{Proxy, SshOptions};
use super::{ask_ssh, config, defaults, options_build};
use crate::config::error::ConfigError;
use crate::config::invoker::Invoker;

/// More hosts on the way than this are a circle.
const MAX_HOPS: usize = 32;

/// What ssh would use for `args`. Waits for ssh, for the commands of
/// `Match exec`, and for the resolver where names are to be canonical.
pub fn resolve(args: &SshArgs, invoker: &Invoker) -> Result<SshOptions, ConfigError> {
    match ask_ssh::ask("ssh", args, invoker)? {
        Some(answer) => {
            let mut defaults = answer.defaults;
            defaults.fill_from(&defaults::values());
            options_build::build(answer.values, &defaults, args, invoker)
        }
        None => {
            let defaults = defaults::values();
            let values = config::read(args, invoker, &defaults)?;
            options_build::build(values, &defaults, args, invoker)
        }
    }
}

/// What ssh would use for a jump host of the destination in `args`. A proxy in
/// the answer counts only where `hop` is the first one on the way.
pub fn resolve_hop(
    args: &SshArgs,
    hop: &JumpHop,
    invoker: &Invoker,
) -> Result<SshOptions, ConfigError> {
    resolve(&args.for_hop(hop, &[]), invoker)
}

/// The hosts to connect to one after the other before the destination of
/// `args`, `hops` and what these need themselves. Only the first one may have
/// a proxy left, and that is a command.
pub fn resolve_route(
    args: &SshArgs,
    hops: &[JumpHop],
    invoker: &Invoker,
) -> Result<Vec<SshOptions>, ConfigError> {
    route(args, hops, |args| resolve(args, invoker))
}

fn route(
    args: &SshArgs,
    hops: &[JumpHop],
    resolve: impl Fn(&SshArgs) -> Result<SshOptions, ConfigError>,
) -> Result<Vec<SshOptions>, ConfigError> {
    let mut backwards: Vec<SshOptions> = Vec::new();
    let mut hops = hops.to_vec();
    while !hops.is_empty() {
        if backwards.len() + hops.len() > MAX_HOPS {
            return Err(ConfigError::JumpLoop(args.destination.clone()));
        }
        let mut next = Vec::new();
        while let Some(hop) = hops.pop() {
            let mut options = resolve(&args.for_hop(&hop, &hops))?;
            match options.proxy.take() {
                Some(Proxy::Jump(own)) if hops.is_empty() => next = own,
                Some(command @ Proxy::Command(_)) if hops.is_empty() => {
                    options.proxy = Some(command);
                }
                _ => {}
            }
            backwards.push(options);
        }
        hops = next;
    }
    backwards.reverse();
    Ok(backwards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ssh::destination::parse_jump_list;
    use crate::config::ssh::tokens::tests::alice;
    use crate::config::ssh::values::SshValues;

    /// Settings as a configuration with these jump hosts would give them.
    fn configured(args: &SshArgs, jumps: &[(&str, &str)]) -> Result<SshOptions, ConfigError> {
        let mut values = SshValues::default();
        let own = jumps.iter().find(|(host, _)| *host == args.destination);
        if let Some(jump) = args.jump.as_deref().or(own.map(|(_, jump)| *jump)) {
            match jump.strip_prefix("command ") {
                Some(command) => values.push("proxycommand", command.into()),
                None => values.push("proxyjump", jump.into()),
            }
        }
        options_build::build(values, &defaults::values(), args, &alice())
    }

    fn hosts(jumps: &[(&str, &str)], hops: &str) -> Result<Vec<String>, ConfigError> {
        let hops = parse_jump_list(hops)?;
        let route = route(&SshArgs::default(), &hops, |args| configured(args, jumps))?;
        let beyond_first = route.iter().skip(1);
        assert!(
            beyond_first
                .into_iter()
                .all(|options| options.proxy.is_none())
        );
        Ok(route.into_iter().map(|options| options.host).collect())
    }

    #[test]
    fn the_first_hop_brings_its_own_hops() {
        assert_eq!(hosts(&[], "a,b").unwrap(), ["a", "b"]);
        let jumps = [("a", "x,y"), ("b", "ignored"), ("x", "command nc %h")];
        assert_eq!(hosts(&jumps, "a,b").unwrap(), ["x", "y", "a", "b"]);
        assert!(hosts(&jumps, "").is_err());
    }

    #[test]
    fn a_circle_is_an_error() {
        let circle = hosts(&[("a", "b"), ("b", "a")], "a");
        assert!(matches!(circle, Err(ConfigError::JumpLoop(_))));
    }
}
