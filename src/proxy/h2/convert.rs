//! How do heads as the HTTP/2 library has them become ours, and ours its?

use crate::http1::{BodyKind, FramingError, framing};
use crate::message::{Field, FieldId, Fields, RequestHead, ResponseHead, Version};
use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header, request};
use std::sync::LazyLock;

/// The names that have an id, made once: to make one costs more than all else of a field.
static NAMES: LazyLock<Vec<HeaderName>> = LazyLock::new(|| FieldId::names().map(HeaderName::from_static).collect());

/// Our fields from the library's. Cookie lines are joined again (RFC 9113 section 8.2.3).
pub(super) fn to_fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    copy_fields(map, &mut fields);
    fields
}

fn copy_fields(map: &HeaderMap, fields: &mut Fields) {
    let mut cookies = false;
    for (name, value) in map {
        if name != header::COOKIE {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        } else if !std::mem::replace(&mut cookies, true) {
            let mut lines = map.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
            match (lines.next(), lines.next()) {
                (Some(only), None) => fields.push_known(FieldId::Cookie, only),
                _ => {
                    let lines: Vec<_> = map.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
                    fields.push_known(FieldId::Cookie, &lines.join(&b"; "[..]));
                }
            }
        }
    }
}

/// The library's fields from ours; what HTTP/2 does not know is left out (RFC 9113 section 8.2.2).
pub(super) fn to_map(fields: &Fields) -> HeaderMap {
    let names = &*NAMES;
    let mut map = HeaderMap::with_capacity(fields.len() + 2);
    for field in fields.iter().filter(is_known_to_http2) {
        let name = match names.get(field.id as usize) {
            Some(name) => Ok(name.clone()),
            None => HeaderName::from_bytes(field.name),
        };
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
            map.append(name, value);
        }
    }
    map
}

fn is_known_to_http2(field: &Field<'_>) -> bool {
    match field.id {
        FieldId::Host
        | FieldId::Connection
        | FieldId::KeepAlive
        | FieldId::ProxyConnection
        | FieldId::TransferEncoding
        | FieldId::Upgrade => false,
        FieldId::Te => field.value == b"trailers",
        _ => true,
    }
}

/// Fills our head from a request that was received.
pub(super) fn request_head(parts: &request::Parts, head: &mut RequestHead) {
    head.clear();
    head.method = parts.method.clone();
    head.version = Version::Http2;
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    head.raw_target.extend_from_slice(target.as_bytes());
    if let Some(authority) = parts.uri.authority() {
        head.raw_authority.extend_from_slice(authority.as_str().as_bytes());
    }
    if let Some(protocol) = parts.extensions.get::<Protocol>() {
        head.protocol.extend_from_slice(protocol.as_str().as_bytes());
    }
    copy_fields(&parts.headers, &mut head.fields);
}

/// How the body of a request over HTTP/2 is framed for HTTP/1.
pub(super) fn body_kind(head: &RequestHead, ended: bool) -> Result<BodyKind, FramingError> {
    if head.fields.has(FieldId::TransferEncoding) {
        return Err(FramingError::BadEncoding);
    }
    match framing::of_request(&head.fields, Version::Http11)? {
        BodyKind::None if ended => Ok(BodyKind::None),
        BodyKind::None => Ok(BodyKind::Chunked),
        kind => Ok(kind),
    }
}

/// The library's request from ours; with a `protocol`, an extended CONNECT that asks for it (RFC 8441 section 4).
pub(super) fn to_request(head: &RequestHead, tls: bool, protocol: Option<Protocol>) -> Option<Request<()>> {
    let authority = head.fields.get(FieldId::Host).and_then(|host| std::str::from_utf8(host).ok())?;
    let mut target = String::with_capacity(head.path.len());
    push_encoded(&mut target, &head.path);
    if let Some(query) = head.query() {
        target.push('?');
        push_encoded(&mut target, query);
    }
    let scheme = if tls { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build().ok()?;
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = to_map(&head.fields);
    if let Some(protocol) = protocol {
        *request.method_mut() = Method::CONNECT;
        // RFC 8441 section 5: nobody answers it.
        request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
        request.extensions_mut().insert(protocol);
    }
    Some(request)
}

/// What no URI holds as it stands (RFC 3986 section 2), and `http::Uri` refuses, means the same when it is encoded.
fn push_encoded(target: &mut String, text: &str) {
    if !text.contains(['"', '<', '>', '^', '`']) {
        return target.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' => target.push_str("%22"),
            '<' => target.push_str("%3C"),
            '>' => target.push_str("%3E"),
            '^' => target.push_str("%5E"),
            '`' => target.push_str("%60"),
            c => target.push(c),
        }
    }
}

/// Fills our head from a response that was received.
pub(super) fn response_head<B>(response: &Response<B>, head: &mut ResponseHead) {
    head.clear();
    head.status = response.status();
    head.version = Version::Http2;
    copy_fields(response.headers(), &mut head.fields);
}

/// The library's response from ours.
pub(super) fn to_response(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = to_map(&head.fields);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_lines_are_joined_for_http1() {
        let mut map = HeaderMap::new();
        map.append("cookie", HeaderValue::from_static("a=1"));
        map.append("x", HeaderValue::from_static("y"));
        map.append("cookie", HeaderValue::from_static("b=2"));
        let fields = to_fields(&map);
        assert_eq!(fields.all(FieldId::Cookie).collect::<Vec<_>>(), [b"a=1; b=2"]);
        assert_eq!(fields.len(), 2);
    }

    #[test]
    fn names_with_an_id_are_the_same_names_in_http2() {
        for (id, text) in FieldId::names().enumerate() {
            assert_eq!((NAMES[id].as_str(), FieldId::of(text.as_bytes()) as usize), (text, id));
        }
        assert!(NAMES.get(FieldId::Other as usize).is_none());
    }

    #[test]
    fn what_belongs_to_a_connection_never_goes_out_over_http2() {
        let mut fields = Fields::default();
        for name in ["connection", "Keep-Alive", "proxy-connection", "Transfer-Encoding", "upgrade", "host", "TE"] {
            fields.push(name.as_bytes(), b"x");
        }
        fields.push(b"X-A", b"1");
        fields.push(b"te", b"trailers");
        let map = to_map(&fields);
        assert_eq!(
            (map.len(), map.get("x-a").unwrap().as_bytes(), map["te"].as_bytes()),
            (2, &b"1"[..], &b"trailers"[..])
        );
    }

    #[test]
    fn every_printable_character_of_a_target_reaches_http2() {
        let mut head = RequestHead::sample(http::Method::GET, "a.test", "/");
        head.fields.push(b"host", b"a.test");
        for byte in (b'!'..=b'~').filter(|byte| !b"#?".contains(byte)) {
            head.path = format!("/{}", char::from(byte));
            let request = to_request(&head, false, None).unwrap_or_else(|| panic!("{:?} is refused", head.path));
            let path = request.uri().path();
            assert!(path == head.path || path == format!("/%{byte:02X}"), "{path}");
        }
    }

    #[test]
    fn a_body_without_a_length_is_chunked_for_http1() {
        let mut head = RequestHead::default();
        assert_eq!(body_kind(&head, false), Ok(BodyKind::Chunked));
        assert_eq!(body_kind(&head, true), Ok(BodyKind::None));
        head.fields.push(b"content-length", b"5");
        assert_eq!(body_kind(&head, false), Ok(BodyKind::Length(5)));
        head.fields.push(b"transfer-encoding", b"chunked");
        assert_eq!(body_kind(&head, false), Err(FramingError::BadEncoding));
    }
}
