//! When is an attempt repeated, and when never?

use crate::harness::proxy::{everything_to, everything_to_with, route_to, routes};
use crate::harness::upstream::{BlackHole, Peer, Refusing, Upstream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Answers with 503 as often as told, then with 200.
async fn failing(times: usize, reply: &'static str) -> (Upstream, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let counter = count.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let counter = counter.clone();
        async move {
            while peer.request().await.is_some() {
                let failed = counter.fetch_add(1, Ordering::SeqCst) < times;
                if failed && reply.is_empty() {
                    return peer.reset();
                }
                peer.send(if failed { reply } else { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" }).await;
            }
        }
    })
    .await;
    (up, count)
}

const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_refuses() {
    let refusing = Refusing::bind();
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to_with(&[&refusing.address, &up], "balance: round_robin")).start().await;
    let mut client = proxy.client().await;
    for n in 0..10 {
        assert_eq!(client.get("a.test", "/").await.text(), "ok", "GET {n}");
        assert_eq!(client.request("POST", "a.test", "/", &[], b"x").await.text(), "ok", "POST {n}");
    }
}

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_does_not_connect_in_time() {
    let hole = BlackHole::dig().await;
    let up = Upstream::text("ok").await;
    let text = everything_to_with(&[&hole.address, &up], "balance: round_robin, connect_timeout: 100ms");
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
    }
}

#[tokio::test]
async fn statuses_are_retried_where_the_route_says_so() {
    for (route, times, status, attempts) in [
        ("retry: { attempts: 3, on: [503] }", 2, 200, 3),
        ("retry: { attempts: 2, on: [503] }", 2, 503, 2),
        ("retry: { attempts: 3, on: [502] }", 1, 503, 1),
        ("retry: { attempts: 1 }", 1, 503, 1),
    ] {
        let (up, count) = failing(times, BUSY).await;
        let proxy = routes(route_to(&[&up], route, "outlier: off")).start().await;
        assert_eq!(proxy.get("a.test", "/").await.status(), status, "{route}");
        assert_eq!(count.load(Ordering::SeqCst), attempts, "{route}");
        let record = proxy.access_log(1).await.remove(0);
        assert_eq!(record["attempts"], attempts, "{record}");
    }
}

#[tokio::test]
async fn a_reset_is_retried_for_idempotent_methods_only() {
    for (method, body, status) in
        [("GET", &b""[..], 200), ("DELETE", b"", 200), ("POST", b"", 502), ("PATCH", b"", 502)]
    {
        let (up, _) = failing(1, "").await;
        let proxy = routes(route_to(&[&up], "retry: { attempts: 3 }", "outlier: off")).start().await;
        let response = proxy.client().await.request(method, "a.test", "/", &[], body).await;
        assert_eq!(response.status(), status, "{method}");
    }
}

#[tokio::test]
async fn a_request_whose_body_was_sent_is_never_sent_again() {
    let (up, count) = failing(5, "").await;
    let proxy = routes(route_to(&[&up], "retry: { attempts: 3 }", "outlier: off")).start().await;
    let response = proxy.client().await.request("PUT", "a.test", "/", &[], b"once").await;
    assert_eq!(response.status(), 502);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_closed_is_replaced_unnoticed() {
    let up = Upstream::start(|mut peer: Peer| async move {
        // Takes one request, then closes without a word as soon as the next one comes in.
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let _ = peer.head().await;
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "outlier: off")).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for n in 0..6 {
        assert_eq!(client.get("a.test", "/").await.text(), "ok", "request {n}");
    }
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_while_idle_costs_nothing() {
    let up = Upstream::raw_then_close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for n in 0..10 {
        let response = client.request("POST", "a.test", "/", &[], b"x").await;
        assert_eq!(response.status(), 200, "request {n}: {response:?}");
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let (up, count) = failing(usize::MAX, BUSY).await;
    let proxy =
        routes(route_to(&[&up], "retry: { attempts: 5, on: [503], backoff: 1ms }", "outlier: off")).start().await;
    let mut client = proxy.client().await;
    for _ in 0..100 {
        assert_eq!(client.get("a.test", "/").await.status(), 503);
    }
    let attempts = count.load(Ordering::SeqCst);
    assert!((101..=200).contains(&attempts), "{attempts} attempts for 100 requests");
    assert!(proxy.metric("tidegate_upstream_retries_denied_total", &[]).await > 0.0);
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_repeated_elsewhere() {
    let slow = Upstream::hanging().await;
    let fast = Upstream::text("fast").await;
    let route = "timeout: 10s, try_timeout: 100ms, retry: { attempts: 2, on: [timeout] }";
    let proxy =
        routes(route_to(&[&slow, &fast], route, "balance: round_robin, outlier: off, retry_budget: 100")).start().await;
    let mut client = proxy.client().await;
    for _ in 0..4 {
        assert_eq!(client.get("a.test", "/").await.text(), "fast");
    }
    assert!(!slow.requests().is_empty());
}

#[tokio::test]
async fn a_third_attempt_is_made_after_two_that_took_too_long() {
    let count = Arc::<AtomicUsize>::default();
    let counter = count.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let counter = counter.clone();
        async move {
            while peer.request().await.is_some() {
                if counter.fetch_add(1, Ordering::SeqCst) < 2 {
                    peer.closed().await;
                    return;
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let route = "try_timeout: 200ms, retry: { attempts: 3, on: [timeout] }";
    let proxy = routes(route_to(&[&up], route, "outlier: off")).start().await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn there_is_a_pause_before_the_third_attempt() {
    let (up, count) = failing(2, BUSY).await;
    let route = "retry: { attempts: 3, on: [503], backoff: 200ms }";
    let proxy = routes(route_to(&[&up], route, "outlier: off")).start().await;
    let before = tokio::time::Instant::now();
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
    assert!(before.elapsed() >= std::time::Duration::from_millis(100), "{:?}", before.elapsed());
    assert_eq!(count.load(Ordering::SeqCst), 3);
}
