//! Which external names are never followed, before anything is resolved?
//!
//! A Service of type ExternalName is written by whoever may write Services, and would reach what listens on the node alone. The
//! addresses that a name resolves to are looked at again when they are known; here stands what can be seen from the name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a name is not followed; `None` where nothing speaks against it.
pub(super) fn why_refused(host: &str) -> Option<&'static str> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return is_near(address).then_some("an address of the node itself or of its link");
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if name == "localhost" || last == "localhost" || name == "localhost.localdomain" || name == "ip6-localhost" {
        return Some("the node itself");
    }
    // Resolvers take 127.1, 2130706433 and 0x7f.1 for addresses.
    if last.is_empty() || last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit()) {
        return Some("which is not a host name");
    }
    let odd = |b: u8| !(b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
    (name.len() > 253 || name.bytes().any(odd)).then_some("which is not a host name")
}

/// Loopback, link-local (where clouds keep their metadata), unspecified or for many.
fn is_near(address: IpAddr) -> bool {
    let v4 = |a: Ipv4Addr| {
        a.is_loopback()
            || a.is_link_local()
            || a.is_unspecified()
            || a.is_multicast()
            || a.is_broadcast()
            || a.octets().first() == Some(&0)
    };
    let v6 = |a: Ipv6Addr| a.is_loopback() || a.is_unicast_link_local() || a.is_unspecified() || a.is_multicast();
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => address.to_ipv4().map_or_else(|| v6(address), |inner| v4(inner) || v6(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_the_node_is_refused_however_it_is_written() {
        let near = [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0.0.0.0",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "",
            ".",
            "a b",
            "a/b",
            "0x7f000001",
        ];
        for host in near {
            assert!(why_refused(host).is_some(), "{host:?}");
        }
    }

    #[test]
    fn other_names_and_addresses_are_followed() {
        for host in
            ["db.example.com", "db.example.com.", "192.0.2.1", "2001:db8::1", "a-b_c.test", "localhost.example.com"]
        {
            assert_eq!(why_refused(host), None, "{host:?}");
        }
    }
}
