//! Where does a message end? (RFC 9112 section 6, read strictly)
//!
//! Everything on which two readers could disagree is refused: Transfer-Encoding other than exactly one `chunked`, or with
//! Content-Length, or in HTTP/1.0; Content-Length that is repeated or not the canonical decimal (CVE-2026-2835, RFC 9112 section 11.2).

use crate::message::{ByteSet, FieldId, Fields, Version};
use http::{Method, StatusCode};
use thiserror::Error;

/// How the body of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// There is no body.
    None,
    /// After so many bytes (0 is written as a length of 0).
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
    /// Never: the connection is a tunnel (101).
    Tunnel,
}

/// Why the end of a message cannot be known for certain.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FramingError {
    /// Both lengths at once.
    #[error("Content-Length beside Transfer-Encoding")]
    BothLengths,
    /// More than one Content-Length.
    #[error("more than one Content-Length")]
    DuplicateLength,
    /// Not digits alone, or with leading zeros, or too large.
    #[error("Content-Length is not a canonical decimal number")]
    BadLength,
    /// Transfer-Encoding is something else than one `chunked`.
    #[error("Transfer-Encoding is not exactly one `chunked`")]
    BadEncoding,
    /// A coding that is not known here; answered by 501 (RFC 9112 section 6.1).
    #[error("unknown Transfer-Encoding")]
    UnknownEncoding,
    /// Transfer-Encoding in HTTP/1.0.
    #[error("Transfer-Encoding in HTTP/1.0")]
    EncodingInHttp10,
}

/// The end of a request's body. Without either length there is none: never until close.
pub fn of_request(fields: &Fields, version: Version) -> Result<BodyKind, FramingError> {
    if has_encoding(fields, version)? {
        return Ok(BodyKind::Chunked);
    }
    Ok(length(fields, false)?.map_or(BodyKind::None, BodyKind::Length))
}

/// The end of a response's body to a request by `method`.
pub fn of_response(
    fields: &Fields,
    version: Version,
    status: StatusCode,
    method: &Method,
) -> Result<BodyKind, FramingError> {
    let chunked = has_encoding(fields, version)?;
    // Identical repetitions are collapsed: some frameworks send them, and the value is one.
    let length = if chunked { None } else { length(fields, true)? };
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(BodyKind::Tunnel);
    }
    let bodyless = status.is_informational() || matches!(status.as_u16(), 204 | 304) || method == Method::HEAD;
    Ok(match (bodyless, chunked, length) {
        (true, ..) => BodyKind::None,
        (false, true, _) => BodyKind::Chunked,
        (false, false, Some(n)) => BodyKind::Length(n),
        (false, false, None) => BodyKind::UntilClose,
    })
}

fn has_encoding(fields: &Fields, version: Version) -> Result<bool, FramingError> {
    let mut lines = fields.all(FieldId::TransferEncoding);
    let Some(value) = lines.next() else { return Ok(false) };
    if version == Version::Http10 {
        return Err(FramingError::EncodingInHttp10);
    }
    if fields.has(FieldId::ContentLength) {
        return Err(FramingError::BothLengths);
    }
    if lines.next().is_some() {
        return Err(FramingError::BadEncoding);
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    let plain = !value.is_empty() && ByteSet::PLAIN_NAME.has_all(value);
    Err(if plain { FramingError::UnknownEncoding } else { FramingError::BadEncoding })
}

fn length(fields: &Fields, collapse: bool) -> Result<Option<u64>, FramingError> {
    let mut lines = fields.all(FieldId::ContentLength);
    let Some(value) = lines.next() else { return Ok(None) };
    for other in lines {
        if !collapse || other != value {
            return Err(FramingError::DuplicateLength);
        }
    }
    decimal(value).map(Some).ok_or(FramingError::BadLength)
}

/// A canonical decimal: digits alone, no leading zero, below 2^63 (so that sums of lengths never overflow).
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || (text.len() > 1 && text.first() == Some(&b'0')) {
        return None;
    }
    let mut value = 0u64;
    for byte in text {
        let digit = byte.checked_sub(b'0').filter(|d| *d <= 9)?;
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (value < 1 << 63).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[(&str, &str)], version: Version) -> Result<BodyKind, FramingError> {
        of_request(&fields(lines), version)
    }

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    #[test]
    fn a_request_without_a_length_has_no_body() {
        assert_eq!(request(&[], Version::Http11), Ok(BodyKind::None));
        assert_eq!(request(&[], Version::Http10), Ok(BodyKind::None));
    }

    #[test]
    fn a_length_is_one_canonical_decimal() {
        assert_eq!(request(&[("content-length", "10")], Version::Http11), Ok(BodyKind::Length(10)));
        assert_eq!(request(&[("content-length", "0")], Version::Http11), Ok(BodyKind::Length(0)));
        for wrong in ["", "010", "+5", "-1", "0x10", "1 ", "1,1", "9223372036854775808", "99999999999999999999"] {
            assert_eq!(request(&[("content-length", wrong)], Version::Http11), Err(FramingError::BadLength), "{wrong}");
        }
        let twice = [("content-length", "1"), ("Content-Length", "1")];
        assert_eq!(request(&twice, Version::Http11), Err(FramingError::DuplicateLength));
    }

    #[test]
    fn an_encoding_is_exactly_one_chunked() {
        assert_eq!(request(&[("transfer-encoding", "Chunked")], Version::Http11), Ok(BodyKind::Chunked));
        for wrong in ["", ",chunked", "chunked,chunked", "gzip, chunked", "chunked;q=1", "\"chunked\"", "chunked "] {
            let got = request(&[("transfer-encoding", wrong)], Version::Http11);
            assert_eq!(got, Err(FramingError::BadEncoding), "{wrong}");
        }
        assert_eq!(request(&[("transfer-encoding", "gzip")], Version::Http11), Err(FramingError::UnknownEncoding));
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(request(&twice, Version::Http11), Err(FramingError::BadEncoding));
        let old = request(&[("transfer-encoding", "chunked")], Version::Http10);
        assert_eq!(old, Err(FramingError::EncodingInHttp10));
    }

    #[test]
    fn both_lengths_at_once_are_refused() {
        let both = [("content-length", "1"), ("transfer-encoding", "chunked")];
        assert_eq!(request(&both, Version::Http11), Err(FramingError::BothLengths));
        let got = of_response(&fields(&both), Version::Http11, StatusCode::OK, &Method::GET);
        assert_eq!(got, Err(FramingError::BothLengths));
    }

    #[test]
    fn a_response_ends_as_its_status_and_method_say() {
        let of = |status: u16, method: Method, lines: &[(&str, &str)]| {
            of_response(&fields(lines), Version::Http11, StatusCode::from_u16(status).unwrap(), &method)
        };
        let ten = [("content-length", "10")];
        assert_eq!(of(200, Method::GET, &ten), Ok(BodyKind::Length(10)));
        assert_eq!(of(200, Method::HEAD, &ten), Ok(BodyKind::None));
        assert_eq!(of(204, Method::GET, &[]), Ok(BodyKind::None));
        assert_eq!(of(304, Method::GET, &ten), Ok(BodyKind::None));
        assert_eq!(of(200, Method::GET, &[]), Ok(BodyKind::UntilClose));
        assert_eq!(of(101, Method::GET, &[]), Ok(BodyKind::Tunnel));
        let same = [("content-length", "10"), ("content-length", "10")];
        assert_eq!(of(200, Method::GET, &same), Ok(BodyKind::Length(10)));
        let other = [("content-length", "10"), ("content-length", "11")];
        assert_eq!(of(200, Method::GET, &other), Err(FramingError::DuplicateLength));
    }
}
