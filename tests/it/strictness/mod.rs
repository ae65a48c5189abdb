//! Does each rule of SECURITY.md hold: what is refused, and what does the upstream receive of what is not?
//!
//! Every message comes as one write, byte by byte, and cut in two. A refusal is a status with a reason, and the end of the connection.

mod bodies;
mod heads;
mod http2;
mod targets;

use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, everything_to, routes};
use crate::harness::until;
use crate::harness::upstream::Upstream;
use crate::harness::wire::{End, Message};
use std::net::SocketAddr;

/// The proxy before an upstream that answers everything.
struct Gate {
    proxy: Proxy,
    up: Upstream,
    http: SocketAddr,
}

impl Gate {
    async fn start() -> Self {
        let up = Upstream::text("ok").await;
        let proxy = routes(everything_to(&[&up])).start().await;
        let http = proxy.http().await;
        Self { proxy, up, http }
    }

    /// Expects this status with this reason, the end of the connection, and nothing at the upstream.
    async fn refuses(&self, bytes: impl AsRef<[u8]>, status: u16, reason: &str) {
        let bytes = bytes.as_ref();
        let shown = bytes.escape_ascii().to_string().chars().take(300).collect::<String>();
        let before = self.up.requests().len();
        for pieces in ways(bytes) {
            let mut client = Client::connect(self.http).await;
            send(&mut client, &pieces).await;
            let message = client.response().await;
            assert_eq!(message.status(), status, "{shown}");
            assert!(message.text().ends_with(&format!(": {reason}\n")), "{shown}: {}", message.text());
            assert_eq!(message.get("connection"), Some("close"), "{shown}");
            assert_eq!(client.end().await, End::Fin, "{shown}");
        }
        assert_eq!(self.up.requests().len(), before, "it went on: {shown}");
    }

    /// Expects that it goes on, and gives what the upstream received; the same however it is sent.
    async fn passes(&self, bytes: impl AsRef<[u8]>) -> Message {
        let bytes = bytes.as_ref();
        let shown = bytes.escape_ascii().to_string();
        let mut seen: Option<Message> = None;
        for pieces in ways(bytes) {
            let before = self.up.requests().len();
            let mut client = Client::connect(self.http).await;
            send(&mut client, &pieces).await;
            let message = client.final_response("GET").await;
            assert_eq!(message.status(), 200, "{shown}: {}", message.text());
            let mut received = self.up.requests().split_off(before);
            assert_eq!(received.len(), 1, "one request is one request: {shown}");
            let mut received = received.remove(0);
            received.head.fields.retain(|(name, _)| name != "x-request-id");
            if let Some(seen) = &seen {
                assert_eq!(
                    (&seen.head.first, &seen.head.fields),
                    (&received.head.first, &received.head.fields),
                    "{shown}"
                );
                assert_eq!((&seen.body, &seen.trailers), (&received.body, &received.trailers), "{shown}");
            }
            seen = Some(received);
        }
        seen.unwrap()
    }

    /// The same for a GET whose head has these further lines.
    async fn passes_with(&self, lines: &str) -> Message {
        self.passes(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")).await
    }

    async fn refuses_with(&self, lines: impl AsRef<[u8]>, status: u16, reason: &str) {
        let bytes = [b"GET / HTTP/1.1\r\nHost: a.test\r\n", lines.as_ref(), b"\r\n"].concat();
        self.refuses(bytes, status, reason).await;
    }

    /// Expects that a reason is in the access log and was counted.
    async fn told(&self, reason: &str) {
        self.proxy.wait_for_metric("tidegate_own_responses_total", &[&format!("reason=\"{reason}\"")], 1.0).await;
        until(&format!("a record of {reason}"), || async {
            let records = self.proxy.access_log(1).await;
            records.iter().any(|record| record["reason"] == reason).then_some(())
        })
        .await;
    }
}

/// As one write, byte by byte, and cut in two in some places.
fn ways(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let cut = |at: usize| vec![&bytes[..at], &bytes[at..]];
    let line = bytes.iter().position(|b| *b == b'\r').unwrap_or(bytes.len() / 2);
    let mut ways = vec![vec![bytes], cut(line), cut(bytes.len() - 1)];
    if bytes.len() < 2000 {
        ways.push(bytes.chunks(1).collect());
    }
    ways
}

async fn send(client: &mut Client, pieces: &[&[u8]]) {
    for piece in pieces {
        // A proxy that has seen enough may have closed.
        if client.try_send(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}
