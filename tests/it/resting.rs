//! Does a connection that waits for long lose its task and nothing else?

use crate::harness::certs::Authority;
use crate::harness::client::{Client, tcp};
use crate::harness::h2::H2Client;
use crate::harness::proxy::{Proxy, everything_to, items, routes};
use crate::harness::until;
use crate::harness::upstream::Upstream;
use crate::harness::wire::End;
use rustix::process::Signal;
use tokio::net::TcpStream;

const RESTING: &str = "tidegate_connections_resting";
const OPEN: &str = "tidegate_connections_open";

async fn rests(proxy: &Proxy, connections: f64) {
    until("rest", || async { (proxy.metric(RESTING, &[]).await == connections).then_some(()) }).await;
}

async fn open(proxy: &Proxy, connections: f64) {
    until("the connections", || async { (proxy.metric(OPEN, &[]).await == connections).then_some(()) }).await;
}

#[tokio::test]
async fn a_client_that_rested_is_served_as_before_and_may_rest_again() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    for served in 1..4 {
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
        rests(&proxy, 1.0).await;
        let shown = items(&proxy.api("connections").await);
        assert_eq!((shown.len(), &shown[0]["requests"], &shown[0]["protocol"]), (1, &served.into(), &"h1".into()));
    }
    drop(client);
    open(&proxy, 0.0).await;
    rests(&proxy, 0.0).await;
}

#[tokio::test]
async fn many_rest_and_wake_up_at_once_each_with_its_own_answer() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut clients = Vec::new();
    for _ in 0..150 {
        clients.push(proxy.client().await);
    }
    for round in 0..2 {
        rests(&proxy, 150.0).await;
        let word = |number| format!("{round} of {number:03}");
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\n{}", word(number))).await;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().await.text(), word(number));
        }
    }
    rests(&proxy, 150.0).await;
    clients.truncate(75);
    open(&proxy, 75.0).await;
    rests(&proxy, 75.0).await;
}

#[tokio::test]
async fn whoever_rests_too_long_is_closed_whether_he_ever_asked_or_not() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).http("timeouts: { head: 3s, keep_alive: 3s }").start().await;
    let (mut one, mut other) = (proxy.client().await, proxy.client().await);
    assert_eq!(one.get("a.test", "/").await.text(), "ok");
    rests(&proxy, 2.0).await;
    assert_eq!((one.end().await, other.end().await), (End::Fin, End::Fin));
    open(&proxy, 0.0).await;
}

#[tokio::test]
async fn a_drain_closes_those_at_rest_and_serves_who_never_asked() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let http = proxy.http().await;
    let (mut one, mut other) = (Client::connect(http).await, Client::connect(http).await);
    assert_eq!(one.get("a.test", "/").await.text(), "ok");
    rests(&proxy, 2.0).await;
    proxy.signal(Signal::TERM);
    assert_eq!(one.end().await, End::Fin);
    until("the end of accepting", || async { TcpStream::connect(http).await.err() }).await;
    let response = other.get("a.test", "/").await;
    assert_eq!((response.text(), response.get("connection")), ("ok", Some("close")));
    assert_eq!(other.end().await, End::Fin);
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn a_removed_listener_closes_those_at_rest_and_no_others() {
    let up = Upstream::text("ok").await;
    // Longer than the test waits for anything.
    let patient = "timeouts: { head: 1h, keep_alive: 1h }";
    let proxy = routes(everything_to(&[&up])).http(patient).listener("goes", "127.0.0.1:0", patient).start().await;
    let (goes, http) = (proxy.address("goes").await, proxy.http().await);
    let mut clients = Vec::new();
    // More than enough for each worker to have some.
    for _ in 0..32 {
        let (mut staying, mut leaving) = (Client::connect(http).await, Client::connect(goes).await);
        assert_eq!(staying.get("a.test", "/").await.text(), "ok");
        assert_eq!(leaving.get("a.test", "/").await.text(), "ok");
        clients.push((staying, leaving));
    }
    let mut connected = Client::connect(goes).await;
    rests(&proxy, 65.0).await;
    let text = std::fs::read_to_string(proxy.folder().join("tidegate.yaml")).unwrap();
    let line = format!("  goes: {{ address: \"127.0.0.1:0\", {patient} }}\n");
    assert!(text.contains(&line), "{text}");
    proxy.write("tidegate.yaml", text.replace(&line, ""));
    for (_, leaving) in &mut clients {
        assert_eq!(leaving.end().await, End::Fin);
    }
    rests(&proxy, 33.0).await;
    let response = connected.get("a.test", "/").await;
    assert_eq!((response.text(), response.get("connection")), ("ok", Some("close")), "a first request is let in");
    rests(&proxy, 32.0).await;
    for (staying, _) in &mut clients {
        let response = staying.get("a.test", "/").await;
        assert_eq!((response.text(), response.get("connection")), ("ok", None));
    }
    rests(&proxy, 32.0).await;
}

#[tokio::test]
async fn nobody_rests_whose_bytes_came_before_they_were_a_request() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let (mut first, mut later, _idle) = (proxy.client().await, proxy.client().await, proxy.client().await);
    let request = |body: &str| format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n{body}");
    let (whole, half) = (request("three"), request("three").len() / 2);
    first.send(&whole[..half]).await;
    later.send(format!("{}{}{}", request("one.."), request("two.."), &whole[..half])).await;
    assert_eq!(later.response().await.text(), "one..");
    assert_eq!(later.response().await.text(), "two..");
    rests(&proxy, 1.0).await;
    for client in [&mut first, &mut later] {
        client.send(&whole[half..]).await;
        assert_eq!(client.response().await.text(), "three");
    }
    rests(&proxy, 3.0).await;
    // What comes in one go is answered in its order, and what follows behind a rest too.
    later.send(request("four.") + &request("five.") + &whole[..half]).await;
    assert_eq!(later.response().await.text(), "four.");
    assert_eq!(later.response().await.text(), "five.");
    rests(&proxy, 2.0).await;
    later.send(&whole[half..]).await;
    assert_eq!(later.response().await.text(), "three");
    rests(&proxy, 3.0).await;
}

#[tokio::test]
async fn who_rests_is_counted_by_the_limits_of_connections() {
    let up = Upstream::text("ok").await;
    for limit in ["connections: 2", "connections_per_source: 2"] {
        let proxy = routes(everything_to(&[&up])).http(&format!("limits: {{ {limit} }}")).start().await;
        let (mut one, other) = (proxy.client().await, proxy.client().await);
        rests(&proxy, 2.0).await;
        assert!(Client::all_of(proxy.http().await).await.is_empty(), "{limit}");
        drop(other);
        open(&proxy, 1.0).await;
        assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
        open(&proxy, 1.0).await;
        assert_eq!(one.get("a.test", "/").await.text(), "ok");
        rests(&proxy, 1.0).await;
    }
}

#[tokio::test]
async fn a_client_at_rest_that_is_half_closed_is_answered_and_one_that_resets_is_gone() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let (mut half, gone) = (proxy.client().await, proxy.client().await);
    rests(&proxy, 2.0).await;
    gone.reset();
    half.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    half.half_close().await;
    assert_eq!(half.response().await.text(), "ok");
    open(&proxy, 0.0).await;
}

#[tokio::test]
async fn a_client_may_begin_to_speak_http2_after_a_rest() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let stream = tcp(proxy.http().await).await;
    rests(&proxy, 1.0).await;
    let mut client = H2Client::over(stream).await;
    assert_eq!(client.get("http", "a.test", "/").await.text(), "ok");
}

#[tokio::test]
async fn a_client_over_tls_that_waited_long_is_told_of_a_drain() {
    let (up, authority) = (Upstream::text("ok").await, Authority::new("ca"));
    let setup = routes(everything_to(&[&up])).http("").https("").certificate("a", &authority.issue(&["a.test"]));
    let proxy = setup.start().await;
    let mut waits = Client::tls(proxy.https().await, &authority.client(&["http/1.1"]), "a.test").await;
    let mut rested = proxy.client().await;
    for client in [&mut waits, &mut rested] {
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
    }
    rests(&proxy, 1.0).await;
    assert_eq!(waits.get("a.test", "/").await.text(), "ok");
    rested.get("a.test", "/").await;
    rests(&proxy, 0.0).await;
    rests(&proxy, 1.0).await;
    proxy.signal(Signal::TERM);
    assert_eq!((waits.end().await, rested.end().await), (End::Fin, End::Fin));
    assert!(proxy.ended().await.success());
}
