//! What serves: the compiled, validated, immutable model, and how is a new one published?
//!
//! ```text
//! fragments -> merge -> Model -> compile(model, previous) -> Snapshot -> Shared (one swap) -> workers
//! ```

pub mod compile;
pub mod explain;
pub mod list;
mod members;
mod metrics;
pub mod publish;
mod small;

pub use compile::compile;
pub use explain::{ExplainRequest, Explanation, explain};
pub use list::{RouteLine, list};
pub use publish::Publisher;

use crate::filter::Chain;
use crate::model::{CertificateSpec, Keyed, ListenerSpec, Problem, Sorted, TlsBinding, Wanted};
use crate::route::{Route, Table};
use crate::tls::ServerNames;
use crate::upstream::Cluster;
use arc_swap::{ArcSwap, Guard};
use compile::Troubles;
use std::net::SocketAddr;
use std::sync::Arc;

/// Everything that serves at one moment. Parts that did not change are the same `Arc`s as in the snapshot before.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts published configurations; 0 is the empty one of the start.
    pub generation: u64,
    /// Listeners by name.
    pub listeners: Vec<Arc<ListenerSnapshot>>,
    /// Clusters by name. Every cluster of a route is among them.
    pub clusters: Sorted<HeldCluster>,
    /// Routes by name, those kept in their last good version and the broken ones included.
    pub routes: Sorted<Arc<Route>>,
    /// What the server names of listeners were compiled from.
    tls: Arc<TlsInputs>,
    /// What it was compiled from.
    wanted: Wanted,
    troubles: Troubles,
}

/// A cluster that serves.
#[derive(Clone, Debug)]
pub struct HeldCluster {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The client certificate that its TLS was made with: another one makes another cluster.
    certificate: Option<Arc<CertificateSpec>>,
}

#[derive(Debug, Default, PartialEq)]
struct TlsInputs {
    bindings: Arc<[TlsBinding]>,
    certificates: Sorted<Arc<CertificateSpec>>,
}

/// A listener and what serves on it.
#[derive(Debug)]
pub struct ListenerSnapshot {
    /// As it was said.
    pub spec: Arc<ListenerSpec>,
    /// Its routes. Listeners with the same routes share one table.
    pub table: Arc<Table>,
    /// Its own filters, which run before those of a route.
    pub chain: Arc<Chain>,
    /// Server names of a TLS listener.
    pub tls: Option<Arc<ServerNames>>,
    /// What was wrong when its server names were compiled, to be said again as long as they are reused.
    tls_problems: Arc<[Problem]>,
}

impl Keyed for HeldCluster {
    type Key = str;

    fn key(&self) -> &str {
        &self.cluster.spec().name
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cluster, &other.cluster)
    }
}

impl Snapshot {
    /// A listener by name. There are few, so a walk over them is the fastest look-up.
    pub fn listener(&self, name: &str) -> Option<&Arc<ListenerSnapshot>> {
        self.listeners.iter().find(|listener| listener.spec.name == name)
    }

    /// Which listener serves what comes in at a socket: the one of its address, whatever it is called by now, or else (port 0) the
    /// one of its name.
    pub fn serving(&self, name: &str, address: SocketAddr) -> Option<&Arc<ListenerSnapshot>> {
        self.listeners.iter().find(|listener| listener.spec.address == address).or_else(|| self.listener(name))
    }

    /// A cluster by name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name).map(|held| &held.cluster)
    }

    /// A route by name.
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(name)
    }
}

/// The cell that all workers read the snapshot from: one of the two swap cells of the process.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<ArcSwap<Snapshot>>);

impl Shared {
    /// A cell with a snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(snapshot)))
    }

    /// What serves now: taken once for each request, without a count that workers would contend for.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.0.load()
    }

    /// What serves now, to be held for long.
    pub fn full(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// A listener of what serves now.
    pub fn listener(&self, name: &str) -> Option<Arc<ListenerSnapshot>> {
        self.load().listener(name).cloned()
    }

    fn swap(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        self.0.swap(Arc::new(snapshot))
    }
}
