//! Checks the host that a request for metrics names. A web page in a browser on this host
//! can point its own name here (DNS rebinding) and read the answer, so only addresses and
//! names of this host, which no other page has, are answered.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use hyper::Request;
use hyper::header::HOST;
use hyper::http::uri::Authority;
use nix::unistd::gethostname;

use crate::config::domain_name::DomainName;

/// Names under which the metrics may be requested.
#[derive(Debug, Clone, Default)]
pub(super) struct AskedHosts(BTreeSet<String>);

impl AskedHosts {
    /// Permits `names`, `localhost`, and the name of this host.
    pub(super) fn new(names: &[DomainName]) -> Self {
        let own = gethostname().ok().and_then(|name| name.into_string().ok());
        let named = names.iter().map(|name| name.as_str().to_owned());
        let mut all: BTreeSet<String> = named.chain(["localhost".to_owned()]).collect();
        all.extend(own.map(|name| name.to_ascii_lowercase()));
        AskedHosts(all)
    }

    /// Whether every host that the request names is permitted. A request without one does
    /// not come from a browser.
    pub(super) fn permit<B>(&self, request: &Request<B>) -> bool {
        let in_target = request.uri().authority().map(Authority::as_str);
        let mut in_headers = request.headers().get_all(HOST).into_iter();
        in_target.is_none_or(|named| self.permits(named))
            && in_headers.all(|value| value.to_str().is_ok_and(|named| self.permits(named)))
    }

    /// Checks a host with or without a port.
    fn permits(&self, named: &str) -> bool {
        let Ok(authority) = named.parse::<Authority>() else {
            return false;
        };
        let host = authority.host();
        // The parser accepts more around it: a user, or text after brackets.
        let is_port = |rest: &str| {
            rest.strip_prefix(':')
                .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let rest = named.strip_prefix(host);
        if !rest.is_some_and(|rest| rest.is_empty() || is_port(rest)) {
            return false;
        }
        let in_brackets = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if let Some(address) = in_brackets {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        host.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_of_its_own_are_answered() {
        let hosts = AskedHosts::new(&["gateway.example".parse().unwrap()]);
        for (named, expected) in [
            ("127.0.0.1:9100", true),
            ("192.0.2.7", true),
            ("[::1]:9100", true),
            ("[2001:db8::1]", true),
            ("localhost:9100", true),
            ("LOCALHOST", true),
            ("localhost.", true),
            ("Gateway.Example:9100", true),
            ("gateway.example.", true),
            ("attacker.example", false),
            ("localhost.attacker.example", false),
            ("127.0.0.1.attacker.example", false),
            ("other.gateway.example", false),
            ("127.1", false),
            ("2130706433", false),
            ("[::1].attacker.example", false),
            ("[attacker.example]", false),
            ("localhost@attacker.example", false),
            ("attacker.example@localhost", false),
            ("", false),
        ] {
            let by_header = Request::builder().header(HOST, named).body(()).unwrap();
            assert_eq!(hosts.permit(&by_header), expected, "{named}");
        }
        let own = gethostname().unwrap().into_string().unwrap();
        assert!(hosts.permits(&own.to_ascii_uppercase()), "{own}");
    }

    #[test]
    fn each_host_that_is_named_has_to_be_one() {
        let hosts = AskedHosts::new(&[]);
        let request = |target: &str, headers: &[&str]| {
            let mut request = Request::builder().uri(target);
            for header in headers {
                request = request.header(HOST, *header);
            }
            hosts.permit(&request.body(()).unwrap())
        };
        assert!(request("/metrics", &[]));
        assert!(request("http://localhost/metrics", &["localhost"]));
        assert!(!request("http://attacker.example/metrics", &["localhost"]));
        assert!(!request("/metrics", &["localhost", "attacker.example"]));
    }
}
