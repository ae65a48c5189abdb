//! Does HTTP/1 pass through as its standard wants it, and as its ends expect it?

use crate::harness::client::Client;
use crate::harness::h2::request;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::wire::End;
use crate::harness::{until, within};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

#[tokio::test]
async fn two_requests_of_one_connection_share_one_upstream_connection() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        let response = client.get("a.test", "/x?y=1").await;
        assert_eq!((response.status(), response.text()), (200, "hello"));
    }
    assert_eq!(up.connections(), 1);
    assert_eq!(up.requests()[2].head.first, "GET /x?y=1 HTTP/1.1");
    assert_eq!(up.requests()[2].get("host"), Some("a.test"));
}

#[tokio::test]
async fn connections_of_other_clients_share_the_pool_of_their_worker() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    for _ in 0..3 {
        assert_eq!(proxy.get("a.test", "/").await.text(), "hello");
    }
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn an_http10_client_gets_one_response_and_the_end() {
    let up = Upstream::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.text(), "hello");
    assert!(response.until_close, "chunked coding is not for HTTP/1.0: {response:?}");
    assert_eq!(up.request().head.first, "GET / HTTP/1.1");
}

#[tokio::test]
async fn an_http10_client_that_asks_for_it_keeps_its_connection() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("keep-alive"));
        assert_eq!((response.text(), response.until_close), ("hello", false));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    let request = |n| format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\n{n}");
    client.send((1..=5).map(request).collect::<String>()).await;
    for n in 1..=5 {
        assert_eq!(client.response().await.text(), n.to_string());
    }
}

#[tokio::test]
async fn connection_close_is_honoured_on_either_side() {
    let up = Upstream::raw_then_close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("a.test", "/").await.text(), "ok");
    let last = client.request("GET", "a.test", "/", &[("Connection", "close")], b"").await;
    assert_eq!((last.text(), last.get("connection")), ("ok", Some("close")));
    assert_eq!(client.end().await, End::Fin);
    assert_eq!(up.connections(), 2, "an upstream that closes is not asked again over the same connection");
    assert!(up.requests().iter().all(|r| r.get("connection").is_none_or(|v| v == "keep-alive")));
}

#[tokio::test]
async fn a_client_that_said_it_would_send_no_more_and_does_gets_its_answer_all_the_same() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    client.send([&request[..], &[b'x'; 100 * 1024]].concat()).await;
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn bodies_of_every_framing_arrive_whole() {
    let replies = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
    ];
    for reply in replies {
        let up = Upstream::raw_then_close(reply).await;
        let proxy = routes(everything_to(&[&up])).start().await;
        let mut client = proxy.client().await;
        assert_eq!(client.get("a.test", "/").await.text(), "hello", "{reply}");
        assert_eq!(client.get("a.test", "/").await.text(), "hello", "the client's connection outlives: {reply}");
    }
}

#[tokio::test]
async fn request_bodies_of_either_framing_arrive_whole() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    client.send(format!("{head}Content-Length: 5\r\n\r\nhello")).await;
    assert_eq!(client.response().await.text(), "hello");
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")).await;
    assert_eq!(client.response().await.text(), "hello");
    client.send(format!("{head}Content-Length: 0\r\n\r\n")).await;
    assert_eq!(client.response().await.text(), "");
    assert_eq!(up.requests()[2].get("content-length"), Some("0"));
}

#[tokio::test]
async fn eight_mebibytes_go_up_and_come_back_at_the_same_time() {
    let up = Upstream::start(|mut peer: Peer| async move {
        // Sends back what comes while it comes.
        let head = peer.head().await.unwrap();
        let length: usize = head.get("content-length").unwrap().parse().unwrap();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).await;
        let mut left = length;
        while left > 0 {
            let chunk = peer.some().await.unwrap();
            left -= chunk.len();
            peer.send(chunk).await;
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let stream = crate::harness::client::tcp(proxy.http().await).await;
    let (mut read, mut write) = stream.into_split();
    let body: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|i| (i % 251) as u8).collect();
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let head =
            format!("POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", sent.len());
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&sent).await.unwrap();
        write
    });
    let mut all = Vec::new();
    within("the response", tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all)).await.unwrap();
    sending.await.unwrap();
    let start = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert!(all[start..] == body[..], "{} of {} bytes", all.len() - start, body.len());
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let up = Upstream::raw("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n").await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        let response = client.request("HEAD", "a.test", "/", &[], b"").await;
        assert_eq!((response.status(), response.get("content-length")), (200, Some("1234")));
    }
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn responses_204_and_304_have_no_body_and_keep_both_connections() {
    for reply in
        ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n"]
    {
        let up = Upstream::raw(reply).await;
        let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
        let mut client = proxy.client().await;
        for _ in 0..2 {
            let response = client.get("a.test", "/").await;
            assert_eq!(response.status().to_string(), reply[9..12]);
            assert!(!response.has("transfer-encoding"), "{response:?}");
        }
        assert_eq!(up.connections(), 1, "{reply}");
    }
}

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[tokio::test]
async fn an_expected_body_is_asked_for_by_the_proxy_and_the_expectation_ends_there() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.send(EXPECTING).await;
        assert_eq!(client.response().await.status(), 100);
        client.send("hello").await;
        assert_eq!(client.response().await.text(), "hello");
    }
    assert!(up.requests().iter().all(|r| !r.has("expect")));
}

#[tokio::test]
async fn a_body_that_nobody_will_read_is_not_asked_for() {
    let proxy = routes("hosts: [a.test]\nroutes: [{ path: /, respond: { status: 403 } }]\n").start().await;
    let mut client = proxy.client().await;
    client.send(EXPECTING).await;
    let response = client.response().await;
    assert_eq!((response.status(), response.get("connection")), (403, Some("close")));
    let proxy = routes(everything_to(&[])).start().await;
    let mut client = proxy.client().await;
    client.send(EXPECTING).await;
    assert_eq!(client.response().await.status(), 503);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_expected_body_is_passed_on() {
    let up = Upstream::start(|mut peer: Peer| async move {
        peer.head().await.unwrap();
        peer.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nkey?").await;
        peer.closed().await;
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send(EXPECTING).await;
    let response = client.final_response("POST").await;
    assert_eq!((response.status(), response.text()), (401, "key?"));
    assert_eq!(response.get("connection"), Some("close"), "the body may still come");
}

#[tokio::test]
async fn informational_responses_pass_in_order() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let up = Upstream::raw(format!("{hints}{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    for _ in 0..2 {
        let early = client.response().await;
        assert_eq!((early.status(), early.get("link")), (103, Some("</a.css>; rel=preload")));
    }
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn an_informational_response_does_not_wait_for_the_final_one() {
    for request in
        ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nhalf"]
    {
        let arrived = Arc::new(Notify::new());
        let seen = Arc::clone(&arrived);
        let up = Upstream::start(move |mut peer: Peer| {
            let seen = Arc::clone(&seen);
            async move {
                peer.head().await.unwrap();
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n").await;
                seen.notified().await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                peer.closed().await;
            }
        })
        .await;
        let proxy = routes(everything_to(&[&up])).start().await;
        let mut client = proxy.client().await;
        client.send(request).await;
        assert_eq!(client.response().await.status(), 103, "{request}");
        arrived.notify_one();
        assert_eq!(client.response().await.text(), "ok");
    }
}

#[tokio::test]
async fn an_http10_client_gets_no_informational_response() {
    let up = Upstream::raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let up = Upstream::start(|mut peer: Peer| async move {
        while peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n")
                .await;
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTrailer: x-check\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nx-check: 9\r\n\r\n",
        )
        .await;
    let response = client.response().await;
    assert_eq!(response.text(), "ok");
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    assert_eq!(up.request().trailers, [("x-check".to_owned(), "9".to_owned())]);
}

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop_both_ways() {
    let up = Upstream::raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-up, keep-alive\r\nX-Up: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nProxy-Connection: x\r\nX-End: 1\r\n\r\nok",
    )
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let fields = [
        ("Connection", "X-Down, close"),
        ("X-Down", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic eA=="),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "gzip"),
        ("Upgrade", "h2c"),
        ("X-End", "1"),
    ];
    let response = proxy.client().await.request("GET", "a.test", "/", &fields, b"").await;
    assert_eq!(response.text(), "ok");
    for gone in ["x-up", "keep-alive", "proxy-authenticate", "proxy-connection"] {
        assert!(!response.has(gone), "{gone}: {response:?}");
    }
    assert_eq!(response.get("x-end"), Some("1"));
    let request = up.request();
    for gone in ["x-down", "keep-alive", "proxy-authorization", "proxy-connection", "te", "upgrade", "http2-settings"] {
        assert!(!request.has(gone), "{gone}: {request:?}");
    }
    assert_eq!(request.get("x-end"), Some("1"));
}

#[tokio::test]
async fn names_and_order_of_other_headers_are_kept() {
    let up =
        Upstream::raw("HTTP/1.1 200 OK\r\nX-B: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n")
            .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let fields = [("X-Z", "1"), ("X-A", "2"), ("Cookie", "a=1; b=2"), ("X-Z", "3")];
    let response = proxy.client().await.request("GET", "a.test", "/", &fields, b"").await;
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
    let own: Vec<_> =
        up.request().head.fields.into_iter().filter(|(n, _)| n.starts_with("X-Z") || n == "X-A").collect();
    let own: Vec<_> = own.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(own, [("X-Z", "1"), ("X-A", "2"), ("X-Z", "3")]);
}

#[tokio::test]
async fn server_sent_events_come_one_by_one() {
    let next = Arc::new(Notify::new());
    let told = next.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for n in 1..=3 {
                peer.send(format!("9\r\ndata: {n}\n\n\r\n")).await;
                told.notified().await;
            }
            peer.send("0\r\n\r\n").await;
            peer.closed().await;
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n").await;
    assert_eq!(client.response_head().await.status(), 200);
    for n in 1..=3 {
        assert_eq!(client.chunk().await.unwrap(), format!("data: {n}\n\n").as_bytes());
        next.notify_one();
    }
    assert_eq!(client.chunk().await.unwrap(), b"");
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_the_upstream_back() {
    const WHOLE: usize = 64 * 1024 * 1024;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let counter = counter.clone();
        async move {
            peer.request().await;
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n")).await;
            let chunk = vec![b'x'; 64 * 1024];
            while counter.load(Ordering::Relaxed) < WHOLE && peer.try_send(&chunk).await.is_ok() {
                counter.fetch_add(chunk.len(), Ordering::Relaxed);
            }
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let before = proxy.resident();
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response_head().await.status(), 200);
    let stuck = standstill(&written).await;
    assert!(stuck < WHOLE / 2, "{stuck} bytes went into a client that reads nothing");
    assert!(proxy.resident() < before + 8 * 1024, "{} KiB before, {} KiB after", before, proxy.resident());
    assert_eq!(client.exactly(WHOLE).await.unwrap().len(), WHOLE);
}

#[tokio::test]
async fn an_upstream_that_reads_nothing_holds_the_client_back() {
    const WHOLE: usize = 64 * 1024 * 1024;
    let go = Arc::new(Notify::new());
    let told = go.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            let head = peer.head().await.unwrap();
            told.notified().await;
            assert_eq!(peer.body(head, false, true).await.body.len(), WHOLE);
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            peer.closed().await;
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let mut client = proxy.client().await;
    let sending = tokio::spawn(async move {
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {WHOLE}\r\n\r\n")).await;
        let chunk = vec![b'x'; 64 * 1024];
        while counter.load(Ordering::Relaxed) < WHOLE {
            client.send(&chunk).await;
            counter.fetch_add(chunk.len(), Ordering::Relaxed);
        }
        client.response().await
    });
    let stuck = standstill(&written).await;
    assert!(stuck < WHOLE / 2, "{stuck} bytes went into an upstream that reads nothing");
    go.notify_one();
    assert_eq!(sending.await.unwrap().text(), "ok");
}

/// Waits until a counter has moved and then stands still over many looks.
async fn standstill(counter: &AtomicUsize) -> usize {
    let (mut last, mut same) = (0, 0);
    until("a standstill", || {
        let now = counter.load(Ordering::Relaxed);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        let done = now > 0 && same > 30;
        async move { done.then_some(now) }
    })
    .await
}

#[tokio::test]
async fn a_client_that_says_it_is_done_still_gets_its_response() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    client.half_close().await;
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn an_upgrade_other_than_websocket_becomes_a_tunnel_too() {
    let up = Upstream::start(|mut peer: Peer| async move {
        let head = peer.head().await.unwrap();
        assert_eq!(head.get("upgrade"), Some("chat/1"));
        assert_eq!(head.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\nhello").await;
        while let Some(bytes) = peer.some().await {
            peer.send(bytes).await;
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: chat/1\r\n\r\n").await;
    let head = client.response_head().await;
    assert_eq!((head.status(), head.get("upgrade")), (101, Some("chat/1")));
    assert_eq!(client.exactly(5).await.unwrap(), b"hello");
    client.send("\x00\x01raw bytes").await;
    assert_eq!(client.exactly(11).await.unwrap(), b"\x00\x01raw bytes");
    client.half_close().await;
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn an_upgrade_may_be_asked_for_by_post_and_say_that_it_has_no_body() {
    let up = Upstream::start(|mut peer: Peer| async move {
        let head = peer.head().await.unwrap();
        assert_eq!(head.get("upgrade"), Some("tcp"));
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello").await;
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    for method in ["GET", "POST"] {
        let mut client = proxy.client().await;
        let fields = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n";
        client.send(format!("{method} /attach HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).await;
        assert_eq!(client.response_head().await.status(), 101, "{method}");
        assert_eq!(client.exactly(5).await.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn a_client_that_sends_its_whole_body_first_hears_that_it_is_too_large() {
    let up = Upstream::text("ok").await;
    let text = crate::harness::proxy::route_to(&[&up], "max_body: 1MiB", "outlier: off");
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    let length = 16 << 20;
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n")).await;
    client.send(vec![b'x'; length]).await;
    assert_eq!(client.response().await.status(), 413);
}

#[tokio::test]
async fn a_connection_ends_after_as_many_requests_as_it_may_carry() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("limits: { requests_per_connection: 2 }").start().await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("a.test", "/").await.get("connection"), None);
    assert_eq!(client.get("a.test", "/").await.get("connection"), Some("close"));
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn a_target_in_absolute_form_is_the_same_as_host_and_path() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client: Client = proxy.client().await;
    client.send("GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "ok");
    assert_eq!(up.request().head.first, "GET /x?y HTTP/1.1");
}

#[tokio::test]
async fn the_proxy_itself_answers_to_options_of_everything() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up]))
        .http("")
        .listener("closed", "127.0.0.1:0", "access: { deny: 127.0.0.0/8 }")
        .listener("moved", "127.0.0.1:0", "https_redirect: true")
        .start()
        .await;
    for (listener, status) in [("http", 204), ("moved", 204), ("closed", 403)] {
        let mut client = Client::connect(proxy.address(listener).await).await;
        let response = client.request("OPTIONS", "nobody.test", "*", &[], b"").await;
        assert_eq!(response.status(), status, "{listener}");
        assert_eq!(response.get("allow").is_some_and(|allow| allow.contains("GET, HEAD")), status == 204, "{listener}");
    }
    let mut client = proxy.client().await;
    for method in ["GET", "POST"] {
        client.send(format!("{method} * HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        assert_eq!(client.response().await.status(), 400, "{method}");
        client = proxy.client().await;
    }
    let mut asked = request("OPTIONS", "*");
    asked.headers_mut().insert("host", "a.test".parse().unwrap());
    assert_eq!(proxy.h2().await.request(asked, b"").await.status, 204);
    assert_eq!(proxy.client().await.request("OPTIONS", "a.test", "/", &[], b"").await.text(), "ok");
    assert_eq!(up.requests().len(), 1, "with a path it is the upstream's to answer");
}

#[tokio::test]
async fn an_options_request_is_passed_on_by_as_many_as_it_says() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    for (method, sent, seen) in [
        ("OPTIONS", "2", Some("1")),
        ("OPTIONS", "1", Some("0")),
        ("OPTIONS", "0", None),
        ("OPTIONS", "many", Some("many")),
        ("OPTIONS", "-1", Some("-1")),
        ("GET", "0", Some("0")),
    ] {
        let before = up.requests().len();
        let response = client.request(method, "a.test", "/", &[("Max-Forwards", sent)], b"").await;
        assert_eq!(response.status(), if seen.is_some() { 200 } else { 204 }, "{method} {sent}");
        let passed = up.requests().get(before).map(|request| request.get("max-forwards").unwrap().to_owned());
        assert_eq!(passed.as_deref(), seen, "{method} {sent}");
    }
}

#[tokio::test]
async fn a_refusal_ends_a_connection_that_its_client_wants_to_end() {
    let proxy = routes("a.test/only/: { respond: { status: 200 } }\n").start().await;
    let mut client = proxy.client().await;
    client.send("GET /other HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.get("connection")), (404, Some("close")));
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn refusals_count_towards_the_requests_of_a_connection() {
    let proxy = routes("a.test/only/: { respond: { status: 200 } }\n")
        .http("limits: { requests_per_connection: 2 }")
        .start()
        .await;
    let mut client = proxy.client().await;
    for connection in [None, Some("close")] {
        client.send("GET /other HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.get("connection")), (404, connection));
    }
    assert_eq!(client.end().await, End::Fin);
}
