//! What does the PROXY header in front of a connection say?
//!
//! Versions 1 (text) and 2 (binary) of HAProxy's proxy-protocol.txt. Decoding is pure; reading takes exactly the header from
//! the socket and not a byte of what follows, so that TLS and HTTP below need no buffer for leftovers.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest version 1 header, its CRLF included (proxy-protocol.txt section 2.1).
const MAX_V1: usize = 107;
/// Longest version 2 header taken: addresses and a generous share of extensions, which are skipped.
const MAX_V2: usize = 4096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Both ends of a connection as the proxy in front of us saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The beginning of a header.
    Incomplete,
    /// A header of so many bytes; `None`: the proxy speaks for itself (LOCAL, UNKNOWN) or for something that is not TCP,
    /// the socket's own addresses hold.
    Header(Option<Proxied>, usize),
}

/// Anything that is no header.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no PROXY header")]
pub struct NoHeader;

/// Reads the header and nothing more.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<Proxied>> {
    let mut seen = Vec::new();
    loop {
        let mut chunk = [0; 256];
        let taken = seen.len();
        let length = stream.peek(&mut chunk).await?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(chunk.get(..length).unwrap_or_default());
        let decoded = decode(&seen).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let wanted = match decoded {
            Decoded::Header(_, end) => end - taken,
            Decoded::Incomplete => length,
        };
        stream.read_exact(chunk.get_mut(..wanted).unwrap_or_default()).await?;
        if let Decoded::Header(proxied, _) = decoded {
            return Ok(proxied);
        }
    }
}

/// Decodes the header at the beginning of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Decoded, NoHeader> {
    let starts = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if starts(SIGNATURE) {
        return decode_v2(bytes);
    }
    if starts(b"PROXY ") {
        return decode_v1(bytes);
    }
    Err(NoHeader)
}

fn decode_v1(bytes: &[u8]) -> Result<Decoded, NoHeader> {
    let window = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return if bytes.len() < MAX_V1 { Ok(Decoded::Incomplete) } else { Err(NoHeader) };
    };
    let line = window.get(..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or(NoHeader)?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(NoHeader);
    let header = match word()? {
        "UNKNOWN" => return Ok(Decoded::Header(None, end + 2)),
        "TCP4" => {
            let (source, destination) = (address::<Ipv4Addr>(word()?)?, address::<Ipv4Addr>(word()?)?);
            Proxied { source: (source, port(word()?)?).into(), destination: (destination, port(word()?)?).into() }
        }
        "TCP6" => {
            let (source, destination) = (address::<Ipv6Addr>(word()?)?, address::<Ipv6Addr>(word()?)?);
            Proxied { source: (source, port(word()?)?).into(), destination: (destination, port(word()?)?).into() }
        }
        _ => return Err(NoHeader),
    };
    if words.next().is_some() {
        return Err(NoHeader);
    }
    Ok(Decoded::Header(Some(canonical(header)), end + 2))
}

fn decode_v2(bytes: &[u8]) -> Result<Decoded, NoHeader> {
    let Some((&[version_command, family, high, low], rest)) =
        bytes.get(SIGNATURE.len()..).and_then(|rest| rest.split_first_chunk::<4>())
    else {
        return Ok(Decoded::Incomplete);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let end = SIGNATURE.len() + 4 + length;
    if end > MAX_V2 {
        return Err(NoHeader);
    }
    let (LOCAL | PROXY) = version_command else {
        return Err(NoHeader);
    };
    let Some(body) = rest.get(..length) else {
        return Ok(Decoded::Incomplete);
    };
    let header = match (version_command, family) {
        (PROXY, TCP4) => {
            let (&[a, b, c, d, e, f, g, h, p, q, r, s], _) = body.split_first_chunk::<12>().ok_or(NoHeader)?;
            Some(Proxied {
                source: (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p, q])).into(),
                destination: (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([r, s])).into(),
            })
        }
        (PROXY, TCP6) => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or(NoHeader)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(NoHeader)?;
            let (&[p, q, r, s], _) = rest.split_first_chunk::<4>().ok_or(NoHeader)?;
            let source = (Ipv6Addr::from(*source), u16::from_be_bytes([p, q])).into();
            Some(Proxied { source, destination: (Ipv6Addr::from(*destination), u16::from_be_bytes([r, s])).into() })
        }
        // Section 2.2: LOCAL, UNSPEC and the families that a receiver does not speak leave the socket's addresses.
        (LOCAL, _) | (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        _ => return Err(NoHeader),
    };
    Ok(Decoded::Header(header.map(canonical), end))
}

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

fn address<A: FromStr>(word: &str) -> Result<A, NoHeader> {
    word.parse().map_err(|_| NoHeader)
}

/// A port without sign and leading zeros.
fn port(word: &str) -> Result<u16, NoHeader> {
    let canonical = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if canonical { word.parse().map_err(|_| NoHeader) } else { Err(NoHeader) }
}

/// IPv4 in its own form, also where the proxy listened on IPv6: access lists are written so.
fn canonical(header: Proxied) -> Proxied {
    let plain = |address: SocketAddr| SocketAddr::new(IpAddr::to_canonical(&address.ip()), address.port());
    Proxied { source: plain(header.source), destination: plain(header.destination) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn encode(version: u8, header: Proxied) -> Vec<u8> {
        let Proxied { source: a, destination: b } = header;
        let four = a.is_ipv4();
        if version == 1 {
            let name = if four { "TCP4" } else { "TCP6" };
            return format!("PROXY {name} {} {} {} {}\r\n", a.ip(), b.ip(), a.port(), b.port()).into_bytes();
        }
        let mut body = Vec::new();
        for end in [a, b] {
            match end.ip() {
                IpAddr::V4(ip) => body.extend(ip.octets()),
                IpAddr::V6(ip) => body.extend(ip.octets()),
            }
        }
        body.extend(a.port().to_be_bytes());
        body.extend(b.port().to_be_bytes());
        v2(PROXY, if four { TCP4 } else { TCP6 }, &body)
    }

    fn headers() -> impl Strategy<Value = Proxied> {
        let four = (any::<[u32; 2]>(), any::<[u16; 2]>()).prop_map(|(ips, ports)| Proxied {
            source: (Ipv4Addr::from_bits(ips[0]), ports[0]).into(),
            destination: (Ipv4Addr::from_bits(ips[1]), ports[1]).into(),
        });
        let six = (any::<[u128; 2]>(), any::<[u16; 2]>()).prop_map(|(ips, ports)| Proxied {
            // Above the range of mapped IPv4 addresses, which change family.
            source: (Ipv6Addr::from_bits(ips[0] | 1 << 127), ports[0]).into(),
            destination: (Ipv6Addr::from_bits(ips[1] | 1 << 127), ports[1]).into(),
        });
        prop_oneof![four, six]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_and_what_follows_is_left(header in headers(), version in 1_u8..=2, rest: Vec<u8>) {
            let mut bytes = encode(version, header);
            let length = bytes.len();
            bytes.extend(rest);
            prop_assert_eq!(decode(&bytes), Ok(Decoded::Header(Some(header), length)));
        }

        #[test]
        fn every_beginning_of_a_header_is_incomplete(header in headers(), version in 1_u8..=2, cut: prop::sample::Index) {
            let bytes = encode(version, header);
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), Ok(Decoded::Incomplete));
        }

        #[test]
        fn no_bytes_make_it_panic_or_read_beyond_them(bytes: Vec<u8>, version in 0_u8..=2) {
            let mut whole = match version { 0 => Vec::new(), 1 => b"PROXY ".to_vec(), _ => SIGNATURE.to_vec() };
            whole.extend(bytes);
            if let Ok(Decoded::Header(_, length)) = decode(&whole) {
                prop_assert!(length <= whole.len());
            }
        }
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_leaves_the_sockets_addresses() {
        assert_eq!(decode(b"PROXY UNKNOWN\r\nGET"), Ok(Decoded::Header(None, 15)));
        assert_eq!(decode(b"PROXY UNKNOWN ff ff 1 2\r\n"), Ok(Decoded::Header(None, 25)));
        assert_eq!(decode(&v2(LOCAL, 0, b"")), Ok(Decoded::Header(None, 16)));
        assert_eq!(decode(&v2(LOCAL, TCP4, &[1; 12])), Ok(Decoded::Header(None, 28)));
        assert_eq!(decode(&v2(PROXY, 0x31, &[0; 216])), Ok(Decoded::Header(None, 232)));
    }

    #[test]
    fn a_mapped_ipv4_address_is_an_ipv4_address() {
        let Ok(Decoded::Header(Some(header), _)) = decode(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n") else {
            panic!("refused");
        };
        assert_eq!(header.source, "192.0.2.1:1".parse().unwrap());
    }

    #[test]
    fn garbage_is_no_header() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for wrong in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            &long,
        ] {
            assert_eq!(decode(wrong.as_bytes()), Err(NoHeader), "{wrong}");
        }
        assert_eq!(decode(&v2(0x11, TCP4, &[0; 12])), Err(NoHeader), "version 1 in a version 2 header");
        assert_eq!(decode(&v2(0x22, TCP4, &[0; 12])), Err(NoHeader), "an unknown command");
        assert_eq!(decode(&v2(PROXY, TCP4, &[0; 11])), Err(NoHeader), "a body too short for its addresses");
        assert_eq!(decode(&v2(PROXY, 0x44, &[0; 36])), Err(NoHeader), "an unknown family");
        assert_eq!(decode(&v2(PROXY, TCP4, &[0; 5000])), Err(NoHeader), "more than anybody sends");
    }

    #[tokio::test]
    async fn a_header_in_pieces_is_read_to_its_end_and_not_a_byte_further() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let send = async {
            for piece in ["PROXY TCP4 192.0.2.1 ", "192.0.2.2 1000 443", "\r", "\nGET / "] {
                client.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (header, ()) = tokio::join!(read(&mut stream), send);
        assert_eq!(header.unwrap().unwrap().source, "192.0.2.1:1000".parse().unwrap());
        let mut rest = [0; 6];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"GET / ");
    }
}
