//! Does gRPC work: trailers, both kinds of trailers-only, deadlines, streams, errors of the proxy itself?

use crate::harness::h2::{Exchange, H2Upstream, collect, grpc_frame, request};
use crate::harness::proxy::{everything_to, everything_to_with, routes};
use crate::harness::upstream::Refusing;
use crate::harness::within;
use bytes::Bytes;
use http::Request;

fn call(timeout: Option<&str>) -> Request<()> {
    let mut call = request("POST", "http://grpc.test/shop.Cart/Add");
    let fields = call.headers_mut();
    fields.insert("content-type", "application/grpc".parse().unwrap());
    fields.insert("te", "trailers".parse().unwrap());
    if let Some(timeout) = timeout {
        fields.insert("grpc-timeout", timeout.parse().unwrap());
    }
    call
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];

#[tokio::test]
async fn a_call_is_answered_with_a_message_and_trailers() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        let request = exchange.read().await.unwrap();
        assert_eq!(request.get("te"), Some("trailers"));
        exchange.reply(200, GRPC, &request.body, &[("grpc-status", "0"), ("grpc-message", "fine")]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let response = proxy.h2().await.request(call(None), &grpc_frame(b"hello")).await;
    assert_eq!((response.status, response.get("content-type")), (200, Some("application/grpc")));
    assert_eq!(response.body, grpc_frame(b"hello"));
    assert_eq!((response.trailer("grpc-status"), response.trailer("grpc-message")), (Some("0"), Some("fine")));
}

#[tokio::test]
async fn trailers_only_in_the_head_stay_in_the_head() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.reply(200, &[("content-type", "application/grpc"), ("grpc-status", "5")], b"", &[]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let response = proxy.h2().await.request(call(None), &grpc_frame(b"x")).await;
    assert_eq!((response.status, response.get("grpc-status")), (200, Some("5")));
    assert!(response.body.is_empty() && response.trailers.is_none(), "{response:?}");
}

#[tokio::test]
async fn trailers_without_a_message_stay_trailers() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.reply(200, GRPC, b"", &[("grpc-status", "7")]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let response = proxy.h2().await.request(call(None), &grpc_frame(b"x")).await;
    assert_eq!((response.get("grpc-status"), response.trailer("grpc-status")), (None, Some("7")));
}

#[tokio::test]
async fn both_directions_stream_at_the_same_time() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        let mut out = exchange.head(200, GRPC, false);
        while let Some(Ok(chunk)) = exchange.request.body_mut().data().await {
            exchange.request.body_mut().flow_control().release_capacity(chunk.len()).unwrap();
            out.send_data(chunk, false).unwrap();
        }
        out.send_trailers(crate::harness::h2::header_map(&[("grpc-status", "0")])).unwrap();
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let mut client = proxy.h2().await;
    let (response, mut stream) = client.open(call(None), false).await;
    let mut response = within("the head", response).await.unwrap();
    for n in 0..5_u8 {
        let message = grpc_frame(&[n]);
        stream.send_data(Bytes::from(message.clone()), false).unwrap();
        let echoed = within("the echo", response.body_mut().data()).await.unwrap().unwrap();
        assert_eq!(echoed, message);
        response.body_mut().flow_control().release_capacity(echoed.len()).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(collect(response).await.trailer("grpc-status"), Some("0"));
}

#[tokio::test]
async fn a_deadline_that_passes_is_answered_with_its_own_status() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        std::future::poll_fn(|cx| exchange.respond.poll_reset(cx)).await.unwrap();
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let response = proxy.h2().await.request(call(Some("50m")), &grpc_frame(b"x")).await;
    assert_eq!((response.status, response.get("grpc-status")), (200, Some("4")), "{response:?}");
    assert!(up.request().get("grpc-timeout").is_some());
}

#[tokio::test]
async fn failures_of_the_proxy_itself_are_grpc_statuses() {
    let refusing = Refusing::bind();
    let proxy = routes(everything_to_with(&[&refusing.address], "protocol: http2")).start().await;
    let response = proxy.h2().await.request(call(None), &grpc_frame(b"x")).await;
    assert_eq!((response.status, response.get("grpc-status")), (200, Some("14")), "{response:?}");
    assert_eq!(response.get("content-type"), Some("application/grpc"));
    let proxy = routes(everything_to(&[])).start().await;
    let response = proxy.h2().await.request(call(None), &grpc_frame(b"x")).await;
    assert_eq!((response.status, response.get("grpc-status")), (200, Some("14")), "{response:?}");
}

#[tokio::test]
async fn a_call_without_a_route_is_unimplemented() {
    let proxy = routes("other.test/: up\n---\nclusters:\n  up: { endpoints: [\"127.0.0.1:1\"] }\n").start().await;
    let response = proxy.h2().await.request(call(None), &grpc_frame(b"x")).await;
    assert_eq!((response.status, response.get("grpc-status")), (200, Some("12")), "{response:?}");
}
