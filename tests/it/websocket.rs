//! Do WebSockets pass, over HTTP/1.1 and over HTTP/2?

use crate::harness::certs::Authority;
use crate::harness::client::Client;
use crate::harness::h2::{Exchange, H2Client, H2Upstream, request};
use crate::harness::proxy::{everything_to, everything_to_with, route_to, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::websocket::{ACCEPT, KEY, accept, handshake, text_frame, welcome};
use crate::harness::wire::End;
use crate::harness::within;
use bytes::Bytes;

/// Greets as a WebSocket server does and sends back what comes, unmasked or not, byte for byte.
async fn echo() -> Upstream {
    Upstream::start(|mut peer: Peer| async move {
        let Some(request) = peer.request().await else { return };
        let key = request.get("sec-websocket-key").unwrap().to_owned();
        assert_eq!(request.get("sec-websocket-version"), Some("13"));
        peer.send(welcome(&key)).await;
        while let Some(bytes) = peer.some().await {
            peer.send(bytes).await;
        }
    })
    .await
}

/// Asks for `/chat` by extended CONNECT; the stream stays open for as long as it is held.
async fn connect(client: &mut H2Client, protocol: &str) -> (::h2::client::ResponseFuture, ::h2::SendStream<Bytes>) {
    client.extended_connect().await;
    let mut connect = request("CONNECT", "http://a.test/chat");
    connect.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    connect.extensions_mut().insert(::h2::ext::Protocol::from(protocol));
    client.open(connect, false).await
}

#[tokio::test]
async fn a_switch_of_protocols_has_the_edits_of_a_response() {
    let up = Upstream::start(|mut peer: Peer| async move {
        let Some(request) = peer.request().await else { return };
        peer.send(welcome(request.get("sec-websocket-key").unwrap())).await;
        peer.closed().await;
    })
    .await;
    let edits = "response_headers: { set: { x-gate: tidegate } }";
    let proxy = routes(route_to(&[&up], edits, "outlier: off")).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/chat")).await;
    let head = client.response_head().await;
    assert_eq!((head.status(), head.get("x-gate")), (101, Some("tidegate")));
    let mut client = proxy.h2().await;
    let (response, _stream) = connect(&mut client, "websocket").await;
    let head = within("a response", response).await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["x-gate"].to_str().unwrap()), (200, "tidegate"));
}

#[tokio::test]
async fn a_websocket_opens_speaks_both_ways_and_closes() {
    let up = echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/chat")).await;
    let head = client.response_head().await;
    assert_eq!((head.status(), head.get("sec-websocket-accept")), (101, Some(ACCEPT)));
    assert_eq!(head.get("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    for text in ["hello", "again"] {
        let frame = text_frame(text, true);
        client.send(&frame).await;
        assert_eq!(client.exactly(frame.len()).await.unwrap(), frame);
    }
    assert_eq!(up.request().get("sec-websocket-key"), Some(KEY));
    client.half_close().await;
    assert_eq!(client.end().await, End::Fin);
}

#[tokio::test]
async fn a_frame_sent_along_with_the_handshake_is_not_lost() {
    let up = echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    let frame = text_frame("early", true);
    client.send([handshake("a.test", "/").as_bytes(), &frame].concat()).await;
    assert_eq!(client.response_head().await.status(), 101);
    assert_eq!(client.exactly(frame.len()).await.unwrap(), frame);
}

#[tokio::test]
async fn an_upstream_that_declines_is_heard_and_the_connection_stays() {
    let up = Upstream::raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/")).await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (403, "no"));
    assert_eq!(client.get("a.test", "/").await.status(), 403);
}

#[tokio::test]
async fn a_websocket_outlives_the_timeout_of_requests() {
    let up = echo().await;
    let text = crate::harness::proxy::route_to(&[&up], "timeout: 100ms", "balance: random");
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/")).await;
    assert_eq!(client.response_head().await.status(), 101);
    // Another request meets the timeout meanwhile, so that it has passed for certain.
    let slow = Upstream::hanging().await;
    let other = crate::harness::proxy::route_to(&[&slow], "timeout: 150ms", "balance: random");
    assert_eq!(routes(other).start().await.get("a.test", "/").await.status(), 504);
    let frame = text_frame("still here", true);
    client.send(&frame).await;
    assert_eq!(client.exactly(frame.len()).await.unwrap(), frame);
}

#[tokio::test]
async fn extended_connect_over_http2_reaches_an_http1_websocket() {
    let up = echo().await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up])).https("").certificate("a", &authority.issue(&["a.test"])).start().await;
    let mut client = H2Client::tls(proxy.https().await, &authority.client(&["h2"]), "a.test").await;
    client.extended_connect().await;
    let mut connect = request("CONNECT", "https://a.test/chat?x=1");
    connect.extensions_mut().insert(::h2::ext::Protocol::from_static("websocket"));
    connect.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    connect.headers_mut().insert("origin", "https://a.test".parse().unwrap());
    let (response, mut stream) = client.open(connect, false).await;
    let mut response = within("the response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("sec-websocket-accept"), "{response:?}");
    for text in ["hello", "again"] {
        let frame = text_frame(text, true);
        stream.send_data(Bytes::from(frame.clone()), false).unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < frame.len() {
            let chunk = within("the echo", response.body_mut().data()).await.unwrap().unwrap();
            response.body_mut().flow_control().release_capacity(chunk.len()).unwrap();
            echoed.extend_from_slice(&chunk);
        }
        assert_eq!(echoed, frame);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(within("the end", response.body_mut().data()).await.is_none_or(|chunk| chunk.is_ok_and(|c| c.is_empty())));
    let seen = up.request();
    assert_eq!(seen.head.first, "GET /chat?x=1 HTTP/1.1");
    assert_eq!(seen.get("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    assert_eq!((seen.get("host"), seen.get("origin")), (Some("a.test"), Some("https://a.test")));
    assert!(accept(seen.get("sec-websocket-key").unwrap()).ends_with('='));
}

#[tokio::test]
async fn an_upstream_that_declines_extended_connect_is_heard() {
    let up = Upstream::raw("HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno!").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let (response, _stream) = connect(&mut client, "websocket").await;
    let response = crate::harness::h2::collect(within("the response", response).await.unwrap()).await;
    assert_eq!((response.status, response.text()), (401, "no!"));
}

#[tokio::test]
async fn a_websocket_over_tls_works_for_clients_of_http11() {
    let up = echo().await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up])).https("").certificate("a", &authority.issue(&["a.test"])).start().await;
    let mut client = Client::tls(proxy.https().await, &authority.client(&["http/1.1"]), "a.test").await;
    client.send(handshake("a.test", "/")).await;
    assert_eq!(client.response_head().await.status(), 101);
    let frame = text_frame("hello", true);
    client.send(&frame).await;
    assert_eq!(client.exactly(frame.len()).await.unwrap(), frame);
}

#[tokio::test]
async fn what_an_upstream_says_before_it_closes_arrives() {
    let up = Upstream::start(|mut peer: Peer| async move {
        let Some(request) = peer.request().await else { return };
        let key = request.get("sec-websocket-key").unwrap().to_owned();
        let last = vec![b'z'; 300_000];
        peer.send([welcome(&key).as_bytes(), &last].concat()).await;
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/")).await;
    assert_eq!(client.response_head().await.status(), 101);
    let (rest, end) = client.rest().await;
    assert_eq!((rest.len(), end), (300_000, End::Fin));
}

#[tokio::test]
async fn a_quiet_websocket_ends_after_its_idle_time() {
    let up = echo().await;
    let text = crate::harness::proxy::route_to(&[&up], "idle_timeout: 200ms", "outlier: off");
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/")).await;
    assert_eq!(client.response_head().await.status(), 101);
    client.end().await;
}

#[tokio::test]
async fn a_websocket_is_recorded_and_counted_when_it_ends() {
    let up = echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/chat")).await;
    assert_eq!(client.response_head().await.status(), 101);
    client.send(text_frame("hello", true)).await;
    client.exactly(11).await.unwrap();
    assert_eq!(proxy.metric("tidegate_upgrades_open", &[]).await, 1.0);
    client.half_close().await;
    client.end().await;
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!((record["status"].as_u64(), record["path"].as_str()), (Some(101), Some("/chat")), "{record}");
    assert_eq!((record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(11), Some(11)), "{record}");
    assert_eq!(proxy.metric("tidegate_upgrades_open", &[]).await, 0.0);
}

#[tokio::test]
async fn a_protocol_that_would_be_more_than_one_field_reaches_no_upstream() {
    let up = echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let smuggled = "websocket\r\nX-Forwarded-For: 192.0.2.1\r\n\r\nGET /admin HTTP/1.1\r\nHost: a.test";
    for protocol in [smuggled, "h2c", "connect-udp"] {
        let (response, _stream) = connect(&mut client, protocol).await;
        assert_eq!(within("the response", response).await.unwrap().status(), 501, "{protocol:?}");
    }
    assert_eq!(up.requests().len(), 0);
}

#[tokio::test]
async fn a_websocket_over_http2_takes_the_route_of_get() {
    let up = Upstream::raw("HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno!").await;
    let text = format!(
        "hosts: [a.test]\nroutes: [{{ path: /, method: GET, to: up }}]\n---\nclusters: {{ up: {{ endpoints: [\"{}\"] }} }}\n",
        up.address
    );
    let proxy = routes(text).start().await;
    let mut client = proxy.h2().await;
    let (response, _stream) = connect(&mut client, "websocket").await;
    assert_eq!(within("the response", response).await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_success_without_a_switch_opens_no_tunnel() {
    let up = Upstream::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let (response, _stream) = connect(&mut client, "websocket").await;
    assert_eq!(within("the response", response).await.unwrap().status(), 502);
}

#[tokio::test]
async fn a_length_in_an_extended_connect_takes_nothing_from_the_next_request() {
    let up = Upstream::raw("HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno!").await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let mut client = proxy.h2().await;
    client.extended_connect().await;
    let mut head = request("CONNECT", "http://a.test/");
    head.extensions_mut().insert(::h2::ext::Protocol::from_static("websocket"));
    head.headers_mut().insert("content-length", "5".parse().unwrap());
    let (response, _stream) = client.open(head, false).await;
    // The library resets such a stream; if it did not, the length would end here.
    let outcome = within("the response", response).await;
    assert!(outcome.is_err() || outcome.is_ok_and(|response| response.status() == 401));
    assert_eq!(proxy.get("a.test", "/next").await.status(), 401);
    assert!(up.requests().iter().all(|request| request.body.is_empty() && !request.has("content-length")));
    assert_eq!(up.requests().last().unwrap().head.target(), "/next");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_the_key_opens_no_tunnel_over_http2() {
    for accept in ["", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"] {
        let up = Upstream::raw(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n"
        ))
        .await;
        let proxy = routes(everything_to(&[&up])).start().await;
        let mut client = proxy.h2().await;
        let (response, _stream) = connect(&mut client, "websocket").await;
        assert_eq!(within("the response", response).await.unwrap().status(), 502, "{accept:?}");
        assert_eq!(proxy.access_log(1).await.remove(0)["reason"], "upstream_upgrade");
    }
}

/// A WebSocket server over HTTP/2 that sends back what comes.
async fn echo_over_http2() -> H2Upstream {
    H2Upstream::start_with_connect(|mut exchange: Exchange| async move {
        let asked = exchange.request.extensions().get::<::h2::ext::Protocol>().map(|p| p.as_str().to_owned());
        exchange.note();
        if asked.as_deref() != Some("websocket") {
            return exchange.reply(400, &[], b"no websocket", &[]);
        }
        let mut out = exchange.head(200, &[("sec-websocket-protocol", "chat")], false);
        while let Some(Ok(chunk)) = exchange.request.body_mut().data().await {
            exchange.request.body_mut().flow_control().release_capacity(chunk.len()).unwrap();
            if out.send_data(chunk, false).is_err() {
                return;
            }
        }
        let _ = out.send_data(Bytes::new(), true);
    })
    .await
}

#[tokio::test]
async fn a_websocket_of_http1_passes_to_an_http2_upstream() {
    let up = echo_over_http2().await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/chat?x=1")).await;
    let head = client.response_head().await;
    assert_eq!((head.status(), head.get("sec-websocket-accept")), (101, Some(ACCEPT)));
    assert_eq!((head.get("upgrade"), head.get("sec-websocket-protocol")), (Some("websocket"), Some("chat")));
    for text in ["hello", "again"] {
        let frame = text_frame(text, true);
        client.send(&frame).await;
        assert_eq!(client.exactly(frame.len()).await.unwrap(), frame);
    }
    client.half_close().await;
    assert_eq!(client.end().await, End::Fin);
    let seen = up.request();
    assert_eq!((seen.method.as_str(), seen.uri.path_and_query().unwrap().as_str()), ("CONNECT", "/chat?x=1"));
    assert_eq!((seen.get("sec-websocket-version"), seen.get("sec-websocket-key")), (Some("13"), None));
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!((record["status"].as_u64(), record["bytes_in"].as_u64()), (Some(101), Some(22)), "{record}");
}

#[tokio::test]
async fn a_websocket_passes_from_http2_to_http2() {
    let up = echo_over_http2().await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let mut client = proxy.h2().await;
    let (response, mut stream) = connect(&mut client, "websocket").await;
    let mut response = within("the response", response).await.unwrap();
    assert_eq!((response.status(), response.headers().get("sec-websocket-accept")), (http::StatusCode::OK, None));
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    assert_eq!(within("the echo", response.body_mut().data()).await.unwrap().unwrap(), "hello");
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(within("the end", response.body_mut().data()).await.is_none_or(|chunk| chunk.is_ok_and(|c| c.is_empty())));
}

#[tokio::test]
async fn an_http2_upstream_that_takes_no_websocket_is_told_of_by_501() {
    let up = H2Upstream::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.reply(200, &[], b"no websocket", &[]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/chat")).await;
    assert_eq!(client.response().await.status(), 501);
    let mut client = proxy.h2().await;
    let (response, _stream) = connect(&mut client, "websocket").await;
    assert_eq!(within("the response", response).await.unwrap().status(), 501);
    assert_eq!(proxy.access_log(2).await.remove(1)["reason"], "upgrade_unsupported");
    assert!(up.requests().is_empty());
}

#[tokio::test]
async fn a_websocket_without_a_key_reaches_no_http2_upstream() {
    let up = echo_over_http2().await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    for wrong in ["", "Sec-WebSocket-Key: short\r\n"] {
        let mut client = proxy.client().await;
        client.send(handshake("a.test", "/chat").replace(&key, wrong)).await;
        assert_eq!(client.response().await.status(), 400, "{wrong:?}");
    }
    assert!(up.requests().is_empty());
}

#[tokio::test]
async fn an_http2_upstream_that_declines_a_websocket_is_heard() {
    let up = H2Upstream::start_with_connect(|mut exchange: Exchange| async move {
        exchange.reply(403, &[], b"no", &[]);
    })
    .await;
    let proxy = routes(everything_to_with(&[&up], "protocol: http2")).start().await;
    let mut client = proxy.client().await;
    client.send(handshake("a.test", "/")).await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (403, "no"));
    let mut client = proxy.h2().await;
    let (response, _stream) = connect(&mut client, "websocket").await;
    let response = crate::harness::h2::collect(within("the response", response).await.unwrap()).await;
    assert_eq!((response.status, response.text()), (403, "no"));
}

#[tokio::test]
async fn a_tunnel_whose_client_vanishes_is_recorded_and_counted_no_more() {
    let up = echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.h2().await;
    let (response, mut stream) = connect(&mut client, "websocket").await;
    let mut response = within("the response", response).await.unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    assert_eq!(within("the echo", response.body_mut().data()).await.unwrap().unwrap(), "hello");
    assert_eq!(proxy.metric("tidegate_upgrades_open", &[]).await, 1.0);
    client.vanish();
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!((record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(5), Some(5)), "{record}");
    assert_eq!(proxy.metric("tidegate_upgrades_open", &[]).await, 0.0);
}
