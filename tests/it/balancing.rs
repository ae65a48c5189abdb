//! Which endpoint takes a request?

use crate::harness::client::Client;
use crate::harness::proxy::{everything_to_with, routes};
use crate::harness::upstream::{Peer, Upstream};
use std::sync::Arc;
use tokio::sync::Notify;

async fn three() -> [Upstream; 3] {
    [Upstream::text("a").await, Upstream::text("b").await, Upstream::text("c").await]
}

fn counts(ups: &[Upstream; 3]) -> [usize; 3] {
    [ups[0].requests().len(), ups[1].requests().len(), ups[2].requests().len()]
}

#[tokio::test]
async fn round_robin_goes_in_turn() {
    let ups = three().await;
    let text = everything_to_with(&[&ups[0], &ups[1], &ups[2]], "balance: round_robin");
    let proxy = routes(text).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..30 {
        client.get("a.test", "/").await;
    }
    assert_eq!(counts(&ups), [10, 10, 10]);
}

#[tokio::test]
async fn weights_of_endpoints_are_their_shares() {
    let ups = three().await;
    let text = format!(
        "\"*/\": up\n---\nclusters:\n  up: {{ balance: round_robin, endpoints: [ {{ address: \"{}\", weight: 3 }}, \
         {{ address: \"{}\", weight: 1 }}, {{ address: \"{}\", weight: 0 }} ] }}\n",
        ups[0], ups[1], ups[2]
    );
    let proxy = routes(text).section("workers", "1").start().await;
    let mut client = proxy.client().await;
    for _ in 0..40 {
        client.get("a.test", "/").await;
    }
    assert_eq!(counts(&ups), [30, 10, 0]);
}

#[tokio::test]
async fn random_and_least_request_reach_every_endpoint() {
    for balance in ["random", "least_request"] {
        let ups = three().await;
        let text = everything_to_with(&[&ups[0], &ups[1], &ups[2]], &format!("balance: {balance}"));
        let proxy = routes(text).start().await;
        let mut client = proxy.client().await;
        for _ in 0..60 {
            client.get("a.test", "/").await;
        }
        assert!(counts(&ups).iter().all(|n| *n > 0), "{balance}: {:?}", counts(&ups));
    }
}

#[tokio::test]
async fn a_busy_endpoint_gets_fewer_requests_than_an_idle_one() {
    let free = Arc::new(Notify::new());
    let told = free.clone();
    let busy = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            while peer.request().await.is_some() {
                told.notified().await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbusy").await;
            }
        }
    })
    .await;
    let idle = Upstream::text("idle").await;
    let proxy = routes(everything_to_with(&[&busy, &idle], "balance: least_request")).start().await;
    // Until one request hangs at the busy endpoint, each goes to either.
    let http = proxy.http().await;
    let mut held = Vec::new();
    while held.is_empty() {
        let mut client = Client::connect(http).await;
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let at_the_busy_one = tokio::select! {
            _ = client.response() => false,
            _ = busy.wait_for_requests(1) => true,
        };
        if at_the_busy_one {
            held.push(client);
        }
    }
    let mut client = Client::connect(http).await;
    for n in 0..20 {
        assert_eq!(client.get("a.test", "/").await.text(), "idle", "request {n}");
    }
    free.notify_one();
    assert_eq!(held[0].response().await.text(), "busy");
}

#[tokio::test]
async fn a_hash_sends_the_same_key_to_the_same_endpoint_on_every_instance() {
    let ups = three().await;
    let text = everything_to_with(&[&ups[0], &ups[1], &ups[2]], "balance: { hash: { header: x-user } }");
    let (one, other) = (routes(text.clone()).start().await, routes(text).start().await);
    let mut seen = std::collections::HashSet::new();
    for user in 0..30 {
        let user = user.to_string();
        let fields = [("X-User", user.as_str())];
        let mut answers = Vec::new();
        for proxy in [&one, &other, &one] {
            answers.push(proxy.client().await.request("GET", "a.test", "/", &fields, b"").await.text().to_owned());
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "user {user}: {answers:?}");
        seen.insert(answers.remove(0));
    }
    assert_eq!(seen.len(), 3, "every endpoint has some of thirty users");
}

#[tokio::test]
async fn a_hash_may_be_of_a_cookie_or_the_source() {
    let ups = three().await;
    let all: [&dyn std::fmt::Display; 3] = [&ups[0], &ups[1], &ups[2]];
    let proxy = routes(everything_to_with(&all, "balance: { hash: { cookie: session } }")).start().await;
    let fields = [("Cookie", "x=1; session=abc; y=2")];
    let first = proxy.client().await.request("GET", "a.test", "/", &fields, b"").await.text().to_owned();
    for _ in 0..5 {
        let again = proxy.client().await.request("GET", "a.test", "/", &[("Cookie", "session=abc")], b"").await;
        assert_eq!(again.text(), first);
    }
    let proxy = routes(everything_to_with(&all, "balance: { hash: source }")).start().await;
    let first = proxy.get("a.test", "/").await.text().to_owned();
    for _ in 0..5 {
        assert_eq!(proxy.get("a.test", "/").await.text(), first);
    }
}

#[tokio::test]
async fn losing_an_endpoint_moves_only_its_own_keys() {
    let ups = three().await;
    let balance = "balance: { hash: { header: x-user } }";
    let proxy = routes(everything_to_with(&[&ups[0], &ups[1], &ups[2]], balance)).start().await;
    let ask = async |user: usize| {
        let user = user.to_string();
        let fields = [("X-User", user.as_str())];
        proxy.client().await.request("GET", "a.test", "/", &fields, b"").await.text().to_owned()
    };
    let mut before = Vec::new();
    for user in 0..30 {
        before.push(ask(user).await);
    }
    proxy.reload(everything_to_with(&[&ups[0], &ups[1]], balance)).await;
    for (user, old) in before.iter().enumerate() {
        let new = ask(user).await;
        assert!(new == *old || old == "c", "user {user} moved from {old} to {new}");
    }
}
