//! Which messages are the seeds of the properties: one for each thing that a message may have, and for each known trick?

use crate::guardian;
use std::path::Path;
use std::sync::OnceLock;

/// Requests that are taken.
pub const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET /a/b?c=d&e HTTP/1.1\r\nHost: a.test:8080\r\nAccept: */*\r\nX-A:\r\nX-B: \t c \t\r\n\r\n",
    "HEAD /a%20b/%7e;c/../d HTTP/1.0\r\nHost: A.TEST.\r\nConnection: keep-alive\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\nHost: b\r\n\r\n",
    "GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close, x-a\r\nX-A: 1\r\nKeep-Alive: 5\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "OPTIONS /x HTTP/1.1\r\nHost: a.test\r\nOrigin: https://b.test\r\nCookie: a=b; c=d\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nhost: a.test\r\nX-Forwarded-For: 1.2.3.4\r\nX-Y: caf\u{e9}\r\n\r\n",
    "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhiGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
];

/// Requests that are refused, each for one reason.
pub const BAD: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 05\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a.test\r\nContent_Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"\r\nhello\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
    "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET /a%2f..%2fb HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET /a/..;/b HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET /a\0 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
    "TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.test\r\nExpect: x\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a.test\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a.test\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// Responses of every framing, and of none.
pub const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n",
    "HTTP/1.1 200\r\n\r\nhello until the end",
    "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello",
    "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
];

/// All requests, those of the guardian among them.
pub fn requests() -> &'static [Vec<u8>] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let own = GOOD.iter().chain(BAD).map(|text| text.as_bytes().to_vec());
        let others = guardian::cases().into_iter().map(|case| case.bytes).filter(|bytes| bytes.len() < 2000);
        own.chain(others).collect()
    })
}

/// All responses.
pub fn responses() -> Vec<Vec<u8>> {
    RESPONSES.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Seeds of a target and what `make fuzz` has found for it: a line for each input in `found/TARGET`, escaped as [`u8::escape_ascii`]
/// does it.
pub fn with_found(target: &str, mut seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages/found").join(target);
    let text = std::fs::read_to_string(&found).unwrap_or_default();
    seeds.extend(text.lines().map(|line| unescape(line.as_bytes())));
    seeds
}

fn unescape(mut line: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [first, rest @ ..] = line {
        line = rest;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (kind, rest) = line.split_first().expect("an escape");
        line = rest;
        bytes.push(match kind {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let (digits, rest) = line.split_at(2);
                line = rest;
                u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            }
            other => *other,
        });
    }
    bytes
}

#[test]
fn an_escaped_line_is_read_as_it_was() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(unescape(all.escape_ascii().to_string().as_bytes()), all);
}
