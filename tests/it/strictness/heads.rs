//! What of a head is refused, and what of it does the upstream receive?

use super::Gate;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn exactly_one_valid_host_reaches_the_upstream() {
    let gate = Gate::start().await;
    let with = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
    gate.refuses(with(""), 400, "host_missing").await;
    gate.refuses("GET / HTTP/1.0\r\n\r\n", 400, "host_missing").await;
    gate.refuses(with("Host: a.test\r\nHost: a.test\r\n"), 400, "host_duplicate").await;
    gate.refuses(with("Host: a.test\r\nhost: b.test\r\n"), 400, "host_duplicate").await;
    for wrong in [
        "", "a b", "a/b", "u@a", "a,b", "a:b", "a:1:2", "a:65536", "a..b", ".", "[::1", "[::g]", "a%41", "a\\b", "a?b",
        "a#b",
    ] {
        gate.refuses(with(&format!("Host: {wrong}\r\n")), 400, "host_malformed").await;
    }
    for (said, received) in [
        ("A.Test", "a.test"),
        ("a.test.:8080", "a.test:8080"),
        ("a.test:", "a.test"),
        ("a.test:080", "a.test:80"),
        ("[0:0::1]:80", "[::1]:80"),
        ("192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(gate.passes(with(&format!("hOsT:{said}\r\n"))).await.get("host"), Some(received));
    }
    gate.told("host_duplicate").await;
}

#[tokio::test]
async fn header_names_are_letters_digits_and_hyphens() {
    let gate = Gate::start().await;
    for sign in "!#$%&'*+.^_`|~".chars() {
        gate.refuses_with(format!("X{sign}A: 1\r\n"), 400, "header_name").await;
    }
    for sign in b"\0\x01\t\x0b\x7f \"(),/;<=>?@[\\]{}\x80\xa0\xff" {
        gate.refuses_with([b"X", &[*sign][..], b"A: 1\r\n"].concat(), 400, "bad_header").await;
    }
    gate.refuses_with(": 1\r\n", 400, "bad_header").await;
    gate.refuses_with("no colon\r\n", 400, "bad_header").await;
    let request = gate.passes_with("x-A-1: b\r\n-: c\r\n9: d\r\n").await;
    assert_eq!((request.get("x-a-1"), request.get("-"), request.get("9")), (Some("b"), Some("c"), Some("d")));
    gate.told("header_name").await;
}

#[tokio::test]
async fn odd_names_are_dropped_where_the_listener_says_so() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("proxy_headers: { odd_names: drop }").start().await;
    let gate = Gate { http: proxy.http().await, proxy, up };
    let request =
        gate.passes_with("X_A: 1\r\nTransfer_Encoding: chunked\r\nX.B: 2\r\nX-C: 3\r\nX_Forwarded_For: 4\r\n").await;
    for gone in ["x_a", "transfer_encoding", "x.b", "x_forwarded_for"] {
        assert!(!request.has(gone), "{gone}: {request:?}");
    }
    assert_eq!(request.get("x-c"), Some("3"));
    gate.refuses_with("Transfer---Encoding: chunked\r\n", 400, "header_name").await;
}

#[tokio::test]
async fn lines_end_with_crlf_alone() {
    let gate = Gate::start().await;
    for (bytes, reason) in [
        ("GET / HTTP/1.1\nHost: a.test\r\n\r\n", "bare_lf"),
        ("GET / HTTP/1.1\r\nHost: a.test\n\r\n", "bare_lf"),
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\n", "bare_lf"),
        ("\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "bare_lf"),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n", "bad_header"),
        ("GET / HTTP/1.1\r\nHost: a.test\r\r\n\r\n", "bad_header"),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nX\rY: a\r\n\r\n", "bad_header"),
        ("GET / HTTP/1.1\r\r\nHost: a.test\r\n\r\n", "bad_first_line"),
        ("GET /\r HTTP/1.1\r\nHost: a.test\r\n\r\n", "bad_first_line"),
        ("\rGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "bad_first_line"),
    ] {
        gate.refuses(bytes, 400, reason).await;
    }
    let request = gate.passes("\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(request.head.first, "GET / HTTP/1.1", "an empty line before a request is none of it");
    gate.told("bare_lf").await;
}

#[tokio::test]
async fn a_field_is_one_line_and_its_name_touches_the_colon() {
    let gate = Gate::start().await;
    for lines in [
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X:\r\n a\r\n",
        " X: a\r\n",
        "\tX: a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        " \r\n",
    ] {
        gate.refuses_with(lines, 400, "bad_header").await;
    }
    for version in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        "GET / x HTTP/1.1",
    ] {
        gate.refuses(format!("{version}\r\nHost: a.test\r\n\r\n"), 400, "bad_first_line").await;
    }
    let request = gate.passes_with("X:a\r\nY: \t b  c \t\r\nZ:\r\n").await;
    assert_eq!((request.get("x"), request.get("y"), request.get("z")), (Some("a"), Some("b  c"), Some("")));
}

#[tokio::test]
async fn no_control_character_passes_in_a_value() {
    let gate = Gate::start().await;
    for byte in (0..0x20).chain([0x7f]).filter(|b| !matches!(b, b'\t' | b'\n' | b'\r')) {
        gate.refuses_with([b"X: a", &[byte][..], b"b\r\n"].concat(), 400, "bad_header").await;
        let target = [b"GET /a", &[byte][..], b" HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat();
        gate.refuses(target, 400, "bad_first_line").await;
    }
    let request = gate.passes(b"GET / HTTP/1.1\r\nHost: a.test\r\nX: a\tb\x80\xff\r\n\r\n").await;
    assert_eq!(request.get("x"), Some("a\tb\u{80}\u{ff}"));
}

#[tokio::test]
async fn sizes_and_counts_of_a_head_are_bounded() {
    let gate = Gate::start().await;
    let x = |n: usize| "x".repeat(n);
    gate.refuses_with(format!("X: {}\r\n", x(40_000)), 431, "head_too_large").await;
    gate.refuses_with(format!("{}: x\r\n", x(40_000)), 431, "head_too_large").await;
    gate.refuses_with("X: x\r\n".repeat(101), 431, "too_many_headers").await;
    gate.refuses_with("X: x\r\n".repeat(300), 431, "too_many_headers").await;
    gate.refuses(format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", x(9000)), 414, "target_too_long").await;
    gate.refuses(format!("GET /{}", x(9000)), 414, "target_too_long").await;
    gate.refuses("\r\n".repeat(20), 400, "bad_first_line").await;
    assert!(gate.passes_with(&format!("X: {}\r\n", x(20_000))).await.has("x"));
    for reason in ["head_too_large", "too_many_headers", "target_too_long"] {
        gate.told(reason).await;
    }
}

#[tokio::test]
async fn what_vouches_for_a_client_is_the_proxys_own() {
    let gate = Gate::start().await;
    let lines = "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /x\r\nForwarded: for=192.0.2.9\r\n\
                 X-Real-IP: 192.0.2.9\r\nSsl-Client-Verify: SUCCESS\r\nX-Scheme: https\r\nFront-End-Https: on\r\n\
                 X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nTrue-Client-IP: 192.0.2.9\r\n\
                 Client-Cert: :eA==:\r\nConnection: x-forwarded-for, x-request-id\r\n";
    let request = gate.passes_with(lines).await;
    assert_eq!((request.get("x-forwarded-for"), request.get("x-forwarded-proto")), (Some("127.0.0.1"), Some("http")));
    for gone in [
        "x-forwarded-prefix",
        "forwarded",
        "x-real-ip",
        "ssl-client-verify",
        "x-scheme",
        "front-end-https",
        "x-original-url",
        "x-rewrite-url",
        "true-client-ip",
        "client-cert",
    ] {
        assert!(!request.has(gone), "{gone}: {request:?}");
    }
}

#[tokio::test]
async fn an_upgrade_that_would_carry_requests_ends_here() {
    let gate = Gate::start().await;
    for protocol in ["h2c", "H2C, websocket", "h2", "HTTP/2.0", "TLS/1.2"] {
        let lines =
            format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n");
        let request = gate.passes_with(&lines).await;
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert!(!request.has(gone), "{protocol}: {request:?}");
        }
    }
    let request =
        gate.passes_with("HTTP2-Settings: AAMAAABk\r\nUpgrade: websocket\r\nProxy: http://evil.test\r\n").await;
    for gone in ["upgrade", "http2-settings", "proxy"] {
        assert!(!request.has(gone), "{request:?}");
    }
}

#[tokio::test]
async fn an_expectation_ends_here_and_an_unknown_one_is_refused() {
    let gate = Gate::start().await;
    for value in ["", "x", "100-continue, x", "100-continue;a", "200-ok"] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: {value}\r\nContent-Length: 0\r\n\r\n");
        gate.refuses(bytes, 417, "expectation_failed").await;
    }
    gate.refuses_with("Expect : 100-continue\r\n", 400, "bad_header").await;
    for version in ["1.0", "1.1"] {
        let bytes =
            format!("POST / HTTP/{version}\r\nHost: a.test\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nhi");
        let request = gate.passes(bytes).await;
        assert!(!request.has("expect") && request.text() == "hi", "{request:?}");
    }
    gate.told("expectation_failed").await;
}
