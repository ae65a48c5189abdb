//! Is a request that goes on one request with one body, to whoever reads it next?

use crate::cases;
use crate::gate::{self, Outcome, Seen};
use crate::memory::peak;
use crate::mutate::{mutated, tries};
use crate::readers::{is_compliant, one_request_by_httparse, requests_by_hyper, sorted};
use crate::script::{cuts, some_cuts};
use proptest::prelude::*;

/// Requests that are taken, requests that are refused, and what was found.
pub fn seeds() -> Vec<Vec<u8>> {
    cases::with_found("requests", cases::requests().to_vec())
}

/// What goes on is one request to httparse, hyper and the guardian, and its body is the body that came.
fn assert_one_request(bytes: &[u8], sent: &[u8], body: &[u8], seen: &Seen) {
    let shown = || format!("{}\n-> {}", bytes.escape_ascii(), sent.escape_ascii());
    let read = one_request_by_httparse(sent);
    assert_eq!(read.body, body, "{}", shown());
    assert_eq!(read.trailers, sorted(seen.trailers.clone()), "{}", shown());
    assert_eq!(read.fields.iter().filter(|(name, _)| name == "host").count(), 1, "{}", shown());
    assert!(is_compliant(sent), "to the guardian it is not compliant: {}", shown());
    let (requests, failed) = requests_by_hyper(sent);
    assert!(!failed && requests.len() == 1, "to hyper it is {} requests: {}", requests.len(), shown());
    let theirs = &requests[0];
    assert_eq!((&theirs.first, &theirs.body), (&read.first, &read.body), "{}", shown());
    assert_eq!((&theirs.fields, &theirs.trailers), (&read.fields, &read.trailers), "{}", shown());
}

/// What came means the same to hyper.
fn assert_same_to_hyper(bytes: &[u8], body: &[u8], rest: &[u8], seen: &Seen) {
    let own = &bytes[..bytes.len() - rest.len()];
    let shown = own.escape_ascii().to_string();
    let (requests, _) = requests_by_hyper(own);
    assert_eq!(requests.len(), 1, "hyper does not take it: {shown}");
    let theirs = &requests[0];
    assert_eq!((&theirs.fields, theirs.body.as_slice()), (&sorted(seen.fields.clone()), body), "{shown}");
    if seen.target.starts_with(b"/") {
        let first = format!("{} {}", seen.method, String::from_utf8_lossy(&seen.target));
        assert_eq!(theirs.first, first, "{shown}");
    }
}

fn check(bytes: &[u8]) -> Outcome {
    let ((outcome, seen), memory) = peak(|| gate::request(&[bytes]));
    assert!(memory < 50 * bytes.len() + 100_000, "{memory} bytes held for {}", bytes.escape_ascii());
    if let (Outcome::Passed { sent, body, rest }, Some(seen)) = (&outcome, &seen) {
        assert!(bytes.ends_with(rest), "what follows the request stays as it is");
        assert!(sent.len() < 2 * bytes.len() + 1000, "it grew out of proportion");
        assert_one_request(bytes, sent, body, seen);
        assert_same_to_hyper(bytes, body, rest, seen);
        assert_dropped(sent);
    }
    outcome
}

/// Nothing of the connection goes on but what the proxy itself says of its own.
pub fn assert_dropped(sent: &[u8]) {
    let read = one_request_by_httparse(sent);
    for (name, value) in &read.fields {
        let own = value.as_slice();
        let fine = match name.as_str() {
            "connection" => own == b"upgrade" || own == b"te",
            "te" => own == b"trailers",
            "upgrade" => !own.get(..2).is_some_and(|p| p.eq_ignore_ascii_case(b"h2")),
            "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "http2-settings"
            | "trailer"
            | "expect"
            | "proxy" => false,
            "transfer-encoding" => own == b"chunked",
            name => name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
        };
        assert!(fine, "{name}: {}", own.escape_ascii());
    }
}

/// All that holds for whatever bytes.
pub fn holds(bytes: &[u8]) {
    let whole = check(bytes);
    for pieces in some_cuts(bytes) {
        assert_same(bytes, &whole, &gate::request(&pieces).0);
    }
}

/// Cut anywhere, it is the same message; a refusal may come earlier and for what was seen by then.
fn assert_same(bytes: &[u8], whole: &Outcome, cut: &Outcome) {
    match (whole, cut) {
        // Chunks are as the pieces were; what is in them is the same.
        (Outcome::Passed { body: a, rest: b, .. }, Outcome::Passed { body: c, rest: d, .. }) => {
            assert_eq!((a, b), (c, d), "{}", bytes.escape_ascii());
        }
        (Outcome::Refused(..), Outcome::Refused(..)) | (Outcome::Cut, Outcome::Cut) => {}
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

#[test]
fn every_seed_is_what_it_is_called_and_the_same_however_it_is_cut() {
    for text in cases::GOOD {
        let outcome = check(text.as_bytes());
        assert!(matches!(outcome, Outcome::Passed { .. }), "{text:?}: {outcome:?}");
    }
    for text in cases::BAD {
        let outcome = check(text.as_bytes());
        assert!(matches!(outcome, Outcome::Refused(400..=599, _)), "{text:?}: {outcome:?}");
    }
    for bytes in cases::requests() {
        let outcome = check(bytes);
        for pieces in cuts(bytes) {
            assert_same(bytes, &outcome, &gate::request(&pieces).0);
        }
    }
}

#[test]
fn no_byte_beside_a_field_that_frames_hides_it() {
    for byte in 0..=255u8 {
        for (name, value, body) in
            [("Transfer-Encoding", "chunked", "5\r\nhello\r\n0\r\n\r\n"), ("Content-Length", "5", "hello")]
        {
            let with = |field: [&[u8]; 4]| {
                let head: &[u8] = b"POST / HTTP/1.1\r\nHost: a.test\r\n";
                [head, &field.concat(), b"\r\n\r\n", body.as_bytes()].concat()
            };
            let (name, value, byte) = (name.as_bytes(), value.as_bytes(), &[byte][..]);
            for (place, bytes) in [
                with([byte, name, b": ", value]),
                with([name, byte, b": ", value]),
                with([name, b":", byte, value]),
                with([name, b": ", value, byte]),
                with([&name[..8], byte, &name[8..], &[b": ", value].concat()]),
                with([&name[..4], byte, &name[4..], &[b": ", value].concat()]),
            ]
            .iter()
            .enumerate()
            {
                let shown = bytes.escape_ascii();
                match check(bytes) {
                    Outcome::Refused(..) => {}
                    Outcome::Passed { body, .. } if body == b"hello" => {
                        assert!((2..4).contains(&place) && matches!(byte, b" " | b"\t"), "{shown}");
                    }
                    // Another name, or another number.
                    Outcome::Passed { .. } | Outcome::Cut => {
                        assert!(byte[0].is_ascii_alphanumeric() || byte == b":", "{shown}")
                    }
                }
            }
        }
    }
}

#[test]
fn what_follows_a_request_is_left_for_the_next() {
    let two =
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n";
    let Outcome::Passed { rest, body, .. } = check(two) else { panic!("refused") };
    assert_eq!((body.as_slice(), rest.as_slice()), (&b"a"[..], &b"GET /2 HTTP/1.1\r\n"[..]));
}

proptest! {
    #![proptest_config(tries())]

    #[test]
    fn a_request_goes_on_as_one_or_not_at_all_however_it_is_cut(bytes in mutated(seeds())) {
        holds(&bytes);
    }
}
