//! How do hyper's heads become ours, and ours hyper's?

use crate::http1::{BodyKind, FramingError, framing};
use crate::message::{FieldId, Fields, RequestHead, ResponseHead, Version};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, request, response};

/// Our fields from hyper's. Cookie lines are joined again (RFC 9113 section 8.2.3).
pub(super) fn to_fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    copy_fields(map, &mut fields);
    fields
}

fn copy_fields(map: &HeaderMap, fields: &mut Fields) {
    for (name, value) in map {
        if name != http::header::COOKIE {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let cookies: Vec<&[u8]> = map.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        fields.push_known(FieldId::Cookie, &cookies.join(&b"; "[..]));
    }
}

/// hyper's fields from ours; what HTTP/2 does not know is left out.
pub(super) fn to_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len() + 4);
    for field in fields.iter() {
        if field.id == FieldId::Host {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value)) {
            map.append(name, value);
        }
    }
    map
}

/// Fills our head from a request that hyper received.
pub(super) fn request_head(parts: &request::Parts, head: &mut RequestHead) {
    head.clear();
    head.method = parts.method.clone();
    head.version = Version::Http2;
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    head.raw_target.extend_from_slice(target.as_bytes());
    if let Some(authority) = parts.uri.authority() {
        head.raw_authority.extend_from_slice(authority.as_str().as_bytes());
    }
    if let Some(protocol) = parts.extensions.get::<hyper::ext::Protocol>() {
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

/// hyper's request from ours.
pub(super) fn to_request<B>(head: &RequestHead, tls: bool, body: B) -> Option<Request<B>> {
    let authority = head.fields.get(FieldId::Host).and_then(|host| std::str::from_utf8(host).ok())?;
    let mut target = String::with_capacity(head.path.len());
    push_encoded(&mut target, &head.path);
    if let Some(query) = head.query() {
        target.push('?');
        push_encoded(&mut target, query);
    }
    let scheme = if tls { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build().ok()?;
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = to_map(&head.fields);
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

/// Fills our head from a response that hyper received.
pub(super) fn response_head(parts: &response::Parts, head: &mut ResponseHead) {
    head.clear();
    head.status = parts.status;
    head.version = Version::Http2;
    copy_fields(&parts.headers, &mut head.fields);
}

/// hyper's response from ours.
pub(super) fn to_response<B>(head: &ResponseHead, body: B) -> Response<B> {
    let mut response = Response::new(body);
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
    fn every_printable_character_of_a_target_reaches_http2() {
        let mut head = RequestHead::sample(http::Method::GET, "a.test", "/");
        head.fields.push(b"host", b"a.test");
        for byte in (b'!'..=b'~').filter(|byte| !b"#?".contains(byte)) {
            head.path = format!("/{}", char::from(byte));
            let request = to_request(&head, false, ()).unwrap_or_else(|| panic!("{:?} is refused", head.path));
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
