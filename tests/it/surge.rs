//! Can a gate be replaced by another on the same ports, and does each speak for itself meanwhile?

use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup, routes, run};
use crate::harness::until;
use rustix::process::Signal;
use std::net::SocketAddr;

const SHARED: &str = "true";

/// A gate that answers with its name on the ports of another.
fn successor(name: &str, http: SocketAddr, admin: SocketAddr) -> Setup {
    routes(format!("\"*/\": {{ respond: {{ body: {name} }} }}\n"))
        .listener("http", &http.to_string(), "")
        .section("admin", &format!("{{ address: \"{admin}\", socket: admin.sock }}"))
        .section("share_ports", SHARED)
        .section("drain", "{ delay: 500ms, deadline: 5s }")
}

fn first() -> Setup {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    successor("first", any, any)
}

/// What the probe of this gate's container says.
fn probe(gate: &Proxy, more: &[&str]) -> (i32, String) {
    let socket = format!("unix:{}", gate.folder().join("admin.sock").display());
    let arguments = [&["ready", "--admin", &socket], more].concat();
    let (code, out, err) = run(gate.folder(), &arguments);
    (code, out + &err)
}

#[tokio::test]
async fn a_gate_takes_over_from_another_without_a_failed_request() {
    let old = first().start().await;
    let http = old.http().await;
    let new = successor("second", http, old.admin).spawn().await;
    until("the new gate is ready", || async { (probe(&new, &[]).0 == 0).then_some(()) }).await;
    old.signal(Signal::TERM);
    until("the old gate is not", || async { (probe(&old, &[]).0 == 1).then_some(()) }).await;
    assert_eq!(probe(&old, &[]), (1, "not ready: draining\n".to_owned()));
    assert_eq!(probe(&new, &[]).0, 0, "each speaks for itself, whoever has the port");
    let mut ended = std::pin::pin!(old.ended());
    loop {
        tokio::select! {
            biased;
            status = &mut ended => break assert!(status.success()),
            answer = async { Client::connect(http).await.get("a.test", "/").await } => {
                assert!(["first", "second"].contains(&answer.text()), "{answer:?}");
            }
        }
    }
    assert_eq!(Client::connect(http).await.get("a.test", "/").await.text(), "second");
    let asked = || async { new.admin_get("/readyz").await.status() };
    until("the admin port is the new gate's", || async {
        tokio::net::TcpStream::connect(new.admin).await.ok()?;
        (asked().await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gate_that_does_not_share_its_ports_refuses_to_start_beside_another() {
    let old = first().start().await;
    let http = old.http().await.to_string();
    let arguments = ["run", "--routes", "routes.yaml", "--http", &http, "--https", "off", "--admin", "off"];
    let (code, _, log) = run(old.folder(), &arguments);
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("another process listens on"), "{log}");
}

#[tokio::test]
async fn a_gate_that_is_killed_leaves_a_socket_that_the_next_one_replaces() {
    let old = first().start().await;
    old.signal(Signal::KILL);
    until("no answer", || async { (probe(&old, &[]).0 == 2).then_some(()) }).await;
    let socket = old.folder().join("admin.sock");
    let admin = format!("{{ address: \"127.0.0.1:0\", socket: \"{}\" }}", socket.display());
    let new = routes("\"*/\": { respond: 200 }\n").section("admin", &admin).start().await;
    assert_eq!(probe(&old, &["--alive"]), (0, "ok\n".to_owned()));
    drop(new);
}
