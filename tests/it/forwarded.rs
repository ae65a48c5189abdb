//! What is an upstream told about the client, and what of it can a client forge?

use crate::harness::certs::Authority;
use crate::harness::client::Client;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn a_stranger_cannot_say_where_it_comes_from() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Port", "1"),
        ("Forwarded", "for=6.6.6.6;proto=https"),
        ("X-Real-Ip", "6.6.6.6"),
        ("X-Request-Id", "forged"),
        ("Client-Cert", ":forged:"),
    ];
    let http = proxy.http().await;
    let host = format!("a.test:{}", http.port());
    proxy.client().await.request("GET", &host, "/", &forged, b"").await;
    let seen = up.request();
    assert_eq!(seen.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.get("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.get("x-forwarded-host"), Some(host.as_str()));
    assert_eq!(seen.get("x-forwarded-port"), Some(http.port().to_string().as_str()));
    assert_eq!((seen.get("forwarded"), seen.get("client-cert")), (None, None));
    assert_ne!(seen.get("x-real-ip"), Some("6.6.6.6"));
    assert!(seen.get("x-request-id").is_some_and(|id| id != "forged" && id.len() >= 16));
}

#[tokio::test]
async fn the_walk_through_trusted_proxies_goes_from_right_to_left() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up]))
        .http("trusted_proxies: [127.0.0.0/8, 10.0.0.0/8], proxy_headers: { forwarded: true }")
        .start()
        .await;
    let mut client = proxy.client().await;
    let fields = [
        ("X-Forwarded-For", "6.6.6.6, 1.2.3.4, 10.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.test"),
        ("X-Request-Id", "kept-0123456789"),
    ];
    client.request("GET", "a.test", "/", &fields, b"").await;
    let seen = up.request();
    let chain = seen.get("x-forwarded-for").unwrap();
    assert!(chain.ends_with("10.0.0.1, 127.0.0.1") && chain.contains("1.2.3.4"), "{chain}");
    assert_eq!(seen.get("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.get("x-forwarded-host"), Some("shop.test"));
    assert_eq!(seen.get("x-request-id"), Some("kept-0123456789"));
    assert!(seen.has("forwarded"));
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!(record["client"], "1.2.3.4", "{record}");
    assert_eq!(record["request_id"], "kept-0123456789");
}

#[tokio::test]
async fn forwarded_of_rfc_7239_is_written_with_quoted_addresses() {
    let up = Upstream::text("ok").await;
    let proxy =
        routes(everything_to(&[&up])).listener("http", "[::1]:0", "proxy_headers: { forwarded: true }").start().await;
    proxy.get("a.test", "/").await;
    let seen = up.request().get("forwarded").unwrap().to_ascii_lowercase();
    assert!(seen.contains("for=\"[::1]\"") && seen.contains("proto=http") && seen.contains("host=a.test"), "{seen}");
}

#[tokio::test]
async fn what_is_told_can_be_switched_off() {
    let up = Upstream::raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: up/1\r\n\r\n").await;
    let off = "proxy_headers: { x_forwarded: false, request_id: false, server: remove }";
    let proxy = routes(everything_to(&[&up])).http(off).start().await;
    let response = proxy.client().await.request("GET", "a.test", "/", &[("X-Forwarded-For", "6.6.6.6")], b"").await;
    assert!(!response.has("server"));
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-request-id"] {
        assert!(!up.request().has(name), "{name}");
    }
}

#[tokio::test]
async fn via_and_server_are_as_chosen() {
    let up = Upstream::raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: up/1\r\nVia: 1.0 inner\r\n\r\n").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let response = proxy.get("a.test", "/").await;
    assert_eq!((response.get("server"), response.get("via")), (Some("up/1"), Some("1.0 inner")));
    assert!(!up.request().has("via"));
    let proxy = routes(everything_to(&[&up])).http("proxy_headers: { via: true, server: { set: gate } }").start().await;
    let response = proxy.client().await.request("GET", "a.test", "/", &[("Via", "1.1 outer")], b"").await;
    assert_eq!(response.get("server"), Some("gate"));
    let via = response.head.all("via").join(", ");
    assert!(via.starts_with("1.0 inner, 1.1 "), "{via}");
    let via = up.requests()[1].head.all("via").join(", ");
    assert!(via.starts_with("1.1 outer, 1.1 "), "{via}");
}

#[tokio::test]
async fn every_request_has_an_id_of_its_own() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        client.get("a.test", "/").await;
    }
    let ids: std::collections::HashSet<_> =
        up.requests().iter().map(|r| r.get("x-request-id").unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 20);
    let logged: std::collections::HashSet<_> =
        proxy.access_log(20).await.iter().map(|r| r["request_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, logged);
}

#[tokio::test]
async fn the_scheme_told_is_that_of_the_connection() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up])).https("").certificate("a", &authority.issue(&["a.test"])).start().await;
    let mut client = Client::tls(proxy.https().await, &authority.client(&["http/1.1"]), "a.test").await;
    assert_eq!(client.get("a.test", "/").await.status(), 200);
    assert_eq!(up.request().get("x-forwarded-proto"), Some("https"));
}
