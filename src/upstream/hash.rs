//! Which number stands for a request or an endpoint, the same on every instance?
//!
//! Nothing here may depend on the process, the order of endpoints or a random seed: two instances that agree on the key and
//! on the addresses agree on the endpoint.

use super::random::mix;
use crate::message::{FieldId, Name, RequestContext, RequestHead};
use crate::model::HashKey;
use std::net::{IpAddr, SocketAddr};

/// What is hashed, prepared for look-ups.
#[derive(Debug)]
pub(crate) enum Key {
    Header(Name),
    Cookie(Box<[u8]>),
    Source,
}

impl Key {
    pub(crate) fn new(key: &HashKey) -> Self {
        match key {
            HashKey::Header(name) => Self::Header(Name::new(name.as_str())),
            HashKey::Cookie(name) => Self::Cookie(name.as_bytes().into()),
            HashKey::Source => Self::Source,
        }
    }

    /// The number of this request; `None` where it lacks the key.
    pub(crate) fn of(&self, head: &RequestHead, context: &RequestContext) -> Option<u64> {
        match self {
            Self::Header(name) => head.fields.find(name).map(bytes),
            Self::Cookie(name) => head.fields.all(FieldId::Cookie).find_map(|line| cookie(line, name)).map(bytes),
            Self::Source => Some(address(context.client)),
        }
    }
}

/// The value of one cookie in one `Cookie` line.
fn cookie<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|&b| b == b';').find_map(|pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
}

/// FNV-1a, then mixed, because FNV alone leaves short keys close to each other.
pub(crate) fn bytes(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
}

fn address(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => bytes(&v4.octets()),
        IpAddr::V6(v6) => bytes(&v6.octets()),
    }
}

/// The number of an endpoint.
pub(crate) fn endpoint(at: SocketAddr) -> u64 {
    mix(address(at.ip()) ^ u64::from(at.port()))
}

/// The draw of a key at an endpoint in rendezvous hashing: the endpoint with the highest one has the key.
pub(crate) fn draw(key: u64, endpoint: u64) -> u64 {
    mix(key ^ endpoint.rotate_left(32))
}

/// Turns a draw into a score whose maximum falls on an endpoint as often as its weight says: `-weight / ln(u)`, `u` in (0, 1).
/// It grows with the draw, so that endpoints of one weight keep their order by draw.
#[expect(clippy::cast_precision_loss, reason = "52 random bits are plenty")]
pub(crate) fn score(draw: u64, weight: u32) -> f64 {
    let unit = ((draw >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    -f64::from(weight) / unit.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Scheme;
    use crate::model::FieldName;
    use http::Method;
    use tokio::time::Instant;

    fn context(client: &str) -> RequestContext {
        let peer = SocketAddr::new(client.parse().unwrap(), 40_000);
        RequestContext::new(Instant::now(), peer, "127.0.0.1:80".parse().unwrap(), Scheme::Http, None)
    }

    #[test]
    fn a_header_a_cookie_and_a_source_give_a_key() {
        let mut head = RequestHead::sample(Method::GET, "a.test", "/");
        head.fields.push(b"X-User", b"7");
        head.fields.push(b"Cookie", b"theme=dark; sid=abc; xsid=no");
        let context = context("192.0.2.1");
        let header = Key::new(&HashKey::Header(FieldName::parse("x-user").unwrap()));
        assert_eq!(header.of(&head, &context), Some(bytes(b"7")));
        assert_eq!(Key::new(&HashKey::Cookie("sid".into())).of(&head, &context), Some(bytes(b"abc")));
        assert_eq!(Key::new(&HashKey::Cookie("si".into())).of(&head, &context), None);
        assert_eq!(Key::new(&HashKey::Source).of(&head, &context), Some(bytes(&[192, 0, 2, 1])));
    }

    #[test]
    fn an_ipv4_client_on_an_ipv6_socket_keeps_its_key() {
        let head = RequestHead::default();
        let key = Key::new(&HashKey::Source);
        assert_eq!(key.of(&head, &context("::ffff:192.0.2.1")), key.of(&head, &context("192.0.2.1")));
    }

    #[test]
    fn numbers_are_the_same_in_every_process() {
        assert_eq!(bytes(b"abc"), 0x0dd4_9049_0804_b508);
        assert_eq!(endpoint("10.0.0.1:8080".parse().unwrap()), 0xa4d1_c12d_fd88_7549);
    }
}
