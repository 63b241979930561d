//! Gets the settings for a destination and its jump hosts: from the ssh program if there is one,
//! else from the files that ssh reads.

use std::collections::BTreeSet;

use super::args::SshArgs;
use super::destination::JumpHop;
use super::options::{Proxy, SshOptions};
use super::{ask_ssh, defaults, file, options_build};
use crate::config::error::ConfigError;
use crate::config::invoker::Invoker;

/// The limit of jump hosts.
const MAX_HOPS: usize = 32;

/// The settings that ssh would use for `args`. Blocks on ssh, on the commands of `Match exec`, and
/// on the resolver if names are to be canonicalized.
pub fn resolve(args: &SshArgs, invoker: &Invoker) -> Result<SshOptions, ConfigError> {
    match ask_ssh::ask("ssh", args, invoker)? {
        Some(answer) => {
            let mut defaults = answer.defaults;
            defaults.fill_from(&defaults::values());
            options_build::build(answer.values, &defaults, args, invoker)
        }
        None => {
            let defaults = defaults::values();
            let values = file::read(args, invoker, &defaults)?;
            options_build::build(values, &defaults, args, invoker)
        }
    }
}

/// The settings for `args` as lines of `keyword value`: what `ssh -G` prints, or without the ssh
/// program what its files set.
pub fn print(args: &SshArgs, invoker: &Invoker) -> Result<String, ConfigError> {
    let mut asked = args.clone();
    for (kind, forward) in std::mem::take(&mut asked.forwards) {
        asked.options.push(forward.to_option(kind));
    }
    let values = match ask_ssh::ask("ssh", &asked, invoker)? {
        Some(answer) => answer.values,
        None => {
            let defaults = defaults::values();
            let mut values = file::read(&asked, invoker, &defaults)?;
            values.fill_from(&defaults);
            values
        }
    };
    Ok(values.to_lines(&ask_ssh::WORD_LISTS))
}

/// The settings that ssh would use for a jump host of the destination in `args`. A proxy in them
/// applies only if `hop` is the first jump host.
pub fn resolve_hop(
    args: &SshArgs,
    hop: &JumpHop,
    invoker: &Invoker,
) -> Result<SshOptions, ConfigError> {
    resolve(&args.for_hop(hop, &[]), invoker)
}

/// The jump hosts in the order of connecting, before the destination of `args`: `hops`, preceded by
/// the first one's own jump hosts. Only the first result may have a proxy, which is a command.
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
            return Err(too_long(&args.destination, &backwards));
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

/// The error for a way with more than [`MAX_HOPS`] jump hosts: a loop, if one of them comes twice.
fn too_long(destination: &str, hops: &[SshOptions]) -> ConfigError {
    let place = |hop: &SshOptions| (hop.user.clone(), hop.host.clone(), hop.port);
    let places: BTreeSet<_> = hops.iter().map(place).collect();
    match places.len() < hops.len() {
        true => ConfigError::JumpLoop(destination.to_owned()),
        false => ConfigError::TooManyJumpHosts {
            host: destination.to_owned(),
            most: MAX_HOPS,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ssh::destination::parse_jump_list;
    use crate::config::ssh::tokens::tests::alice;
    use crate::config::ssh::values::SshValues;

    /// The settings from a configuration with these jump hosts.
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

    #[test]
    fn a_long_chain_is_not_called_a_loop() {
        let names: Vec<String> = (0..MAX_HOPS + 1).map(|n| format!("hop{n}")).collect();
        let chain: Vec<(&str, &str)> = names
            .windows(2)
            .map(|pair| (pair[0].as_str(), pair[1].as_str()))
            .collect();
        for long in [hosts(&chain, "hop0"), hosts(&[], &names.join(","))] {
            let error = long.unwrap_err().to_string();
            assert!(error.contains("more than 32 jump hosts"), "{error}");
        }
        assert_eq!(hosts(&chain, "hop1").unwrap().len(), MAX_HOPS);
    }
}
