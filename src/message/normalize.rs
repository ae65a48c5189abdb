//! What is this request for, in one canonical form that is both matched and forwarded?
//!
//! RFC 9110 section 7, RFC 9112 section 3, RFC 9113 section 8.3, RFC 3986 section 6.2.2. Whatever two readers could understand
//! differently is refused: the upstream must see the same host and path that the route was chosen by.

use super::{FieldId, RequestHead, Version};
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
    #[error("a header name holds other characters than letters, digits and hyphens")]
    HeaderName,
    #[error("CONNECT and TRACE are not served")]
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
            Self::Method => "method_not_allowed",
            Self::Protocol => "protocol_unknown",
            Self::Expectation => "expectation_failed",
        }
    }
}

/// Makes `host`, `port`, `path` and `query` of what was received.
pub fn normalize(head: &mut RequestHead) -> Result<(), Refused> {
    check_method(head)?;
    check_fields(head)?;
    let raw = std::mem::take(&mut head.raw_target);
    let outcome = split_target(head, &raw);
    head.raw_target = raw;
    outcome
}

/// A WebSocket is a GET (RFC 8441 section 5), whichever way it was asked for: the same is matched and forwarded.
fn check_method(head: &mut RequestHead) -> Result<(), Refused> {
    if head.protocol.is_empty() {
        let refused = matches!(head.method, Method::TRACE | Method::CONNECT);
        return if refused { Err(Refused::Method) } else { Ok(()) };
    }
    // Any text comes here as `:protocol`, line breaks too, and it goes into a field of a head of HTTP/1; h2c would carry requests past
    // every check.
    if head.method != Method::CONNECT || !head.protocol.eq_ignore_ascii_case(b"websocket") {
        return Err(Refused::Protocol);
    }
    head.method = Method::GET;
    Ok(())
}

/// Names that CGI-style upstreams confuse (`Transfer_Encoding`), and expectations.
fn check_fields(head: &RequestHead) -> Result<(), Refused> {
    for field in head.fields.iter() {
        if field.id == FieldId::Expect && !field.value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refused::Expectation);
        }
        if field.id == FieldId::Other && !field.name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
            return Err(Refused::HeaderName);
        }
    }
    Ok(())
}

fn split_target(head: &mut RequestHead, raw: &[u8]) -> Result<(), Refused> {
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
            canonical_path(path, &mut head.path)
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
    for byte in name {
        let valid = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (*byte == b'.' && last != b'.');
        if !valid {
            return Err(Refused::HostMalformed);
        }
        host.push(byte.to_ascii_lowercase() as char);
        last = *byte;
    }
    if last == b'.' { Err(Refused::HostMalformed) } else { Ok((host.len(), port)) }
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
    if !query.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
        return Err(Refused::TargetMalformed);
    }
    head.has_query = true;
    head.query.push_str(std::str::from_utf8(query).map_err(|_| Refused::TargetMalformed)?);
    Ok(())
}

/// One canonical path: dot segments removed, escapes in upper case, unreserved characters decoded; what readers take
/// differently (`%2f`, `%5c`, `%00`, `\`, control characters, malformed escapes, empty segments that hide `..`) is refused.
pub fn canonical_path(raw: &[u8], path: &mut String) -> Result<(), Refused> {
    path.clear();
    if raw.first() != Some(&b'/') {
        return Err(Refused::TargetMalformed);
    }
    if is_plain(raw) {
        path.push_str(std::str::from_utf8(raw).map_err(|_| Refused::TargetMalformed)?);
        return Ok(());
    }
    decode(raw, path)?;
    remove_dot_segments(path)
}

/// The common case: nothing to decode, no segment that begins with a dot.
fn is_plain(raw: &[u8]) -> bool {
    let mut last = 0;
    for byte in raw {
        if !is_pchar(*byte) || (*byte == b'.' && last == b'/') {
            return false;
        }
        last = *byte;
    }
    true
}

/// Characters that may stand in a path as they are (RFC 3986 section 3.3), and some that everybody sends unescaped.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@|[]^`{}\"<>".contains(&byte)
}

fn decode(raw: &[u8], path: &mut String) -> Result<(), Refused> {
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if !is_pchar(byte) {
                return Err(if byte == b'\\' { Refused::PathAmbiguous } else { Refused::TargetMalformed });
            }
            path.push(byte as char);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| (b as char).to_digit(16)).ok_or(Refused::TargetMalformed);
        let value = (digit()? * 16 + digit()?) as u8;
        match value {
            b'/' | b'\\' | 0 => return Err(Refused::PathAmbiguous),
            _ if value.is_ascii_alphanumeric() || b"-._~".contains(&value) => path.push(value as char),
            _ => write!(path, "%{value:02X}").map_err(|_| Refused::TargetMalformed)?,
        }
    }
    Ok(())
}

/// RFC 3986 section 5.2.4, in place. By it `/a//../b` is `/a/b`; to a reader that merges slashes first it is `/b`.
fn remove_dot_segments(path: &mut String) -> Result<(), Refused> {
    if !path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Ok(());
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                if kept.pop() == Some("") {
                    return Err(Refused::PathAmbiguous);
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut canonical = String::with_capacity(path.len());
    for segment in kept {
        canonical.push('/');
        canonical.push_str(segment);
    }
    if canonical.is_empty() {
        canonical.push('/');
    }
    *path = canonical;
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
        normalize(&mut head).map(|()| head)
    }

    fn path(raw: &str) -> Result<String, Refused> {
        let mut out = String::new();
        canonical_path(raw.as_bytes(), &mut out).map(|()| out)
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
    fn a_path_has_one_canonical_form() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../x", "/x"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/%7euser/%41", "/~user/A"),
            ("/a%2e%2e/b", "/a../b"),
            ("/%2e%2e/b", "/b"),
            ("/%c3%a4", "/%C3%A4"),
            ("/a//b", "/a//b"),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            assert_eq!(path(raw).as_deref(), Ok(canonical), "{raw}");
        }
    }

    #[test]
    fn a_path_that_readers_take_differently_is_refused() {
        for raw in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a//../b", "/a//%2e%2e", "/a//./../b"] {
            assert_eq!(path(raw), Err(Refused::PathAmbiguous), "{raw}");
        }
        for raw in ["", "a", "/%", "/%1", "/%zz", "/a b", "/a#b", "/ä", "/\u{7f}"] {
            assert_eq!(path(raw), Err(Refused::TargetMalformed), "{raw}");
        }
        assert_eq!(request("/a?b#c", &["a"]).unwrap_err(), Refused::TargetMalformed);
    }

    #[test]
    fn methods_expectations_and_names_outside_the_rules_are_refused() {
        let with = |method: Method, name: &str, value: &str| {
            let mut head = RequestHead { method, ..RequestHead::default() };
            head.raw_target.push(b'/');
            head.fields.push(b"host", b"a");
            head.fields.push(name.as_bytes(), value.as_bytes());
            normalize(&mut head)
        };
        assert_eq!(with(Method::TRACE, "a", "b"), Err(Refused::Method));
        assert_eq!(with(Method::CONNECT, "a", "b"), Err(Refused::Method));
        assert_eq!(with(Method::GET, "expect", "100-Continue"), Ok(()));
        assert_eq!(with(Method::GET, "expect", "x"), Err(Refused::Expectation));
        assert_eq!(with(Method::GET, "Transfer_Encoding", "chunked"), Err(Refused::HeaderName));
        assert_eq!(request("*", &["a"]).unwrap_err(), Refused::TargetMalformed);
    }

    #[test]
    fn a_websocket_is_a_get_and_no_other_protocol_is_connected_to() {
        let with = |method: Method, protocol: &str| {
            let mut head = RequestHead { method, protocol: protocol.into(), ..RequestHead::default() };
            head.raw_target.push(b'/');
            head.fields.push(b"host", b"a");
            normalize(&mut head).map(|()| head.method)
        };
        assert_eq!(with(Method::CONNECT, "WebSocket"), Ok(Method::GET));
        for protocol in ["h2c", "connect-udp", "websocket\r\nX-A: 1", "websocket ", "websocket, h2c"] {
            assert_eq!(with(Method::CONNECT, protocol), Err(Refused::Protocol), "{protocol:?}");
        }
        assert_eq!(with(Method::POST, "websocket"), Err(Refused::Protocol));
    }

    proptest! {
        #[test]
        fn canonical_paths_stay_as_they_are(raw in "/[a-c./%2-9e]{0,20}") {
            if let Ok(once) = path(&raw) {
                prop_assert_eq!(path(&once), Ok(once.clone()));
                prop_assert!(!once.split('/').any(|s| s == "." || s == ".."));
            }
        }

        #[test]
        fn no_input_panics(raw in proptest::collection::vec(any::<u8>(), 0..40), host in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut head = RequestHead { raw_target: raw, ..RequestHead::default() };
            head.fields.push(b"host", &host);
            let _ = normalize(&mut head);
        }
    }
}
