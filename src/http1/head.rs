//! How is a head parsed so that no two readers could understand it differently?
//!
//! `httparse` tokenizes; this file refuses every line end that is not CRLF and keeps the places of names and values in one copy of
//! the head. A head that is whole when it is first looked at, as nearly all are, is tokenized at once. Of one that comes in parts the end
//! is found first: it would be read from its beginning again and again. What is odd goes that way too, line by line. What is wrong has a
//! status: 400, 414, 431 or 505.

use crate::message::{RequestHead, ResponseHead, Version};
use http::{Method, StatusCode};
use std::mem::MaybeUninit;
use thiserror::Error;

/// Most fields that any head can have; settings stay below.
pub const MAX_FIELDS: usize = crate::model::Limits::MAX_HEADERS as usize;

/// What a head may hold.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the whole head.
    pub bytes: usize,
    /// Bytes of the request target.
    pub target: usize,
    /// Number of fields.
    pub fields: usize,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HeadError {
    /// A line that does not end with CRLF.
    #[error("a line of the head ends with a bare LF")]
    BareLf,
    /// Not a request or status line.
    #[error("malformed first line")]
    FirstLine,
    /// Not `name: value`.
    #[error("malformed header field")]
    Field,
    /// A version that is neither HTTP/1.0 nor HTTP/1.1.
    #[error("not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// Longer than the limit.
    #[error("head larger than the limit")]
    TooLarge,
    /// More fields than the limit.
    #[error("more header fields than the limit")]
    TooMany,
    /// Target longer than the limit.
    #[error("request target longer than the limit")]
    TargetTooLong,
}

impl HeadError {
    /// The status that answers it downstream.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BareLf | Self::FirstLine | Self::Field => StatusCode::BAD_REQUEST,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TooLarge | Self::TooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
        }
    }

    /// Stable token for log and metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::FirstLine => "bad_first_line",
            Self::Field => "bad_header",
            Self::Version => "bad_version",
            Self::TooLarge => "head_too_large",
            Self::TooMany => "too_many_headers",
            Self::TargetTooLong => "target_too_long",
        }
    }
}

/// Parses the request at the front of `input`. `Ok(None)`: incomplete. `scanned` is the caller's memory between calls (0 at
/// first) so that input in small pieces costs no more than in one. `Ok(Some(n))`: the head took `n` bytes.
pub fn parse_request(
    input: &[u8],
    scanned: &mut usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<usize>, HeadError> {
    if *scanned == 0 && begins_at_once(input) {
        match request(input, limits, head) {
            Ok(end) => return Ok(Some(end)),
            Err(_) => head.clear(),
        }
    }
    let before = *scanned;
    let Some(end) = find_end(input, scanned, limits.bytes)? else {
        // Asked once: a target that is whole by then is measured with its head.
        let over = before <= limits.target + 32 && over_target(input, limits.target);
        return if over { Err(HeadError::TargetTooLong) } else { Ok(None) };
    };
    same_end(request(input.get(..end).unwrap_or_default(), limits, head)?, end)
}

fn request(input: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<usize, HeadError> {
    let mut space = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    let outcome = complete(config.parse_request_with_uninit_headers(&mut parsed, input, &mut space));
    if outcome == Err(HeadError::Version) && !names_another_version(input) {
        return Err(HeadError::FirstLine);
    }
    let end = outcome?;
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::FirstLine);
    };
    if target.len() > limits.target {
        return Err(HeadError::TargetTooLong);
    }
    head.clear();
    head.method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::FirstLine)?;
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    head.raw_target.extend_from_slice(target.as_bytes());
    keep(&mut head.fields, input.get(..end).unwrap_or_default(), parsed.headers, limits)?;
    Ok(end)
}

/// Parses the response at the front of `input`, like [`parse_request`].
pub fn parse_response(
    input: &[u8],
    scanned: &mut usize,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Option<usize>, HeadError> {
    if *scanned == 0 && begins_at_once(input) {
        match response(input, limits, head) {
            Ok(end) => return Ok(Some(end)),
            Err(_) => head.clear(),
        }
    }
    let Some(end) = find_end(input, scanned, limits.bytes)? else { return Ok(None) };
    same_end(response(input.get(..end).unwrap_or_default(), limits, head)?, end)
}

fn response(input: &[u8], limits: &HeadLimits, head: &mut ResponseHead) -> Result<usize, HeadError> {
    let mut space = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let end = complete(config.parse_response_with_uninit_headers(&mut parsed, input, &mut space))?;
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else { return Err(HeadError::FirstLine) };
    head.clear();
    head.status = StatusCode::from_u16(code).map_err(|_| HeadError::FirstLine)?;
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    keep(&mut head.fields, input.get(..end).unwrap_or_default(), parsed.headers, limits)?;
    Ok(end)
}

/// Whether no empty line stands before the first one: the tokenizer would skip any number of them.
fn begins_at_once(input: &[u8]) -> bool {
    !matches!(input.first(), Some(b'\r' | b'\n'))
}

/// The place after the empty line. Empty lines before the first line are skipped (RFC 9112 section 2.2). `scanned` is how far
/// line ends were looked for: no byte is looked at twice, however slowly a head comes.
fn find_end(input: &[u8], scanned: &mut usize, limit: usize) -> Result<Option<usize>, HeadError> {
    let from = std::mem::replace(scanned, input.len());
    for at in memchr::memchr_iter(b'\n', input.get(from..).unwrap_or_default()) {
        let at = at + from;
        if at == 0 || input.get(at - 1) != Some(&b'\r') {
            return Err(HeadError::BareLf);
        }
        let empty = at == 1 || input.get(at - 2) == Some(&b'\n');
        if !empty {
            continue;
        }
        let leading = input.get(..at).is_some_and(|before| before.iter().all(|b| matches!(b, b'\r' | b'\n')));
        if !leading {
            return if at < limit { Ok(Some(at + 1)) } else { Err(HeadError::TooLarge) };
        }
        if at > 8 {
            return Err(HeadError::FirstLine);
        }
    }
    if input.len() >= limit { Err(HeadError::TooLarge) } else { Ok(None) }
}

/// Whether an unfinished first line already holds a target over the limit.
fn over_target(input: &[u8], limit: usize) -> bool {
    input.len() > limit + 32 && memchr::memchr(b'\n', input.get(..limit + 32).unwrap_or_default()).is_none()
}

/// Both readers, the tokenizer and [`find_end`], must see the same end.
fn same_end(tokenized: usize, end: usize) -> Result<Option<usize>, HeadError> {
    if tokenized == end { Ok(Some(end)) } else { Err(HeadError::FirstLine) }
}

fn complete(parsed: httparse::Result<usize>) -> Result<usize, HeadError> {
    match parsed {
        Ok(httparse::Status::Complete(end)) => Ok(end),
        Ok(httparse::Status::Partial)
        | Err(httparse::Error::NewLine | httparse::Error::Token | httparse::Error::Status) => Err(HeadError::FirstLine),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => Err(HeadError::Field),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooMany),
        Err(httparse::Error::Version) => Err(HeadError::Version),
    }
}

/// Whether the first line ends as that of some other version of HTTP does. Otherwise it is not even a request (505 would say
/// that another version might help).
fn names_another_version(text: &[u8]) -> bool {
    let start = text.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or_default();
    let line = text.get(start..).unwrap_or_default();
    let line = line.get(..memchr::memchr(b'\r', line).unwrap_or(line.len())).unwrap_or_default();
    let word = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    let named = matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
    named && !matches!(word, b"HTTP/1.0" | b"HTTP/1.1")
}

/// Keeps the places of names and values. The tokenizer takes a bare LF for a line end, and an LF nowhere else: so where CRLF stands before each
/// name and twice at the end, all line ends are CRLF.
fn keep(
    fields: &mut crate::message::Fields,
    text: &[u8],
    lines: &[httparse::Header<'_>],
    limits: &HeadLimits,
) -> Result<(), HeadError> {
    if text.len() > limits.bytes {
        return Err(HeadError::TooLarge);
    }
    if lines.len() > limits.fields {
        return Err(HeadError::TooMany);
    }
    fields.load(text);
    let mut whole = text.ends_with(b"\r\n\r\n");
    let base = text.as_ptr() as usize;
    for line in lines {
        let name = (line.name.as_ptr() as usize).wrapping_sub(base);
        let value = if line.value.is_empty() { name } else { (line.value.as_ptr() as usize).wrapping_sub(base) };
        whole &= text.get(..name).is_some_and(|before| before.ends_with(b"\r\n"));
        fields.push_range(name..name + line.name.len(), value..value + line.value.len());
    }
    if whole { Ok(()) } else { Err(HeadError::BareLf) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::FieldId;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1024, target: 64, fields: 4 };

    fn parse(text: &[u8]) -> Result<Option<(usize, RequestHead)>, HeadError> {
        let mut head = RequestHead::default();
        Ok(parse_request(text, &mut 0, &LIMITS, &mut head)?.map(|n| (n, head)))
    }

    #[test]
    fn a_request_reads_the_same_however_it_is_split() {
        let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nEmpty:\r\nX-Y:  z \t\r\n\r\nbody";
        let (end, head) = parse(text).unwrap().unwrap();
        assert_eq!((end, head.method, head.raw_target.as_slice()), (text.len() - 4, Method::POST, &b"/a?b"[..]));
        let mut out = Vec::new();
        head.fields.write_to(&mut out);
        assert_eq!(out, b"Host: x\r\nEmpty: \r\nX-Y: z\r\n");
        for at in 0..end {
            let (mut scanned, mut head) = (0, RequestHead::default());
            assert_eq!(parse_request(&text[..at], &mut scanned, &LIMITS, &mut head), Ok(None), "split at {at}");
            assert_eq!(parse_request(text, &mut scanned, &LIMITS, &mut head), Ok(Some(end)), "split at {at}");
            assert_eq!(head.fields.get(FieldId::Host), Some(&b"x"[..]));
        }
    }

    #[test]
    fn a_head_that_readers_could_disagree_on_is_refused() {
        for (text, error) in [
            (&b"GET / HTTP/1.1\nHost: x\n\n"[..], HeadError::BareLf),
            (b"GET / HTTP/1.1\r\nHost: x\n\r\n", HeadError::BareLf),
            (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nA: b\x01c\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\n: empty\r\n\r\n", HeadError::Field),
            (b"GET  / HTTP/1.1\r\n\r\n", HeadError::FirstLine),
            (b"GET /\r\n\r\n", HeadError::FirstLine),
            (b"GET /  HTTP/1.1\r\n\r\n", HeadError::FirstLine),
            (b"GET / x HTTP/1.0\r\n\r\n", HeadError::FirstLine),
            (b"GET / HTTP/1.2\r\n\r\n", HeadError::Version),
            (b"GET / HTTP/2.0\r\n\r\n", HeadError::Version),
            (b"GET / \r\n\r\n", HeadError::FirstLine),
            (b"GET / FTP/1.1\r\n\r\n", HeadError::FirstLine),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 443\r\n\r\n", HeadError::FirstLine),
            (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", HeadError::FirstLine),
            (b"\r\n\r\n\r\n\r\n\r\n\r\n", HeadError::FirstLine),
        ] {
            assert_eq!(parse(text).map(|p| p.map(|(n, _)| n)), Err(error), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_scanned_once() {
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n", "b".repeat(500)).into_bytes();
        let (mut scanned, mut head) = (0, RequestHead::default());
        for at in 1..text.len() {
            let before = scanned;
            assert_eq!(parse_request(&text[..at], &mut scanned, &LIMITS, &mut head), Ok(None));
            assert_eq!((before, scanned), (at - 1, at), "what was scanned is not scanned again");
        }
    }

    /// The same head, looked at line by line.
    fn closely(text: &[u8]) -> Result<Option<(usize, RequestHead)>, HeadError> {
        let (mut scanned, mut head) = (0, RequestHead::default());
        let Some(end) = find_end(text, &mut scanned, LIMITS.bytes)? else { return Ok(None) };
        let end = same_end(request(&text[..end], &LIMITS, &mut head)?, end)?;
        Ok(end.map(|end| (end, head)))
    }

    #[test]
    fn a_whole_head_is_read_at_once_as_it_is_line_by_line() {
        const ENDS: [&[u8]; 6] = [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b""];
        for code in 0..ENDS.len().pow(4) {
            let end = |at: u32| ENDS[code / ENDS.len().pow(at) % ENDS.len()];
            let text = [&b"GET / HTTP/1.1"[..], end(0), b"Host: x", end(1), b"A:", end(2), end(3), b"\r\n"].concat();
            let shown = String::from_utf8_lossy(&text);
            assert_eq!(format!("{:?}", parse(&text)), format!("{:?}", closely(&text)), "{shown:?}");
        }
    }

    #[test]
    fn every_limit_holds() {
        let many = b"GET / HTTP/1.1\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\ne: 1\r\n\r\n";
        assert_eq!(parse(many).unwrap_err(), HeadError::TooMany);
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64));
        assert_eq!(parse(long.as_bytes()).unwrap_err(), HeadError::TargetTooLong);
        assert_eq!(parse(format!("GET /{}", "a".repeat(200)).as_bytes()).unwrap_err(), HeadError::TargetTooLong);
        let large = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(1024));
        assert_eq!(parse(large.as_bytes()).unwrap_err(), HeadError::TooLarge);
    }

    #[test]
    fn a_response_is_parsed_with_and_without_a_reason() {
        for text in
            [&b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"[..], b"HTTP/1.1 200 \r\nA: b\r\n\r\n", b"HTTP/1.1 200\r\nA: b\r\n\r\n"]
        {
            let mut head = ResponseHead::default();
            assert_eq!(parse_response(text, &mut 0, &LIMITS, &mut head), Ok(Some(text.len())));
            assert_eq!((head.status, head.fields.len()), (StatusCode::OK, 1));
        }
        let mut head = ResponseHead::default();
        for wrong in [
            &b"HTTP/1.1 20 OK\r\n\r\n"[..],
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"HTTP/1.1 099 x\r\n\r\n",
        ] {
            assert!(parse_response(wrong, &mut 0, &LIMITS, &mut head).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
