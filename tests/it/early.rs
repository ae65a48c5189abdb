//! What becomes of an answer that comes before the request has ended? (RFC 9110 section 10.1.1, RFC 9113 section 8.1)

use crate::harness::h2::{Exchange, H2Upstream, collect, request};
use crate::harness::proxy::{Proxy, everything_to, everything_to_with, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::within;
use bytes::Bytes;

/// More than one frame, and more than a window.
const ANSWER: usize = 300_000;

/// Asks by both versions, with a body that never ends; the answer must be whole.
async fn is_answered(proxy: &Proxy, upstream: &str) {
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nhalf").await;
    let response = client.final_response("POST").await;
    assert_eq!((response.status(), response.body.len()), (200, ANSWER), "HTTP/1 to {upstream}");
    assert_eq!(response.get("connection"), Some("close"), "HTTP/1 to {upstream}");
    let mut client = proxy.h2().await;
    let (response, mut body) = client.open(request("POST", "http://a.test/"), false).await;
    body.send_data(Bytes::from_static(b"half"), false).unwrap();
    let response = within("an answer", response).await.unwrap_or_else(|e| panic!("HTTP/2 to {upstream}: {e}"));
    let response = collect(response).await;
    assert_eq!((response.status, response.body.len(), response.reset), (200, ANSWER, None), "HTTP/2 to {upstream}");
    assert_eq!(client.get("http", "a.test", "/other").await.status, 200, "the connection goes on: {upstream}");
}

fn http1(stays: bool) -> impl Fn(Peer) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static {
    move |mut peer: Peer| {
        Box::pin(async move {
            if peer.head().await.is_err() {
                return;
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n");
            peer.send([head.as_bytes(), &vec![b'x'; ANSWER]].concat()).await;
            if stays {
                peer.closed().await;
            }
        })
    }
}

#[tokio::test]
async fn an_early_answer_over_http1_is_passed_on_whole() {
    let up = Upstream::start(http1(true)).await;
    is_answered(&routes(everything_to(&[&up])).start().await, "an upstream that stays").await;
    let up = Upstream::start(http1(false)).await;
    is_answered(&routes(everything_to(&[&up])).start().await, "an upstream that closes").await;
}

#[tokio::test]
async fn an_early_answer_over_http2_is_passed_on_whole() {
    for stays in [true, false] {
        let up = H2Upstream::start(move |mut exchange: Exchange| async move {
            exchange.reply(200, &[], &vec![b'x'; ANSWER], &[]);
            if stays {
                // Neither read nor reset.
                std::future::pending::<()>().await;
            }
            // Dropped, it is reset with NO_ERROR: the rest of the request is not wanted.
        })
        .await;
        let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
        is_answered(&proxy, &format!("HTTP/2, stays: {stays}")).await;
    }
}
