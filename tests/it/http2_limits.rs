//! What holds an HTTP/2 client, or an HTTP/2 upstream, to its time and its place?

use crate::harness::certs::Authority;
use crate::harness::client::{Client, tcp, tls};
use crate::harness::h2::{Exchange, H2Client, H2Upstream, collect, request};
use crate::harness::proxy::{Proxy, everything_to, everything_to_with, route_to, routes};
use crate::harness::upstream::{Peer, Refusing, Upstream};
use crate::harness::{until, within};
use ::h2::Reason;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Answers with more than a client's window takes, and tells when the connection ends.
async fn endless() -> (Upstream, Arc<Notify>) {
    let gone = Arc::new(Notify::new());
    let told = gone.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            peer.request().await;
            let _ = peer.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
            while peer.try_send(&chunk).await.is_ok() {}
            told.notify_one();
        }
    })
    .await;
    (up, gone)
}

async fn reason(proxy: &Proxy) -> (u64, String) {
    let record = proxy.access_log(1).await.remove(0);
    (record["status"].as_u64().unwrap(), record["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_client_that_takes_no_more_of_a_response_is_cut_off_and_so_is_its_upstream() {
    let (up, gone) = endless().await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 300ms", "outlier: off")).start().await;
    let mut client = proxy.h2().await;
    let (response, _stream) = client.open(request("GET", "http://a.test/"), true).await;
    let held = within("the head", response).await.unwrap();
    within("the end of the upstream request", gone.notified()).await;
    assert_eq!(reason(&proxy).await, (200, "client_stalled".into()));
    assert!(collect(held).await.reset.is_some());
    assert_eq!(proxy.metric("tidegate_requests_in_flight", &[]).await, 0.0);
}

#[tokio::test]
async fn a_client_of_http1_that_takes_no_more_is_the_side_at_fault() {
    let (up, gone) = endless().await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 300ms", "outlier: off")).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    within("the end of the upstream request", gone.notified()).await;
    assert_eq!(reason(&proxy).await, (200, "client_stalled".into()));
}

#[tokio::test]
async fn a_client_that_takes_no_answer_of_our_own_does_not_hold_its_connection() {
    let timeouts = "timeouts: { idle: 300ms, keep_alive: 300ms, head: 300ms }";
    let proxy = routes(everything_to(&[])).http(timeouts).start().await;
    let mut client = H2Client::with_window(proxy.http().await, 0).await;
    let (response, _stream) = client.open(request("GET", "http://a.test/"), true).await;
    assert_eq!(within("the head", response).await.unwrap().status(), 503);
    let _ = client.end().await;
}

#[tokio::test]
async fn a_client_that_agreed_on_http2_and_says_nothing_is_cut_off() {
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[]))
        .https("timeouts: { head: 300ms }")
        .certificate("a", &authority.issue(&["a.test"]))
        .start()
        .await;
    let stream = tls(proxy.https().await, &authority.client(&["h2"]), "a.test").await.unwrap();
    Client::over(stream).rest().await;
}

#[tokio::test]
async fn a_client_that_takes_no_leave_is_cut_off() {
    let proxy = routes(everything_to(&[])).http("timeouts: { keep_alive: 200ms, head: 300ms }").start().await;
    let mut client = Client::over(tcp(proxy.http().await).await);
    // The preface and empty settings; a GOAWAY and its ping are never answered.
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
    client.rest().await;
}

#[tokio::test]
async fn a_connection_takes_as_many_requests_as_it_may_over_http2_too() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("limits: { requests_per_connection: 2 }").start().await;
    let mut client = proxy.h2().await;
    for _ in 0..2 {
        assert_eq!(client.get("http", "a.test", "/").await.text(), "ok");
    }
    assert!(client.closed().await.is_ok());
}

#[tokio::test]
async fn a_stream_that_its_client_resets_before_the_answer_is_recorded_as_such() {
    let up = Upstream::hanging().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let (response, mut stream) = client.open(request("GET", "http://a.test/"), true).await;
    up.wait_for_requests(1).await;
    stream.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(reason(&proxy).await, (499, "client_gone".into()));
}

/// Sends a body of `pieces` bytes with a pause before each.
async fn trickle(proxy: &Proxy, pieces: usize, pause: Duration) -> Client {
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n").await;
    for _ in 0..pieces {
        tokio::time::sleep(pause).await;
        client.send("x").await;
    }
    client
}

#[tokio::test]
async fn an_upload_to_an_http2_upstream_may_take_long_while_it_moves() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        let request = exchange.read().await.unwrap();
        exchange.reply(200, &[], &request.body, &[]);
    })
    .await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 500ms", "protocol: http2")).start().await;
    let mut client = trickle(&proxy, 10, Duration::from_millis(80)).await;
    assert_eq!(client.response().await.text(), "xxxxxxxxxx");
}

#[tokio::test]
async fn an_upload_that_its_client_stops_is_no_fault_of_an_http2_upstream() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
    })
    .await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 300ms", "protocol: http2")).start().await;
    let mut client = trickle(&proxy, 3, Duration::ZERO).await;
    assert_eq!(client.response().await.status(), 408);
    assert_eq!(reason(&proxy).await, (408, "body_timeout".into()));
}

#[tokio::test]
async fn an_upload_that_its_upstream_stops_taking_is_no_fault_of_the_client() {
    let up = Upstream::start(|mut peer: Peer| async move {
        let _ = peer.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 500ms", "outlier: off")).start().await;
    let mut client = proxy.client().await;
    let size = 64 << 20;
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n")).await;
    let sending = async {
        let block = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            if client.try_send(&block).await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), sending).await;
    assert_eq!(reason(&proxy).await, (504, "upstream_timeout".into()));
}

#[tokio::test]
async fn the_limit_of_a_try_holds_for_a_request_whose_body_came_slowly() {
    let up = Upstream::hanging().await;
    let proxy = routes(route_to(&[&up], "try_timeout: 600ms, retry: { attempts: 1 }", "outlier: off")).start().await;
    let mut client = trickle(&proxy, 10, Duration::from_millis(20)).await;
    assert_eq!(client.response().await.status(), 504);
}

#[tokio::test]
async fn the_limit_of_a_try_ends_with_the_head_of_the_answer() {
    let up = Upstream::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        peer.send("ok").await;
    })
    .await;
    let proxy = routes(route_to(&[&up], "try_timeout: 500ms, retry: { attempts: 1 }", "outlier: off")).start().await;
    assert_eq!(proxy.h2().await.get("http", "a.test", "/").await.text(), "ok");
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
}

#[tokio::test]
async fn an_answer_over_http2_whose_length_is_not_canonical_is_malformed() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        let mut stream = exchange.head(200, &[("content-length", "05")], false);
        let _ = stream.send_data(Bytes::from_static(b"hello"), true);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2, outlier: off")).start().await;
    assert_eq!(proxy.get("a.test", "/").await.status(), 502);
    assert_eq!(proxy.h2().await.get("http", "a.test", "/").await.status, 502);
}

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_refuses_and_the_cluster_speaks_http2() {
    let refusing = Refusing::bind();
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.reply(200, &[], b"ok", &[]);
    })
    .await;
    let text = everything_to_with(&[&refusing.address, &up], "protocol: http2, balance: round_robin");
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    for n in 0..6 {
        assert_eq!(client.request("POST", "a.test", "/", &[], b"x").await.text(), "ok", "POST {n}");
    }
}

#[tokio::test]
async fn a_stream_that_was_refused_unseen_goes_out_again_whatever_the_method() {
    let count = Arc::<AtomicUsize>::default();
    let counter = count.clone();
    let up = H2Upstream::start(move |mut exchange: Exchange| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                return exchange.respond.send_reset(Reason::REFUSED_STREAM);
            }
            exchange.read().await;
            exchange.reply(200, &[], b"ok", &[]);
        }
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    for method in ["GET", "DELETE", "POST"] {
        count.store(0, Ordering::SeqCst);
        let response = proxy.client().await.request(method, "a.test", "/", &[("Content-Length", "0")], b"").await;
        assert_eq!((response.text(), count.load(Ordering::SeqCst)), ("ok", 2), "{method}");
    }
}

#[tokio::test]
async fn a_body_that_was_taken_and_not_sent_is_not_lost_by_trying_again() {
    let count = Arc::<AtomicUsize>::default();
    let counter = count.clone();
    let up = H2Upstream::start_without_window(move |mut exchange: Exchange| {
        // The first request lets the settings arrive, the second is refused with its body taken and still here.
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            match number {
                1 => exchange.respond.send_reset(Reason::REFUSED_STREAM),
                _ => exchange.reply(200, &[], b"ok", &[]),
            }
        }
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("a.test", "/").await.text(), "ok");
    // Without a length, whose absence would be noticed.
    client.send("PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), count.load(Ordering::SeqCst)), (502, 2), "it went out again without its beginning");
}

#[tokio::test]
async fn idle_connections_over_http2_are_closed_as_the_cluster_says() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.reply(200, &[], b"ok", &[]);
    })
    .await;
    let text = everything_to_with(&[&up], "protocol: http2, idle_timeout: 300ms");
    let proxy = routes(text).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("a.test", "/").await.text(), "ok");
    until("no open connection", || async {
        (proxy.metric("tidegate_upstream_connections_open", &[]).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(client.get("a.test", "/").await.text(), "ok");
    assert_eq!(up.connection_count(), 2);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_cut_off() {
    let proxy = routes(everything_to(&[])).http("timeouts: { idle: 200ms, head: 200ms, keep_alive: 1h }").start().await;
    let mut client = Client::over(tcp(proxy.http().await).await);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
    let (said, _) = client.rest().await;
    assert!(said.windows(5).any(|bytes| bytes == b"\x00\x08\x06\x00\x00"), "no PING: {}", said.escape_ascii());
    // A client that answers stays: the library does.
    let mut client = proxy.h2().await;
    let longer = tokio::time::timeout(Duration::from_millis(1000), client.closed());
    assert!(longer.await.is_err(), "it was cut off");
}
