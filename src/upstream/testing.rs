//! Which clusters do tests use?

use super::{Cluster, Endpoint};
use crate::model::{ClusterSpec, EndpointSpec, Origin};
use crate::telemetry::metrics::Registry;
use std::net::SocketAddr;
use std::sync::Arc;

/// Endpoints 10.0.0.1:80, 10.0.0.2:80 and so on, with these weights.
pub(crate) fn endpoints(weights: &[u32]) -> Vec<EndpointSpec> {
    let numbered = weights.iter().enumerate();
    numbered.map(|(at, &weight)| EndpointSpec::new(address(at), weight)).collect()
}

pub(crate) fn address(at: usize) -> SocketAddr {
    let at = u32::try_from(at).unwrap() + 1;
    SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + at), 80))
}

/// A spec with these weights and every default.
pub(crate) fn spec(weights: &[u32]) -> ClusterSpec {
    ClusterSpec::new("test", Origin::default(), endpoints(weights))
}

pub(crate) fn cluster(spec: &ClusterSpec) -> Arc<Cluster> {
    Cluster::new(spec, None, &Registry::new(1, 1000))
}

/// A cluster with one endpoint there.
pub(crate) fn at(address: SocketAddr) -> ClusterSpec {
    ClusterSpec::new("test", Origin::default(), vec![EndpointSpec::new(address, 1)])
}

/// The endpoints, ordered by address.
pub(crate) fn members(cluster: &Cluster) -> Vec<Arc<Endpoint>> {
    cluster.members().iter().cloned().collect()
}
