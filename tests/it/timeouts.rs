//! How long is anybody waited for?

use crate::harness::client::{Client, tcp};
use crate::harness::h2::request;
use crate::harness::proxy::{everything_to, everything_to_with, route_to, routes};
use crate::harness::upstream::{BlackHole, Peer, Upstream};
use crate::harness::wire::End;

#[tokio::test]
async fn a_head_that_does_not_come_whole_in_time_is_408() {
    let proxy = routes(everything_to(&[])).http("timeouts: { head: 200ms }").start().await;
    let client = proxy.client().await;
    client.refused("GET / HTTP/1.1\r\nHost: a.te", 408).await;
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off_all_the_same() {
    let proxy = routes(everything_to(&[])).http("timeouts: { head: 300ms }").start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\n").await;
    let mut sent = 0;
    while client.try_send("X-A: 1\r\n").await.is_ok() && sent < 90 {
        sent += 1;
        if tokio::time::timeout(std::time::Duration::from_millis(20), client.some()).await.is_ok_and(|s| s.is_some()) {
            return;
        }
    }
    panic!("{sent} lines trickled in");
}

#[tokio::test]
async fn a_connection_that_says_nothing_ends_quietly() {
    let proxy = routes(everything_to(&[])).http("timeouts: { head: 200ms, keep_alive: 200ms }").start().await;
    let mut client = proxy.client().await;
    let (rest, end) = client.rest().await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "), "{rest:?}");
    assert_eq!(end, End::Fin);
}

#[tokio::test]
async fn a_kept_connection_ends_when_nothing_comes_for_long() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("timeouts: { keep_alive: 200ms }").start().await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("a.test", "/").await.text(), "ok");
    assert_eq!(client.end().await, End::Fin);
    let h2 = proxy.h2().await;
    assert!(h2.end().await.is_ok());
}

#[tokio::test]
async fn a_request_body_that_stops_coming_is_408() {
    let up = Upstream::hanging().await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 200ms", "outlier: off")).start().await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.get("connection")), (408, Some("close")));
}

#[tokio::test]
async fn a_request_body_that_trickles_is_408_and_no_fault_of_the_upstream() {
    let up = Upstream::hanging().await;
    let limits = "limits: { body_rate: 1KiB }, timeouts: { body: 400ms }";
    let proxy = routes(everything_to(&[&up])).http(limits).start().await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n").await;
    let mut answer = None;
    while answer.is_none() && client.try_send("x").await.is_ok() {
        answer = tokio::time::timeout(std::time::Duration::from_millis(20), client.some()).await.ok().flatten();
    }
    assert!(answer.is_some_and(|answer| answer.starts_with(b"HTTP/1.1 408 ")));
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!((record["reason"].as_str(), record["status"].as_u64()), (Some("body_timeout"), Some(408)));
}

#[tokio::test]
async fn a_response_body_that_stops_coming_is_cut() {
    let up = Upstream::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        peer.closed().await;
    })
    .await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 200ms", "outlier: off")).start().await;
    let message = proxy.get("a.test", "/").await;
    assert_eq!((message.body.as_slice(), message.cut.is_some()), (&b"half"[..], true));
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_504() {
    let up = Upstream::hanging().await;
    for route in ["timeout: 200ms", "timeout: 10s, try_timeout: 200ms, retry: { attempts: 1 }"] {
        let proxy = routes(route_to(&[&up], route, "outlier: off")).start().await;
        let mut client = proxy.client().await;
        assert_eq!(client.get("a.test", "/").await.status(), 504, "{route}");
        assert_eq!(client.get("a.test", "/").await.status(), 504, "the connection stays: {route}");
    }
}

#[tokio::test]
async fn the_limit_of_a_request_holds_while_it_waits_in_line_and_while_it_connects() {
    let up = Upstream::hanging().await;
    let text = route_to(&[&up], "timeout: 400ms", "max_in_flight: 1, queue_timeout: 60s, outlier: off");
    let proxy = routes(text.replace("timeout: 400ms", "timeout: 60s")).start().await;
    let mut held = proxy.client().await;
    held.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    up.wait_for_requests(1).await;
    proxy.reload(text).await;
    assert_eq!(proxy.get("a.test", "/").await.status(), 503, "in line");
    let hole = BlackHole::dig().await;
    for route in ["timeout: 400ms", "try_timeout: 400ms, retry: { attempts: 1 }"] {
        let proxy = routes(route_to(&[&hole.address], route, "connect_timeout: 60s")).start().await;
        assert_eq!(proxy.get("a.test", "/").await.status(), 504, "connecting: {route}");
    }
}

#[tokio::test]
async fn nobody_connects_for_a_client_that_is_gone() {
    let hole = BlackHole::dig().await;
    let proxy = routes(everything_to_with(&[&hole.address], "connect_timeout: 60s")).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    proxy.wait_for_metric("tidegate_upstream_in_flight", &[], 1.0).await;
    client.reset();
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!((record["status"].as_u64(), record["reason"].as_str()), (Some(499), Some("client_gone")));
}

#[tokio::test]
async fn the_limit_of_a_request_holds_for_its_response_body_too() {
    let up = Upstream::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while peer.try_send("1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let proxy = routes(route_to(&[&up], "timeout: 300ms", "outlier: off")).start().await;
    let message = proxy.get("a.test", "/").await;
    assert!(message.cut.is_some() && !message.body.is_empty(), "{message:?}");
}

#[tokio::test]
async fn the_limit_of_a_request_holds_for_a_body_that_is_relayed_to_an_http2_client() {
    let tick = Some(std::time::Duration::from_millis(5));
    for (pause, limits) in [
        (None, "timeout: 300ms, idle_timeout: 60s"),
        (tick, "timeout: 300ms, idle_timeout: 60s"),
        (None, "timeout: 600ms, idle_timeout: 60s, try_timeout: 300ms"),
    ] {
        let up = Upstream::start(move |mut peer: Peer| async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").await;
            // Says no more, or goes on for ever.
            let Some(pause) = pause else {
                peer.closed().await;
                return;
            };
            while peer.try_send("1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        })
        .await;
        let proxy = routes(route_to(&[&up], limits, "outlier: off")).start().await;
        let response = proxy.h2().await.request(request("GET", "http://a.test/"), b"").await;
        assert!(response.reset.is_some() && !response.body.is_empty(), "{limits}: {response:?}");
        let record = proxy.access_log(1).await.remove(0);
        assert_eq!(record["reason"], "upstream_timeout", "{limits}: {record}");
    }
}

#[tokio::test]
async fn the_limit_of_an_attempt_ends_with_the_head_of_its_answer() {
    let up = Upstream::start(|mut peer: Peer| async move {
        while peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
            tokio::time::sleep(std::time::Duration::from_millis(600)).await;
            peer.send("late").await;
        }
    })
    .await;
    let proxy = routes(route_to(&[&up], "try_timeout: 200ms", "outlier: off")).start().await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "late");
    assert_eq!(proxy.h2().await.get("http", "a.test", "/").await.text(), "late");
}

#[tokio::test]
async fn an_http2_client_is_told_of_an_answer_that_does_not_come_in_time() {
    let up = Upstream::hanging().await;
    let proxy = routes(route_to(&[&up], "timeout: 200ms", "outlier: off")).start().await;
    let mut client = proxy.h2().await;
    for _ in 0..2 {
        assert_eq!(client.get("http", "a.test", "/").await.status, 504);
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_in_time_ends_the_connection() {
    let authority = crate::harness::certs::Authority::new("tests");
    let proxy = routes(everything_to(&[]))
        .https("timeouts: { handshake: 200ms }")
        .certificate("a", &authority.issue(&["a.test"]))
        .start()
        .await;
    let mut silent = Client::over(tcp(proxy.https().await).await);
    let (rest, _) = silent.rest().await;
    assert!(rest.len() < 16, "no more than an alert: {rest:?}");
}
