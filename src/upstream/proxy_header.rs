//! Which bytes of the PROXY protocol tell an endpoint who the client is?
//!
//! Versions 1 and 2 as in <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, sections 2.1 and 2.2.

use crate::model::ProxyHeader;
use std::net::{IpAddr, SocketAddr};

/// First bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header for a client's source and destination; `None`: the connection is our own (a health check).
pub(crate) fn encode(version: ProxyHeader, client: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let client = client.map(|(source, destination)| ends(source, destination));
    match version {
        ProxyHeader::V1 => text(client),
        ProxyHeader::V2 => binary(client),
    }
}

/// Both ends in one family: IPv4 where both are (IPv4-mapped ones included), else IPv6.
fn ends(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    };
    let (from, to) = if from.is_ipv4() && to.is_ipv4() { (from, to) } else { (mapped(from), mapped(to)) };
    (SocketAddr::new(from, source.port()), SocketAddr::new(to, destination.port()))
}

fn text(client: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((source, destination)) = client else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn binary(client: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    match client {
        None => out.extend_from_slice(&[LOCAL, 0, 0, 0]),
        Some((source, destination)) => {
            let v4 = source.is_ipv4();
            out.extend_from_slice(&[
                PROXY,
                if v4 { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 },
                0,
                if v4 { 12 } else { 36 },
            ]);
            for end in [source, destination] {
                match end.ip() {
                    IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, destination: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((source.parse().unwrap(), destination.parse().unwrap()))
    }

    #[test]
    fn version_1_is_one_line_of_text() {
        let v4 = encode(ProxyHeader::V1, client("192.0.2.1:56324", "198.51.100.2:443"));
        assert_eq!(v4, b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
        let v6 = encode(ProxyHeader::V1, client("[2001:db8::1]:1", "[2001:db8::2]:65535"));
        assert_eq!(v6, b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n");
    }

    #[test]
    fn version_2_is_binary() {
        let v4 = encode(ProxyHeader::V2, client("192.0.2.1:256", "198.51.100.2:443"));
        let wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x01\0\x01\xbb";
        assert_eq!(v4, wanted);
        let v6 = encode(ProxyHeader::V2, client("[2001:db8::1]:1", "[::1]:2"));
        let mut wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
        wanted.extend_from_slice(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
        wanted.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01\0\x02");
        assert_eq!(v6, wanted);
    }

    #[test]
    fn a_connection_of_our_own_names_nobody() {
        assert_eq!(encode(ProxyHeader::V1, None), b"PROXY UNKNOWN\r\n");
        assert_eq!(encode(ProxyHeader::V2, None), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }

    #[test]
    fn mapped_addresses_are_told_as_ipv4_and_mixed_ones_as_ipv6() {
        let mapped = encode(ProxyHeader::V1, client("[::ffff:192.0.2.1]:1", "[::ffff:127.0.0.1]:2"));
        assert_eq!(mapped, b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n");
        let mixed = encode(ProxyHeader::V1, client("192.0.2.1:1", "[::1]:2"));
        assert_eq!(mixed, b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
    }
}
