//! Is a pod spoken to as the `appProtocol` of its Service says?

use crate::beside;
use crate::harness::gate::Gate;
use crate::harness::http::Echo;
use crate::harness::objects::application;
use crate::harness::pki::Authority;
use crate::harness::speak::{ACCEPT, KEY};
use crate::harness::suite::Case;
use crate::harness::test::{Pod, Test};
use crate::harness::{SOON, eventually, holds};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const CASES: &[Case] = &[
    beside!(a_port_of_h2c_is_spoken_to_in_http_2_without_asking_first),
    beside!(a_port_of_ws_takes_web_sockets_over_http_1),
    beside!(a_port_of_https_is_spoken_to_by_tls_once_it_is_said_whom_to_trust),
    beside!(a_port_of_wss_takes_web_sockets_by_tls_once_it_is_said_whom_to_trust),
];

/// One pod behind a Service of two ports, `plain` and `other`, of which the second says its protocol.
async fn deploy(test: &Test, app_protocol: &str) -> Pod {
    let ports = format!(
        "ports: [{{ name: plain, port: 80, targetPort: web }}, {{ name: other, port: 81, targetPort: web, appProtocol: {app_protocol} }}]"
    );
    let one = "ports: [{ name: http, port: 80, targetPort: web }]";
    let manifests = application("web", 1);
    assert!(manifests.contains(one), "the ports have another form");
    test.apply(manifests.replace(one, &ports)).await;
    test.ready_pods("web", 1).await.remove(0)
}

/// Routes to both ports by their names, and settings of the clusters.
async fn publish(test: &Test, settings: &str) {
    let web = test.to("web");
    test.routes(
        "shop",
        &format!("shop.test/plain: {web}:plain\nshop.test/other: {web}:other\n{}", settings.replace("WEB", &web)),
    )
    .await;
}

/// What the pod says of a request for this path.
async fn spoken(gate: &Gate, path: &str) -> Result<Echo, String> {
    gate.get("shop.test", path).await?.expect(200)?.echo()
}

async fn a_port_of_h2c_is_spoken_to_in_http_2_without_asking_first(test: Test) {
    deploy(&test, "kubernetes.io/h2c").await;
    publish(&test, "").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/plain", 200).await;
    gate.answers("shop.test", "/other", 200).await;
    let (plain, other) = (spoken(&gate, "/plain").await.unwrap(), spoken(&gate, "/other").await.unwrap());
    assert_eq!((plain.version.as_str(), other.version.as_str()), ("HTTP/1.1", "HTTP/2.0"));
    assert_eq!((other.host.as_str(), other.tls), ("shop.test", None));
    // Said of the Service, it holds from then on.
    let swapped = r#"[{"op": "add", "path": "/spec/ports/0/appProtocol", "value": "kubernetes.io/h2c"},
        {"op": "remove", "path": "/spec/ports/1/appProtocol"}]"#;
    test.kubectl(&["patch", "service", "web", "--type=json", "-p", swapped]).await;
    eventually(SOON, || async {
        let said = (spoken(&gate, "/plain").await?.version, spoken(&gate, "/other").await?.version);
        holds(said == ("HTTP/2.0".into(), "HTTP/1.1".into()), || format!("{said:?}"))
    })
    .await;
}

async fn a_port_of_ws_takes_web_sockets_over_http_1(test: Test) {
    let pod = deploy(&test, "kubernetes.io/ws").await;
    // Of the Service as a whole it is said that it speaks HTTP/2; its port knows better.
    publish(&test, "clusters: { \"WEB\": { protocol: http2 } }\n").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/other", 200).await;
    assert_eq!(spoken(&gate, "/plain").await.unwrap().version, "HTTP/2.0");
    assert_eq!(spoken(&gate, "/other").await.unwrap().version, "HTTP/1.1");
    let heard = web_socket(gate.http(), "/other", b"\x81\x85\0\0\0\0hello").await.unwrap();
    assert_eq!(heard, b"\x81\x85\0\0\0\0hello", "{pod:?}");
}

/// Opens a WebSocket, says something and gives what is said back.
async fn web_socket(gate: SocketAddr, path: &str, words: &[u8]) -> Result<Vec<u8>, String> {
    let asked = async {
        let mut stream = TcpStream::connect(gate).await?;
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        stream.write_all(handshake.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("HTTP/1.1 101 ") || !head.to_ascii_lowercase().contains(&ACCEPT.to_ascii_lowercase()) {
            return Err(std::io::Error::other(head));
        }
        stream.write_all(words).await?;
        let mut heard = vec![0; words.len()];
        stream.read_exact(&mut heard).await.map(|_| heard)
    };
    let answer = tokio::time::timeout(SOON, asked).await.map_err(|_| "no answer in time".to_owned())?;
    answer.map_err(|error| error.to_string())
}

async fn a_port_of_https_is_spoken_to_by_tls_once_it_is_said_whom_to_trust(test: Test) {
    let pod = deploy(&test, "https").await;
    let (authority, stranger) = (Authority::new("inside"), Authority::new("stranger"));
    test.cluster.echoes.identities.show(pod.address, &authority.issue(&["web.inside"]), None);
    publish(&test, "").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/plain", 200).await;
    // Never in cleartext, and never to whom nobody verified.
    gate.answers("shop.test", "/other", 503).await;
    let problem = test.problem_of(&gate, "whom to trust").await;
    assert!(problem.contains(&format!("{}:other", test.to("web"))), "{problem}");
    publish(&test, &trust(&authority)).await;
    gate.answers("shop.test", "/other", 200).await;
    let echo = spoken(&gate, "/other").await.unwrap();
    let greeting = echo.tls.unwrap();
    assert_eq!((greeting.server_name.as_str(), greeting.client), ("web.inside", false));
    assert_eq!((echo.address, echo.host.as_str()), (pod.address, "shop.test"));
    publish(&test, &trust(&stranger)).await;
    gate.answers("shop.test", "/other", 502).await;
    assert_eq!(spoken(&gate, "/plain").await.unwrap().tls, None);
}

/// Settings of the port `other`, whose certificate is signed by this authority.
fn trust(authority: &Authority) -> String {
    let pem = serde_json::to_string(&authority.pem).unwrap();
    format!("clusters: {{ \"WEB:other\": {{ tls: {{ ca: {pem}, server_name: web.inside }} }} }}\n")
}

async fn a_port_of_wss_takes_web_sockets_by_tls_once_it_is_said_whom_to_trust(test: Test) {
    let pod = deploy(&test, "kubernetes.io/wss").await;
    let authority = Authority::new("inside");
    test.cluster.echoes.identities.show(pod.address, &authority.issue(&["web.inside"]), None);
    publish(&test, "").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/plain", 200).await;
    let refused = web_socket(gate.http(), "/other", b"").await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    publish(&test, &trust(&authority)).await;
    assert!(gate.answers("shop.test", "/other", 200).await.echo().unwrap().tls.is_some());
    let heard = web_socket(gate.http(), "/other", b"\x81\x85\0\0\0\0hello").await.unwrap();
    assert_eq!(heard, b"\x81\x85\0\0\0\0hello");
}
