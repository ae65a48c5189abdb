//! Do large bodies arrive whole, whichever way they take through the proxy?

use crate::harness::proxy::{Proxy, everything_to, route_to, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::wire::End;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More than sockets hold.
const LARGE: usize = 16 * 1024 * 1024;

/// The bytes of a body, other ones for each number.
fn pattern(number: usize, length: usize) -> Vec<u8> {
    let unit: Vec<u8> = (0..7 * 251).map(|at| (at / 7 + number) as u8).collect();
    let mut bytes = unit.repeat(length / unit.len() + 1);
    bytes.truncate(length);
    bytes
}

/// Answers `GET /NUMBER/ANNOUNCED/SENT` by so many bytes of a pattern.
async fn patterns() -> Upstream {
    Upstream::start(|mut peer: Peer| async move {
        while let Some(request) = peer.request().await {
            let numbers: Vec<usize> = request.head.target().split('/').flat_map(str::parse).collect();
            let [number, announced, sent] = numbers[..] else { panic!("{:?}", request.head) };
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n")).await;
            // A client that leaves takes the connection with it.
            if peer.try_send(pattern(number, sent)).await.is_err() || sent < announced {
                return;
            }
        }
    })
    .await
}

async fn reasons(proxy: &Proxy, count: usize) -> Vec<(Option<String>, u64)> {
    let read = |record: &serde_json::Value| {
        (record["reason"].as_str().map(str::to_owned), record["bytes_out"].as_u64().unwrap())
    };
    proxy.access_log(count).await.iter().map(read).collect()
}

#[tokio::test]
async fn large_responses_follow_each_other_on_one_connection_whole() {
    let up = patterns().await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    let lengths = [5_000_001, 100, 65_536, 1_048_576, 0, 3_000_000];
    for (number, length) in lengths.into_iter().enumerate() {
        let response = client.get("a.test", &format!("/{number}/{length}/{length}")).await;
        assert_eq!(response.cut, None);
        assert!(response.body == pattern(number, length), "{number}: {} bytes", response.body.len());
    }
    assert_eq!(up.connections(), 1);
    let told = reasons(&proxy, lengths.len()).await;
    assert_eq!(told, lengths.map(|length| (None, length as u64)));
}

#[tokio::test]
async fn a_large_response_that_its_upstream_cuts_off_is_no_whole_one_for_the_client() {
    let up = patterns().await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let response = proxy.get("a.test", "/1/4000000/3000000").await;
    // All that came, and then the end, which its length shows to be too early.
    assert_eq!(response.cut, Some(End::Fin));
    assert!(response.body == pattern(1, 3_000_000), "{} bytes", response.body.len());
    assert_eq!(reasons(&proxy, 1).await[0].0.as_deref(), Some("upstream_cut"));
}

#[tokio::test]
async fn what_one_client_left_unread_reaches_no_other() {
    let up = patterns().await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    for _ in 0..20 {
        let mut client = proxy.client().await;
        client.send(format!("GET /1/{LARGE}/{LARGE} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        client.response_head().await;
        client.reset();
    }
    proxy.access_log(20).await;
    let response = proxy.get("a.test", "/2/5000000/5000000").await;
    assert!(response.body == pattern(2, 5_000_000), "{} bytes", response.body.len());
}

#[tokio::test]
async fn many_large_responses_at_once_that_are_read_late_are_whole() {
    let up = patterns().await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut clients = Vec::new();
    for number in 0..8 {
        let mut client = proxy.client().await;
        client.send(format!("GET /{number}/{LARGE}/{LARGE} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        let head = client.response_head().await;
        clients.push((number, client, head));
    }
    let reading = clients.into_iter().map(|(number, mut client, head)| async move {
        let response = client.body(head, false, false).await;
        assert!(response.body == pattern(number, LARGE), "{number}: {} bytes", response.body.len());
    });
    futures_util::future::join_all(reading).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_a_large_response_is_given_up() {
    let up = patterns().await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 1s", "")).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    client.send(format!("GET /1/{LARGE}/{LARGE} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    let told = reasons(&proxy, 1).await;
    assert_eq!(told[0].0.as_deref(), Some("client_stalled"));
    assert!(told[0].1 < LARGE as u64);
}

#[tokio::test]
async fn an_upstream_that_stops_within_a_large_response_is_given_up() {
    let up = Upstream::start(|mut peer: Peer| async move {
        peer.request().await;
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        peer.send(pattern(1, 1_000_000)).await;
        peer.closed().await;
    })
    .await;
    let proxy = routes(route_to(&[&up], "idle_timeout: 1s", "")).section("workers", "1").start().await;
    let response = proxy.get("a.test", "/").await;
    assert!(response.cut.is_some() && response.body == pattern(1, 1_000_000), "{} bytes", response.body.len());
    assert_eq!(reasons(&proxy, 1).await, [(Some("upstream_timeout".to_owned()), 1_000_000)]);
}

#[tokio::test]
async fn a_large_upload_in_chunks_arrives_byte_for_byte() {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let up = Upstream::start(move |mut peer: Peer| {
        let count = Arc::clone(&count);
        async move {
            while let Some(request) = peer.request().await {
                assert!(request.body == pattern(3, 3_000_000), "{} bytes", request.body.len());
                count.fetch_add(1, Ordering::Relaxed);
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for size in [1_000, 9_000, 16_384, 100_000, 3_000_000] {
        let mut bytes = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in pattern(3, 3_000_000).chunks(size) {
            bytes.extend_from_slice(format!("{:x};x\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        client.send(bytes).await;
        assert_eq!(client.response().await.status(), 200, "chunks of {size}");
    }
    assert_eq!(taken.load(Ordering::Relaxed), 5);
}
