//! What of the API's objects does an audit keep?

use super::inventory::{Endpoint, IngressPath, Inventory, Node, Port, Service};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{self as networking, Ingress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// How Ingresses named their class before there was a field.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// Objects as they were read; `None`: they could not be.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    pub(super) services: Vec<core::Service>,
    pub(super) slices: Option<Vec<EndpointSlice>>,
    pub(super) ingresses: Option<Vec<Ingress>>,
    pub(super) nodes: Option<Vec<core::Node>>,
    pub(super) notes: Vec<String>,
}

impl Lists {
    pub(super) fn inventory(self) -> Inventory {
        let endpoints_known = self.slices.is_some();
        let mut endpoints = BTreeMap::<(String, String), Vec<Endpoint>>::new();
        for slice in self.slices.unwrap_or_default() {
            if let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
                let key = (slice.metadata.namespace.clone().unwrap_or_default(), service.clone());
                endpoints.entry(key).or_default().extend(of_slice(&slice));
            }
        }
        let services = self.services.into_iter().map(|object| {
            let mut service = service(object);
            service.endpoints =
                endpoints.remove(&(service.namespace.clone(), service.name.clone())).unwrap_or_default();
            distinct(&mut service.endpoints);
            service
        });
        Inventory {
            services: services.collect(),
            ingresses: self.ingresses.map(|all| all.into_iter().flat_map(paths).collect()),
            nodes: self.nodes.map(|all| all.into_iter().map(node).collect()),
            endpoints_known,
            notes: self.notes,
        }
    }
}

/// An endpoint may stand in two slices while it moves between them.
fn distinct(endpoints: &mut Vec<Endpoint>) {
    let mut seen = BTreeSet::new();
    endpoints.sort_by_key(|e| !e.ready);
    endpoints.retain(|e| seen.insert((e.port_name.clone(), e.address, e.port)));
}

fn service(object: core::Service) -> Service {
    let ObjectMeta { namespace, name, labels, annotations, .. } = object.metadata;
    let spec = object.spec.unwrap_or_default();
    let ingress = object.status.and_then(|s| s.load_balancer).and_then(|lb| lb.ingress).unwrap_or_default();
    Service {
        namespace: namespace.unwrap_or_default(),
        name: name.unwrap_or_default(),
        kind: spec.type_.unwrap_or_else(|| "ClusterIP".into()),
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
        health_check_node_port: spec.health_check_node_port.and_then(number),
        ports: spec.ports.unwrap_or_default().into_iter().map(port).collect(),
        load_balancer: ingress.into_iter().filter_map(|at| at.ip.or(at.hostname)).collect(),
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        external_ips: spec.external_ips.unwrap_or_default(),
        sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
        labels: labels.unwrap_or_default(),
        annotations: annotations.unwrap_or_default(),
        endpoints: Vec::new(),
    }
}

fn port(port: core::ServicePort) -> Port {
    let target = match port.target_port {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name,
        None => String::new(),
    };
    Port {
        name: port.name.unwrap_or_default(),
        transport: port.protocol.unwrap_or_else(|| "TCP".into()),
        port: number(port.port).unwrap_or_default(),
        target,
        node_port: port.node_port.and_then(number),
        app_protocol: port.app_protocol,
    }
}

/// Zero is how the API says that there is none.
fn number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

fn of_slice(slice: &EndpointSlice) -> Vec<Endpoint> {
    let mut found = Vec::new();
    for port in slice.ports.iter().flatten() {
        let Some(number) = port.port.and_then(number) else { continue };
        let endpoints = slice.endpoints.iter().flatten();
        let addresses =
            endpoints.flat_map(|endpoint| endpoint.addresses.iter().map(move |address| (endpoint, address)));
        found.extend(addresses.filter_map(|(endpoint, address)| {
            Some(Endpoint {
                port_name: port.name.clone().unwrap_or_default(),
                address: address.parse().ok()?,
                port: number,
                // A missing condition means ready, says the API.
                ready: endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true),
                node: endpoint.node_name.clone(),
            })
        }));
    }
    found
}

fn node(object: core::Node) -> Node {
    let listed = object.status.and_then(|status| status.addresses).unwrap_or_default();
    let of = |kind: &str| -> Vec<IpAddr> {
        listed.iter().filter(|a| a.type_ == kind).filter_map(|a| a.address.parse().ok()).collect()
    };
    let mut addresses = [of("InternalIP"), of("ExternalIP")].concat();
    addresses.dedup();
    Node { name: object.metadata.name.unwrap_or_default(), addresses }
}

fn paths(object: Ingress) -> Vec<IngressPath> {
    let ObjectMeta { namespace, name, annotations, .. } = object.metadata;
    let spec = object.spec.unwrap_or_default();
    let class = spec.ingress_class_name.or_else(|| annotations?.get(OLD_CLASS).cloned());
    let mut found = Vec::new();
    for rule in spec.rules.unwrap_or_default() {
        for path in rule.http.map(|http| http.paths).unwrap_or_default() {
            let Some(backend) = path.backend.service else { continue };
            found.push(IngressPath {
                namespace: namespace.clone().unwrap_or_default(),
                ingress: name.clone().unwrap_or_default(),
                class: class.clone(),
                service: backend.name,
                port: backend.port.map(port_text).unwrap_or_default(),
                host: rule.host.clone().unwrap_or_default(),
                path: path.path.unwrap_or_default(),
                exact: path.path_type == "Exact",
            });
        }
    }
    found
}

fn port_text(port: networking::ServiceBackendPort) -> String {
    port.name.or_else(|| port.number.map(|number| number.to_string())).unwrap_or_default()
}
