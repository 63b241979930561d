//! The names under which known_hosts lists a host's key.

use std::net::SocketAddr;

use crate::config::ssh::options::SshOptions;

/// The port that known_hosts omits.
const DEFAULT_PORT: u16 = 22;

/// The names of one host.
#[derive(Debug)]
pub(in crate::ssh) struct HostNames {
    /// In lower case, like in ssh.
    host: String,
    port: u16,
    alias: Option<String>,
    peer: Option<SocketAddr>,
    /// Whether the address must have the same key (`CheckHostIP`).
    check_address: bool,
}

impl HostNames {
    /// The host of `options`, at address `peer`; `None` behind a proxy.
    pub(in crate::ssh) fn new(options: &SshOptions, peer: Option<SocketAddr>) -> Self {
        Self {
            host: options.host.to_lowercase(),
            port: options.port,
            alias: options.host_key_alias.clone(),
            peer: peer.filter(|_| options.proxy.is_none()),
            check_address: options.check_host_ip,
        }
    }

    /// The name in the host's lines: the alias, `[host]:port`, or the name.
    pub(in crate::ssh) fn lookup(&self) -> String {
        match &self.alias {
            Some(alias) => alias.clone(),
            None => with_port(&self.host, self.port),
        }
    }

    /// The name without the port, if there is no alias and the port is not 22.
    pub(in crate::ssh) fn without_port(&self) -> Option<&str> {
        let differs = self.alias.is_none() && self.lookup() != self.host;
        differs.then_some(self.host.as_str())
    }

    /// All lookup names.
    pub(in crate::ssh) fn all(&self) -> Vec<String> {
        let without_port = self.without_port().map(str::to_owned);
        [self.lookup()].into_iter().chain(without_port).collect()
    }

    /// The principal that the host's certificate must list.
    pub(in crate::ssh) fn principal(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.host)
    }

    /// The address as lines list it, or ssh's text in its place.
    pub(in crate::ssh) fn address(&self) -> String {
        match self.peer {
            Some(peer) => with_port(&peer.ip().to_canonical().to_string(), self.port),
            None => "<no hostip for proxy command>".to_owned(),
        }
    }

    /// Whether the host is this one, without an alias.
    pub(in crate::ssh) fn is_localhost(&self) -> bool {
        self.alias.is_none() && self.peer_is_loopback()
    }

    fn peer_is_loopback(&self) -> bool {
        self.peer.is_some_and(|peer| peer.ip().is_loopback())
    }

    /// Whether the address must be checked as well.
    pub(in crate::ssh) fn checks_address(&self) -> bool {
        self.check_address
            && self.peer.is_some()
            && !self.peer_is_loopback()
            && self.address() != self.host
    }

    /// Whether a known_hosts line can contain the name as it is.
    pub(in crate::ssh) fn can_be_recorded(&self) -> bool {
        let unfit = |c: char| "@?*#[]|'\"\\".contains(c) || c.is_whitespace() || c.is_control();
        !self.host.contains(unfit) && !self.lookup().contains(char::is_whitespace)
    }
}

/// `[name]:port`, or only the name for port 22.
fn with_port(name: &str, port: u16) -> String {
    match port {
        0 | DEFAULT_PORT => name.to_owned(),
        port => format!("[{name}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::test_settings;

    fn names(change: impl FnOnce(&mut SshOptions), peer: &str) -> HostNames {
        let mut options = test_settings::options();
        options.host = "Server.Example".into();
        change(&mut options);
        HostNames::new(&options, peer.parse().ok())
    }

    #[test]
    fn the_port_is_part_of_the_name_unless_it_is_22() {
        let usual = names(|_| {}, "192.0.2.1:22");
        assert_eq!(usual.all(), ["server.example"]);
        assert_eq!(usual.address(), "192.0.2.1");
        let other = names(|options| options.port = 2222, "[2001:db8::1]:2222");
        assert_eq!(other.all(), ["[server.example]:2222", "server.example"]);
        assert_eq!(other.address(), "[2001:db8::1]:2222");
        assert_eq!(other.principal(), "server.example");
    }

    #[test]
    fn an_alias_replaces_all_of_it() {
        let aliased = |options: &mut SshOptions| {
            options.port = 2222;
            options.host_key_alias = Some("cluster".into());
        };
        let names = names(aliased, "127.0.0.1:2222");
        assert_eq!(names.all(), ["cluster"]);
        assert_eq!(names.principal(), "cluster");
        assert!(!names.is_localhost());
    }

    #[test]
    fn when_the_address_counts() {
        let check = |options: &mut SshOptions| options.check_host_ip = true;
        assert!(names(check, "192.0.2.1:22").checks_address());
        assert!(!names(|_| {}, "192.0.2.1:22").checks_address());
        assert!(!names(check, "127.0.0.1:22").checks_address());
        assert!(!names(check, "behind a proxy").checks_address());
        let by_address = |options: &mut SshOptions| {
            check(options);
            options.host = "192.0.2.1".into();
        };
        assert!(!names(by_address, "192.0.2.1:22").checks_address());
    }

    #[test]
    fn names_with_the_characters_of_the_format_are_not_written() {
        for name in ["a*b", "@a", "|1|x", "a b", "[a]"] {
            let names = names(|options| options.host = name.into(), "192.0.2.1:22");
            assert!(!names.can_be_recorded(), "{name}");
        }
    }
}
