//! Do a node port and the gate give the same answer?
//!
//! Each route is asked for at its node port and at the gate, by GET, with the same host and path. The node port is asked twice: a body
//! that changes by itself cannot be compared. Nor can one that echoes the request, because the gate adds fields; but it
//! shows whose address the service saw.

use super::ask::{AGENT, Answer, Question};
use super::inventory::Inventory;
use super::probe::node_port_at;
use super::protocol::Protocol;
use super::report::{OpenPort, OpenService, Report, Route};
use super::{document, read};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Routes that are compared at the same time.
const AT_ONCE: usize = 8;

/// How to compare.
#[derive(Clone, Debug)]
pub struct Verify {
    /// Address of the gate.
    pub gate: SocketAddr,
    /// Whether the gate is asked by TLS.
    pub tls: bool,
    /// The node that is asked; `None`: some that the cluster names.
    pub node: Option<IpAddr>,
    /// The path; `None`: that of each route.
    pub path: Option<String>,
    /// Longest wait for an answer.
    pub patience: Duration,
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sameness {
    /// Both answer the same.
    Same,
    /// They answer differently.
    Differs,
    /// One of them does not answer.
    Unreachable,
    /// It cannot be compared.
    Skipped,
}

/// A route, asked for in both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// `namespace/name` of the Service.
    pub service: String,
    /// Its node port.
    pub node_port: u16,
    /// The host that was asked for.
    pub host: String,
    /// The path that was asked for.
    pub path: String,
    /// What came of it.
    pub verdict: Sameness,
    /// What differs, or why nothing could be compared.
    pub why: Vec<String>,
    /// The answer of the node port.
    pub node: Option<Seen>,
    /// The answer of the gate.
    pub gate: Option<Seen>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Who answered.
    pub at: SocketAddr,
    /// Its status.
    pub status: u16,
    /// Its content type.
    pub content_type: String,
    /// Bytes of its body.
    pub length: usize,
    /// FNV-1a of its body: to see a change, not to prove anything.
    pub digest: String,
    /// Whether the service saw the address of this machine, where its body tells: that, or the address of a node.
    pub client_address_kept: Option<bool>,
}

impl Verify {
    /// Compares every route of a report.
    pub async fn compare(&self, inventory: &Inventory, report: &Report) -> Vec<Comparison> {
        let all = document::lines(report).map(|(service, port, route)| self.route(inventory, service, port, route));
        stream::iter(all).buffered(AT_ONCE).collect().await
    }

    async fn route(&self, inventory: &Inventory, service: &OpenService, port: &OpenPort, route: &Route) -> Comparison {
        let own = route.path.strip_prefix('=').unwrap_or(&route.path);
        let own = if own.starts_with('/') { own } else { "/" };
        let path = self.path.clone().unwrap_or_else(|| own.to_owned());
        let at = self.nodes(inventory, service, port.node_port);
        let host = match (route.host.strip_prefix("*."), route.host.is_empty()) {
            (Some(rest), _) => format!("any.{rest}"),
            (None, true) => self.gate.ip().to_string(),
            (None, false) => route.host.clone(),
        };
        let mut comparison = Comparison {
            service: service.key(),
            node_port: port.node_port,
            host: host.clone(),
            path: path.clone(),
            verdict: Sameness::Skipped,
            why: Vec::new(),
            node: None,
            gate: None,
        };
        if port.speaks.protocol == Protocol::Http2 {
            comparison.why.push("it speaks HTTP/2 alone, which is not compared".into());
            return comparison;
        }
        let node = Question { at, tls: port.speaks.protocol == Protocol::Tls, host, path };
        let gate = Question { at: vec![self.gate], tls: self.tls, ..node.clone() };
        let asked = tokio::join!(node.ask(self.patience), node.ask(self.patience), gate.ask(self.patience));
        let (first, again, gate) = asked;
        for (what, answer) in [("the node port", &first), ("the gate", &gate)] {
            comparison.why.extend(answer.as_ref().err().map(|error| format!("{what}: {}", read::causes(error))));
        }
        comparison.node = first.as_ref().ok().map(|answer| seen(answer, inventory));
        comparison.gate = gate.as_ref().ok().map(|answer| seen(answer, inventory));
        comparison.verdict = Sameness::Unreachable;
        if let (Ok(node), Ok(gate)) = (&first, &gate) {
            let stable = again.is_ok_and(|again| again.body == node.body);
            let differs = differences(node, gate, stable, &mut comparison.why);
            comparison.verdict = if differs { Sameness::Differs } else { Sameness::Same };
        }
        comparison
    }

    fn nodes(&self, inventory: &Inventory, service: &OpenService, node_port: u16) -> Vec<SocketAddr> {
        if let Some(node) = self.node {
            return vec![SocketAddr::new(node, node_port)];
        }
        let found = inventory.services.iter().find(|s| (&s.namespace, &s.name) == (&service.namespace, &service.name));
        found.map(|service| node_port_at(inventory, service, node_port)).unwrap_or_default()
    }
}

/// Says what differs, and what could not be compared; gives whether anything differs.
fn differences(node: &Answer, gate: &Answer, stable: bool, why: &mut Vec<String>) -> bool {
    let before = why.len();
    if node.status != gate.status {
        why.push(format!("status {} at the node port, {} at the gate", node.status, gate.status));
    }
    if node.content_type != gate.content_type {
        let show = |text: &str| if text.is_empty() { "none".to_owned() } else { format!("{text:?}") };
        let (node, gate) = (show(&node.content_type), show(&gate.content_type));
        why.push(format!("content type {node} at the node port, {gate} at the gate"));
    }
    let echoed = |answer: &Answer| contains(&answer.body, AGENT);
    let differs = if node.body == gate.body {
        false
    } else if echoed(node) && echoed(gate) {
        why.push("the body echoes the request and was not compared".into());
        return why.len() > before + 1;
    } else if !stable {
        why.push("the body changes from one request to the next and was not compared".into());
        return why.len() > before + 1;
    } else {
        why.push(format!("body of {} bytes at the node port, of {} at the gate", node.body.len(), gate.body.len()));
        true
    };
    differs || why.len() > before
}

fn seen(answer: &Answer, inventory: &Inventory) -> Seen {
    let kept = contains(&answer.body, &answer.local.to_string());
    let node = |address: &IpAddr| contains(&answer.body, &address.to_string());
    let by_node = inventory.nodes.iter().flatten().any(|n| n.addresses.iter().any(node));
    Seen {
        at: answer.peer,
        status: answer.status,
        content_type: answer.content_type.clone(),
        length: answer.body.len(),
        digest: format!("{:016x}", fnv(&answer.body)),
        client_address_kept: if kept { Some(true) } else { by_node.then_some(false) },
    }
}

/// Whether a text stands in a body, not as part of a longer word: 10.0.0.1 is not in 10.0.0.12.
fn contains(body: &[u8], text: &str) -> bool {
    let part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'.');
    let ends = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| body.get(before));
        !part(before) && !part(body.get(at + text.len()))
    };
    memchr::memmem::find_iter(body, text).any(ends)
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn answer(status: u16, kind: &str, body: &'static str) -> Answer {
        let (peer, local) = (([10, 0, 0, 1], 80).into(), [192, 0, 2, 1].into());
        Answer { peer, local, status, content_type: kind.into(), body: Bytes::from_static(body.as_bytes()) }
    }

    fn compare(node: &Answer, gate: &Answer, stable: bool) -> (bool, String) {
        let mut why = Vec::new();
        let differs = differences(node, gate, stable, &mut why);
        (differs, why.join("; "))
    }

    #[test]
    fn status_type_and_body_must_be_the_same() {
        let page = answer(200, "text/html", "page");
        assert_eq!(compare(&page, &page, true), (false, String::new()));
        assert_eq!(compare(&page, &page, false), (false, String::new()));
        let (differs, why) = compare(&page, &answer(404, "", "no route"), true);
        assert!(differs);
        assert_eq!(
            why,
            "status 200 at the node port, 404 at the gate; content type \"text/html\" at the node port, none at the gate; \
             body of 4 bytes at the node port, of 8 at the gate"
        );
    }

    #[test]
    fn a_body_that_changes_by_itself_is_not_compared() {
        let (one, two) = (answer(200, "a/b", "12:01"), answer(200, "a/b", "12:02"));
        assert!(compare(&one, &two, true).0);
        let (differs, why) = compare(&one, &two, false);
        assert!(!differs && why.contains("was not compared"), "{why}");
        assert!(compare(&one, &Answer { status: 500, ..two }, false).0, "its status still is");
    }

    #[test]
    fn an_echo_is_not_compared_but_tells_whose_address_was_seen() {
        let echo = |from: &str| Answer {
            body: format!("from {from}\nuser-agent: {AGENT}\n").into(),
            ..answer(200, "text/plain", "")
        };
        let inventory = Inventory {
            nodes: Some(vec![super::super::inventory::Node {
                name: "a".into(),
                addresses: vec![[10, 0, 0, 1].into()],
            }]),
            ..Inventory::default()
        };
        let (lost, kept) = (echo("10.0.0.1"), echo("192.0.2.1"));
        assert!(!compare(&lost, &kept, true).0);
        let of = |answer: &Answer| seen(answer, &inventory).client_address_kept;
        assert_eq!((of(&lost), of(&kept), of(&echo("10.0.0.12"))), (Some(false), Some(true), None));
    }
}
