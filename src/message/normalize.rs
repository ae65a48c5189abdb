//! What is this request for, in one canonical form that is both matched and forwarded?
//!
//! RFC 9110 section 7, RFC 9112 section 3, RFC 9113 section 8.3, RFC 3986 section 6.2.2. Whatever two readers could understand
//! differently is refused: the upstream must see the same host and path that the route was chosen by.

use super::path::canonical_path;
use super::{ByteSet, Field, FieldId, Fields, RequestHead, Version};
use crate::model::EncodedSlash;
use http::{Method, StatusCode};
use std::fmt::Write;
use thiserror::Error;

/// Why a request is refused before it is routed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Refused {
    #[error("no Host")]
    HostMissing,
    #[error("more than one Host")]
    HostDuplicate,
    #[error("malformed Host")]
    HostMalformed,
    #[error("the request target and Host name different hosts")]
    HostMismatch,
    #[error("malformed request target")]
    TargetMalformed,
    #[error("the path holds a character that readers take differently")]
    PathAmbiguous,
    #[error(
        "a header name holds other characters than letters, digits and hyphens, or is nearly one that ends a message"
    )]
    HeaderName,
    #[error("a header value begins or ends with a blank")]
    HeaderValue,
    #[error("CONNECT, TRACE and well-known methods in another case are not served")]
    Method,
    #[error("a :protocol other than websocket")]
    Protocol,
    #[error("an expectation other than 100-continue")]
    Expectation,
}

impl Refused {
    /// The status that answers it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            // RFC 9220 section 3.
            Self::Protocol => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Stable token for log and metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::HostMissing => "host_missing",
            Self::HostDuplicate => "host_duplicate",
            Self::HostMalformed => "host_malformed",
            Self::HostMismatch => "host_mismatch",
            Self::TargetMalformed => "target_malformed",
            Self::PathAmbiguous => "path_ambiguous",
            Self::HeaderName => "header_name",
            Self::HeaderValue => "header_value",
            Self::Method => "method_not_allowed",
            Self::Protocol => "protocol_unknown",
            Self::Expectation => "expectation_failed",
        }
    }
}

/// Makes `host`, `port`, `path` and `query` of what was received.
pub fn normalize(head: &mut RequestHead, slash: EncodedSlash) -> Result<(), Refused> {
    check_method(head)?;
    check_fields(head)?;
    let raw = std::mem::take(&mut head.raw_target);
    let outcome = split_target(head, &raw, slash);
    head.raw_target = raw;
    outcome
}

/// Leaves out fields whose names [`normalize`] would refuse for their characters.
pub fn drop_odd_names(fields: &mut Fields) {
    let odd = |field: &Field<'_>| field.id == FieldId::Other && !ByteSet::PLAIN_NAME.has_all(field.name);
    if fields.iter().any(|field| odd(&field)) {
        fields.retain(|field| !odd(&field));
    }
}

/// A WebSocket is a GET (RFC 8441 section 5), whichever way it was asked for: the same is matched and forwarded.
fn check_method(head: &mut RequestHead) -> Result<(), Refused> {
    if head.protocol.is_empty() {
        return if is_served(&head.method) { Ok(()) } else { Err(Refused::Method) };
    }
    // Any text comes here as `:protocol`, line breaks too, and it goes into a field of a head of HTTP/1; h2c would carry requests past
    // every check.
    if head.method != Method::CONNECT || !head.protocol.eq_ignore_ascii_case(b"websocket") {
        return Err(Refused::Protocol);
    }
    head.method = Method::GET;
    Ok(())
}

/// Methods are case-sensitive (RFC 9110 section 9.1), and some upstreams forget it: `head` would be answered without the body that
/// its length announces, `trace` served. PRI belongs to the preface of HTTP/2 (RFC 9113 section 11.6).
fn is_served(method: &Method) -> bool {
    const KNOWN: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI"];
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {
            true
        }
        _ => !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(method.as_str())),
    }
}

/// Names that CGI-style upstreams confuse (`Transfer_Encoding`), expectations, and values that a head of HTTP/1 cannot carry as they are.
fn check_fields(head: &RequestHead) -> Result<(), Refused> {
    for field in head.fields.iter() {
        if head.version == Version::Http2 && has_outer_blanks(&field) {
            return Err(Refused::HeaderValue);
        }
        if field.id == FieldId::Expect && !field.value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refused::Expectation);
        }
        if field.id == FieldId::Other && (!ByteSet::PLAIN_NAME.has_all(field.name) || resembles_framing(field.name)) {
            return Err(Refused::HeaderName);
        }
    }
    Ok(())
}

/// `Transfer---Encoding`, `-Content-Length`, `TransferxEncoding`: nobody's fields, but to a reader that forgives a sign those two that
/// end a message.
fn resembles_framing(name: &[u8]) -> bool {
    if name.len() < 13 || !matches!(name.first(), Some(b't' | b'T' | b'c' | b'C' | b'-')) {
        return false;
    }
    let letters = || name.iter().filter(|b| **b != b'-').map(u8::to_ascii_lowercase);
    let count = letters().count();
    let same = |(first, last): &(&[u8], &[u8])| {
        let between = count.checked_sub(first.len() + last.len());
        between.is_some_and(|n| {
            n <= 1
                && letters().take(first.len()).eq(first.iter().copied())
                && letters().skip(first.len() + n).eq(last.iter().copied())
        })
    };
    // `content-lengt-`: to some readers a beginning that is filled up with hyphens is the name.
    let begins = |(first, last): &(&[u8], &[u8])| {
        let is_of = |from: usize, part: &[u8]| letters().skip(from).zip(part).all(|(letter, wanted)| letter == *wanted);
        let rest = |n| count <= first.len() + n + last.len() && is_of(first.len() + n, last);
        is_of(0, first) && (rest(0) || rest(1))
    };
    let framing = [(&b"transfer"[..], &b"encoding"[..]), (b"content", b"length")];
    framing.iter().any(same) || (name.ends_with(b"-") && framing.iter().any(begins))
}

/// RFC 9113 section 8.2.1. The next reader, of HTTP/1, sees the value without them: what was checked here would be another value.
fn has_outer_blanks(field: &Field<'_>) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(field.value.first()) || blank(field.value.last())
}

fn split_target(head: &mut RequestHead, raw: &[u8], slash: EncodedSlash) -> Result<(), Refused> {
    // RFC 9113 section 8.3.1: `:path` is a path, never a whole URI that names another host.
    if head.version == Version::Http2 && !matches!(raw.first(), Some(b'/' | b'*')) {
        return Err(Refused::TargetMalformed);
    }
    let (authority, target) = absolute_form(raw)?;
    let authority = if head.raw_authority.is_empty() { authority } else { Some(head.raw_authority.clone()) };
    read_host(head, authority)?;
    match target {
        b"*" if head.method == Method::OPTIONS => {
            head.path.push('*');
            Ok(())
        }
        _ => {
            let (path, query) = match memchr::memchr(b'?', target) {
                Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
                None => (target, None),
            };
            read_query(head, query)?;
            // Only the absolute form can have none before a query (RFC 3986 section 6.2.3).
            canonical_path(if path.is_empty() { b"/" } else { path }, slash, &mut head.path)
        }
    }
}

/// Splits `http://host/path`; the authority is `None` for other forms.
fn absolute_form(raw: &[u8]) -> Result<(Option<Vec<u8>>, &[u8]), Refused> {
    if matches!(raw.first(), Some(b'/' | b'*')) {
        return Ok((None, raw));
    }
    let rest = [&b"http://"[..], b"https://"]
        .iter()
        .find(|scheme| raw.get(..scheme.len()).is_some_and(|front| front.eq_ignore_ascii_case(scheme)))
        .and_then(|scheme| raw.get(scheme.len()..))
        .ok_or(Refused::TargetMalformed)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    Ok((Some(authority.to_vec()), if target.is_empty() { b"/" } else { target }))
}

/// Exactly one Host with a valid authority; where the target names a host too, both are the same.
fn read_host(head: &mut RequestHead, authority: Option<Vec<u8>>) -> Result<(), Refused> {
    let mut lines = head.fields.all(FieldId::Host);
    let field = lines.next();
    if lines.next().is_some() {
        return Err(Refused::HostDuplicate);
    }
    let (host, port) = match (&authority, field) {
        (None, None) => return Err(Refused::HostMissing),
        (None, Some(field)) => parse_authority(field, &mut head.host)?,
        (Some(named), None) if head.version == Version::Http2 => parse_authority(named, &mut head.host)?,
        (Some(_), None) => return Err(Refused::HostMissing),
        (Some(named), Some(field)) => {
            let mut other = String::new();
            let from_field = parse_authority(field, &mut other)?;
            let from_target = parse_authority(named, &mut head.host)?;
            if other != head.host || from_field.1 != from_target.1 {
                return Err(Refused::HostMismatch);
            }
            from_target
        }
    };
    debug_assert_eq!(host, head.host.len());
    head.port = port;
    Ok(())
}

/// Letters of a host's name, in any case; a dot ends each label.
static HOST: ByteSet = ByteSet::alphanumeric_and(b"-_.");

/// Host in lower case without trailing dot into `host`; its length, and the port.
fn parse_authority(text: &[u8], host: &mut String) -> Result<(usize, Option<u16>), Refused> {
    let (name, port) = split_port(text)?;
    host.clear();
    if let Some(inner) = name.strip_prefix(b"[") {
        let inner = inner.strip_suffix(b"]").and_then(|i| std::str::from_utf8(i).ok()).ok_or(Refused::HostMalformed)?;
        let address: std::net::Ipv6Addr = inner.parse().map_err(|_| Refused::HostMalformed)?;
        write!(host, "[{address}]").map_err(|_| Refused::HostMalformed)?;
        return Ok((host.len(), port));
    }
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.len() > 253 || name.starts_with(b".") {
        return Err(Refused::HostMalformed);
    }
    let mut last = b'.';
    let valid = name.iter().all(|byte| {
        let empty_label = *byte == b'.' && last == b'.';
        last = *byte;
        HOST.has(*byte) && !empty_label
    });
    if !valid || last == b'.' {
        return Err(Refused::HostMalformed);
    }
    host.push_str(std::str::from_utf8(name).map_err(|_| Refused::HostMalformed)?);
    host.make_ascii_lowercase();
    Ok((host.len(), port))
}

fn split_port(text: &[u8]) -> Result<(&[u8], Option<u16>), Refused> {
    let after_bracket = memchr::memchr(b']', text).map_or(0, |at| at + 1);
    let Some(colon) = memchr::memchr(b':', text.get(after_bracket..).unwrap_or_default()) else {
        return Ok((text, None));
    };
    let (name, port) = text.split_at(after_bracket + colon);
    let port = port.get(1..).unwrap_or_default();
    if port.is_empty() {
        return Ok((name, None));
    }
    let number = decimal_port(port).ok_or(Refused::HostMalformed)?;
    Ok((name, Some(number)))
}

fn decimal_port(text: &[u8]) -> Option<u16> {
    if text.len() > 5 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn read_query(head: &mut RequestHead, query: Option<&[u8]>) -> Result<(), Refused> {
    let Some(query) = query else { return Ok(()) };
    // RFC 3986 section 3.4. HTTP/2 could not carry the last three.
    if !query.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>')) {
        return Err(Refused::TargetMalformed);
    }
    head.has_query = true;
    head.query.push_str(std::str::from_utf8(query).map_err(|_| Refused::TargetMalformed)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(target: &str, hosts: &[&str]) -> Result<RequestHead, Refused> {
        let mut head = RequestHead::default();
        head.raw_target.extend_from_slice(target.as_bytes());
        for host in hosts {
            head.fields.push(b"Host", host.as_bytes());
        }
        normalize(&mut head, EncodedSlash::Refuse).map(|()| head)
    }

    #[test]
    fn there_is_exactly_one_valid_host() {
        assert_eq!(request("/", &["A.Test:8080"]).map(|h| (h.host, h.port)), Ok(("a.test".into(), Some(8080))));
        assert_eq!(request("/", &["a.test."]).map(|h| h.host), Ok("a.test".into()));
        assert_eq!(request("/", &["[::1]:80"]).map(|h| h.host), Ok("[::1]".into()));
        assert_eq!(request("/", &[]).unwrap_err(), Refused::HostMissing);
        assert_eq!(request("/", &["a", "a"]).unwrap_err(), Refused::HostDuplicate);
        for wrong in
            ["", "a,b", "u@a", "a/b", "a b", "a..b", ".a", "a:x", "a:70000", "[::1", "[x]", "a:80:80", "ä", "a%2e"]
        {
            assert_eq!(request("/", &[wrong]).unwrap_err(), Refused::HostMalformed, "{wrong:?}");
        }
    }

    #[test]
    fn an_absolute_target_names_the_same_host() {
        let head = request("http://A.test/x?y", &["a.test"]).unwrap();
        assert_eq!((head.host.as_str(), head.path.as_str(), head.query()), ("a.test", "/x", Some("y")));
        assert_eq!(request("http://a.test", &["a.test"]).unwrap().path, "/");
        assert_eq!(request("http://b.test/", &["a.test"]).unwrap_err(), Refused::HostMismatch);
        assert_eq!(request("ftp://a.test/", &["a.test"]).unwrap_err(), Refused::TargetMalformed);
        assert_eq!(request("a.test:80", &["a.test"]).unwrap_err(), Refused::TargetMalformed);
    }

    #[test]
    fn a_target_has_no_fragment_and_the_form_of_its_version() {
        for target in ["/a?b#c", "/a?\"b\"", "/?<", "/?>", "/?\u{e4}"] {
            assert_eq!(request(target, &["a"]).unwrap_err(), Refused::TargetMalformed, "{target}");
        }
        assert_eq!(request("/?{}|^`[]%zz", &["a"]).map(|h| h.query), Ok("{}|^`[]%zz".into()));
        assert_eq!(request("http://a.test?x", &["a.test"]).map(|h| (h.path, h.query)), Ok(("/".into(), "x".into())));
        for target in ["http://a.test/", "http://b.test/", "a", "*x", ""] {
            let mut head = RequestHead { version: Version::Http2, ..RequestHead::default() };
            head.raw_target.extend_from_slice(target.as_bytes());
            head.raw_authority.extend_from_slice(b"a.test");
            assert_eq!(normalize(&mut head, EncodedSlash::Refuse), Err(Refused::TargetMalformed), "HTTP/2 {target}");
        }
    }

    #[test]
    fn methods_expectations_and_names_outside_the_rules_are_refused() {
        let with = |method: Method, name: &str, value: &str| {
            let mut head = RequestHead { method, ..RequestHead::default() };
            head.raw_target.push(b'/');
            head.fields.push(b"host", b"a");
            head.fields.push(name.as_bytes(), value.as_bytes());
            normalize(&mut head, EncodedSlash::Refuse)
        };
        assert_eq!(with(Method::TRACE, "a", "b"), Err(Refused::Method));
        assert_eq!(with(Method::CONNECT, "a", "b"), Err(Refused::Method));
        for method in ["get", "Head", "trace", "Connect", "PRI"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(with(method.clone(), "a", "b"), Err(Refused::Method), "{method}");
        }
        for method in ["PROPFIND", "M-SEARCH", "x-custom"] {
            assert_eq!(with(Method::from_bytes(method.as_bytes()).unwrap(), "a", "b"), Ok(()), "{method}");
        }
        assert_eq!(with(Method::GET, "expect", "100-Continue"), Ok(()));
        assert_eq!(with(Method::GET, "expect", "x"), Err(Refused::Expectation));
        for name in [
            "Transfer_Encoding",
            "Transfer---Encoding",
            "-content-length",
            "Content-Length-",
            "Trans-fer-Encoding",
            "TransferxEncoding",
            "Content-Lengt-",
            "Transfer-En-----",
            "ContentxLengt-",
        ] {
            assert_eq!(with(Method::GET, name, "chunked"), Err(Refused::HeaderName), "{name}");
        }
        for name in ["X-Content-Length", "Content-Encoded-Length", "Content-Encoding", "-", "X"] {
            assert_eq!(with(Method::GET, name, "5"), Ok(()), "{name}");
        }
        assert_eq!(request("*", &["a"]).unwrap_err(), Refused::TargetMalformed);
    }

    #[test]
    fn a_websocket_is_a_get_and_no_other_protocol_is_connected_to() {
        let with = |method: Method, protocol: &str| {
            let mut head = RequestHead { method, protocol: protocol.into(), ..RequestHead::default() };
            head.raw_target.push(b'/');
            head.fields.push(b"host", b"a");
            normalize(&mut head, EncodedSlash::Refuse).map(|()| head.method)
        };
        assert_eq!(with(Method::CONNECT, "WebSocket"), Ok(Method::GET));
        for protocol in ["h2c", "connect-udp", "websocket\r\nX-A: 1", "websocket ", "websocket, h2c"] {
            assert_eq!(with(Method::CONNECT, protocol), Err(Refused::Protocol), "{protocol:?}");
        }
        assert_eq!(with(Method::POST, "websocket"), Err(Refused::Protocol));
    }

    #[test]
    fn a_value_over_http2_is_the_one_that_http1_can_carry() {
        let with = |version: Version, value: &str| {
            let mut head = RequestHead { version, ..RequestHead::default() };
            head.raw_target.push(b'/');
            head.fields.push(b"host", b"a");
            head.fields.push(b"x-role", value.as_bytes());
            normalize(&mut head, EncodedSlash::Refuse)
        };
        for value in [" admin", "admin ", "\tadmin", "admin\t", " "] {
            assert_eq!(with(Version::Http2, value), Err(Refused::HeaderValue), "{value:?}");
        }
        assert_eq!(with(Version::Http2, "a b"), Ok(()));
        assert_eq!(with(Version::Http2, ""), Ok(()));
    }

    proptest! {
        #[test]
        fn no_input_panics(raw in proptest::collection::vec(any::<u8>(), 0..40), host in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut head = RequestHead { raw_target: raw, ..RequestHead::default() };
            head.fields.push(b"host", &host);
            let _ = normalize(&mut head, EncodedSlash::Refuse);
        }
    }
}
