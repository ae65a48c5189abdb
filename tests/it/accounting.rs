//! After clients and upstreams did everything they can to each other, is nothing left behind and every request counted once?

use crate::harness::client::Client;
use crate::harness::h2::{H2Client, request};
use crate::harness::proxy::{Proxy, routes};
use crate::harness::until;
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::websocket::{handshake, text_frame, welcome};
use ::h2::Reason;
use std::net::SocketAddr;

/// Does what the path of each request says.
async fn moody() -> Upstream {
    Upstream::start(|mut peer: Peer| async move {
        loop {
            let Ok(head) = peer.head().await else { return };
            match head.target() {
                "/reset" => return peer.reset(),
                "/close" => return,
                "/hang" => {
                    peer.closed().await;
                    return;
                }
                "/cut" => {
                    let _ = peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                    return;
                }
                "/garbage" => {
                    let _ = peer.try_send("nonsense\r\n\r\n").await;
                    return;
                }
                "/early" => {
                    let _ = peer.try_send("HTTP/1.1 413 Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                    return;
                }
                "/endless" => {
                    let _ = peer.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                    while peer.try_send("5\r\nhello\r\n").await.is_ok() {}
                    return;
                }
                "/socket" => {
                    let key = head.get("sec-websocket-key").unwrap().to_owned();
                    let _ = peer.try_send(welcome(&key)).await;
                    while let Some(bytes) = peer.some().await {
                        if peer.try_send(bytes).await.is_err() {
                            return;
                        }
                    }
                    return;
                }
                _ => {
                    if peer.body(head, false, true).await.cut.is_some() {
                        return;
                    }
                    if peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                        return;
                    }
                }
            }
        }
    })
    .await
}

/// Requests of HTTP/1 clients; how many heads were sent whole.
async fn over_http1(http: SocketAddr) -> u32 {
    let mut sent = 0;
    for path in ["/", "/reset", "/close", "/hang", "/cut", "/garbage", "/early", "/endless"] {
        let mut client = Client::connect(http).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        sent += 1;
        match path {
            // Vanishes while the upstream is at work.
            "/hang" => client.reset(),
            "/endless" => {
                client.response_head().await;
                client.reset();
            }
            _ => {
                let _ = client.head().await;
            }
        }
        // Vanishes amid its own body.
        let mut client = Client::connect(http).await;
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf").await;
        sent += 1;
        client.reset();
    }
    let mut client = Client::connect(http).await;
    client.send(handshake("a.test", "/socket")).await;
    assert_eq!(client.response_head().await.status(), 101);
    client.send(text_frame("hello", true)).await;
    client.reset();
    sent + 1
}

/// The same over HTTP/2.
async fn over_http2(http: SocketAddr) -> u32 {
    let mut sent = 0;
    let mut client = H2Client::cleartext(http).await;
    for path in ["/", "/reset", "/close", "/cut", "/garbage", "/early"] {
        let _ = client.exchange(request("GET", &format!("http://a.test{path}")), b"", None).await;
        sent += 1;
    }
    for path in ["/hang", "/endless"] {
        let (response, mut stream) = client.open(request("GET", &format!("http://a.test{path}")), true).await;
        sent += 1;
        if path == "/endless" {
            response.await.unwrap();
        } else {
            drop(response);
        }
        stream.send_reset(Reason::CANCEL);
    }
    let (_response, _stream) = client.open(request("GET", "http://a.test/hang"), true).await;
    assert_eq!(client.get("http", "a.test", "/").await.text(), "ok");
    client.vanish();
    sent + 2
}

async fn wait_for_zero(proxy: &Proxy, family: &str) {
    until(family, || async { (proxy.metric(family, &[]).await == 0.0).then_some(()) }).await;
}

#[tokio::test]
async fn nothing_is_left_behind_and_every_request_is_recorded_once() {
    let up = moody().await;
    let text = format!(
        "hosts: [a.test]\nroutes: [{{ path: /, to: up, timeout: 5s }}]\n---\nclusters:\n  up: {{ endpoints: [\"{up}\"], outlier: off }}\n"
    );
    let proxy = routes(text).start().await;
    let http = proxy.http().await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(tokio::spawn(over_http1(http)));
        tasks.push(tokio::spawn(over_http2(http)));
    }
    let mut sent = 0;
    for task in tasks {
        sent += task.await.unwrap();
    }
    for family in [
        "tidegate_requests_in_flight",
        "tidegate_upstream_in_flight",
        "tidegate_upstream_queued",
        "tidegate_upgrades_open",
        "tidegate_connections_open",
    ] {
        wait_for_zero(&proxy, family).await;
    }
    let records = proxy.access_log(1).await.len();
    let counted = proxy.metric("tidegate_requests_total", &[]).await;
    // A client that vanishes before its head was read was no request.
    assert!(counted <= f64::from(sent), "{counted} counted, {sent} sent");
    assert!(counted >= f64::from(sent) * 0.8, "{counted} counted, {sent} sent");
    let records = proxy.access_log(counted as usize).await.len().max(records);
    assert_eq!(records as f64, counted);
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
    assert!(proxy.stop().await.success());
}
