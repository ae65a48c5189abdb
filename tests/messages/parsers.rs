//! Does each small parser give one answer, whatever comes and however it is cut, and in time that grows with the input alone?

use crate::cases;
use crate::gate::{self, Outcome};
use crate::memory::peak;
use crate::mutate::{mutated, tries};
use crate::script::{cuts, some_cuts};
use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tidegate::http1::chunked::{ChunkError, Decoder, Step};
use tidegate::listener::proxy_protocol::{Decoded, decode};
use tidegate::message::normalize::normalize;
use tidegate::message::path::{canonical_path, loosely};
use tidegate::message::{FieldId, RequestHead};
use tidegate::model::EncodedSlash;

/// Data, trailers' count and what was left; `None` where the body has no end.
type Unchunked = Result<Option<(Vec<u8>, usize)>, ChunkError>;

fn unchunk<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Unchunked {
    let (mut decoder, mut data) = (Decoder::default(), Vec::new());
    for piece in pieces {
        let mut input = piece;
        loop {
            match decoder.step(input)? {
                Step::Data { skip, len } => {
                    assert!(len > 0 && skip + len <= input.len(), "no progress");
                    data.extend_from_slice(&input[skip..skip + len]);
                    decoder.took(len);
                    input = &input[skip + len..];
                }
                Step::More { skip } => {
                    assert_eq!(skip, input.len());
                    break;
                }
                Step::End { .. } => return Ok(Some((data, decoder.take_trailers()?.map_or(0, |t| t.len())))),
            }
        }
    }
    Ok(None)
}

pub fn chunked() -> Vec<Vec<u8>> {
    let bodies = cases::requests().iter().filter_map(|bytes| {
        let at = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = bytes[..at].to_ascii_lowercase();
        head.windows(7).any(|word| word == b"chunked").then(|| bytes[at..].to_vec())
    });
    let own = [
        "5;a=\"b\\\"\";c\r\nhello\r\nA\t;x\r\n0123456789\r\n0\r\nX-T: 1\r\nY: 2\r\n\r\n",
        "0\r\n\r\n",
        "000001\r\na\r\n0;q\r\n\r\n",
    ];
    let all = bodies.chain(own.iter().map(|text| text.as_bytes().to_vec()));
    cases::with_found("chunked", all.filter(|body| !body.is_empty()).collect())
}

pub fn paths() -> Vec<Vec<u8>> {
    let seeds = [
        "/",
        "/a/b/",
        "/a/../b",
        "/./a",
        "/%2e%2E/x",
        "/a//b",
        "/a;b=c/..;d",
        "/%c0%ae/",
        "/%7Euser/%E4",
        "/a%2fb",
        "/.well-known/x",
        "/..",
        "/a/.../b",
        "/%25%32%65",
    ];
    cases::with_found("paths", seeds.iter().map(|text| text.as_bytes().to_vec()).collect())
}

pub fn hosts() -> Vec<Vec<u8>> {
    let seeds = [
        "a.test",
        "A.Test.:8080",
        "[::1]:80",
        "[2001:db8::1]",
        "192.0.2.1",
        "a_b-c.test",
        "x:",
        "a.test:65535",
        "u@a",
        "a,b",
    ];
    cases::with_found("hosts", seeds.iter().map(|text| text.as_bytes().to_vec()).collect())
}

pub fn proxy_headers() -> Vec<Vec<u8>> {
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    second.extend([192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187]);
    let seeds = vec![
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\nGET / ".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        second,
    ];
    cases::with_found("proxy", seeds)
}

/// A ClientHello as rustls sends it.
fn hello() -> Vec<u8> {
    let config =
        rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let name = "a.test".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The server name that a ClientHello asks for, read as a connection reads it.
fn server_name(pieces: &[&[u8]]) -> Result<Option<Option<String>>, String> {
    let mut acceptor = rustls::server::Acceptor::default();
    for mut piece in pieces.iter().copied() {
        while !piece.is_empty() {
            if acceptor.read_tls(&mut piece).map_err(|e| e.to_string())? == 0 {
                break;
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Some(accepted.client_hello().server_name().map(str::to_owned))),
                Ok(None) => {}
                Err((error, _)) => return Err(error.to_string()),
            }
        }
    }
    Ok(None)
}

pub fn hellos() -> Vec<Vec<u8>> {
    cases::with_found("hello", vec![hello()])
}

#[test]
fn a_hello_names_the_same_server_however_it_is_cut() {
    let hello = hello();
    assert_eq!(server_name(&[&hello]), Ok(Some(Some("a.test".to_owned()))));
    for at in 1..hello.len() {
        assert_eq!(server_name(&[&hello[..at], &hello[at..]]), Ok(Some(Some("a.test".to_owned()))), "cut at {at}");
    }
}

/// A chunked body is the same wherever it is cut.
pub fn chunks_hold(bytes: &[u8]) {
    let (whole, memory) = peak(|| unchunk([bytes]));
    assert!(memory < 20 * bytes.len() + 10_000, "{memory} bytes held for {}", bytes.escape_ascii());
    for pieces in some_cuts(bytes).chain(cuts(&bytes[..bytes.len().min(200)])) {
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert_eq!(unchunk(pieces.into_iter().chain([&bytes[all..]])), whole, "{}", bytes.escape_ascii());
    }
}

/// A canonical path is final and has one reading, to loose readers too.
pub fn a_path_holds(raw: &[u8]) {
    a_path_holds_with(EncodedSlash::Refuse, raw);
    a_path_holds_with(EncodedSlash::Keep, raw);
}

fn a_path_holds_with(slash: EncodedSlash, raw: &[u8]) {
    let (mut once, mut twice) = (String::new(), String::new());
    let (outcome, memory) = peak(|| canonical_path(raw, slash, &mut once));
    assert!(memory <= 50 * raw.len() + 1000, "{memory} bytes held for {}", raw.escape_ascii());
    if outcome.is_err() {
        return;
    }
    assert_eq!(canonical_path(once.as_bytes(), slash, &mut twice), Ok(()));
    assert_eq!(&twice, &once);
    assert!(once.starts_with('/') && once.bytes().all(|b| b.is_ascii_graphic()), "{once}");
    let climbs = |s: &str| matches!(s, "." | "..") || s.starts_with("..;") || s.starts_with(".;");
    assert!(!once.replace("%2F", "/").split('/').any(climbs), "{once}");
    assert!(!once.contains(['\\', '#', '?', '<', '>', '"']) && !once.contains("%5C"), "{once}");
    assert!(slash == EncodedSlash::Keep || !once.contains("%2F"), "{once}");
    if let Some(loose) = loosely(&once, 0) {
        assert_eq!(canonical_path(loose.as_bytes(), EncodedSlash::Refuse, &mut twice), Ok(()));
        assert_eq!(&twice, &loose);
    }
}

/// A host that is taken is final and plain.
pub fn a_host_holds(raw: &[u8]) {
    let read = |host: &[u8]| {
        let mut head = RequestHead::default();
        head.raw_target.push(b'/');
        head.fields.push_known(FieldId::Host, host);
        normalize(&mut head, EncodedSlash::Refuse).map(|()| (head.host, head.port))
    };
    if let Ok((host, port)) = read(raw) {
        assert!(!host.is_empty() && !host.ends_with('.') && !host.contains(['/', '@', ',', '%', ' ']), "{host}");
        assert!(host.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()), "{host}");
        let again = port.map_or(host.clone(), |port| format!("{host}:{port}"));
        assert_eq!(read(again.as_bytes()), Ok((host, port)));
    }
}

/// Whatever comes before the end of a PROXY header is the beginning of it, and what comes after changes nothing.
pub fn a_proxy_header_holds(bytes: &[u8]) {
    let whole = decode(bytes);
    if let Ok(Decoded::Header(_, end)) = whole {
        assert!(end <= bytes.len());
        for at in (0..end.min(300)).chain([end - 1]) {
            assert_eq!(decode(&bytes[..at]), Ok(Decoded::Incomplete), "cut at {at}");
        }
        assert_eq!(decode(&bytes[..end]), whole);
    }
}

/// A ClientHello, broken or not, names no two servers.
pub fn a_hello_holds(bytes: &[u8]) {
    let whole = server_name(&[bytes]);
    for pieces in some_cuts(bytes) {
        let cut = server_name(&pieces);
        assert!(whole == cut || whole.is_err() || cut.is_err(), "{whole:?} {cut:?}");
        if let (Ok(Some(one)), Ok(Some(other))) = (&whole, &cut) {
            assert_eq!(one, other);
        }
    }
}

proptest! {
    #![proptest_config(tries())]

    #[test]
    fn a_chunked_body_is_the_same_however_it_is_cut(bytes in mutated(chunked())) {
        chunks_hold(&bytes);
    }

    #[test]
    fn a_canonical_path_is_final_and_has_one_reading(raw in mutated(paths())) {
        a_path_holds(&raw);
    }

    #[test]
    fn a_host_is_final_and_plain(raw in mutated(hosts())) {
        a_host_holds(&raw);
    }

    #[test]
    fn a_proxy_header_ends_within_what_came(bytes in mutated(proxy_headers())) {
        a_proxy_header_holds(&bytes);
    }

    #[test]
    fn a_broken_hello_names_no_two_servers(bytes in mutated(hellos())) {
        a_hello_holds(&bytes);
    }
}

/// The least CPU time of a few runs: what else the machine does is not counted.
pub fn least(mut run: impl FnMut()) -> Duration {
    let spent = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
    };
    let time = |_| {
        let start = spent();
        run();
        spent() - start
    };
    (0..7).map(time).min().unwrap()
}

#[test]
fn time_grows_with_the_input_and_no_faster() {
    let pieces = |bytes: &[u8]| gate::request(&bytes.chunks(1).collect::<Vec<_>>()).0;
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    type Make = fn(usize) -> String;
    let inputs: [(&str, Make); 7] = [
        ("a long value", |n| format!("X: {}\r\n\r\n", "x".repeat(n))),
        ("a long name", |n| format!("{}: x\r\n\r\n", "x".repeat(n))),
        ("blanks in a value", |n| format!("X: a{}b\r\n\r\n", " ".repeat(n))),
        ("elements of Connection", |n| format!("Connection: {}\r\nX: y\r\n\r\n", "a,".repeat(n / 2))),
        ("tiny chunks", |n| format!("\r\n{}0\r\n\r\n", "1\r\na\r\n".repeat(n / 6))),
        ("an extension", |n| format!("\r\n1;a={}\r\na\r\n0\r\n\r\n", "b".repeat(n))),
        ("a chunk", |n| format!("\r\n{n:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(n))),
    ];
    for (what, make) in inputs {
        let text = |n: usize| {
            let rest = make(n);
            let head = if rest.starts_with("\r\n") {
                post[..post.len() - 2].to_owned()
            } else {
                "GET / HTTP/1.1\r\nHost: a.test\r\n".to_owned()
            };
            head + &rest
        };
        let (small, large) = (text(1500), text(12_000));
        let small_time = least(|| drop(pieces(small.as_bytes())));
        let large_time = least(|| drop(pieces(large.as_bytes())));
        // Eight times the bytes: a square would take 64 times as long.
        assert!(large_time < small_time * 30, "{what}: {small_time:?} and then {large_time:?}");
        if what != "an extension" {
            assert!(matches!(pieces(large.as_bytes()), Outcome::Passed { .. }), "{what}");
        }
    }
}
