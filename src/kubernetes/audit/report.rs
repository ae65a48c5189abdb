//! What does an audit find? The shape that `--format json` and `--format yaml` print.

use super::patch::Patch;
use super::protocol::Speaks;
use serde::Serialize;
use std::net::IpAddr;

/// The answer of an audit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Counts.
    pub summary: Summary,
    /// Each Service that opens node ports, by namespace and name.
    pub services: Vec<OpenService>,
    /// Every node with the addresses at which node ports are open; empty where nodes could not be read.
    pub nodes: Vec<OpenNode>,
    /// What could not be read, and what holds for the whole cluster.
    pub notes: Vec<String>,
}

/// Counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Services that were looked at.
    pub looked_at: usize,
    /// Services that open node ports.
    pub services: usize,
    /// Node ports that are open, those of health checks included.
    pub node_ports: usize,
    /// Services that can be replaced as a whole.
    pub replaceable: usize,
    /// Services of which some ports can be replaced.
    pub partly: usize,
    /// Services that cannot be replaced yet.
    pub not_yet: usize,
    /// Services behind which nobody answers.
    pub unused: usize,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OpenNode {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Whether something can be replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every port.
    Yes,
    /// Some ports.
    Partly,
    /// No port.
    #[default]
    No,
}

/// A Service that opens node ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OpenService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `NodePort` or `LoadBalancer`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: &'static str,
    /// Whether the service sees another address than the client's.
    pub client_address_lost: bool,
    /// Ports that are open.
    pub ports: Vec<OpenPort>,
    /// The port at which load balancers ask whether a node has endpoints.
    pub health_check_node_port: Option<u16>,
    /// Who else than the nodes' addresses leads to it.
    pub reach: Reach,
    /// Whether Tidegate replaces it.
    pub replace: Verdict,
    /// Commands that close its node ports, in order.
    pub patches: Vec<Patch>,
    /// What to know before it is changed.
    pub notes: Vec<String>,
}

/// Addresses beside those of the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Nodes that answer although all have the port open: those with a ready endpoint, where the policy is `Local`.
    pub only_nodes: Option<Vec<String>>,
    /// Addresses or names of the load balancer.
    pub load_balancer: Vec<String>,
    /// Networks that may use these; they do not guard the node ports.
    pub source_ranges: Vec<String>,
    /// `externalIPs`.
    pub external_ips: Vec<String>,
}

/// A port that is open.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OpenPort {
    /// The port of every node.
    pub node_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its name; empty where it has none.
    pub name: String,
    /// The port of the Service.
    pub port: u16,
    /// The port of the pods, number or name.
    pub target: String,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
    /// Who answers; `None`: not known.
    pub endpoints: Option<Endpoints>,
    /// What is spoken there.
    pub speaks: Speaks,
    /// Whether Tidegate replaces it.
    pub replace: bool,
    /// Why, or why not.
    pub why: String,
    /// Routes that replace it.
    pub routes: Vec<Route>,
    /// What an Ingress controller serves at it, which needs no route; `None`: it is no such port.
    #[serde(skip)]
    pub front: Option<Vec<Route>>,
}

/// Counts of endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// Ready ones.
    pub ready: usize,
    /// Others.
    pub not_ready: usize,
}

/// A line of the routes document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The host; empty: any.
    pub host: String,
    /// The path as the routes document has it: `/api/`, `=/exact`.
    pub path: String,
    /// `namespace/service:port`.
    pub cluster: String,
    /// Where host and path come from.
    pub from: String,
    /// Whether the host is made up and must be written in by a person.
    pub placeholder: bool,
    /// What serves it already, so that it need not be written.
    pub served_by: Option<String>,
}

impl Report {
    /// Whether anything opens node ports.
    pub fn is_open(&self) -> bool {
        !self.services.is_empty()
    }
}

impl OpenService {
    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}
