//! How is it noticed that an endpoint is no good, and that it is good again?

use crate::harness::h2::{Exchange, H2Upstream};
use crate::harness::proxy::{Proxy, everything_to, everything_to_with, items, routes};
use crate::harness::until;
use crate::harness::upstream::{Peer, Refusing, Upstream};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Answers checks with the status that it is told, and everything else with its name.
async fn checked(name: &'static str) -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let told = status.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            while let Some(request) = peer.request().await {
                let status = if request.head.target() == "/healthz" { told.load(Ordering::SeqCst) } else { 200 };
                let reply = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                if peer.try_send(reply).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (up, status)
}

const CHECK: &str =
    "health_check: { http: /healthz, interval: 20ms, timeout: 1s, healthy: 1, unhealthy: 2 }, outlier: off";

async fn wait_for_state(proxy: &Proxy, endpoint: &str, state: &str) {
    until(state, || async {
        let all = items(&proxy.api("endpoints").await);
        let found = all.iter().find(|e| e["address"] == endpoint)?;
        let now = match (&found["ejected"], &found["healthy"]) {
            (Value::Bool(true), _) => "ejected",
            (_, Value::Bool(true)) => "healthy",
            _ => "unhealthy",
        };
        (now == state).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_fails_its_checks_gets_no_requests_until_it_passes_them() {
    let (good, _) = checked("good").await;
    let (bad, status) = checked("bad").await;
    let proxy = routes(everything_to_with(&[&good, &bad], &format!("balance: round_robin, {CHECK}"))).start().await;
    status.store(500, Ordering::SeqCst);
    wait_for_state(&proxy, &bad.to_string(), "unhealthy").await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("a.test", "/").await.text(), "good");
    }
    status.store(200, Ordering::SeqCst);
    wait_for_state(&proxy, &bad.to_string(), "healthy").await;
    let mut names = std::collections::HashSet::new();
    for _ in 0..10 {
        names.insert(client.get("a.test", "/").await.text().to_owned());
    }
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn a_check_says_who_asks_and_for_what() {
    let (up, _) = checked("up").await;
    let check = "health_check: { http: /healthz, host: health.test, interval: 20ms }";
    let proxy = routes(everything_to_with(&[&up], check)).start().await;
    let request = up.wait_for_requests(1).await.remove(0);
    assert_eq!(request.head.first, "GET /healthz HTTP/1.1");
    assert_eq!(request.get("host"), Some("health.test"));
    proxy.wait_for_metric("tidegate_health_checks_total", &["result=\"success\""], 1.0).await;
}

#[tokio::test]
async fn a_tcp_check_needs_a_connection_and_no_more() {
    let refusing = Refusing::bind();
    let check = "health_check: { tcp: true, interval: 20ms, healthy: 1, unhealthy: 1 }";
    let proxy = routes(everything_to_with(&[&refusing.address], check)).start().await;
    let address = refusing.address.to_string();
    wait_for_state(&proxy, &address, "unhealthy").await;
    let _up = refusing.revive("back").await;
    wait_for_state(&proxy, &address, "healthy").await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "back");
}

#[tokio::test]
async fn a_grpc_check_reads_the_serving_status() {
    // HealthCheckResponse { status }: 1 is SERVING, 2 is NOT_SERVING.
    let status = Arc::new(AtomicU16::new(1));
    let told = status.clone();
    let up = H2Upstream::start(move |mut exchange: Exchange| {
        let told = told.clone();
        async move {
            let request = exchange.read().await.unwrap();
            assert_eq!(request.uri.path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.body, b"\x00\x00\x00\x00\x06\x0a\x04shop");
            let status = u8::try_from(told.load(Ordering::SeqCst)).unwrap();
            let body = [0, 0, 0, 0, 2, 8, status];
            exchange.reply(200, &[("content-type", "application/grpc")], &body, &[("grpc-status", "0")]);
        }
    })
    .await;
    let check = "protocol: http2, health_check: { grpc: shop, interval: 20ms, healthy: 1, unhealthy: 1 }";
    let proxy = routes(everything_to_with(&[&up], check)).start().await;
    let address = up.to_string();
    proxy.wait_for_metric("tidegate_health_checks_total", &["result=\"success\""], 1.0).await;
    status.store(2, Ordering::SeqCst);
    wait_for_state(&proxy, &address, "unhealthy").await;
    status.store(1, Ordering::SeqCst);
    wait_for_state(&proxy, &address, "healthy").await;
}

#[tokio::test]
async fn an_endpoint_that_fails_real_requests_is_put_aside() {
    let good = Upstream::text("good").await;
    let bad = Upstream::raw("HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nbad").await;
    let text = everything_to_with(&[&good, &bad], "balance: round_robin, outlier: { failures: 3, ejection: 60s }");
    let proxy = routes(text).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..30 {
        client.get("a.test", "/").await;
    }
    assert_eq!(bad.requests().len(), 3);
    assert_eq!(proxy.metric("tidegate_endpoint_ejections_total", &[]).await, 1.0);
    wait_for_state(&proxy, &bad.to_string(), "ejected").await;
}

#[tokio::test]
async fn never_more_than_half_of_the_endpoints_are_put_aside() {
    let bad = Upstream::raw("HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nbad").await;
    let worse = Upstream::raw("HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nworse").await;
    let text = everything_to_with(&[&bad, &worse], "balance: round_robin, outlier: { failures: 2, ejection: 60s }");
    let proxy = routes(text).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").await.status(), 503);
    }
    assert_eq!(proxy.metric("tidegate_endpoint_ejections_total", &[]).await, 1.0);
}

#[tokio::test]
async fn when_every_check_fails_requests_are_tried_all_the_same() {
    let (up, status) = checked("up").await;
    status.store(500, Ordering::SeqCst);
    let proxy = routes(everything_to_with(&[&up], CHECK)).start().await;
    wait_for_state(&proxy, &up.to_string(), "unhealthy").await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "up");
}

#[tokio::test]
async fn a_new_endpoint_starts_slowly() {
    let old = Upstream::text("old").await;
    let new = Upstream::text("new").await;
    let settings = "balance: random, slow_start: 1h";
    let proxy = routes(everything_to_with(&[&old], settings)).start().await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "old");
    proxy.reload(everything_to_with(&[&old, &new], settings)).await;
    let mut client = proxy.client().await;
    for _ in 0..200 {
        client.get("a.test", "/").await;
    }
    let share = new.requests().len();
    assert!((1..=60).contains(&share), "{share} of 200 for a tenth of the weight");
}

#[tokio::test]
async fn health_outlives_a_change_of_routes() {
    let good = Upstream::text("good").await;
    let bad = Upstream::raw("HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nbad").await;
    let text = everything_to_with(&[&good, &bad], "balance: round_robin, outlier: { failures: 2, ejection: 60s }");
    let proxy = routes(text.clone()).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        client.get("a.test", "/").await;
    }
    assert_eq!(bad.requests().len(), 2);
    proxy.reload(format!("other.test/: up\n---\n{text}")).await;
    for _ in 0..10 {
        assert_eq!(client.get("a.test", "/").await.text(), "good");
    }
    assert_eq!(bad.requests().len(), 2);
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_used_again() {
    let refusing = Refusing::bind();
    let proxy = routes(everything_to(&[&refusing.address])).start().await;
    assert_eq!(proxy.get("a.test", "/").await.status(), 502);
    let _up = refusing.revive("back").await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "back");
}
