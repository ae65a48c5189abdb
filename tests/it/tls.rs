//! Which certificate does a client get, and what becomes of those that should get none?

use crate::harness::certs::{Authority, Identity};
use crate::harness::client::{Client, tls};
use crate::harness::h2::H2Client;
use crate::harness::proxy::{everything_to, items, routes};
use crate::harness::upstream::Upstream;
use crate::harness::{until, within};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const H1: &[&str] = &["http/1.1"];

/// The certificate that a client is shown, or why there was none.
async fn shown(address: SocketAddr, config: &Arc<rustls::ClientConfig>, name: &str) -> Result<Vec<u8>, String> {
    let stream = tls(address, config, name).await.map_err(|e| e.to_string())?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

#[tokio::test]
async fn the_certificate_follows_the_server_name_exact_before_wildcard() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let exact = authority.issue(&["shop.example.com"]);
    let wild = authority.issue(&["*.example.com"]);
    let proxy =
        routes(everything_to(&[&up])).https("").certificate("exact", &exact).certificate("wild", &wild).start().await;
    let (https, config) = (proxy.https().await, authority.client(H1));
    assert_eq!(shown(https, &config, "shop.example.com").await, Ok(exact.der()));
    assert_eq!(shown(https, &config, "desk.example.com").await, Ok(wild.der()));
    let mut client = Client::tls(https, &config, "shop.example.com").await;
    assert_eq!(client.get("shop.example.com", "/").await.text(), "ok");
}

#[tokio::test]
async fn an_unknown_server_name_and_none_at_all_get_an_alert() {
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[])).https("").certificate("a", &authority.issue(&["a.test"])).start().await;
    let (https, config) = (proxy.https().await, authority.client(H1));
    for name in ["b.test", "x.a.test", "127.0.0.1"] {
        let error = shown(https, &config, name).await.unwrap_err();
        assert!(error.contains("alert"), "{name}: {error}");
    }
    proxy.wait_for_metric("tidegate_tls_handshake_failures_total", &[], 3.0).await;
}

#[tokio::test]
async fn a_client_that_knows_an_address_alone_gets_the_certificate_of_that_address() {
    let authority = Authority::new("tests");
    let (name, address) = (authority.issue(&["a.test"]), authority.issue(&["127.0.0.1"]));
    let proxy = routes(everything_to(&[])).https("").certificate("a", &name).certificate("b", &address).start().await;
    assert_eq!(shown(proxy.https().await, &authority.client(H1), "127.0.0.1").await, Ok(address.der()));
}

#[tokio::test]
async fn a_default_certificate_serves_names_without_one() {
    let authority = Authority::new("tests");
    let fallback = authority.issue(&["127.0.0.1", "b.test"]);
    let proxy = routes(everything_to(&[]))
        .https("tls: { default: fallback }")
        .certificate("a", &authority.issue(&["a.test"]))
        .certificate("fallback", &fallback)
        .start()
        .await;
    assert_eq!(shown(proxy.https().await, &authority.client(H1), "127.0.0.1").await, Ok(fallback.der()));
}

#[tokio::test]
async fn an_old_client_gets_the_rsa_certificate_and_a_new_one_the_ecdsa() {
    let authority = Authority::new("tests");
    let (ecdsa, rsa) = (authority.issue(&["a.test"]), authority.issue_rsa(&["a.test"]));
    let proxy = routes(everything_to(&[])).https("").certificate_pairs("both", &[&rsa, &ecdsa]).start().await;
    let https = proxy.https().await;
    assert_eq!(shown(https, &authority.client(H1), "a.test").await, Ok(ecdsa.der()));
    let ca = proxy.folder().join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    for (algorithms, words) in [("RSA+SHA256:RSA-PSS+SHA256", "RSA"), ("ECDSA+SHA256", "ECDSA")] {
        let output = openssl(https, &ca, &["-sigalgs", algorithms, "-tls1_2"]).await;
        let line = output.lines().find(|l| l.contains("Peer signature type")).unwrap_or_default().to_owned();
        assert!(line.contains(words) && output.contains("Verify return code: 0"), "{algorithms}: {output}");
    }
}

/// What openssl says about a handshake for `a.test`.
async fn openssl(address: SocketAddr, ca: &std::path::Path, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "a.test", "-verify_hostname", "a.test"])
        .args(["-CAfile", ca.to_str().unwrap()])
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("openssl", output).await.unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn tls_12_and_13_are_spoken_unless_the_listener_wants_more() {
    let authority = Authority::new("tests");
    let identity = authority.issue(&["a.test"]);
    let proxy = routes(everything_to(&[]))
        .https("")
        .listener("strict", "127.0.0.1:0", "protocol: https, tls: { min_version: 1.3 }")
        .certificate("a", &identity)
        .start()
        .await;
    let old = authority.configure(H1, None, &[&rustls::version::TLS12]);
    let new = authority.configure(H1, None, &[&rustls::version::TLS13]);
    let (https, strict) = (proxy.https().await, proxy.address("strict").await);
    for (address, config, works) in
        [(https, &old, true), (https, &new, true), (strict, &new, true), (strict, &old, false)]
    {
        assert_eq!(shown(address, config, "a.test").await.is_ok(), works, "{address}");
    }
}

#[tokio::test]
async fn who_begins_with_something_else_than_a_client_hello_is_told_by_an_alert() {
    let authority = Authority::new("tests");
    let identity = authority.issue(&["a.test"]);
    let proxy = routes("a.test/: { respond: { body: ok } }\n").https("").certificate("a", &identity).start().await;
    // What is no ServerHello but says so, an end of the handshake, application data; decode_error or unexpected_message.
    for (record, alert) in [
        (&b"\x16\x03\x03\0\x08\x02\0\0\x04abcd"[..], 50),
        (b"\x16\x03\x03\0\x04\x0e\0\0\0", 10),
        (b"\x17\x03\x03\0\x04abcd", 10),
    ] {
        let mut stream = TcpStream::connect(proxy.https().await).await.unwrap();
        stream.write_all(record).await.unwrap();
        let mut told = Vec::new();
        within("an alert", stream.read_to_end(&mut told)).await.unwrap();
        assert_eq!(told, [21, 3, 3, 0, 2, 2, alert], "{record:?}");
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_by_alpn() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up]))
        .https("")
        .listener("old", "127.0.0.1:0", "protocol: https, tls: { http2: false }")
        .certificate("a", &authority.issue(&["a.test"]))
        .start()
        .await;
    let both = authority.client(&["h2", "http/1.1"]);
    let (https, old) = (proxy.https().await, proxy.address("old").await);
    for (address, config, agreed) in [
        (https, &both, Some(&b"h2"[..])),
        (https, &authority.client(H1), Some(b"http/1.1")),
        (https, &authority.client(&["http/1.0"]), Some(b"http/1.0")),
        (https, &authority.client(&[]), None),
        (old, &both, Some(b"http/1.1")),
    ] {
        let stream = tls(address, config, "a.test").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
    }
    let mut client = H2Client::tls(https, &both, "a.test").await;
    assert_eq!(client.get("https", "a.test", "/").await.text(), "ok");
    assert_eq!(up.request().get("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn a_session_is_resumed_without_state_on_any_worker() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up])).https("").certificate("a", &authority.issue(&["a.test"])).start().await;
    let (https, config) = (proxy.https().await, authority.client(H1));
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let stream = tls(https, &config, "a.test").await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        let mut client = Client::over(stream);
        // The tickets come with the first response at the latest.
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
        kinds.push(kind);
    }
    assert!(kinds[1..].iter().all(|k| *k == Some(rustls::HandshakeKind::Resumed)), "{kinds:?}");
    assert_eq!(proxy.metric("tidegate_tls_resumed_total", &[]).await, 4.0);
}

#[tokio::test]
async fn a_new_certificate_serves_without_a_restart_and_a_broken_one_never() {
    let authority = Authority::new("tests");
    let (first, second) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let proxy = routes(everything_to(&[])).https("").certificate("a", &first).start().await;
    let (https, config) = (proxy.https().await, authority.client(H1));
    let write = |identity: &Identity| {
        proxy.write("a-0.pem", &identity.chain);
        proxy.write("a-0.key", &identity.key);
    };
    assert_eq!(shown(https, &config, "a.test").await, Ok(first.der()));
    write(&second);
    until("the second certificate", || async {
        (shown(https, &config, "a.test").await == Ok(second.der())).then_some(())
    })
    .await;
    let mismatch = Identity { chain: first.chain.clone(), key: second.key.clone() };
    let unreadable = Identity { chain: "not PEM".to_owned(), key: second.key.clone() };
    for broken in [mismatch, authority.issue_expired(&["a.test"]), unreadable] {
        write(&broken);
        until("the problem", || async { (!items(&proxy.api("problems").await).is_empty()).then_some(()) }).await;
        assert_eq!(shown(https, &config, "a.test").await, Ok(second.der()), "the last good one serves on");
        write(&second);
        until("no problem", || async { items(&proxy.api("problems").await).is_empty().then_some(()) }).await;
    }
}

#[tokio::test]
async fn sighup_reads_certificates_again() {
    let authority = Authority::new("tests");
    let (first, second) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let proxy = routes(everything_to(&[])).https("").certificate("a", &first).start().await;
    proxy.write("a-0.pem", &second.chain);
    proxy.write("a-0.key", &second.key);
    proxy.signal(Signal::HUP);
    let (https, config) = (proxy.https().await, authority.client(H1));
    until("the second certificate", || async {
        (shown(https, &config, "a.test").await == Ok(second.der())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_outlives_its_certificate() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up])).https("").certificate("a", &authority.issue(&["a.test"])).start().await;
    let config = authority.client(H1);
    let mut client = Client::tls(proxy.https().await, &config, "a.test").await;
    assert_eq!(client.get("a.test", "/").await.text(), "ok");
    let second = authority.issue(&["a.test"]);
    proxy.write("a-0.pem", &second.chain);
    proxy.write("a-0.key", &second.key);
    let https = proxy.https().await;
    until("the second certificate", || async {
        (shown(https, &config, "a.test").await == Ok(second.der())).then_some(())
    })
    .await;
    assert_eq!(client.get("a.test", "/").await.text(), "ok");
}

#[tokio::test]
async fn a_required_client_certificate_keeps_strangers_out_and_reaches_the_upstream() {
    let up = Upstream::text("ok").await;
    let (authority, clients, strangers) = (Authority::new("servers"), Authority::new("clients"), Authority::new("x"));
    let alice = clients.issue_client("alice");
    let proxy = routes(everything_to(&[&up]))
        .https("tls: { client_auth: { ca: clients.pem, mode: required } }")
        .file("clients.pem", &clients.pem)
        .certificate("a", &authority.issue(&["a.test"]))
        .start()
        .await;
    let https = proxy.https().await;
    let mut client = Client::tls(https, &authority.client_as(H1, &alice), "a.test").await;
    let forged = [("Client-Cert", ":Zm9yZ2Vk:")];
    assert_eq!(client.request("GET", "a.test", "/", &forged, b"").await.text(), "ok");
    let told = up.request().get("client-cert").unwrap().to_owned();
    assert!(told.len() > 100 && told.starts_with(":MII") && told.ends_with(':'), "{told}");
    for config in [authority.client(H1), authority.client_as(H1, &strangers.issue_client("mallory"))] {
        // In TLS 1.3 the client learns with its first read that it was not let in.
        let refused = match tls(https, &config, "a.test").await {
            Err(_) => true,
            Ok(stream) => {
                let mut stream = stream;
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                within("an alert", stream.read(&mut [0; 1])).await.is_err()
            }
        };
        assert!(refused);
    }
    assert_eq!(up.requests().len(), 1);
}

#[tokio::test]
async fn a_requested_client_certificate_may_be_left_out_but_not_be_wrong() {
    let up = Upstream::text("ok").await;
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let proxy = routes(everything_to(&[&up]))
        .https("tls: { client_auth: { ca: clients.pem, mode: requested } }")
        .file("clients.pem", &clients.pem)
        .certificate("a", &authority.issue(&["a.test"]))
        .start()
        .await;
    let https = proxy.https().await;
    let mut anonymous = Client::tls(https, &authority.client(H1), "a.test").await;
    assert_eq!(anonymous.request("GET", "a.test", "/", &[("Client-Cert", ":x:")], b"").await.text(), "ok");
    assert!(!up.requests()[0].has("client-cert"));
    let mut known = Client::tls(https, &authority.client_as(H1, &clients.issue_client("bob")), "a.test").await;
    assert_eq!(known.get("a.test", "/").await.text(), "ok");
    assert!(up.requests()[1].has("client-cert"));
}

#[tokio::test]
async fn a_host_that_the_connection_does_not_cover_is_421_over_http2() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up]))
        .https("")
        .certificate("a", &authority.issue(&["a.test", "c.test"]))
        .certificate("b", &authority.issue(&["b.test"]))
        .start()
        .await;
    let mut client = H2Client::tls(proxy.https().await, &authority.client(&["h2"]), "a.test").await;
    assert_eq!(client.get("https", "a.test", "/").await.status, 200);
    assert_eq!(client.get("https", "c.test", "/").await.status, 200, "the same certificate covers it");
    assert_eq!(client.get("https", "b.test", "/").await.status, 421);
    assert_eq!(client.get("https", "unknown.test", "/").await.status, 421);
    assert_eq!(up.requests().len(), 2);
}

#[tokio::test]
async fn a_host_with_stricter_client_authentication_cannot_be_reached_through_another() {
    let up = Upstream::text("ok").await;
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let text = format!(
        "hosts: [open.test]\ntls: both\nroutes: [{{ path: /, to: up }}]\n---\nhosts: [closed.test]\n\
         tls: {{ certificate: both, client_auth: {{ ca: clients.pem }} }}\nroutes: [{{ path: /, to: up }}]\n---\n\
         clusters:\n  up: {{ endpoints: [\"{up}\"] }}\n"
    );
    let proxy = routes(text)
        .https("tls: { certificates: [] }")
        .file("clients.pem", &clients.pem)
        .certificate("both", &authority.issue(&["open.test", "closed.test"]))
        .start()
        .await;
    let https = proxy.https().await;
    let mut client = H2Client::tls(https, &authority.client(&["h2"]), "open.test").await;
    assert_eq!(client.get("https", "open.test", "/").await.status, 200);
    assert_eq!(client.get("https", "closed.test", "/").await.status, 421);
    let mut client = Client::tls(https, &authority.client(H1), "open.test").await;
    assert_eq!(client.get("closed.test", "/").await.status(), 421, "nor over HTTP/1");
    let config = authority.client_as(&["h2"], &clients.issue_client("carol"));
    let mut client = H2Client::tls(https, &config, "closed.test").await;
    assert_eq!(client.get("https", "closed.test", "/").await.status, 200);
}

#[tokio::test]
async fn client_authentication_that_comes_later_reaches_connections_that_are_open() {
    let up = Upstream::text("ok").await;
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let text = |tls: &str| {
        format!(
            "hosts: [a.test]\ntls: {tls}\nroutes: [{{ path: /, to: up }}]\n---\n\
             clusters:\n  up: {{ endpoints: [\"{up}\"] }}\n"
        )
    };
    let proxy = routes(text("a"))
        .https("tls: { certificates: [] }")
        .file("clients.pem", &clients.pem)
        .certificate("a", &authority.issue(&["a.test"]))
        .start()
        .await;
    let https = proxy.https().await;
    let mut http1 = Client::tls(https, &authority.client(H1), "a.test").await;
    let mut http2 = H2Client::tls(https, &authority.client(&["h2"]), "a.test").await;
    assert_eq!(http1.get("a.test", "/").await.status(), 200);
    assert_eq!(http2.get("https", "a.test", "/").await.status, 200);
    proxy.reload(text("{ certificate: a, client_auth: { ca: clients.pem } }")).await;
    let refused = http1.get("a.test", "/").await;
    assert_eq!((refused.status(), refused.get("connection")), (421, Some("close")));
    assert_eq!(http2.get("https", "a.test", "/").await.status, 421);
    assert!(http2.closed().await.is_ok(), "the client must come anew");
    let config = authority.client_as(&["h2"], &clients.issue_client("carol"));
    assert_eq!(H2Client::tls(https, &config, "a.test").await.get("https", "a.test", "/").await.status, 200);
}

#[tokio::test]
async fn cleartext_on_a_tls_port_is_no_request() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&up])).https("").certificate("a", &authority.issue(&["a.test"])).start().await;
    let mut client = Client::connect(proxy.https().await).await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let (rest, _) = client.rest().await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    assert_eq!(up.connections(), 0);
}
