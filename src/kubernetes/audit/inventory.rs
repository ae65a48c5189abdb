//! What does an audit know of a cluster? Plain data, without the types of the API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Services of every type.
    pub services: Vec<Service>,
    /// Rules of Ingresses; `None`: they could not be read.
    pub ingresses: Option<Vec<IngressPath>>,
    /// Nodes and their addresses; `None`: they could not be read.
    pub nodes: Option<Vec<Node>>,
    /// Whether EndpointSlices could be read.
    pub endpoints_known: bool,
    /// What could not be read, and why, in a sentence each.
    pub notes: Vec<String>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`.
    pub kind: String,
    /// `spec.externalTrafficPolicy` is `Local`.
    pub local: bool,
    /// `spec.healthCheckNodePort`, where there is one.
    pub health_check_node_port: Option<u16>,
    /// Its ports, in the order of the object: patches count them.
    pub ports: Vec<Port>,
    /// Addresses or names in `status.loadBalancer`.
    pub load_balancer: Vec<String>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<String>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<String>,
    /// `spec.sessionAffinity` is `ClientIP`.
    pub sticky: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Who answers behind it.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty where the only port has none.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub transport: String,
    /// The port of the Service.
    pub port: u16,
    /// `targetPort` as written: a number or a name; empty: the same number.
    pub target: String,
    /// The node port, where one is open.
    pub node_port: Option<u16>,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
}

/// An endpoint of a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name of the Service's port.
    pub port_name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it is ready.
    pub ready: bool,
    /// The node it runs on.
    pub node: Option<String>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses, internal ones first.
    pub addresses: Vec<IpAddr>,
}

/// A path of an Ingress that leads to a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngressPath {
    /// Namespace of the Ingress and of the Service.
    pub namespace: String,
    /// Name of the Ingress.
    pub ingress: String,
    /// Its class, where it names one.
    pub class: Option<String>,
    /// Name of the Service.
    pub service: String,
    /// Name or number of the Service's port.
    pub port: String,
    /// The host; empty: any.
    pub host: String,
    /// The path as written; empty: `/`.
    pub path: String,
    /// Whether only this very path is meant.
    pub exact: bool,
}

impl Service {
    /// Node ports that it opens, that of health checks included.
    pub fn node_ports(&self) -> impl Iterator<Item = u16> + '_ {
        let opens = matches!(self.kind.as_str(), "NodePort" | "LoadBalancer");
        let all = self.ports.iter().filter_map(|port| port.node_port).chain(self.health_check_node_port);
        all.filter(move |_| opens)
    }

    /// Nodes on which it has a ready endpoint.
    pub fn ready_nodes(&self) -> BTreeSet<&str> {
        self.endpoints.iter().filter(|e| e.ready).filter_map(|e| e.node.as_deref()).collect()
    }
}
