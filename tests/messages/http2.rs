//! Is a request over HTTP/2 one request when it goes on over HTTP/1?
//!
//! Heads are what the library of frames lets through: any name, value, target and authority that its types can hold.

use crate::cases;
use crate::gate;
use crate::mutate::{mutated, tries};
use crate::readers::{is_compliant, one_request_by_httparse, requests_by_hyper};
use crate::requests::assert_dropped;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use tidegate::http1::{BodyKind, framing};
use tidegate::message::Version;
use tidegate::proxy::request::Request;

/// These texts, mostly as they are: one that nothing takes hides what the others do.
fn texts(seeds: &[&str]) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|text| text.as_bytes().to_vec()).collect();
    prop_oneof![4 => prop::sample::select(seeds.clone()), 1 => mutated(seeds)]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    texts(&[
        "x-a",
        "content-length",
        "transfer-encoding",
        "host",
        "expect",
        "cookie",
        "te",
        "proxy",
        "x_a",
        "http2-settings",
        "connection",
    ])
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    texts(&[
        "a",
        "5",
        "0",
        "a.test",
        "100-continue",
        "trailers",
        "chunked",
        "a b",
        "a\r\nx-b: c",
        "close, x-a",
        "\u{e9}",
    ])
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// `None`: the library refuses it.
fn head(method: &[u8], path: &[u8], authority: &[u8], protocol: &[u8], fields: &Fields) -> Option<Request> {
    let mut request = Request::default();
    let head = &mut request.head;
    head.version = Version::Http2;
    head.method = Method::from_bytes(method).ok()?;
    head.raw_target = PathAndQuery::try_from(path).ok()?.as_str().as_bytes().to_vec();
    if !authority.is_empty() {
        head.raw_authority = Authority::try_from(authority).ok()?.as_str().as_bytes().to_vec();
    }
    head.protocol = std::str::from_utf8(protocol).ok()?.as_bytes().to_vec();
    for (name, value) in fields {
        let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        // RFC 9113 section 8.2.2, as the library holds it.
        let of_connections = ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"];
        if of_connections.contains(&name.as_str()) || (name == "te" && value != "trailers") {
            return None;
        }
        head.fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    Some(request)
}

#[test]
fn a_websocket_carries_no_length_of_a_body_that_is_not_sent() {
    let fields = vec![(b"content-length".to_vec(), b"5".to_vec())];
    let mut request = head(b"CONNECT", b"/", b"a.test", b"websocket", &fields).unwrap();
    let sent = gate::forward(&mut request, BodyKind::None).unwrap().into_parts().0.written;
    let read = one_request_by_httparse(&sent);
    assert_eq!(read.first, "GET /");
    assert!(read.fields.iter().any(|(name, value)| name == "upgrade" && value == b"websocket"));
}

/// All that holds for a head, and for whether its stream ended with it.
fn holds(request: Option<Request>, ended: bool) {
    let Some(mut request) = request else { return };
    let kind = match framing::of_request(&request.head.fields, Version::Http11) {
        Err(_) => return,
        Ok(BodyKind::None) if !ended && request.head.protocol.is_empty() => BodyKind::Chunked,
        Ok(BodyKind::Length(n)) if n > 100 => return,
        Ok(kind) => kind,
    };
    let Ok(up) = gate::forward(&mut request, kind) else { return };
    let mut sent = up.into_parts().0.written;
    let kind = if request.upgrade.is_empty() { kind } else { BodyKind::None };
    match kind {
        BodyKind::Length(n) => sent.extend(std::iter::repeat_n(b'x', usize::try_from(n).unwrap())),
        BodyKind::Chunked => sent.extend_from_slice(b"0\r\n\r\n"),
        _ => {}
    }
    let read = one_request_by_httparse(&sent);
    assert_eq!(read.fields.iter().filter(|(name, _)| name == "host").count(), 1);
    assert_dropped(&sent);
    assert!(is_compliant(&sent), "{}", sent.escape_ascii());
    let (requests, failed) = requests_by_hyper(&sent);
    assert!(!failed && requests.len() == 1, "{}", sent.escape_ascii());
    assert_eq!((&requests[0].first, &requests[0].fields), (&read.first, &read.fields));
}

/// The same for a head as text: whether it ended, method, path, authority, protocol and fields, each ended by a NUL, which none of
/// them may hold.
pub fn holds_for_text(text: &[u8]) {
    let mut parts = text.split(|byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (ended, method, path, authority, protocol) = (next(), next(), next(), next(), next());
    let field = |part: &[u8]| {
        let at = part.iter().position(|byte| *byte == b':')?;
        Some((part[..at].to_vec(), part[at + 1..].to_vec()))
    };
    let fields: Fields = parts.filter_map(field).take(100).collect();
    holds(head(method, path, authority, protocol, &fields), ended.is_empty());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let own = [
        "\0GET\0/\0a.test\0\0x-a:b",
        "+\0POST\0/a?b\0A.test.:80\0\0content-length:5\0cookie:a",
        "\0CONNECT\0/\0a.test\0websocket\0te:trailers",
        "\0OPTIONS\0*\0\0\0host:a.test\0expect:100-continue",
    ];
    cases::with_found("http2", own.iter().map(|text| text.as_bytes().to_vec()).collect())
}

proptest! {
    #![proptest_config(tries())]

    #[test]
    fn a_request_over_http2_goes_on_as_one_or_not_at_all(
        method in texts(&["GET", "POST", "CONNECT", "head", "OPTIONS"]),
        path in texts(&["/", "/a?b", "/a/../b;c", "*", "//x", "http://b.test/", "/%2e%2e/"]),
        authority in texts(&["a.test", "A.test.:80", "[::1]", "u@a.test", ""]),
        protocol in prop_oneof![3 => Just(vec![]), 1 => texts(&["websocket", "websocket\r\nx: y", "h2c"])],
        fields in prop::collection::vec((name(), value()), 0..4),
        ended in any::<bool>(),
    ) {
        holds(head(&method, &path, &authority, &protocol, &fields), ended);
    }

    #[test]
    fn what_was_found_over_http2_holds_with_its_kin(text in mutated(seeds())) {
        holds_for_text(&text);
    }
}
