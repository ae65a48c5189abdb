//! Which fields end at this hop, and which trailers may go on?
//!
//! RFC 9110 section 7.6.1. What `Connection` names is removed too, except for the fields that routing, authorization and
//! forwarding rest upon: a client must not be able to have those stripped (CVE-2024-45410).

use super::names::FieldSet;
use super::{ByteSet, Field, FieldId, Fields, Name};

/// What never goes beyond this hop.
const HOP_BY_HOP: FieldSet = FieldSet::of(&[
    FieldId::Connection,
    FieldId::KeepAlive,
    FieldId::Proxy,
    FieldId::ProxyConnection,
    FieldId::ProxyAuthenticate,
    FieldId::ProxyAuthorization,
    FieldId::Te,
    FieldId::Trailer,
    FieldId::TransferEncoding,
    FieldId::Upgrade,
    FieldId::Http2Settings,
]);

/// Whether a field stays even when `Connection` names it.
fn is_protected(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Authorization
            | FieldId::ClientCert
            | FieldId::ClientCertChain
            | FieldId::ContentLength
            | FieldId::ContentType
            | FieldId::Cookie
            | FieldId::Forwarded
            | FieldId::Host
            | FieldId::Via
            | FieldId::XForwardedFor
            | FieldId::XForwardedHost
            | FieldId::XForwardedPort
            | FieldId::XForwardedProto
            | FieldId::XRealIp
            | FieldId::XRequestId
    )
}

/// What `Connection` said, before it was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
    /// `TE: trailers` (or `TE` with it among others): the sender takes trailers.
    pub trailers: bool,
    named: bool,
}

/// Reads `Connection` and `TE`.
pub fn connection_options(fields: &Fields) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    fields.all(FieldId::Connection).for_each(|value| read_connection(value, &mut options));
    let named = |value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    options.trailers = fields.all(FieldId::Te).any(named);
    options
}

fn read_connection(value: &[u8], options: &mut ConnectionOptions) {
    // One option alone, as nearly always, is not taken apart.
    if read_option(value, options) {
        return;
    }
    for token in tokens(value) {
        let known = read_option(token, options);
        options.named |= !known;
    }
}

/// Whether it is an option that is known.
fn read_option(token: &[u8], options: &mut ConnectionOptions) -> bool {
    let option = match token.len() {
        5 if token.eq_ignore_ascii_case(b"close") => &mut options.close,
        7 if token.eq_ignore_ascii_case(b"upgrade") => &mut options.upgrade,
        10 if token.eq_ignore_ascii_case(b"keep-alive") => &mut options.keep_alive,
        _ => return false,
    };
    *option = true;
    true
}

/// The elements of a comma-separated list, without blanks; empty ones are skipped.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

/// Removes what ends at this hop. `options` is what [`connection_options`] said.
pub fn strip(fields: &mut Fields, options: ConnectionOptions) {
    if options.named {
        strip_named(fields);
    }
    if fields.may_have(HOP_BY_HOP) {
        fields.retain(|field| !HOP_BY_HOP.has(field.id));
    }
}

/// The rare road: `Connection` names further fields.
fn strip_named(fields: &mut Fields) {
    let named: Vec<Vec<u8>> =
        fields.all(FieldId::Connection).flat_map(tokens).map(<[u8]>::to_ascii_lowercase).take(64).collect();
    fields.retain(|field| is_protected(field.id) || !named.iter().any(|name| name.eq_ignore_ascii_case(field.name)));
}

/// Keeps the trailers of a request that may go on. An upstream may merge them into the head after every check was made, so names
/// keep to the rule of that head.
pub fn strip_request_trailers(fields: &mut Fields) {
    fields.retain(|field| may_be_trailer(&field) && ByteSet::PLAIN_NAME.has_all(field.name));
}

/// Keeps the trailers of a response that may go on.
pub fn strip_response_trailers(fields: &mut Fields) {
    fields.retain(|field| may_be_trailer(&field));
}

/// Of the fields that have a meaning of their own, those alone that are made for trailers: no other frames, routes, authenticates
/// or controls there (RFC 9110 section 6.5.1). What is an application's own passes: gRPC carries its metadata so.
fn may_be_trailer(field: &Field<'_>) -> bool {
    match field.id {
        FieldId::GrpcStatus => true,
        FieldId::Other => is_made_for_trailers(field.name) || !is_standard(field.name),
        _ => false,
    }
}

/// RFC 9530, RFC 9421, RFC 9110 section 11.6.3.
fn is_made_for_trailers(name: &[u8]) -> bool {
    [
        &b"authentication-info"[..],
        b"content-digest",
        b"content-md5",
        b"etag",
        b"repr-digest",
        b"server-timing",
        b"signature",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(name))
}

fn is_standard(name: &[u8]) -> bool {
    const STARTS: [&[u8]; 14] = [
        b"accept",
        b"access-control-",
        b"cache-",
        b"cf-",
        b"content-",
        b"if-",
        b"proxy-",
        b"sec-",
        b"www-",
        b"x-forwarded",
        b"x-http-",
        b"x-original-",
        b"x-real-",
        b"x-rewrite-",
    ];
    const NAMES: [&[u8]; 21] = [
        b"age",
        b"allow",
        b"alt-svc",
        b"authority",
        b"clear-site-data",
        b"early-data",
        b"expires",
        b"from",
        b"last-modified",
        b"link",
        b"max-forwards",
        b"method",
        b"path",
        b"pragma",
        b"priority",
        b"range",
        b"refresh",
        b"scheme",
        b"strict-transport-security",
        b"vary",
        b"warning",
    ];
    STARTS.iter().any(|start| name.get(..start.len()).is_some_and(|front| front.eq_ignore_ascii_case(start)))
        || NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether an OPTIONS may be passed on by one more (RFC 9110 section 7.6.2), which counts its Max-Forwards down. What is no number
/// stays as it is.
pub fn count_down(fields: &mut Fields) -> bool {
    let name = Name::new("max-forwards");
    let mut values = fields.find_all(&name);
    let (value, more) = (values.next(), values.next());
    let digits = value.filter(|value| more.is_none() && value.iter().all(u8::is_ascii_digit));
    let Some(left) = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok()) else {
        return true;
    };
    drop(values);
    let Some(left) = left.checked_sub(1) else { return false };
    fields.set_name(&name, itoa::Buffer::new().format(left).as_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(lines: &[(&str, &str)]) -> Vec<String> {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let options = connection_options(&fields);
        strip(&mut fields, options);
        fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect()
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let lines = [
            ("Connection", "keep-alive"),
            ("Keep-Alive", "5"),
            ("Proxy-Connection", "x"),
            ("Proxy-Authorization", "x"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "x"),
            ("Accept", "x"),
        ];
        assert_eq!(stripped(&lines), ["Accept"]);
    }

    #[test]
    fn what_connection_names_is_removed_in_any_case() {
        assert_eq!(stripped(&[("X-Secret", "1"), ("connection", "close, x-SECRET"), ("b", "c")]), ["b"]);
    }

    #[test]
    fn a_client_cannot_have_protected_fields_stripped() {
        let lines = [
            ("Connection", "x-forwarded-for, Authorization, host, content-length, cookie"),
            ("X-Forwarded-For", "1"),
            ("Authorization", "1"),
            ("Host", "1"),
            ("Content-Length", "1"),
            ("Cookie", "1"),
        ];
        assert_eq!(stripped(&lines).len(), 5);
    }

    #[test]
    fn connection_options_are_read_from_every_line() {
        let mut fields = Fields::default();
        fields.push(b"connection", b" Upgrade ,x");
        fields.push(b"Connection", b"Close");
        fields.push(b"te", b"gzip, trailers");
        let options = connection_options(&fields);
        assert!(options.close && options.upgrade && options.trailers && !options.keep_alive);
    }

    /// What is left of trailers, in a request and in a response.
    fn left(names: &[&str]) -> [Vec<String>; 2] {
        [strip_request_trailers, strip_response_trailers].map(|strip| {
            let mut fields = Fields::default();
            for name in names {
                fields.push(name.as_bytes(), b"1");
            }
            strip(&mut fields);
            fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect()
        })
    }

    #[test]
    fn trailers_that_frame_or_authorize_are_dropped() {
        let dropped = [
            "Content-Length",
            "Transfer-Encoding",
            "Host",
            "Authorization",
            "Cookie",
            "Set-Cookie",
            "Cache-Control",
            "Expect",
            "TE",
            "Trailer",
            "Connection",
            "Content-Type",
            "Content-Encoding",
            "If-Match",
            "Range",
            "X-Forwarded-For",
            "X-Forwarded-Prefix",
            "X-Real-IP",
            "X-Original-URL",
            "Client-Cert",
            "Proxy",
            "Proxy-Authorization",
            "Sec-WebSocket-Key",
            "X-Request-Id",
            "Via",
            "traceparent",
            "Access-Control-Allow-Origin",
            "X-HTTP-Method-Override",
        ];
        assert_eq!(left(&dropped), [Vec::<String>::new(), vec![]]);
        let kept = ["grpc-status", "grpc-message", "x-sum", "trace-bin", "Content-Digest", "ETag", "Server-Timing"];
        assert_eq!(left(&kept), [kept.map(str::to_owned).to_vec(), kept.map(str::to_owned).to_vec()]);
    }

    #[test]
    fn names_that_an_upstream_could_confuse_are_no_trailers_of_a_request() {
        let names = ["Transfer_Encoding", "my_key", "a.b", "x-sum"];
        assert_eq!(left(&names), [vec!["x-sum".to_owned()], names.map(str::to_owned).to_vec()]);
    }

    #[test]
    fn a_client_names_no_proxy_for_programs_behind_cgi() {
        assert_eq!(stripped(&[("Proxy", "http://evil.test"), ("PROXY", "x"), ("Proxy-Status", "y")]), ["Proxy-Status"]);
    }
}
