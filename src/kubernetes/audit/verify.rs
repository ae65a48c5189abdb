//! Do a node port and the gate give the same answer?
//!
//! Each route is asked for at its node port and at the gate, by GET, with the same host and path. The node port is asked twice: a body
//! that changes by itself cannot be compared. Nor can one that echoes the request, because the gate adds fields; but it
//! shows whose address the service saw. A port that speaks HTTP/2 alone is asked in it at both ends; one of gRPC answers a GET by
//! refusing it, which must be the same refusal.
//!
//! What is replaced without a comparison is named with its reason: who closes ports by the answer must not take silence for sameness.

use super::ask::{AGENT, Answer, Question};
use super::inventory::Inventory;
use super::probe::node_port_at;
use super::protocol::Protocol;
use super::read;
use super::report::{OpenPort, OpenService, Report, Route};
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
}

/// What came of all comparisons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Every route that was asked for.
    pub comparisons: Vec<Comparison>,
    /// Every open port that was not.
    pub not_compared: Vec<NotCompared>,
}

/// A port that was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    /// `namespace/name` of the Service.
    pub service: String,
    /// Its node port.
    pub node_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Whether the audit says that Tidegate replaces it, so that it would be closed.
    pub replace: bool,
    /// Why it was not compared.
    pub why: String,
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
    /// What differs, or why nothing answered.
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
    pub async fn compare(&self, inventory: &Inventory, report: &Report) -> Compared {
        let (mut asked, mut not_compared) = (Vec::new(), Vec::new());
        for service in &report.services {
            for port in &service.ports {
                let routes = routes(service, port);
                match silence(port, routes) {
                    Some(why) => not_compared.push(left_out(service, port, why)),
                    None => asked.extend(routes.iter().map(|route| self.route(inventory, service, port, route))),
                }
            }
            not_compared.extend(service.health_check_node_port.map(|port| health(service, port)));
        }
        Compared { comparisons: stream::iter(asked).buffered(AT_ONCE).collect().await, not_compared }
    }

    async fn route(&self, inventory: &Inventory, service: &OpenService, port: &OpenPort, route: &Route) -> Comparison {
        let (host, path) = self.asked_for(route);
        let at = self.nodes(inventory, service, port.node_port);
        let (tls, http2) = (port.speaks.protocol == Protocol::Tls, port.speaks.protocol == Protocol::Http2);
        let verdict = Sameness::Unreachable;
        let (why, service, node_port) = (Vec::new(), service.key(), port.node_port);
        let node = Question { at, tls, http2, host: host.clone(), path: path.clone() };
        let gate = Question { at: vec![self.gate], tls: self.tls, ..node.clone() };
        let mut comparison = Comparison { service, node_port, host, path, verdict, why, node: None, gate: None };
        let asked = tokio::join!(node.ask(self.patience), node.ask(self.patience), gate.ask(self.patience));
        let (first, again, gate) = asked;
        for (what, answer) in [("the node port", &first), ("the gate", &gate)] {
            comparison.why.extend(answer.as_ref().err().map(|error| format!("{what}: {}", read::causes(error))));
        }
        comparison.node = first.as_ref().ok().map(|answer| seen(answer, inventory));
        comparison.gate = gate.as_ref().ok().map(|answer| seen(answer, inventory));
        if let (Ok(node), Ok(gate)) = (&first, &gate) {
            let stable = again.is_ok_and(|again| again.body == node.body);
            let differs = differences(node, gate, stable, &mut comparison.why);
            comparison.verdict = if differs { Sameness::Differs } else { Sameness::Same };
        }
        comparison
    }

    /// Host and path of a request that a route takes.
    fn asked_for(&self, route: &Route) -> (String, String) {
        let own = route.path.strip_prefix('=').unwrap_or(&route.path);
        let own = if own.starts_with('/') { own } else { "/" };
        let host = match (route.host.strip_prefix("*."), route.host.is_empty()) {
            (Some(rest), _) => format!("any.{rest}"),
            (None, true) => self.gate.ip().to_string(),
            (None, false) => route.host.clone(),
        };
        (host, self.path.clone().unwrap_or_else(|| own.to_owned()))
    }

    fn nodes(&self, inventory: &Inventory, service: &OpenService, node_port: u16) -> Vec<SocketAddr> {
        if let Some(node) = self.node {
            return vec![SocketAddr::new(node, node_port)];
        }
        let found = inventory.services.iter().find(|s| (&s.namespace, &s.name) == (&service.namespace, &service.name));
        found.map(|service| node_port_at(inventory, service, node_port)).unwrap_or_default()
    }
}

/// The routes that take the place of a port. That of an Ingress controller has what its Ingresses say. A port of TLS that is
/// replaced has none of its own: those of its Service's HTTP port answer https too, so that they are what it must be compared
/// with before it is closed.
fn routes<'a>(service: &'a OpenService, port: &'a OpenPort) -> &'a [Route] {
    let beside = || service.ports.iter().find(|p| p.speaks.protocol == Protocol::Http && !p.routes.is_empty());
    if let Some(routes) = &port.front {
        return routes;
    }
    match port.speaks.protocol {
        Protocol::Tls if port.replace && port.routes.is_empty() => beside().map_or(&[], |http| &http.routes),
        _ => &port.routes,
    }
}

/// Why a port is not asked; `None`: it is.
fn silence(port: &OpenPort, routes: &[Route]) -> Option<String> {
    match &port.front {
        _ if !port.replace => Some(port.why.clone()),
        Some(none) if none.is_empty() => {
            Some("no Ingress is known that it serves, so there is nothing to ask for".into())
        }
        _ => routes.is_empty().then(|| format!("no route to ask for: {}", port.why)),
    }
}

fn left_out(service: &OpenService, port: &OpenPort, why: String) -> NotCompared {
    let (protocol, replace) = (port.protocol.clone(), port.replace);
    NotCompared { service: service.key(), node_port: port.node_port, protocol, replace, why }
}

fn health(service: &OpenService, node_port: u16) -> NotCompared {
    let why = "it tells load balancers of the health of its node".into();
    NotCompared { service: service.key(), node_port, protocol: "TCP".into(), replace: false, why }
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

    fn open(protocol: Protocol, replace: bool, hosts: &[&str]) -> OpenPort {
        let route = |host: &&str| Route { host: (*host).into(), path: "/".into(), ..Route::default() };
        let speaks = super::super::protocol::Speaks::new(protocol, "a test says so");
        OpenPort {
            speaks,
            replace,
            why: "because".into(),
            routes: hosts.iter().map(route).collect(),
            ..OpenPort::default()
        }
    }

    #[test]
    fn a_port_of_tls_is_compared_with_the_routes_of_the_http_port_beside_it() {
        let ports = vec![open(Protocol::Http, true, &["a.test", "b.test"]), open(Protocol::Tls, true, &[])];
        let service = OpenService { ports, ..OpenService::default() };
        assert_eq!(routes(&service, &service.ports[1]), service.ports[0].routes);
        assert_eq!(routes(&service, &open(Protocol::Tls, false, &[])), [], "what stays open is not asked");
        let alone = OpenService { ports: vec![open(Protocol::Tls, true, &[])], ..OpenService::default() };
        assert_eq!(routes(&alone, &alone.ports[0]), []);
    }

    #[test]
    fn what_is_not_asked_has_a_reason() {
        let why = |port: &OpenPort| silence(port, &port.routes);
        assert_eq!(why(&open(Protocol::Http, true, &["a.test"])), None);
        assert_eq!(why(&open(Protocol::Other, false, &[])).as_deref(), Some("because"));
        assert_eq!(why(&open(Protocol::Http2, true, &["a.test"])), None);
        assert_eq!(why(&open(Protocol::Http, true, &[])).as_deref(), Some("no route to ask for: because"));
    }

    #[test]
    fn a_port_of_an_ingress_controller_is_compared_by_its_ingresses() {
        let front = |hosts: &[&str]| OpenPort {
            front: Some(open(Protocol::Http, true, hosts).routes),
            ..open(Protocol::Tls, true, &[])
        };
        let ports = vec![front(&["a.test"]), open(Protocol::Http, true, &["metrics.test"])];
        let service = OpenService { ports, ..OpenService::default() };
        let asked = routes(&service, &service.ports[0]);
        assert_eq!(asked.iter().map(|route| route.host.as_str()).collect::<Vec<_>>(), ["a.test"]);
        assert_eq!(silence(&service.ports[0], asked), None);
        let none = front(&[]);
        assert!(silence(&none, routes(&service, &none)).unwrap().contains("no Ingress"));
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
