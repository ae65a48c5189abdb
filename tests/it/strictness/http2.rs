//! Do requests over HTTP/2 keep to the same rules, also those that no library would send?

use super::Gate;
use crate::harness::frames::{self, Answer};

/// A GET over HTTP/2 with these fields in place of or beside the usual ones.
async fn over_http2(gate: &Gate, fields: &[(&str, &str)]) -> Answer {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];
    let mut head: Vec<(&str, &str)> = usual.into_iter().filter(|(n, _)| !fields.iter().any(|(m, _)| m == n)).collect();
    head.extend(fields.iter().filter(|(name, _)| name.starts_with(':')));
    head.extend(fields.iter().filter(|(name, _)| !name.starts_with(':')));
    frames::ask(gate.http, &head).await
}

#[tokio::test]
async fn http2_requests_keep_to_the_same_rules() {
    let gate = Gate::start().await;
    for (fields, status) in [
        (&[("host", "b.test")][..], 400),
        (&[("host", "a.test"), ("host", "a.test")], 400),
        (&[(":authority", "u@a.test")], 400),
        (&[(":authority", "a.test,b.test")], 400),
        (&[(":path", "http://b.test/")], 400),
        (&[(":path", "/a%2fb")], 400),
        (&[(":path", "/a/..;/b")], 400),
        (&[(":path", "/%c0%af")], 400),
        (&[(":path", "*")], 400),
        (&[(":path", "x")], 400),
        (&[(":method", "TRACE")], 405),
        (&[(":method", "head")], 405),
        (&[("x_a", "1")], 400),
        (&[("transfer_encoding", "chunked")], 400),
        (&[("expect", "x")], 417),
        (&[("x-role", "admin ")], 400),
        (&[("x-role", "\tadmin")], 400),
        (&[("content-length", "00")], 400),
    ] {
        let answer = over_http2(&gate, fields).await;
        // What the library refuses ends the stream; what passes it is answered by us.
        assert!(answer == Answer::Status(status) || answer == Answer::Cut, "{fields:?}: {answer:?}");
    }
    for fields in [
        &[("transfer-encoding", "chunked")][..],
        &[("connection", "close")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[("X-A", "1")],
        &[("x a", "1")],
        &[("x:a", "1")],
        &[("x-a", "1\r\nx-b: 2")],
        &[("x-a", "1\n")],
        &[("x-a", "a\0")],
        &[(":path", "/a b")],
        &[(":path", "/\r\n")],
        &[(":path", "")],
        &[(":method", "GET /x")],
        &[(":method", "")],
        &[(":unknown", "x")],
        &[("content-length", "5")],
        &[("content-length", "x")],
    ] {
        let answer = over_http2(&gate, fields).await;
        assert!(matches!(answer, Answer::Cut | Answer::Status(400 | 405)), "{fields:?}: {answer:?}");
    }
    assert!(gate.up.requests().is_empty(), "{:?}", gate.up.requests());
    assert_eq!(
        over_http2(&gate, &[(":path", "/a/%2e%2e/b"), ("host", "a.test"), ("x-a", "1")]).await,
        Answer::Status(200)
    );
    let request = gate.up.request();
    assert_eq!((request.head.first.as_str(), request.get("host")), ("GET /b HTTP/1.1", Some("a.test")));
    assert_eq!((request.get("x-a"), request.has("transfer-encoding")), (Some("1"), false));
}

#[tokio::test]
async fn a_fragment_over_http2_is_cut_before_anything_is_decided() {
    let gate = Gate::start().await;
    for (path, first) in [("/a#/../b", "GET /a HTTP/1.1"), ("/a?c#d", "GET /a?c HTTP/1.1"), ("/#", "GET / HTTP/1.1")] {
        assert_eq!(over_http2(&gate, &[(":path", path)]).await, Answer::Status(200));
        assert_eq!(gate.up.requests().last().unwrap().head.first, first);
    }
}
