//! Which addresses are listened on, and what is known about who comes in?

use crate::harness::certs::Authority;
use crate::harness::client::{Client, tcp};
use crate::harness::h2::{H2Client, request};
use crate::harness::proxy::{everything_to, everything_to_with, routes};
use crate::harness::upstream::{Peer, Upstream};
use crate::harness::within;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

#[tokio::test]
async fn any_number_of_listeners_serve_on_ipv4_and_ipv6() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up]))
        .listener("one", "127.0.0.1:0", "")
        .listener("two", "[::1]:0", "")
        .listener("three", "127.0.0.3:0", "")
        .start()
        .await;
    for name in ["one", "two", "three"] {
        let address = proxy.address(name).await;
        assert_ne!(address.port(), 0);
        assert_eq!(Client::connect(address).await.get("a.test", "/").await.text(), "ok", "{name} {address}");
    }
}

#[tokio::test]
async fn one_listener_may_have_several_addresses() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up]))
        .section("listeners", "{ web: { address: [\"127.0.0.1:0\", \"[::1]:0\"] } }")
        .start()
        .await;
    for name in ["web", "web#2"] {
        let address = proxy.address(name).await;
        assert_eq!(Client::connect(address).await.get("a.test", "/").await.text(), "ok", "{name}");
    }
}

#[tokio::test]
async fn routes_may_be_for_some_listeners_only() {
    let text = "hosts: [a.test]\nlisteners: [inner]\nroutes: [{ path: /, respond: { body: inner } }]\n---\n\
                hosts: [a.test]\nroutes: [{ path: /open/, respond: { body: open } }]\n";
    let proxy = routes(text).listener("outer", "127.0.0.1:0", "").listener("inner", "127.0.0.1:0", "").start().await;
    let (outer, inner) = (proxy.address("outer").await, proxy.address("inner").await);
    assert_eq!(Client::connect(inner).await.get("a.test", "/").await.text(), "inner");
    assert_eq!(Client::connect(outer).await.get("a.test", "/").await.status(), 404);
    assert_eq!(Client::connect(outer).await.get("a.test", "/open/").await.text(), "open");
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("routes.yaml"), "a.test/: { respond: 200 }\n").unwrap();
    let (address, admin) = (address.to_string(), "127.0.0.1:0");
    let arguments = ["run", "--routes", "routes.yaml", "--http", &address, "--https", "off", "--admin", admin];
    let (code, _, log) = crate::harness::proxy::run(folder.path(), &arguments);
    assert_ne!(code, 0);
    assert!(log.contains(&address), "{log}");
}

const V1: &str = "PROXY TCP4 1.2.3.4 5.6.7.8 1111 443\r\n";

fn v2(source: &str, destination: &str) -> Vec<u8> {
    let (source, destination): (SocketAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    for address in [source, destination] {
        let SocketAddr::V4(address) = address else { panic!("IPv4 only") };
        header.extend_from_slice(&address.ip().octets());
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

#[tokio::test]
async fn a_trusted_proxy_header_says_who_the_client_is() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("proxy_protocol_from: [127.0.0.0/8]").start().await;
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let headers = [V1.as_bytes().to_vec(), v2("1.2.3.4:1111", "5.6.7.8:443")];
    for (number, header) in headers.iter().enumerate() {
        let mut client = proxy.client().await;
        client.send([header.as_slice(), request].concat()).await;
        assert_eq!(client.response().await.text(), "ok");
        assert_eq!(up.requests()[number].get("x-forwarded-for"), Some("1.2.3.4"));
    }
    let unknown = [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"];
    for header in unknown {
        let mut client = proxy.client().await;
        client.send([header, request].concat()).await;
        assert_eq!(client.response().await.text(), "ok");
        assert_eq!(up.requests().last().unwrap().get("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[tokio::test]
async fn a_trusted_proxy_that_sends_no_header_or_garbage_is_cut_off() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("proxy_protocol_from: [127.0.0.0/8]").start().await;
    let wrong: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"PROXY TCP4 1.2.3.4\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"PROXY TCP4 1.2.3.400 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c123456789012GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ];
    for bytes in wrong {
        let mut client = proxy.client().await;
        let _ = client.try_send(bytes).await;
        assert!(client.rest().await.0.is_empty(), "{:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(up.connections(), 0);
    proxy.wait_for_metric("tidegate_connections_refused_total", &["reason=\"proxy_header\""], 4.0).await;
}

#[tokio::test]
async fn a_stranger_with_a_proxy_header_is_a_bad_request() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("proxy_protocol_from: [10.0.0.0/8]").start().await;
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    proxy.client().await.refused(format!("{V1}{request}"), 400).await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok", "without one it is a client like any other");
}

#[tokio::test]
async fn a_trusted_proxy_header_comes_before_the_tls_handshake() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up]))
        .https("proxy_protocol_from: [127.0.0.1/32]")
        .certificate("a", &authority.issue(&["a.test"]))
        .start()
        .await;
    let https = proxy.https().await;
    let config = authority.client(&["http/1.1"]);
    for (number, header) in [V1.as_bytes().to_vec(), v2("1.2.3.4:1111", "5.6.7.8:443")].into_iter().enumerate() {
        let mut stream = tcp(https).await;
        stream.write_all(&header).await.unwrap();
        let connector = TlsConnector::from(config.clone());
        let shaken = within("the handshake", connector.connect("a.test".try_into().unwrap(), stream)).await.unwrap();
        assert_eq!(Client::over(shaken).get("a.test", "/").await.text(), "ok");
        let seen = &up.requests()[number];
        assert_eq!((seen.get("x-forwarded-for"), seen.get("x-forwarded-proto")), (Some("1.2.3.4"), Some("https")));
    }
    let without = crate::harness::client::tls(https, &config, "a.test").await;
    assert!(without.is_err(), "who is trusted to send a header must");
    proxy.wait_for_metric("tidegate_connections_refused_total", &["reason=\"proxy_header\""], 1.0).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stranger = Client::over(within("connecting", socket.connect(https)).await.unwrap());
    stranger.send(V1).await;
    let (answer, _) = stranger.rest().await;
    assert_eq!(answer.first(), Some(&21), "to a stranger it is no TLS, which an alert says: {answer:?}");
}

#[tokio::test]
async fn an_http2_upstream_is_told_who_the_client_is_before_the_preface() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let upstream = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut header = [0; 28];
            stream.read_exact(&mut header).await.unwrap();
            told.lock().unwrap().push(header);
            tokio::spawn(async move {
                let mut connection = ::h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(bytes::Bytes::from_static(b"ok"), true).unwrap();
                }
            });
        }
    });
    let text = everything_to_with(&[&up], "protocol: http2, proxy_protocol: v2");
    let proxy = routes(text).section("workers", "1").start().await;
    let http = proxy.http().await;
    for source in ["127.0.0.2", "127.0.0.3"] {
        let mut client = Client::connect_from(source, http).await;
        for _ in 0..2 {
            assert_eq!(client.get("a.test", "/").await.text(), "ok");
        }
    }
    let mut h2 = H2Client::cleartext(http).await;
    assert_eq!(h2.request(request("GET", "http://a.test/"), b"").await.text(), "ok");
    upstream.abort();
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|header| header[..16] == *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"), "{seen:?}");
    let sources: Vec<u8> = seen.iter().map(|header| header[19]).collect();
    let ports = seen.iter().map(|header| u16::from_be_bytes([header[26], header[27]]));
    assert_eq!(sources, [2, 2, 3, 3, 1], "one client's connection is not used for another");
    assert!(ports.into_iter().all(|port| port == http.port()), "{seen:?}");
}

#[tokio::test]
async fn an_upstream_is_told_who_the_client_is_by_a_proxy_header() {
    for (version, length) in [("v1", 0), ("v2", 28)] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = seen.clone();
        let up = Upstream::start(move |mut peer: Peer| {
            let told = told.clone();
            async move {
                let mut header = Vec::new();
                if length > 0 {
                    header = peer.exactly(length).await.unwrap();
                } else {
                    while !header.ends_with(b"\r\n") {
                        header.extend(peer.exactly(1).await.unwrap());
                    }
                }
                told.lock().unwrap().push(header);
                while peer.request().await.is_some() {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        })
        .await;
        let text = everything_to_with(&[&up], &format!("proxy_protocol: {version}"));
        let proxy = routes(text).section("workers", "1").start().await;
        let http = proxy.http().await;
        assert_eq!(Client::connect_from("127.0.0.2", http).await.get("a.test", "/").await.text(), "ok");
        assert_eq!(Client::connect_from("127.0.0.3", http).await.get("a.test", "/").await.text(), "ok");
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2, "one client's connection is not used for another");
        if version == "v1" {
            let text = String::from_utf8_lossy(&seen[0]);
            assert!(
                text.starts_with("PROXY TCP4 127.0.0.2 127.0.0.1 ") && text.ends_with(&format!(" {}\r\n", http.port())),
                "{text}"
            );
        } else {
            assert_eq!(seen[0][..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c");
            assert_eq!(seen[0][16..24], [127, 0, 0, 2, 127, 0, 0, 1]);
        }
    }
}

#[tokio::test]
async fn the_file_descriptor_limit_is_raised_at_start() {
    let proxy = routes(everything_to(&[])).start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "soft and hard limit: {line}");
}

#[tokio::test]
async fn without_free_file_descriptors_it_backs_off_and_recovers() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    let http = proxy.http().await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = rustix::process::Rlimit { current: Some(open as u64 + 8), maximum: hard };
    let pid = rustix::process::Pid::from_raw(proxy.pid().try_into().unwrap());
    let before = rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(Client::connect(http).await);
    }
    // The admin port is on the same limit, so the log tells.
    crate::harness::until("the log", || async {
        let log = proxy.log().to_lowercase();
        (log.contains("too many open files") || log.contains("file descriptor")).then_some(())
    })
    .await;
    held.clear();
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, before).unwrap();
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
}
