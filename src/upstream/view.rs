//! What does the admin API show of a cluster?

use super::cluster::Cluster;
use super::endpoint::Endpoint;
use crate::model::{BalancePolicy, EndpointSpec, HashKey, Nearness, UpstreamProtocol};
use serde::Serialize;
use std::net::SocketAddr;

/// A cluster at one moment. Numbers are read one after the other, not at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// Name.
    pub name: String,
    /// Where it was said.
    pub origin: String,
    /// `http1` or `http2`.
    pub protocol: &'static str,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// `least_request`, `round_robin`, `random`, `hash(header x-user)`, `hash(cookie sid)`, `hash(source)`.
    pub balance: String,
    /// Endpoints that are neither failing their checks nor ejected and have a weight.
    pub available: usize,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests that wait for a place.
    pub waiting: u32,
    /// Idle connections.
    pub idle: u64,
    /// Ordered by address.
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointView {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share among endpoints.
    pub weight: u32,
    /// `node` or `zone`, where it is as near as that; left out where nearness makes no difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<&'static str>,
    /// Whether active checks find it well, or have not yet found otherwise.
    pub healthy: bool,
    /// Whether it is put aside for what real traffic met.
    pub ejected: bool,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait for a place.
    pub waiting: u32,
    /// Idle connections of all workers.
    pub idle: u32,
    /// Attempts that ended.
    pub attempts: u64,
    /// Those of them that failed.
    pub failures: u64,
}

impl Cluster {
    /// What it looks like now.
    pub fn describe(&self) -> ClusterView {
        let endpoints = self.endpoints();
        ClusterView {
            name: self.spec().name.to_string(),
            origin: self.spec().origin.to_string(),
            protocol: match self.spec().protocol {
                UpstreamProtocol::Http1 => "http1",
                UpstreamProtocol::Http2 => "http2",
            },
            tls: self.spec().tls.is_some(),
            balance: balance(&self.spec().balance),
            available: endpoints.iter().filter(|e| e.healthy && !e.ejected && e.weight > 0).count(),
            in_flight: endpoints.iter().map(|e| u64::from(e.in_flight)).sum(),
            waiting: self.queue.waiting(),
            idle: endpoints.iter().map(|e| u64::from(e.idle)).sum(),
            endpoints,
        }
    }

    /// Looking makes none of them.
    fn endpoints(&self) -> Vec<EndpointView> {
        if let Some(said) = &*self.said() {
            return said.iter().map(|spec| EndpointView::said(&spec)).collect();
        }
        self.members().iter().map(|e| EndpointView::of(e)).collect()
    }
}

impl EndpointView {
    /// One that never had a request.
    fn said(spec: &EndpointSpec) -> Self {
        let near = match spec.near {
            Nearness::Node => Some("node"),
            Nearness::Zone => Some("zone"),
            Nearness::Anywhere => None,
        };
        let (address, weight) = (spec.address, spec.weight);
        let (healthy, ejected, (in_flight, waiting, idle), (attempts, failures)) = (true, false, (0, 0, 0), (0, 0));
        Self { address, weight, near, healthy, ejected, in_flight, waiting, idle, attempts, failures }
    }

    fn of(endpoint: &Endpoint) -> Self {
        let (attempts, failures) = endpoint.totals();
        let said = EndpointSpec { address: endpoint.address(), weight: endpoint.weight(), near: endpoint.near() };
        Self {
            healthy: endpoint.is_healthy(),
            ejected: endpoint.is_ejected(),
            in_flight: endpoint.in_flight(),
            waiting: endpoint.waiting(),
            idle: endpoint.idle(),
            attempts,
            failures,
            ..Self::said(&said)
        }
    }
}

fn balance(policy: &BalancePolicy) -> String {
    match policy {
        BalancePolicy::LeastRequest => "least_request".into(),
        BalancePolicy::RoundRobin => "round_robin".into(),
        BalancePolicy::Random => "random".into(),
        BalancePolicy::Hash(HashKey::Header(name)) => format!("hash(header {name})"),
        BalancePolicy::Hash(HashKey::Cookie(name)) => format!("hash(cookie {name})"),
        BalancePolicy::Hash(HashKey::Source) => "hash(source)".into(),
    }
}
