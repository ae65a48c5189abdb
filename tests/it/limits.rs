//! What happens when there is more than there may be?

use crate::harness::client::Client;
use crate::harness::h2::{H2Client, request};
use crate::harness::proxy::{Proxy, everything_to, everything_to_with, routes};
use crate::harness::until;
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::wire::End;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Answers a request for each permit.
async fn gated() -> (Upstream, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let told = gate.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            while peer.request().await.is_some() {
                told.acquire().await.unwrap().forget();
                if peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (up, gate)
}

async fn asking(address: std::net::SocketAddr) -> Client {
    let mut client = Client::connect(address).await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    client
}

#[tokio::test]
async fn requests_beyond_the_place_of_an_endpoint_wait_in_line() {
    let (up, gate) = gated().await;
    let proxy = routes(everything_to_with(&[&up], "max_in_flight: 2, queue_timeout: 60s")).start().await;
    let http = proxy.http().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(asking(http).await);
    }
    proxy.wait_for_metric("tidegate_upstream_queued", &[], 3.0).await;
    // What was sent may still be on its way.
    until("two requests at the upstream", || async { (up.requests().len() >= 2).then_some(()) }).await;
    assert_eq!(up.requests().len(), 2);
    gate.add_permits(5);
    for mut client in clients {
        assert_eq!(client.response().await.text(), "ok");
    }
}

#[tokio::test]
async fn a_full_queue_and_a_long_wait_are_503() {
    let (up, _gate) = gated().await;
    let proxy = routes(everything_to_with(&[&up], "max_in_flight: 1, max_queue: 1, queue_timeout: 200ms"))
        .section("workers", "1")
        .start()
        .await;
    let http = proxy.http().await;
    let _running = asking(http).await;
    up.wait_for_requests(1).await;
    let mut waiting = asking(http).await;
    proxy.wait_for_metric("tidegate_upstream_queued", &[], 1.0).await;
    assert_eq!(asking(http).await.response().await.status(), 503);
    let late = waiting.response().await;
    assert_eq!(late.status(), 503);
    let reasons: Vec<_> = proxy.access_log(2).await.iter().map(|r| r["reason"].clone()).collect();
    assert_eq!(reasons, ["queue_full", "queue_timeout"]);
}

/// A line of one that nobody leaves by waiting too long.
const LINE: &str = "max_in_flight: 1, max_queue: 1, queue_timeout: 60s";

async fn wait_for_an_empty_line(proxy: &Proxy) {
    until("an empty queue", || async { (proxy.metric("tidegate_upstream_queued", &[]).await == 0.0).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_the_line_makes_room() {
    let (up, gate) = gated().await;
    let proxy = routes(everything_to_with(&[&up], LINE)).start().await;
    let http = proxy.http().await;
    let mut running = asking(http).await;
    up.wait_for_requests(1).await;
    let leaving = asking(http).await;
    proxy.wait_for_metric("tidegate_upstream_queued", &[], 1.0).await;
    leaving.reset();
    wait_for_an_empty_line(&proxy).await;
    let mut next = asking(http).await;
    gate.add_permits(2);
    assert_eq!(running.response().await.text(), "ok");
    assert_eq!(next.response().await.text(), "ok");
    assert_eq!(up.requests().len(), 2, "who left is not asked for");
}

#[tokio::test]
async fn an_http2_stream_that_is_reset_in_the_line_makes_room() {
    let (up, gate) = gated().await;
    let proxy = routes(everything_to_with(&[&up], LINE)).start().await;
    let http = proxy.http().await;
    let mut running = asking(http).await;
    up.wait_for_requests(1).await;
    let mut client = proxy.h2().await;
    let (response, mut stream) = client.open(request("GET", "http://a.test/"), true).await;
    proxy.wait_for_metric("tidegate_upstream_queued", &[], 1.0).await;
    stream.send_reset(::h2::Reason::CANCEL);
    drop(response);
    wait_for_an_empty_line(&proxy).await;
    gate.add_permits(2);
    assert_eq!(running.response().await.text(), "ok");
    assert_eq!(client.get("http", "a.test", "/").await.text(), "ok");
    assert_eq!(up.requests().len(), 2, "what was reset is not asked for");
}

#[tokio::test]
async fn the_limit_of_a_request_holds_while_it_waits_in_the_line() {
    let (up, _gate) = gated().await;
    let text = format!(
        "a.test/: up\nb.test/: {{ to: up, timeout: 300ms }}\n---\nclusters:\n  up: {{ endpoints: \"{up}\", {LINE} }}\n"
    );
    let proxy = routes(text).start().await;
    let http = proxy.http().await;
    let _running = asking(http).await;
    up.wait_for_requests(1).await;
    assert_eq!(proxy.get("b.test", "/").await.status(), 503);
    wait_for_an_empty_line(&proxy).await;
}

#[tokio::test]
async fn a_place_that_becomes_free_is_given_to_who_waits() {
    let (up, gate) = gated().await;
    let proxy = routes(everything_to_with(&[&up], LINE)).start().await;
    let http = proxy.http().await;
    let mut running = asking(http).await;
    up.wait_for_requests(1).await;
    let mut waiting = asking(http).await;
    proxy.wait_for_metric("tidegate_upstream_queued", &[], 1.0).await;
    assert_eq!(up.requests().len(), 1);
    gate.add_permits(1);
    assert_eq!(running.response().await.text(), "ok");
    up.wait_for_requests(2).await;
    wait_for_an_empty_line(&proxy).await;
    gate.add_permits(1);
    assert_eq!(waiting.response().await.text(), "ok");
}

#[tokio::test]
async fn connections_beyond_the_limit_of_a_listener_are_closed_and_the_admin_port_stays() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("limits: { connections: 3 }").start().await;
    let http = proxy.http().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(http).await;
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
        held.push(client);
    }
    let rest = Client::all_of(http).await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 503 "), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(proxy.admin_get("/healthz").await.status(), 200);
    assert!(proxy.metric("tidegate_connections_refused_total", &["reason=\"limit\""]).await >= 1.0);
    drop(held.pop());
    crate::harness::until("a free place", || async {
        Client::all_of(http).await.starts_with(b"HTTP/1.1 200 ").then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_source_address_cannot_take_all_connections() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("limits: { connections_per_source: 2 }").start().await;
    let http = proxy.http().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(http).await;
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
        held.push(client);
    }
    assert!(Client::all_of(http).await.is_empty());
    assert!(proxy.metric("tidegate_connections_refused_total", &["reason=\"source_limit\""]).await >= 1.0);
    assert_eq!(Client::connect_from("127.0.0.2", http).await.get("a.test", "/").await.text(), "ok");
}

#[tokio::test]
async fn idle_connections_to_an_upstream_are_few_and_end_in_time() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to_with(&[&up], "idle_timeout: 100ms")).section("workers", "1").start().await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
    crate::harness::until("no open upstream connection", || async {
        (proxy.metric("tidegate_upstream_connections_open", &[]).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
    assert_eq!(up.connections(), 2);
}

#[tokio::test]
async fn no_idle_connection_is_kept_where_none_may_be() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to_with(&[&up], "max_idle: 0")).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
    }
    assert_eq!(up.connections(), 3);
}

#[tokio::test]
async fn a_body_limit_ends_a_stream_without_reading_it_all() {
    let up = Upstream::start(|mut peer: Peer| async move {
        let _ = peer.head().await;
        assert!(matches!(peer.closed().await, End::Fin | End::Reset));
    })
    .await;
    let text = crate::harness::proxy::route_to(&[&up], "max_body: 1KiB", "outlier: off");
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    for _ in 0..4 {
        let _ = client.try_send(&chunk).await;
    }
    let response = client.response().await;
    assert_eq!((response.status(), response.get("connection")), (413, Some("close")));
}

#[tokio::test]
async fn the_largest_heads_that_can_be_asked_for_are_taken() {
    let proxy = routes("\"*/\": { respond: { body: ok } }\n")
        .http("limits: { head: 256KiB, target: 200KiB, headers: 256 }")
        .listener("small", "127.0.0.1:0", "limits: { head: 256KiB, http2_head: 4KiB }")
        .start()
        .await;
    let (http, small) = (proxy.http().await, proxy.address("small").await);
    let with = |length: usize| format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Large: {}\r\n\r\n", "x".repeat(length));
    let around = with(0).len();
    for address in [http, small] {
        let mut client = Client::connect(address).await;
        client.send(with(256 * 1024 - around)).await;
        assert_eq!(client.response().await.text(), "ok");
        Client::connect(address).await.refused(with(256 * 1024 - around + 1), 431).await;
    }
    let mut client = Client::connect(http).await;
    let path = format!("/{}", "x".repeat(200 * 1024 - 1));
    assert_eq!(client.get("a.test", &path).await.text(), "ok");
    let fields: Vec<_> = (0..255).map(|n| format!("x-{n}")).collect();
    let fields: Vec<_> = fields.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(client.request("GET", "a.test", "/", &fields, b"").await.text(), "ok");
    for (address, fits, beyond) in [(http, 30_000, 33_000), (small, 3_000, 5_000)] {
        let mut client = H2Client::cleartext(address).await;
        for (length, status) in [(fits, 200), (beyond, 431)] {
            let mut large = request("GET", "http://a.test/");
            large.headers_mut().insert("x-large", "x".repeat(length).parse().unwrap());
            assert_eq!(client.request(large, b"").await.status, status, "{length}");
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_of_the_process_are_closed_over_all_listeners() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up]))
        .listener("one", "127.0.0.1:0", "")
        .listener("two", "127.0.0.1:0", "")
        .section("limits", "{ connections: 2, admin_reserve: 16 }")
        .start()
        .await;
    let (one, two) = (proxy.address("one").await, proxy.address("two").await);
    let mut held = Vec::new();
    for address in [one, two] {
        let mut client = Client::connect(address).await;
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
        held.push(client);
    }
    for address in [one, two] {
        let rest = Client::all_of(address).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 503 "), "{:?}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(proxy.admin_get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn clients_that_take_every_place_leave_the_operator_his() {
    let up = Upstream::hanging().await;
    let proxy = routes(everything_to_with(&[&up], "outlier: off"))
        .section("limits", "{ connections: 100000, admin_reserve: 60 }")
        .files(180)
        .start()
        .await;
    let http = proxy.http().await;
    let mut held = Vec::new();
    // Half of what is not kept: each connection may need another one to an upstream.
    for _ in 0..60 {
        held.push(asking(http).await);
    }
    up.wait_for_requests(60).await;
    for _ in 0..20 {
        let rest = Client::all_of(http).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 503 "), "{:?}", String::from_utf8_lossy(&rest));
    }
    let mut operators = Vec::new();
    for _ in 0..8 {
        let mut operator = Client::connect(proxy.admin).await;
        assert_eq!(operator.get("localhost", "/readyz").await.status(), 200);
        operators.push(operator);
    }
    assert!(proxy.metric("tidegate_connections_refused_total", &["reason=\"limit\""]).await >= 20.0);
    assert_eq!(proxy.metric("tidegate_connections_open", &[]).await, 60.0);
    assert!(!proxy.log().contains("cannot accept"), "{}", proxy.log());
}
