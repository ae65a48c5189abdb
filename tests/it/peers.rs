//! Do the peers of the tests themselves do what they say? Without a proxy between them.

use crate::harness::certs::Authority;
use crate::harness::client::Client;
use crate::harness::h2::{H2Client, H2Upstream, grpc_frame, request};
use crate::harness::upstream::{BlackHole, Refusing, Upstream};
use crate::harness::websocket;
use crate::harness::wire::End;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_client_reads_what_an_upstream_says_and_the_upstream_notes_every_byte() {
    let upstream = Upstream::text("hello").await;
    let mut client = Client::connect(upstream.address).await;
    assert_eq!(client.get("a.test", "/x").await.text(), "hello");
    assert_eq!(client.request("POST", "a.test", "/y", &[("x-a", "1")], b"body").await.text(), "hello");
    assert_eq!(upstream.requests()[1].body, b"body");
    assert_eq!(upstream.requests()[1].get("X-A"), Some("1"));
    assert!(upstream.received(0).starts_with(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\nPOST"));
    assert_eq!(upstream.connections(), 1);
    upstream.stop().await;
    assert_ne!(client.end().await, End::Reset);
}

#[tokio::test]
async fn a_body_cut_short_is_told_from_a_whole_one() {
    let fixed = Upstream::raw_then_close("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(Client::connect(fixed.address).await.get("a", "/").await.cut, Some(End::Fin));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let whole = Upstream::raw_then_close(format!("{chunked}0\r\nx-t: 1\r\n\r\n")).await;
    let message = Client::connect(whole.address).await.get("a", "/").await;
    assert_eq!((message.text(), &message.trailers[0].0[..]), ("half", "x-t"));
    let reset = Upstream::start(move |mut peer| async move {
        peer.request().await;
        peer.send(chunked).await;
        peer.reset();
    })
    .await;
    assert_eq!(Client::connect(reset.address).await.get("a", "/").await.cut, Some(End::Reset));
}

#[tokio::test]
async fn an_address_refuses_or_swallows_connections_as_told() {
    let refusing = Refusing::bind();
    let error = TcpStream::connect(refusing.address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let revived = refusing.revive("back").await;
    assert_eq!(Client::connect(revived.address).await.get("a", "/").await.text(), "back");
    let hole = BlackHole::dig().await;
    let attempt = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(hole.address)).await;
    assert!(attempt.is_err(), "{attempt:?}");
}

#[tokio::test]
async fn http2_peers_speak_with_trailers_in_cleartext_and_over_tls() {
    let authority = Authority::new("tests");
    let identity = authority.issue_rsa(&["up.test"]);
    let script = |mut exchange: crate::harness::h2::Exchange| async move {
        let request = exchange.read().await.unwrap();
        exchange.reply(200, &[("x-a", "1")], &request.body, &[("grpc-status", "0")]);
    };
    let clear = H2Upstream::start(script).await;
    let tls = H2Upstream::start_tls(authority.server(&identity, &["h2"], false), script).await;
    let clients = [
        H2Client::cleartext(clear.address).await,
        H2Client::tls(tls.address, &authority.client(&["h2"]), "up.test").await,
    ];
    for mut client in clients {
        let response = client.request(request("POST", "http://up.test/s/M"), &grpc_frame(b"x")).await;
        assert_eq!((response.status, response.get("x-a")), (200, Some("1")));
        assert_eq!(response.body, grpc_frame(b"x"));
        assert_eq!(response.trailer("grpc-status"), Some("0"));
    }
    assert_eq!(tls.request().uri.path(), "/s/M");
}

#[tokio::test]
async fn an_http2_upstream_that_goes_away_answers_what_it_took() {
    let upstream = H2Upstream::going_away_after(2, "bye").await;
    let mut client = H2Client::cleartext(upstream.address).await;
    assert_eq!(client.get("http", "a.test", "/").await.text(), "bye");
    assert_eq!(client.get("http", "a.test", "/").await.text(), "bye");
    assert!(client.end().await.is_ok());
}

#[test]
fn the_websocket_accept_is_that_of_the_standard() {
    assert_eq!(websocket::accept(websocket::KEY), websocket::ACCEPT);
}
