//! Does it work with HAProxy, behind it in each way that HAProxy treats connections, and before it?

use crate::harness::program::Program;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::Upstream;

/// HAProxy with this in its only frontend.
async fn haproxy(frontend: &str) -> Program {
    Program::start("haproxy", |folder, address| {
        let config = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend f\n bind {address}\n{frontend}\n"
        );
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        vec!["-db".into(), "-f".into(), file.display().to_string()]
    })
    .await
}

/// HAProxy that passes everything on.
async fn before(upstream: &dyn std::fmt::Display, options: &str) -> Program {
    haproxy(&format!(" default_backend b\nbackend b\n{options}\n server s {upstream}")).await
}

/// Ports that HAProxy was connected from, for three requests of one client.
async fn ports(options: &str) -> Vec<String> {
    let answer = " http-request return status 200 content-type text/plain lf-string \"%cp\"";
    let server = haproxy(&format!("{options}\n{answer}")).await;
    let proxy = routes(everything_to(&[&server.address])).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    let mut ports = Vec::new();
    for _ in 0..3 {
        let response = client.get("a.test", "/").await;
        assert_eq!(response.status(), 200);
        ports.push(response.text().to_owned());
    }
    ports.dedup();
    ports
}

#[tokio::test]
async fn a_connection_that_haproxy_keeps_is_used_again_and_one_that_it_closes_is_not() {
    assert_eq!(ports("").await.len(), 1);
    assert_eq!(ports(" option httpclose").await.len(), 3);
}

#[tokio::test]
async fn bodies_of_every_framing_come_through_haproxy_whole() {
    let replies = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ];
    for reply in replies {
        for options in ["", " option httpclose", " option http-server-close"] {
            let up = Upstream::raw_then_close(reply).await;
            let server = before(&up, options).await;
            let proxy = routes(everything_to(&[&server.address])).start().await;
            let mut client = proxy.client().await;
            for _ in 0..2 {
                assert_eq!(client.get("a.test", "/").await.text(), "hello", "{reply:?} {options}");
            }
        }
    }
}

#[tokio::test]
async fn request_bodies_go_through_haproxy_whole_before_it_and_behind_it() {
    let up = Upstream::echo().await;
    let behind = before(&up, "").await;
    let proxy = routes(everything_to(&[&behind.address])).start().await;
    let front = before(&proxy.http().await, "").await;
    let address = front.address.parse().unwrap();
    let mut client = crate::harness::client::Client::connect(address).await;
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    for _ in 0..2 {
        client.send(format!("{head}Content-Length: 5\r\n\r\nhello")).await;
        assert_eq!(client.response().await.text(), "hello");
        client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")).await;
        assert_eq!(client.response().await.text(), "hello");
    }
}

#[tokio::test]
async fn haproxy_says_who_the_client_is_by_a_proxy_header_of_either_version() {
    for version in ["send-proxy", "send-proxy-v2"] {
        let up = Upstream::text("ok").await;
        let settings = "proxy_protocol_from: 127.0.0.1";
        let proxy = routes(everything_to(&[&up])).http(settings).start().await;
        let target = format!("{} {version}", proxy.http().await);
        let front = before(&target, "").await;
        let mut client =
            crate::harness::client::Client::connect_from("127.0.0.9", front.address.parse().unwrap()).await;
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
        assert_eq!(up.request().get("x-forwarded-for"), Some("127.0.0.9"));
    }
}
