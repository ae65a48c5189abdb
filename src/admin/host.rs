//! May a request that names this host be answered?
//!
//! A page of the open web can make its own name resolve to 127.0.0.1 (DNS rebinding), and the browser then takes our answers for
//! that page's own. It cannot make the Host header an address or `localhost`, so only these are served, and names that the
//! configuration lists.

use std::net::{IpAddr, Ipv6Addr};

/// `authority` is a host with or without port, as in a Host header.
pub(super) fn is_allowed(authority: &str, listed: &[String]) -> bool {
    let host = without_port(authority);
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<Ipv6Addr>().is_ok());
    v6 || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4())
        || host.eq_ignore_ascii_case("localhost")
        || listed.iter().any(|name| name.eq_ignore_ascii_case(host))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_answered_with_any_port() {
        for host in ["127.0.0.1", "127.0.0.1:9900", "10.1.2.3:80", "[::1]", "[::1]:9900", "localhost", "LocalHost:1"] {
            assert!(is_allowed(host, &[]), "{host}");
        }
    }

    #[test]
    fn names_are_refused_unless_they_are_listed() {
        for host in ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test:80", "", "::1", "[::1].evil.test", "a:b"]
        {
            assert!(!is_allowed(host, &[]), "{host}");
        }
        assert!(is_allowed("gate.Example.com:9900", &["gate.example.com".into()]));
    }
}
