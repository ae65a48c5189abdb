//! Where does a body end, and what of its framing is refused?

use super::Gate;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::wire::Head;

#[tokio::test]
async fn transfer_encoding_is_one_chunked_and_stands_alone() {
    let gate = Gate::start().await;
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for (lines, status, reason) in [
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400, "framing"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400, "framing"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, "framing"),
        ("Transfer-Encoding: chunked\r\ntransfer-encoding: identity", 400, "framing"),
        ("Transfer-Encoding: chunked, chunked", 400, "framing"),
        ("Transfer-Encoding: ,chunked", 400, "framing"),
        ("Transfer-Encoding: chunked,", 400, "framing"),
        ("Transfer-Encoding: chunked;q=1", 400, "framing"),
        ("Transfer-Encoding: \"chunked\"", 400, "framing"),
        ("Transfer-Encoding: gzip, chunked", 400, "framing"),
        ("Transfer-Encoding:", 400, "framing"),
        ("Transfer-Encoding: chunked\u{a0}", 400, "framing"),
        ("Transfer-Encoding: gzip", 501, "unknown_encoding"),
        ("Transfer-Encoding: identity", 501, "unknown_encoding"),
        ("Transfer-Encoding: xchunked", 501, "unknown_encoding"),
        ("Transfer-Encoding: chunked\x0b", 400, "bad_header"),
        ("Transfer-Encoding : chunked", 400, "bad_header"),
        ("Transfer_Encoding: chunked", 400, "header_name"),
        ("Transfer.Encoding: chunked", 400, "header_name"),
    ] {
        gate.refuses(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n\r\n{body}"), status, reason).await;
    }
    let old = format!("POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    gate.refuses(old, 400, "framing").await;
    for value in ["chunked", "CHUNKED", "\t chunked \t"] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:{value}\r\n\r\n{body}");
        let request = gate.passes(bytes).await;
        assert_eq!((request.get("transfer-encoding"), request.get("content-length")), (Some("chunked"), None));
        assert_eq!(request.text(), "hello");
    }
    gate.told("framing").await;
}

#[tokio::test]
async fn content_length_is_one_canonical_number() {
    let gate = Gate::start().await;
    for value in [
        "",
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5 5",
        "0x5",
        "05",
        "5.0",
        "5_0",
        "٥",
        "9223372036854775808",
        "18446744073709551621",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {value}\r\n\r\nhello");
        gate.refuses(bytes, 400, "framing").await;
    }
    for lines in ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\ncontent-length: 6"] {
        gate.refuses(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n\r\nhello"), 400, "framing").await;
    }
    for (method, version) in [("POST", "1.1"), ("GET", "1.1"), ("OPTIONS", "1.1"), ("POST", "1.0")] {
        let bytes = format!("{method} / HTTP/{version}\r\nHost: a.test\r\nContent-Length:  5 \r\n\r\nhello");
        let request = gate.passes(bytes).await;
        assert_eq!((request.get("content-length"), request.text()), (Some("5"), "hello"));
    }
}

#[tokio::test]
async fn a_request_without_a_length_has_no_body() {
    let gate = Gate::start().await;
    for version in ["1.0", "1.1"] {
        // What follows would be the body if the end of the connection ended it.
        let bytes = format!(
            "POST /first HTTP/{version}\r\nHost: a.test\r\nConnection: close\r\n\r\nGET /second HTTP/1.1\r\nHost: a.test\r\n\r\n"
        );
        let request = gate.passes(bytes).await;
        assert_eq!((request.head.target(), request.body.len()), ("/first", 0));
        assert!(!request.has("content-length") && !request.has("transfer-encoding"));
    }
}

#[tokio::test]
async fn a_body_that_an_upstream_may_not_read_begins_no_request_of_another() {
    // It reads no body, takes it for a second request, and is slow with that one: until a third comes.
    let up = Upstream::start(|mut peer: Peer| async move {
        let page = |head: Head| format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{:4.4}", &head.target()[1..]);
        let Ok(first) = peer.head().await else { return };
        peer.send(page(first)).await;
        while let (Ok(evil), Ok(_)) = (peer.head().await, peer.head().await) {
            if peer.try_send(page(evil)).await.is_err() {
                return;
            }
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let evil = "GET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for method in ["GET", "OPTIONS", "DELETE"] {
        let mut client = proxy.client().await;
        client
            .send(format!("{method} /mine HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{evil}", evil.len()))
            .await;
        assert_eq!(client.response().await.text(), "mine", "{method}");
        assert_eq!(proxy.get("a.test", "/your").await.text(), "your", "{method}");
    }
}

#[tokio::test]
async fn nothing_that_follows_a_refused_request_is_read() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let good = |n: u32| format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    for (number, bad) in [
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET /%2f HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nExpect: x\r\n\r\n",
        "garbage\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let mut client = proxy.client().await;
        client.send([good(1), good(2), (*bad).to_owned(), good(3)].concat()).await;
        for _ in 0..2 {
            assert_eq!(client.response().await.text(), "ok");
        }
        assert!((400..500).contains(&client.response().await.status()), "{bad:?}");
        assert!(client.rest().await.0.is_empty(), "{bad:?}");
        let seen: Vec<String> = up.requests().iter().map(|r| r.head.target().to_owned()).collect();
        assert_eq!(seen, ["/1", "/2"].repeat(number + 1), "{bad:?}");
    }
}

#[tokio::test]
async fn chunk_extensions_are_dropped_and_bounded() {
    let gate = Gate::start().await;
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for extension in [";a", ";a=b", " ; a = \"b;\\\" c\"", ";a;b"] {
        let request = gate.passes(format!("{head}5{extension}\r\nhello\r\n0{extension}\r\n\r\n")).await;
        assert_eq!(request.text(), "hello");
    }
    let received: Vec<u8> = (0..gate.up.connections()).flat_map(|n| gate.up.received(n)).collect();
    assert!(!String::from_utf8_lossy(&received).contains(";a"), "an extension went on");
    let long = format!(";a={}", "b".repeat(17_000));
    for extension in [";", ";a=", ";a=\"b", ";\n", ";a\rb", ";a\x00", " ", &long] {
        gate.refuses(format!("{head}5{extension}\r\nhello\r\n0\r\n\r\n"), 400, "body_broken").await;
    }
    gate.told("body_broken").await;
}

#[tokio::test]
async fn a_chunk_is_what_its_size_says() {
    let gate = Gate::start().await;
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nx: a\n\r\n",
        "5\r\nhello\r\n0\r\nx : a\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: a\r\n b\r\n\r\n",
        "5\r\nhello\r\n0\r\n: a\r\n\r\n",
    ] {
        gate.refuses(format!("{head}{chunks}"), 400, "body_broken").await;
    }
    for chunks in ["5\r\nhello\r\n0\r\n\r\n", "000005\r\nhello\r\n000\r\n\r\n", "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n"] {
        assert_eq!(gate.passes(format!("{head}{chunks}")).await.text(), "hello");
    }
}

#[tokio::test]
async fn trailers_that_would_change_a_request_are_dropped() {
    let gate = Gate::start().await;
    let trailers = [
        "Host: b.test",
        "Content-Length: 9",
        "Transfer-Encoding: gzip",
        "Authorization: Basic eA==",
        "Cookie: a=b",
        "X-Forwarded-For: 192.0.2.9",
        "X-Real-IP: 192.0.2.9",
        "X-Original-URL: /admin",
        "Expect: 100-continue",
        "Transfer_Encoding: chunked",
        "X_Forwarded_For: 192.0.2.9",
        "Content-Encoding: gzip",
        "If-Match: x",
        "Proxy: x",
        "x-sum: 7",
        "grpc-status: 0",
    ];
    let bytes = format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{}\r\n\r\n",
        trailers.join("\r\n")
    );
    let request = gate.passes(bytes).await;
    let left: Vec<_> = request.trailers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((request.text(), left), ("hi", vec!["x-sum", "grpc-status"]));
    let many = "x: y\r\n".repeat(40);
    let long = format!("x: {}\r\n", "y".repeat(9000));
    for trailers in [many, long] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n");
        gate.refuses(bytes, 400, "body_broken").await;
    }
}

#[tokio::test]
async fn a_response_reaches_the_client_with_one_framing() {
    for length in ["Content-Length: 2\r\nContent-Length: 2\r\n", "Content-Length: 2\r\ncontent-length: 2\r\n"] {
        let up = Upstream::raw(format!("HTTP/1.1 200 OK\r\n{length}\r\nok")).await;
        let proxy = routes(everything_to(&[&up])).start().await;
        // The client of the tests takes no field twice where it asks for one.
        let response = proxy.get("a.test", "/").await;
        assert_eq!((response.text(), response.get("content-length")), ("ok", Some("2")));
        let head = proxy.client().await.request("HEAD", "a.test", "/", &[], b"").await;
        assert_eq!(head.get("content-length"), Some("2"));
    }
    for lines in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 02",
        "Content-Length: 2, 2",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "X : a",
        "X: a\r\n b",
        "X: a\x01",
    ] {
        let up = Upstream::raw_then_close(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nok")).await;
        let proxy = routes(everything_to(&[&up])).start().await;
        assert_eq!(proxy.get("a.test", "/").await.status(), 502, "{lines}");
    }
}

#[tokio::test]
async fn informational_responses_have_no_length_and_an_end() {
    let hint = "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </a>\r\n\r\n";
    let up = Upstream::raw(format!("{hint}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let early = client.response().await;
    assert_eq!((early.status(), early.get("link"), early.get("content-length")), (103, Some("</a>"), None));
    assert_eq!(client.response().await.text(), "ok");
    let up = Upstream::start(move |mut peer: Peer| async move {
        peer.request().await;
        while peer.try_send(hint.repeat(100)).await.is_ok() {}
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.final_response("GET").await.status(), 502);
}
