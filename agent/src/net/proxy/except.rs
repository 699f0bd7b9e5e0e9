//! What is reached without a proxy: `NO_PROXY`.

use std::net::IpAddr;

/// The entries of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exceptions(Vec<Exception>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    hosts: Hosts,
    /// This port alone.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// `*`
    Every,
    /// An address. Names are not looked up to compare with it.
    Address(IpAddr),
    /// `example.com`: the host, and all below it.
    Domain(String),
    /// `.example.com` or `*.example.com`: what is below it alone.
    Below(String),
}

impl Exceptions {
    /// Reads a list with commas. What is no host matches none.
    pub(super) fn new(list: &str) -> Self {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Self(entries.map(Exception::new).collect())
    }

    /// Whether a host is reached without a proxy. This machine always is: no
    /// proxy could reach it.
    pub(super) fn has(&self, host: &str, port: u16) -> bool {
        let host = normal(host);
        let address = host.parse::<IpAddr>().ok();
        let is_this_machine = match address {
            Some(address) => address.is_loopback(),
            None => host == "localhost" || host.ends_with(".localhost"),
        };
        is_this_machine || self.0.iter().any(|entry| entry.has(&host, address, port))
    }
}

impl Exception {
    fn new(entry: &str) -> Self {
        let (host, port) = split_port(entry);
        let host = normal(host);
        let hosts = match host.strip_prefix('*').unwrap_or(&host).strip_prefix('.') {
            Some(domain) => Hosts::Below(domain.to_owned()),
            None if host == "*" => Hosts::Every,
            None => host.parse().map_or(Hosts::Domain(host), Hosts::Address),
        };
        Self { hosts, port }
    }

    fn has(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let is_below = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
        };
        let is_host = match &self.hosts {
            Hosts::Every => true,
            Hosts::Address(excepted) => address == Some(*excepted),
            Hosts::Domain(domain) => host == domain || is_below(domain),
            Hosts::Below(domain) => is_below(domain),
        };
        is_host && self.port.is_none_or(|excepted| excepted == port)
    }
}

/// An address of IPv6 has colons of its own: behind it a port needs brackets.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => {
            port.parse().map_or((entry, None), |port| (host, Some(port)))
        }
        Some(_) | None => (entry, None),
    }
}

fn normal(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_excepted() {
        let table = [
            ("", "a.example", false),
            ("*", "a.example", true),
            ("a.example", "a.example", true),
            ("a.example", "A.Example.", true),
            ("A.EXAMPLE", "a.example", true),
            ("example", "a.example", true),
            ("a.example", "b.a.example", true),
            ("a.example", "ba.example", false),
            ("a.example", "example", false),
            (".a.example", "b.a.example", true),
            ("*.a.example", "b.a.example", true),
            (".a.example", "a.example", false),
            (".a.example", "ba.example", false),
            ("x, a.example ,,", "a.example", true),
            ("a.example:443", "a.example", true),
            ("a.example:8443", "a.example", false),
            ("a.example:x", "a.example", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1:443", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.10", false),
            ("10.0.0.1", "a10.0.0.1", false),
            ("fd00::1", "[fd00::1]", true),
            ("[FD00::1]:443", "[fd00:0::1]", true),
            ("[fd00::1]:8443", "[fd00::1]", false),
            // This machine.
            ("", "localhost", true),
            ("", "rs-garden--one.seed.localhost", true),
            ("", "127.0.0.2", true),
            ("", "[::1]", true),
            ("", "notlocalhost", false),
        ];
        for (list, host, want) in table {
            assert_eq!(Exceptions::new(list).has(host, 443), want, "{list:?} {host}");
        }
    }
}
