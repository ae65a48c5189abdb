//! Is bad input refused in a way that neither side can misunderstand?

use crate::harness::client::Client;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::wire::End;
use std::sync::Arc;
use tokio::sync::Notify;

#[tokio::test]
async fn garbage_is_answered_400_and_reaches_no_upstream() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let http = proxy.http().await;
    let garbage: &[&[u8]] = &[
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / \r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a.test\r\n\r\n",
        b"G@T / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET / FTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a.test\n\n",
        b"GET / HTTP/1.1\r\nHost: a.test\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: 1\rX-B: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX A: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n folded: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX_Under_Score: 1\r\n\r\n",
    ];
    for bytes in garbage {
        Client::connect(http).await.refused(bytes, 400).await;
    }
    assert_eq!(up.connections(), 0);
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok", "it serves on");
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_answered_505() {
    let proxy = routes(everything_to(&[])).start().await;
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/0.9"] {
        let client = proxy.client().await;
        client.refused(format!("GET / {version}\r\nHost: a.test\r\n\r\n"), 505).await;
    }
}

#[tokio::test]
async fn heads_over_the_limit_are_answered_431_and_targets_414() {
    let proxy = routes(everything_to(&[])).http("limits: { head: 4KiB, target: 1KiB, headers: 20 }").start().await;
    let head = "GET / HTTP/1.1\r\nHost: a.test\r\n";
    let long = "x".repeat(5000);
    proxy.client().await.refused(format!("{head}X-A: {long}\r\n\r\n"), 431).await;
    proxy.client().await.refused(format!("{head}X-A: {long}"), 431).await;
    proxy.client().await.refused(format!("{head}{}\r\n", "X-A: 1\r\n".repeat(30)), 431).await;
    proxy.client().await.refused(format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(2000)), 414).await;
}

#[tokio::test]
async fn host_is_there_once_and_well_formed() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let http = proxy.http().await;
    let wrong = [
        "",
        "Host: a.test\r\nHost: a.test\r\n",
        "Host: a.test\r\nHost: b.test\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a.test/x\r\n",
        "Host: user@a.test\r\n",
        "Host: a.test:port\r\n",
        "Host: a.test:99999\r\n",
        "Host: a..test\r\n",
        "Host: a.test, b.test\r\n",
        "Host: [::1\r\n",
        "Host: \u{e4}.test\r\n",
    ];
    for host in wrong {
        let mut client = Client::connect(http).await;
        client.send(format!("GET / HTTP/1.1\r\n{host}\r\n")).await;
        assert_eq!(client.response().await.status(), 400, "{host:?}");
    }
    let mut client = Client::connect(http).await;
    client.send("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 400, "target and Host differ");
    assert_eq!(up.connections(), 0);
    for host in ["a.test", "A.TEST.", "a.test:8080", "[::1]:80", "127.0.0.1"] {
        assert_eq!(proxy.get(host, "/").await.status(), 200, "{host}");
    }
}

#[tokio::test]
async fn ambiguous_paths_are_refused() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    for path in ["/a%2fb", "/a%5Cb", "/a%00b", "/a%", "/a%zz", "/a%2", "a", "http:/a", "/a\\b", "/a#b"] {
        assert_eq!(proxy.get("a.test", path).await.status(), 400, "{path}");
    }
    assert_eq!(up.connections(), 0);
}

#[tokio::test]
async fn a_path_is_forwarded_in_the_form_it_was_matched_in() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let forms = [
        ("/a/../b", "/b"),
        ("/a/./b/..", "/a/"),
        ("/../../x", "/x"),
        ("/%61%7Eb", "/a~b"),
        ("/%e4", "/%E4"),
        ("/a/%2e%2E/b", "/b"),
        ("/a?x=/../y&z=%2f", "/a?x=/../y&z=%2f"),
        ("/a;b=c/d,e", "/a;b=c/d,e"),
    ];
    let mut client = proxy.client().await;
    for (sent, received) in forms {
        assert_eq!(client.get("a.test", sent).await.status(), 200, "{sent}");
        assert_eq!(up.requests().last().unwrap().head.target(), received, "{sent}");
    }
}

#[tokio::test]
async fn framing_that_two_readers_could_take_differently_is_refused() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let http = proxy.http().await;
    let wrong = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length:", 400),
        ("Content-Length: 99999999999999999999", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding: gzip", 501),
        ("Transfer-Encoding: xchunked", 501),
    ];
    for (fields, status) in wrong {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        Client::connect(http).await.refused(bytes, status).await;
    }
    let old = "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    Client::connect(http).await.refused(old, 400).await;
    assert!(up.requests().is_empty());
}

#[tokio::test]
async fn a_malformed_chunk_never_ends_a_request_cleanly() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let http = proxy.http().await;
    for chunks in [
        "x\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "-1\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "5 \nhello\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    ] {
        let mut client = Client::connect(http).await;
        let bytes = format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let _ = client.try_send(bytes).await;
        let (rest, _) = client.rest().await;
        let text = String::from_utf8_lossy(&rest);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{chunks:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), usize::from(!text.is_empty()), "{chunks:?}: {text}");
    }
    assert!(up.requests().is_empty(), "{:?}", up.requests());
}

#[tokio::test]
async fn methods_that_make_a_proxy_dangerous_are_refused_and_unknown_ones_pass() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").await;
    assert_eq!(client.response_to("GET").await.status(), 405);
    assert_eq!(proxy.client().await.request("TRACE", "a.test", "/", &[], b"").await.status(), 405);
    assert_eq!(up.connections(), 0);
    for method in ["PROPFIND", "QUERY", "x-custom", "DELETE"] {
        let response = proxy.client().await.request(method, "a.test", "/", &[], b"").await;
        assert_eq!(response.status(), 200, "{method}");
        assert_eq!(up.requests().last().unwrap().head.method(), method);
    }
}

#[tokio::test]
async fn an_unknown_expectation_is_answered_417() {
    let proxy = routes(everything_to(&[])).start().await;
    let response = proxy.client().await.request("POST", "a.test", "/", &[("Expect", "magic")], b"x").await;
    assert_eq!(response.status(), 417);
}

#[tokio::test]
async fn a_request_body_cut_short_never_ends_cleanly_upstream() {
    let up = Upstream::start(|mut peer: Peer| async move {
        if peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    for (number, framing) in
        ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"].iter().enumerate()
    {
        let mut client = proxy.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{framing}")).await;
        up.wait_for_connections(number + 1).await;
        client.half_close().await;
        let (rest, _) = client.rest().await;
        assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"), "{framing}");
        proxy.wait_for_metric("tidegate_requests_total", &[], (number + 1) as f64).await;
    }
    assert!(up.requests().is_empty(), "{:?}", up.requests());
}

#[tokio::test]
async fn a_response_body_cut_short_never_ends_cleanly_downstream() {
    let replies = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ];
    for reply in replies {
        for reset in [false, true] {
            let up = Upstream::start(move |mut peer: Peer| async move {
                peer.request().await;
                peer.send(reply).await;
                if reset {
                    peer.reset();
                }
            })
            .await;
            let proxy = routes(everything_to(&[&up])).start().await;
            let mut client = proxy.client().await;
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            match client.head().await {
                // What came of the response was not even sent on: that is no clean end either.
                Err(end) => assert_eq!(end, End::Reset, "{reply:?} {reset}"),
                Ok(head) => {
                    let message = client.body(head, false, false).await;
                    // A reset may overtake the head: then the proxy answers itself.
                    let own = reset && message.status() == 502;
                    assert!(message.cut.is_some() || own, "{reply:?} {reset}: {message:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_response_until_close_that_is_reset_never_ends_cleanly_downstream() {
    let seen = Arc::new(Notify::new());
    let told = seen.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
            told.notified().await;
            peer.reset();
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let head = client.response_head().await;
    assert_eq!(client.chunk().await.unwrap(), b"half");
    seen.notify_one();
    let message = client.body(head, false, false).await;
    assert!(message.cut.is_some(), "{message:?}");
}

#[tokio::test]
async fn an_upstream_that_answers_garbage_is_a_bad_gateway() {
    let replies: &[&[u8]] = &[
        b"garbage\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/3.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    ];
    for reply in replies {
        let up = Upstream::raw_then_close(*reply).await;
        let proxy = routes(everything_to(&[&up])).start().await;
        let mut client = proxy.client().await;
        let shown = String::from_utf8_lossy(reply);
        assert_eq!(client.get("a.test", "/").await.status(), 502, "{shown:?}");
        assert_eq!(client.get("a.test", "/").await.status(), 502, "the client's connection stays: {shown:?}");
    }
}

#[tokio::test]
async fn a_response_head_without_end_is_a_bad_gateway() {
    let up = Upstream::start(|mut peer: Peer| async move {
        peer.request().await;
        let _ = peer.try_send("HTTP/1.1 200 OK\r\n").await;
        while peer.try_send("X-A: 1\r\n".repeat(1000)).await.is_ok() {}
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    assert_eq!(proxy.get("a.test", "/").await.status(), 502);
}

#[tokio::test]
async fn bytes_after_a_response_are_never_taken_for_the_next_one() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let up = Upstream::raw(evil).await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
    }
    assert_eq!(up.connections(), 3);
}

#[tokio::test]
async fn an_early_response_is_passed_on_and_the_rest_of_the_request_is_no_second_one() {
    let up = Upstream::start(|mut peer: Peer| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await;
        peer.closed().await;
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (413, "big"));
    let _ = client.try_send("GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    client.half_close().await;
    let (rest, _) = client.rest().await;
    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    assert!(!up.requests().iter().any(|r| r.head.target() == "/second"));
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_upstream_request() {
    let up = Upstream::start(|mut peer: Peer| async move {
        peer.request().await;
        assert!(matches!(peer.closed().await, End::Fin | End::Reset));
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    up.wait_for_requests(1).await;
    client.reset();
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!(record["status"], 499, "{record}");
}
