//! What does a client get when there is nothing to pass on?

use crate::harness::certs::Authority;
use crate::harness::proxy::{everything_to, everything_to_with, route_to, routes};
use crate::harness::upstream::{BlackHole, Peer, Refusing, Upstream};
use serde_json::Value;

#[tokio::test]
async fn an_upstream_that_refuses_is_502_that_swallows_504_and_that_is_absent_503() {
    let refusing = Refusing::bind();
    let hole = BlackHole::dig().await;
    let hanging = Upstream::hanging().await;
    let resetting = Upstream::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.reset();
    })
    .await;
    let closing = Upstream::raw_then_close("").await;
    for (text, status, reason) in [
        (everything_to(&[&refusing.address]), 502, "connect_failed"),
        (everything_to_with(&[&hole.address], "connect_timeout: 100ms"), 504, "connect_timeout"),
        (route_to(&[&hanging], "timeout: 100ms", "balance: random"), 504, "upstream_timeout"),
        (everything_to(&[&resetting]), 502, "upstream_reset"),
        (everything_to(&[&closing]), 502, "upstream_reset"),
        (everything_to(&[]), 503, "no_endpoints"),
    ] {
        let proxy = routes(text).start().await;
        let mut client = proxy.client().await;
        let response = client.get("a.test", "/").await;
        assert_eq!(response.status(), status, "{reason}");
        let record = proxy.access_log(1).await.remove(0);
        assert_eq!((&record["status"], &record["reason"]), (&Value::from(status), &Value::from(reason)));
        assert_eq!(proxy.metric("tidegate_own_responses_total", &[&format!("reason=\"{reason}\"")]).await, 1.0);
        assert_eq!(client.get("a.test", "/").await.status(), status, "the client's connection stays");
    }
}

#[tokio::test]
async fn a_cluster_without_endpoints_says_when_to_come_back() {
    let proxy = routes(everything_to(&[])).start().await;
    let response = proxy.get("a.test", "/").await;
    assert_eq!(response.status(), 503);
    assert!(response.get("retry-after").is_some_and(|v| v.parse::<u32>().is_ok()), "{response:?}");
}

#[tokio::test]
async fn a_host_or_path_without_a_route_is_404_and_says_which() {
    let proxy = routes("a.test/x/: up\n---\nclusters:\n  up: { endpoints: [\"127.0.0.1:1\"] }\n")
        .section("workers", "1")
        .start()
        .await;
    assert_eq!(proxy.get("b.test", "/x/").await.status(), 404);
    assert_eq!(proxy.get("a.test", "/y/").await.status(), 404);
    let reasons: Vec<_> = proxy.access_log(2).await.iter().map(|r| r["reason"].as_str().unwrap().to_owned()).collect();
    assert_eq!(reasons, ["no_host", "no_route"]);
}

#[tokio::test]
async fn the_body_of_an_error_is_what_the_client_accepts() {
    let proxy = routes(everything_to(&[])).start().await;
    let mut client = proxy.client().await;
    for (accept, kind) in [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("application/json", "application/json"),
        ("application/problem+json, application/json", "application/"),
        ("text/plain", "text/plain"),
        ("*/*", "text/plain"),
        ("image/png", "text/plain"),
    ] {
        let response = client.request("GET", "a.test", "/", &[("Accept", accept)], b"").await;
        assert_eq!(response.status(), 503);
        let sent = response.get("content-type").unwrap();
        assert!(sent.starts_with(kind), "{accept}: {sent}");
        assert!(!response.text().is_empty());
        if kind == "application/json" {
            let body: Value = serde_json::from_str(response.text()).unwrap();
            assert_eq!(body["status"], 503, "{body}");
            assert!(response.text().contains("no_endpoints"), "{body}");
        }
    }
    let head = client.request("HEAD", "a.test", "/", &[], b"").await;
    assert_eq!((head.status(), head.body.len()), (503, 0));
}

#[tokio::test]
async fn an_error_page_repeats_nothing_that_the_client_sent() {
    let proxy = routes(everything_to(&[])).start().await;
    let fields = [("Accept", "text/html"), ("User-Agent", "<script>x</script>")];
    let response = proxy.client().await.request("GET", "a.test", "/<script>alert(1)</script>", &fields, b"").await;
    assert!(!response.text().contains("<script>"), "{}", response.text());
}

#[tokio::test]
async fn an_upstream_with_another_certificate_is_502_and_never_asked() {
    let (authority, stranger) = (Authority::new("right"), Authority::new("wrong"));
    let config = stranger.server(&stranger.issue(&["up.internal"]), &[], false);
    let up = Upstream::start_tls(config, |mut peer: Peer| async move {
        peer.request().await;
    })
    .await;
    let text = everything_to_with(&[&up], "tls: { ca: ca.pem, server_name: up.internal }");
    let proxy = routes(text).file("ca.pem", &authority.pem).start().await;
    assert_eq!(proxy.get("a.test", "/").await.status(), 502);
    assert!(up.requests().is_empty());
}

#[tokio::test]
async fn an_upstream_over_tls_is_reached_when_its_name_and_authority_fit() {
    let authority = Authority::new("right");
    for (name, status) in [("up.internal", 200), ("other.internal", 502)] {
        let config = authority.server(&authority.issue(&["up.internal"]), &[], false);
        let up = Upstream::start_tls(config, |mut peer: Peer| async move {
            while peer.request().await.is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        })
        .await;
        let text = everything_to_with(&[&up], &format!("tls: {{ ca: ca.pem, server_name: {name} }}"));
        let proxy = routes(text).file("ca.pem", &authority.pem).start().await;
        assert_eq!(proxy.get("a.test", "/").await.status(), status, "{name}");
    }
}
