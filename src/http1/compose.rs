//! How are heads written for the other side?

use super::framing::BodyKind;
use crate::message::{RequestHead, ResponseHead};

/// Writes a request head: the canonical target and fields that were made ready, and the framing of the body.
pub fn request(out: &mut Vec<u8>, head: &RequestHead, method: &http::Method, body: BodyKind) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path.as_bytes());
    if head.has_query {
        out.push(b'?');
        out.extend_from_slice(head.query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    head.fields.write_to(out);
    if body == BodyKind::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
}

/// Ends a head.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Writes a response's status line, fields and the framing of the body; [`end`] ends it.
pub fn response(out: &mut Vec<u8>, head: &ResponseHead, body: BodyKind) {
    status_line(out, head.status);
    head.fields.write_to(out);
    if body == BodyKind::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
}

fn status_line(out: &mut Vec<u8>, status: http::StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_with_its_canonical_target() {
        let mut head = RequestHead::sample(http::Method::POST, "a.test", "/x?y=1");
        head.fields.push(b"Host", b"a.test");
        let mut out = Vec::new();
        request(&mut out, &head, &head.method, BodyKind::Chunked);
        end(&mut out);
        assert_eq!(out, b"POST /x?y=1 HTTP/1.1\r\nHost: a.test\r\ntransfer-encoding: chunked\r\n\r\n");
    }

    #[test]
    fn a_status_without_a_known_reason_keeps_its_line() {
        let mut out = Vec::new();
        status_line(&mut out, http::StatusCode::from_u16(299).unwrap());
        assert_eq!(out, b"HTTP/1.1 299 \r\n");
    }
}
