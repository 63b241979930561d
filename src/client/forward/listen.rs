//! Local ports of `-L` and `-D`, at the addresses that ssh would choose.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use tokio::net::TcpListener;

use crate::config::ssh::args::AddressFamily;
use crate::config::ssh::options::ForwardSettings;
use crate::process::listen;

/// The addresses for `bind`: without one loopback, or all with GatewayPorts; for an empty one and
/// `*` all; else those of the name (ssh(1), `-L`).
fn addresses(bind: Option<&str>, settings: &ForwardSettings) -> io::Result<Vec<IpAddr>> {
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let found: Vec<IpAddr> = match bind {
        None if settings.gateway_ports => all.to_vec(),
        None | Some("localhost") => loopback.to_vec(),
        Some("" | "*") => all.to_vec(),
        Some(name) => {
            let found = (name, 0).to_socket_addrs()?;
            found.map(|address| address.ip()).collect()
        }
    };
    let of_family = |address: &IpAddr| match settings.address_family {
        AddressFamily::Any => true,
        AddressFamily::Inet => address.is_ipv4(),
        AddressFamily::Inet6 => address.is_ipv6(),
    };
    Ok(found.into_iter().filter(of_family).collect())
}

/// Listens at each address of `bind`, all at one port.
pub(super) fn ports(
    bind: Option<&str>,
    port: u16,
    settings: &ForwardSettings,
) -> io::Result<(u16, Vec<TcpListener>)> {
    listen::at_each(&addresses(bind, settings)?, port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::test_settings::options;

    #[test]
    fn addresses_are_those_that_ssh_would_choose() {
        let mut settings = options().forwards;
        let of = |bind: Option<&str>, settings: &ForwardSettings| {
            let found = addresses(bind, settings).unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (loopback, all) = (["127.0.0.1", "::1"], ["0.0.0.0", "::"]);
        assert_eq!(of(None, &settings), loopback);
        assert_eq!(of(Some("localhost"), &settings), loopback);
        assert_eq!(of(Some(""), &settings), all);
        assert_eq!(of(Some("*"), &settings), all);
        assert_eq!(of(Some("10.1.2.3"), &settings), ["10.1.2.3"]);
        settings.gateway_ports = true;
        assert_eq!(of(None, &settings), all);
        settings.address_family = AddressFamily::Inet6;
        assert_eq!(of(Some("localhost"), &settings), ["::1"]);
    }

    #[tokio::test]
    async fn one_port_at_all_addresses_or_none() {
        let settings = options().forwards;
        let (port, listeners) = ports(Some("127.0.0.1"), 0, &settings).unwrap();
        assert_eq!((port != 0, listeners.len()), (true, 1));
        let taken = ports(None, port, &settings).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
