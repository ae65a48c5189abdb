//! How does the program end?

use crate::harness::client::Client;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::wire::End;
use crate::harness::{until, within};
use rustix::process::Signal;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Answers each request when told to.
async fn held() -> (Upstream, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let told = go.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request.head.target() == "/slow" {
                    told.notified().await;
                }
                if peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (up, go)
}

#[tokio::test]
async fn an_idle_proxy_ends_at_once_and_with_success() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut idle = proxy.client().await;
    assert_eq!(idle.get("a.test", "/").await.text(), "ok");
    assert!(proxy.stop().await.success());
    assert_eq!(idle.end().await, End::Fin);
}

#[tokio::test]
async fn sigint_drains_as_well() {
    let proxy = routes(everything_to(&[])).start().await;
    proxy.signal(Signal::INT);
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_its_connection_closed() {
    let (up, go) = held().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let http = proxy.http().await;
    let mut client = Client::connect(http).await;
    client.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    up.wait_for_requests(1).await;
    proxy.signal(Signal::TERM);
    until("the end of accepting", || async { TcpStream::connect(http).await.err() }).await;
    go.notify_one();
    let response = client.response().await;
    assert_eq!((response.text(), response.get("connection")), ("ok", Some("close")));
    assert_eq!(client.end().await, End::Fin);
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn an_http2_client_is_told_to_go_away_and_its_stream_is_finished() {
    let (up, go) = held().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let (response, _stream) = client.open(crate::harness::h2::request("GET", "http://a.test/slow"), true).await;
    up.wait_for_requests(1).await;
    proxy.signal(Signal::TERM);
    until("a GOAWAY", || async { client.send.clone().ready().await.err() }).await;
    go.notify_one();
    let response = crate::harness::h2::collect(within("the response", response).await.unwrap()).await;
    assert_eq!(response.text(), "ok");
    assert!(client.end().await.is_ok());
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn what_does_not_end_by_the_deadline_is_cut_and_the_exit_code_says_so() {
    let (up, _go) = held().await;
    let proxy = routes(everything_to(&[&up])).section("drain", "{ deadline: 200ms }").start().await;
    let mut client = proxy.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    up.wait_for_requests(1).await;
    let status = proxy.stop().await;
    assert!(!status.success() && status.code().is_some(), "{status}");
    let (rest, _) = client.rest().await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn it_is_not_ready_before_it_stops_accepting() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).section("drain", "{ delay: 1s, deadline: 5s }").start().await;
    proxy.signal(Signal::TERM);
    until("not ready", || async { (proxy.admin_get("/readyz").await.status() == 503).then_some(()) }).await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok", "new connections are still taken");
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn an_open_websocket_does_not_hold_the_end_up_beyond_the_deadline() {
    let up = Upstream::start(|mut peer: Peer| async move {
        let Some(request) = peer.request().await else { return };
        let key = request.get("sec-websocket-key").unwrap().to_owned();
        peer.send(crate::harness::websocket::welcome(&key)).await;
        peer.closed().await;
    })
    .await;
    let proxy = routes(everything_to(&[&up])).section("drain", "{ deadline: 200ms }").start().await;
    let mut client = proxy.client().await;
    client.send(crate::harness::websocket::handshake("a.test", "/")).await;
    assert_eq!(client.response_head().await.status(), 101);
    proxy.signal(Signal::TERM);
    proxy.ended().await;
    client.rest().await;
}
