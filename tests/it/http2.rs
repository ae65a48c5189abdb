//! Does HTTP/2 work on both sides, and across to HTTP/1?

use crate::harness::certs::Authority;
use crate::harness::h2::{Exchange, H2Client, H2Upstream, collect, header_map, informational, request};
use crate::harness::proxy::{everything_to, everything_to_with, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::{until, within};
use ::h2::Reason;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

#[tokio::test]
async fn an_http2_client_reaches_an_http1_upstream() {
    let up = Upstream::raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nConnection: x-b\r\nX-B: 2\r\nKeep-Alive: timeout=5\r\n\r\nhello",
    )
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let response = client.get("http", "A.test", "/x?y").await;
    assert_eq!((response.status, response.text(), response.get("x-a")), (200, "hello", Some("1")));
    for gone in ["connection", "x-b", "keep-alive", "transfer-encoding"] {
        assert_eq!(response.get(gone), None, "{gone}");
    }
    let seen = up.request();
    assert_eq!(seen.head.first, "GET /x?y HTTP/1.1");
    assert_eq!(seen.get("host"), Some("a.test"));
    let post = client.request(request("POST", "http://a.test/"), b"body").await;
    assert_eq!(post.status, 200);
    assert_eq!(up.requests()[1].body, b"body");
}

#[tokio::test]
async fn an_http1_client_reaches_an_http2_upstream() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        let request = exchange.read().await.unwrap();
        exchange.reply(200, &[("x-a", "1")], &request.body, &[]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    let fields = [("Connection", "x-hop"), ("X-Hop", "1"), ("X-End", "2"), ("Cookie", "a=1; b=2")];
    let response = client.request("POST", "a.test", "/x?y", &fields, b"body").await;
    assert_eq!((response.status(), response.text(), response.get("x-a")), (200, "body", Some("1")));
    assert_eq!(client.get("a.test", "/").await.text(), "");
    let seen = &up.requests()[0];
    assert_eq!((seen.method.as_str(), seen.uri.path_and_query().unwrap().as_str()), ("POST", "/x?y"));
    assert_eq!(seen.uri.authority().map(|a| a.as_str()), Some("a.test"));
    assert_eq!((seen.get("x-end"), seen.get("x-hop"), seen.get("connection")), (Some("2"), None, None));
    assert_eq!(up.connection_count(), 1);
}

#[tokio::test]
async fn http2_passes_to_http2_with_trailers() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        let request = exchange.read().await.unwrap();
        assert_eq!(request.trailers.unwrap()["x-check"], "9");
        exchange.reply(200, &[], b"ok", &[("x-sum", "7")]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let mut client = proxy.h2().await;
    let trailers = Some(header_map(&[("x-check", "9")]));
    let mut head = request("POST", "http://a.test/");
    head.headers_mut().insert("te", "trailers".parse().unwrap());
    let response = client.exchange(head, b"hi", trailers).await.unwrap();
    assert_eq!((response.text(), response.trailer("x-sum")), ("ok", Some("7")));
}

#[tokio::test]
async fn trailers_over_http2_are_bounded_as_over_http1() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let long = "x".repeat(9000);
    let many: Vec<_> = (0..33).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    for trailers in [&many[..], &[("x-long", &long)], &[("x-blank", " 1\t")]] {
        let mut client = proxy.h2().await;
        let response = client.exchange(request("POST", "http://a.test/"), b"hi", Some(header_map(trailers))).await;
        assert!(response.is_err() || response.unwrap().status == 400, "{trailers:?}");
    }
    assert!(up.requests().is_empty(), "a request whose trailers are refused is never whole");
    let mut client = proxy.h2().await;
    let all = Some(header_map(&many[..32]));
    assert_eq!(client.exchange(request("POST", "http://a.test/"), b"hi", all).await.unwrap().text(), "hi");
}

#[tokio::test]
async fn many_streams_of_one_client_share_one_upstream_connection() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        let request = exchange.read().await.unwrap();
        exchange.reply(200, &[], request.uri.path().as_bytes(), &[]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).section("workers", "1").start().await;
    let mut client = proxy.h2().await;
    assert_eq!(client.get("http", "a.test", "/first").await.text(), "/first");
    let mut open = Vec::new();
    for n in 0..32 {
        open.push((n, client.open(request("GET", &format!("http://a.test/{n}")), true).await.0));
    }
    for (n, response) in open {
        let response = collect(within("a response", response).await.unwrap()).await;
        assert_eq!(response.text(), format!("/{n}"));
    }
    assert_eq!(up.connection_count(), 1);
}

#[tokio::test]
async fn a_client_is_told_how_many_streams_it_may_open() {
    let up = Upstream::hanging().await;
    let proxy = routes(everything_to(&[&up])).http("limits: { streams: 4 }").start().await;
    let mut client = proxy.h2().await;
    until("settings", || async { (client.send.current_max_send_streams() == 4).then_some(()) }).await;
    drop(client.open(request("GET", "http://a.test/"), true).await);
}

#[tokio::test]
async fn a_goaway_of_the_upstream_loses_no_request() {
    let up = H2Upstream::going_away_after(3, "ok").await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for n in 0..10 {
        assert_eq!(client.get("a.test", "/").await.text(), "ok", "request {n}");
    }
    assert!(up.connection_count() >= 3, "{}", up.connection_count());
}

#[tokio::test]
async fn an_upstream_stream_that_is_reset_before_its_answer_is_a_bad_gateway() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.respond.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    assert_eq!(proxy.get("a.test", "/").await.status(), 502);
    let response = proxy.h2().await.get("http", "a.test", "/").await;
    assert_eq!(response.status, 502);
}

#[tokio::test]
async fn an_upstream_stream_that_is_reset_within_its_body_never_ends_cleanly() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        let mut stream = exchange.head(200, &[("content-length", "10")], false);
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        // The reset goes out behind what was sent, once that has been flushed.
        until("the data to be sent", || async { (stream.capacity() == 0).then_some(()) }).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let message = proxy.get("a.test", "/").await;
    assert!(message.cut.is_some() || message.status() == 502, "{message:?}");
    let response = proxy.h2().await.get("http", "a.test", "/").await;
    assert!(response.reset.is_some() || response.status == 502, "{response:?}");
}

#[tokio::test]
async fn an_http1_body_cut_short_resets_the_stream_after_what_came_of_it() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let up = Upstream::raw_then_close(reply).await;
        let proxy = routes(everything_to(&[&up])).start().await;
        let response = proxy.h2().await.exchange(request("GET", "http://a.test/"), b"", None).await;
        let response = response.unwrap();
        assert_eq!((response.status, &response.body[..]), (200, &b"half"[..]), "{reply}");
        assert!(response.reset.is_some(), "{reply}: {response:?}");
    }
}

#[tokio::test]
async fn a_client_that_resets_its_stream_ends_the_upstream_request() {
    let gone = Arc::new(Notify::new());
    let told = gone.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            peer.request().await;
            peer.closed().await;
            told.notify_one();
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let (response, mut stream) = client.open(request("GET", "http://a.test/"), true).await;
    up.wait_for_requests(1).await;
    stream.send_reset(Reason::CANCEL);
    drop(response);
    within("the end of the upstream request", gone.notified()).await;
}

#[tokio::test]
async fn a_slow_stream_does_not_hold_up_the_others() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        let request = exchange.read().await.unwrap();
        if request.uri.path() == "/fast" {
            return exchange.reply(200, &[], b"fast", &[]);
        }
        let mut stream = exchange.head(200, &[], false);
        loop {
            stream.reserve_capacity(16 * 1024);
            match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(n)) => stream.send_data(Bytes::from(vec![0; n]), false).unwrap(),
                _ => return,
            }
        }
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).section("workers", "1").start().await;
    let mut client = proxy.h2().await;
    let (slow, _stream) = client.open(request("GET", "http://a.test/slow"), true).await;
    let slow = within("the head", slow).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("http", "a.test", "/fast").await.text(), "fast");
    }
    drop(slow);
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_an_http2_upstream_back() {
    const WHOLE: usize = 64 * 1024 * 1024;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let up = H2Upstream::start(move |mut exchange: Exchange| {
        let counter = counter.clone();
        async move {
            exchange.read().await;
            let mut stream = exchange.head(200, &[], false);
            while counter.load(Ordering::Relaxed) < WHOLE {
                stream.reserve_capacity(64 * 1024);
                match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(n)) => {
                        stream.send_data(Bytes::from(vec![0; n]), false).unwrap();
                        counter.fetch_add(n, Ordering::Relaxed);
                    }
                    _ => return,
                }
            }
            stream.send_data(Bytes::new(), true).unwrap();
        }
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let mut client = proxy.h2().await;
    let (response, _stream) = client.open(request("GET", "http://a.test/"), true).await;
    let response = within("the head", response).await.unwrap();
    let (mut last, mut same) = (0, 0);
    let stuck = until("a standstill", || {
        let now = written.load(Ordering::Relaxed);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        let done = now > 0 && same > 30;
        async move { done.then_some(now) }
    })
    .await;
    assert!(stuck < WHOLE / 2, "{stuck} bytes went into a client that reads nothing");
    let whole = collect(response).await;
    assert!(whole.reset.is_none() && whole.body.len() >= WHOLE, "{}", whole.body.len());
}

#[tokio::test]
async fn host_rules_are_the_same_as_in_http1() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let mut differing = request("GET", "http://a.test/");
    differing.headers_mut().insert("host", "b.test".parse().unwrap());
    assert_eq!(client.request(differing, b"").await.status, 400);
    assert_eq!(client.get("http", "a.test", "/a%2fb").await.status, 400);
    assert_eq!(client.request(request("TRACE", "http://a.test/"), b"").await.status, 405);
    assert_eq!(up.connections(), 0);
}

#[tokio::test]
async fn header_lists_over_the_limit_are_answered_431() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("limits: { head: 8KiB, headers: 20 }").start().await;
    let mut client = proxy.h2().await;
    let mut many = request("GET", "http://a.test/");
    for n in 0..30 {
        many.headers_mut().insert(format!("x-{n}").parse::<http::HeaderName>().unwrap(), "1".parse().unwrap());
    }
    assert_eq!(client.request(many, b"").await.status, 431);
    let mut large = request("GET", "http://a.test/");
    large.headers_mut().insert("x-large", "x".repeat(10_000).parse().unwrap());
    assert_eq!(client.request(large, b"").await.status, 431);
    let long = request("GET", &format!("http://a.test/{}", "x".repeat(9000)));
    let long = client.exchange(long, b"", None).await;
    assert!(long.as_ref().is_ok_and(|r| r.status == 414 || r.status == 431), "{long:?}");
    assert_eq!(up.connections(), 0);
}

/// Informational responses, one of them only for the hop before, and a final one.
const HINTS: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
                     HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn informational_responses_reach_an_http2_client() {
    let one = Upstream::raw(HINTS).await;
    let two = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.inform(100, "x-a", "1");
        exchange.inform(103, "link", "</a>");
        exchange.inform(103, "link", "</b>");
        exchange.reply(200, &[], b"ok", &[]);
    })
    .await;
    for (address, settings) in [(one.address, "protocol: http1"), (two.address, "protocol: http2")] {
        let proxy = routes(everything_to_with(&[&address], settings)).start().await;
        let mut client = proxy.h2().await;
        let (mut response, _stream) = client.open(request("GET", "http://a.test/"), true).await;
        let hints = [(103, "</a>".to_owned()), (103, "</b>".to_owned())];
        assert_eq!(informational(&mut response).await, hints, "{settings}");
        let response = collect(within("the response", response).await.unwrap()).await;
        assert_eq!((response.status, response.text()), (200, "ok"), "{settings}");
    }
}

#[tokio::test]
async fn informational_responses_of_an_http2_upstream_reach_an_http1_client() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.inform(103, "link", "</a>");
        exchange.reply(200, &[], b"ok", &[]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let head = client.response_head().await;
    assert_eq!((head.status(), head.get("link")), (103, Some("</a>")));
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (200, "ok"));
}

#[tokio::test]
async fn an_http2_upstream_that_switches_protocols_or_informs_without_end_is_malformed() {
    for (status, times) in [(101, 1), (103, 40)] {
        let up = H2Upstream::start(move |mut exchange: Exchange| async move {
            exchange.read().await;
            for _ in 0..times {
                exchange.inform(status, "x-a", "1");
            }
            exchange.reply(200, &[], b"ok", &[]);
        })
        .await;
        let proxy = routes(everything_to_with(&[&up], "protocol: http2, outlier: off")).start().await;
        let mut client = proxy.h2().await;
        assert_eq!(client.get("http", "a.test", "/").await.status, 502, "{status}");
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_go_on_is_told_over_http2_too() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let mut head = request("POST", "http://a.test/");
    head.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut response, mut stream) = client.open(head, false).await;
    let first = within("100", std::future::poll_fn(|cx| response.poll_informational(cx))).await;
    assert_eq!(first.unwrap().unwrap().status(), 100);
    stream.send_data(Bytes::from_static(b"body"), true).unwrap();
    assert_eq!(informational(&mut response).await, []);
    assert_eq!(collect(within("the response", response).await.unwrap()).await.text(), "body");
    assert!(!up.request().has("expect"));
}

#[tokio::test]
async fn a_response_without_a_date_gets_one_over_http2() {
    let dated = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
    for (reply, kept) in [("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false), (dated, true)] {
        let up = Upstream::raw(reply).await;
        let proxy = routes(everything_to(&[&up])).start().await;
        let response = proxy.h2().await.get("http", "a.test", "/").await;
        assert_eq!(response.get("date") == Some("Thu, 01 Jan 1970 00:00:00 GMT"), kept, "{response:?}");
        assert_eq!(response.headers.get_all("date").iter().count(), 1);
    }
}

#[tokio::test]
async fn head_204_and_304_end_their_streams() {
    for (method, reply, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", 304),
    ] {
        let up = Upstream::raw(reply).await;
        let proxy = routes(everything_to(&[&up])).start().await;
        let response = proxy.h2().await.request(request(method, "http://a.test/"), b"").await;
        assert_eq!((response.status, response.text()), (status, ""));
    }
}

#[tokio::test]
async fn an_http2_upstream_over_tls_is_verified_and_told_who_asks() {
    let authority = Authority::new("up");
    let identity = authority.issue(&["up.internal"]);
    let up = H2Upstream::start_tls(authority.server(&identity, &["h2"], true), |mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.reply(200, &[], b"secret", &[]);
    })
    .await;
    let tls = "protocol: http2, tls: { ca: ca.pem, server_name: up.internal, client_certificate: me }";
    let proxy = routes(everything_to_with(&[&up], tls))
        .file("ca.pem", &authority.pem)
        .certificate("me", &authority.issue_client("proxy"))
        .start()
        .await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "secret");
    assert_eq!(up.request().uri.scheme_str(), Some("https"));
}

#[tokio::test]
async fn cookies_that_http2_splits_are_one_header_for_http1() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut head = request("GET", "http://a.test/");
    head.headers_mut().append("cookie", "a=1".parse().unwrap());
    head.headers_mut().append("cookie", "b=2".parse().unwrap());
    assert_eq!(proxy.h2().await.request(head, b"").await.status, 200);
    assert_eq!(up.request().head.all("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let up = Upstream::hanging().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client: H2Client = proxy.h2().await;
    let mut ended = false;
    for _ in 0..20_000 {
        let Ok(ready) = within("room for a stream", client.send.clone().ready()).await else {
            ended = true;
            break;
        };
        client.send = ready;
        let Ok((_response, mut stream)) = client.send.send_request(request("GET", "http://a.test/"), true) else {
            ended = true;
            break;
        };
        stream.send_reset(Reason::CANCEL);
        tokio::task::yield_now().await;
    }
    assert!(ended, "twenty thousand resets went through");
    assert!(proxy.h2().await.send.current_max_send_streams() > 0, "others are served on");
}

#[tokio::test]
async fn events_come_one_by_one_over_http2_from_an_http1_upstream() {
    let next = Arc::new(Notify::new());
    let told = next.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
            for n in 1..=3 {
                peer.send(format!("data: {n}\n\n")).await;
                told.notified().await;
            }
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let (response, _stream) = client.open(request("GET", "http://a.test/"), true).await;
    let mut response = within("the head", response).await.unwrap();
    for n in 1..=3 {
        let event = within("an event", response.body_mut().data()).await.unwrap().unwrap();
        assert_eq!(event, format!("data: {n}\n\n"));
        next.notify_one();
    }
    let end = collect(response).await;
    assert_eq!(end.text(), "");
}

#[tokio::test]
async fn a_request_body_over_the_limit_is_413_and_its_stream_ends() {
    let up = Upstream::echo().await;
    let text = crate::harness::proxy::route_to(&[&up], "max_body: 10", "outlier: off");
    let proxy = routes(text).start().await;
    let mut client = proxy.h2().await;
    assert_eq!(client.request(request("POST", "http://a.test/"), b"0123456789").await.text(), "0123456789");
    assert_eq!(client.request(request("POST", "http://a.test/"), b"01234567890").await.status, 413);
    let mut announced = request("POST", "http://a.test/");
    announced.headers_mut().insert("content-length", "11".parse().unwrap());
    assert_eq!(client.request(announced, b"01234567890").await.status, 413);
    assert_eq!(up.requests().len(), 1);
    assert_eq!(client.get("http", "a.test", "/").await.status, 200, "other streams go on");
}

#[tokio::test]
async fn a_large_body_goes_up_and_comes_back_between_all_versions() {
    let one = Upstream::echo().await;
    let two = H2Upstream::start(|mut exchange: Exchange| async move {
        let request = exchange.read().await.unwrap();
        let mut stream = exchange.head(200, &[], false);
        let mut rest = Bytes::from(request.body);
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let Some(Ok(n)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
            stream.send_data(rest.split_to(n.min(rest.len())), rest.is_empty()).unwrap();
        }
    })
    .await;
    let body: Vec<u8> = (0..1024 * 1024_u32).map(|i| (i % 251) as u8).collect();
    for (up, settings) in [(one.address, "protocol: http1"), (two.address, "protocol: http2")] {
        let proxy = routes(everything_to_with(&[&up], settings)).start().await;
        let response = proxy.client().await.request("POST", "a.test", "/", &[], &body).await;
        assert!(response.body == body && response.cut.is_none(), "HTTP/1 to {settings}: {} bytes", response.body.len());
        let mut client = proxy.h2().await;
        let (response, mut stream) = client.open(request("POST", "http://a.test/"), false).await;
        let mut rest = Bytes::from(body.clone());
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let room = within("room", std::future::poll_fn(|cx| stream.poll_capacity(cx))).await;
            let n = room.unwrap().unwrap().min(rest.len());
            stream.send_data(rest.split_to(n), rest.is_empty()).unwrap();
        }
        let response = collect(within("the response", response).await.unwrap()).await;
        assert!(response.body == body && response.reset.is_none(), "HTTP/2 to {settings}: {}", response.body.len());
    }
}

#[tokio::test]
async fn a_request_body_that_stops_coming_is_408_over_http2() {
    let up = Upstream::hanging().await;
    let text = crate::harness::proxy::route_to(&[&up], "idle_timeout: 200ms", "outlier: off");
    let proxy = routes(text).start().await;
    let mut client = proxy.h2().await;
    let (response, mut stream) = client.open(request("POST", "http://a.test/"), false).await;
    stream.send_data(Bytes::from_static(b"half"), false).unwrap();
    assert_eq!(within("the response", response).await.unwrap().status(), 408);
}

#[tokio::test]
async fn names_that_upstreams_confuse_are_refused_over_http2_too() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let mut confusing = request("GET", "http://a.test/");
    confusing.headers_mut().insert("transfer_encoding", "chunked".parse().unwrap());
    assert_eq!(client.request(confusing, b"").await.status, 400);
    let mut user = request("GET", "http://user@a.test/");
    user.headers_mut().clear();
    let refused = client.exchange(user, b"", None).await;
    assert!(refused.is_err() || refused.is_ok_and(|r| r.status == 400));
    assert_eq!(up.connections(), 0);
}
