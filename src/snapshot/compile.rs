//! How does a model become a snapshot, and what of it cannot be honoured?
//!
//! Compiling changes nothing that serves. One wrong part never stops the others; what becomes of it:
//!
//! - A route that forwards to an unknown cluster, or whose match cannot be compiled, keeps its last good version as long as that
//!   one's clusters are there. Without one it is left out.
//! - A route with a filter that keeps requests out (access, header check, body limit) and cannot be compiled answers 500: its
//!   last good version may be one without that filter.
//! - A route with another filter or an action that cannot be compiled keeps its last good version; without one it answers 500, so
//!   that its requests do not fall to a route that was meant for others.
//! - A listener whose own filters cannot be compiled answers 500 to every request.
//! - A cluster whose TLS cannot be set up keeps its last good version; without one it does not exist.

use super::{HeldCluster, ListenerSnapshot, Snapshot, TlsInputs};
use crate::filter::Chain;
use crate::model::{
    CertificateSpec, ClusterSpec, Fragment, ListenerProtocol, ListenerSpec, Model, Origin, Problem, RouteSpec,
    UpstreamProtocol,
};
use crate::route::{Action, Fault, Route, Table};
use crate::telemetry::metrics::Registry;
use crate::tls::{self, ServerNames};
use crate::upstream::Cluster;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Compiles a model, and takes over what did not change from the snapshot that serves. The result does not depend on the order
/// of what is in the model.
pub fn compile(model: &Model, previous: &Snapshot, registry: &Registry) -> (Snapshot, Vec<Problem>) {
    let mut compiler = Compiler { wanted: &model.wanted, previous, registry, problems: Vec::new() };
    let clusters = compiler.clusters();
    let routes = compiler.routes(&clusters);
    let tls = compiler.tls_inputs();
    let listeners = compiler.listeners(&routes, &tls);
    let mut problems = compiler.problems;
    problems.sort();
    problems.dedup();
    (Snapshot { generation: previous.generation + 1, listeners, clusters, routes, tls }, problems)
}

struct Compiler<'a> {
    wanted: &'a Fragment,
    previous: &'a Snapshot,
    registry: &'a Registry,
    problems: Vec<Problem>,
}

type Clusters = BTreeMap<String, HeldCluster>;
type Routes = BTreeMap<String, Arc<Route>>;

impl Compiler<'_> {
    fn error(&mut self, origin: &Origin, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::error(origin.clone(), what, hint));
    }

    fn clusters(&mut self) -> Clusters {
        let wanted = self.wanted;
        wanted.clusters.iter().filter_map(|spec| Some((spec.name.clone(), self.cluster(spec)?))).collect()
    }

    fn cluster(&mut self, spec: &Arc<ClusterSpec>) -> Option<HeldCluster> {
        let previous = self.previous.clusters.get(&spec.name);
        let Ok(certificate) = self.client_certificate(spec) else { return previous.cloned() };
        if let Some(held) = previous
            && same_but_endpoints(held.cluster.spec(), spec)
            && held.certificate == certificate
        {
            return Some(held.clone());
        }
        let http2 = spec.protocol == UpstreamProtocol::Http2;
        let config = spec.tls.as_ref().map(|tls| tls::client_config(tls, certificate.as_deref(), http2)).transpose();
        match config {
            Ok(config) => Some(HeldCluster { cluster: Cluster::of(spec, config, self.registry), certificate }),
            Err(error) => {
                let what = format!("the TLS of cluster {:?} cannot be set up: {error}", spec.name);
                self.error(&spec.origin, what, kept_or("the cluster is left out", previous.is_some()));
                previous.cloned()
            }
        }
    }

    /// The certificate that a cluster shows upstream; an error, already told, where there is none of that name.
    fn client_certificate(&mut self, spec: &ClusterSpec) -> Result<Option<Box<CertificateSpec>>, ()> {
        let Some(name) = spec.tls.as_ref().and_then(|tls| tls.client_certificate.as_ref()) else { return Ok(None) };
        let found = self.wanted.certificates.iter().find(|certificate| certificate.name == *name);
        if found.is_none() {
            let kept = self.previous.clusters.contains_key(&spec.name);
            let what = format!("there is no certificate {name:?}, which cluster {:?} shows upstream", spec.name);
            self.error(&spec.origin, what, kept_or("the cluster is left out", kept));
            return Err(());
        }
        Ok(found.cloned().map(Box::new))
    }

    fn routes(&mut self, clusters: &Clusters) -> Routes {
        let wanted = self.wanted;
        let known: BTreeSet<&str> = wanted.listeners.iter().map(|l| l.name.as_str()).collect();
        for spec in &wanted.routes {
            let unknown = |name: &&String| !wanted.listeners.iter().any(|listener| listener.is_called(name));
            for name in spec.listeners.iter().filter(unknown) {
                let hint = format!("there are {}", known.iter().copied().collect::<Vec<_>>().join(", "));
                self.error(&spec.origin, format!("there is no listener {name:?}"), hint);
            }
        }
        wanted.routes.iter().filter_map(|spec| Some((spec.name.clone(), self.route(spec, clusters)?))).collect()
    }

    fn route(&mut self, spec: &Arc<RouteSpec>, clusters: &Clusters) -> Option<Arc<Route>> {
        let previous = self.previous.routes.get(&spec.name);
        let usable = previous.filter(|route| !is_broken(route) && still_there(route, clusters));
        if let Some(route) = usable.filter(|route| route.spec == *spec) {
            return Some(Arc::clone(route));
        }
        if let Some(route) = usable.filter(|route| only_moved(&route.spec, spec)) {
            return Some(Arc::new(route.moved(spec)));
        }
        match Route::compile(spec, |name| clusters.get(name).map(|held| Arc::clone(&held.cluster)), self.registry) {
            Ok(route) => {
                if let Some(previous) = previous {
                    route.metrics.follow(&previous.metrics);
                }
                Some(Arc::new(route))
            }
            Err(faults) => self.refused(spec, &faults, previous, clusters),
        }
    }

    /// What serves instead of a route that cannot be compiled.
    fn refused(
        &mut self,
        spec: &Arc<RouteSpec>,
        faults: &[Fault],
        previous: Option<&Arc<Route>>,
        clusters: &Clusters,
    ) -> Option<Arc<Route>> {
        let guard = faults.iter().find(|f| matches!(f, Fault::Guard(_)));
        let last_good = || previous.and_then(|route| self.last_good(route, clusters));
        let (serves, instead) = if let Some(fault) = guard {
            let reason = fault.error().to_string();
            let closed = Route::broken(spec, reason.clone(), self.registry)
                .or_else(|| Route::broken(&previous?.spec, reason, self.registry));
            (closed.map(Arc::new), "the route answers 500")
        } else if let Some(route) = last_good() {
            (Some(route), "the last good version of the route is kept")
        } else if let Some(Fault::Action(error)) = faults.iter().find(|f| matches!(f, Fault::Action(_))) {
            (Route::broken(spec, error.to_string(), self.registry).map(Arc::new), "the route answers 500")
        } else {
            (None, "the route is left out")
        };
        let instead = if serves.is_none() { "the route is left out" } else { instead };
        for fault in faults {
            let error = fault.error();
            self.error(&spec.origin, error.what, format!("{}; {instead}", error.hint));
        }
        serves
    }

    /// A route that served, with the clusters of now. `None` where one is gone.
    fn last_good(&self, route: &Arc<Route>, clusters: &Clusters) -> Option<Arc<Route>> {
        if is_broken(route) {
            return None;
        }
        if still_there(route, clusters) {
            return Some(Arc::clone(route));
        }
        let cluster = |name: &str| clusters.get(name).map(|held| Arc::clone(&held.cluster));
        Route::compile(&route.spec, cluster, self.registry).ok().map(Arc::new)
    }

    fn tls_inputs(&self) -> Arc<TlsInputs> {
        let new = TlsInputs { bindings: self.wanted.tls.clone(), certificates: self.wanted.certificates.clone() };
        if new == *self.previous.tls { Arc::clone(&self.previous.tls) } else { Arc::new(new) }
    }

    fn listeners(&mut self, routes: &Routes, tls: &Arc<TlsInputs>) -> Vec<Arc<ListenerSnapshot>> {
        let mut tables = Tables::of(self.previous);
        let wanted = self.wanted;
        let mut listeners: Vec<_> =
            wanted.listeners.iter().map(|spec| self.listener(spec, routes, tls, &mut tables)).collect();
        listeners.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        self.shadows(&listeners);
        listeners
    }

    fn listener(
        &mut self,
        spec: &ListenerSpec,
        routes: &Routes,
        tls: &Arc<TlsInputs>,
        tables: &mut Tables,
    ) -> Arc<ListenerSnapshot> {
        let serves = |route: &&Arc<Route>| {
            route.spec.listeners.is_empty() || route.spec.listeners.iter().any(|name| spec.is_called(name))
        };
        let table = tables.table(routes.values().filter(serves).cloned().collect());
        let previous = self.previous.listener(&spec.name).filter(|p| *p.spec == *spec);
        let chain = match previous.filter(|p| !p.chain.is_closed()) {
            Some(previous) => Arc::clone(&previous.chain),
            None => Arc::new(self.chain(spec)),
        };
        let (tls, tls_problems) = self.server_names(spec, previous, tls);
        self.problems.extend(tls_problems.iter().cloned());
        if let Some(p) = previous
            && Arc::ptr_eq(&p.table, &table)
            && Arc::ptr_eq(&p.chain, &chain)
            && p.tls.as_ref().map(Arc::as_ptr) == tls.as_ref().map(Arc::as_ptr)
        {
            return Arc::clone(p);
        }
        let spec = previous.map_or_else(|| Arc::new(spec.clone()), |p| Arc::clone(&p.spec));
        Arc::new(ListenerSnapshot { spec, table, chain, tls, tls_problems })
    }

    fn chain(&mut self, spec: &ListenerSpec) -> Chain {
        let policies: Vec<_> = spec.policies.iter().collect();
        Chain::compile(&policies).unwrap_or_else(|errors| {
            for error in &errors {
                let hint = format!("{}; the listener answers 500", error.hint);
                self.error(&spec.origin, error.what.clone(), hint);
            }
            Chain::closed("a filter of the listener cannot be compiled")
        })
    }

    fn server_names(
        &self,
        spec: &ListenerSpec,
        unchanged: Option<&Arc<ListenerSnapshot>>,
        inputs: &Arc<TlsInputs>,
    ) -> (Option<Arc<ServerNames>>, Arc<[Problem]>) {
        if let Some(previous) = unchanged
            && Arc::ptr_eq(inputs, &self.previous.tls)
        {
            return (previous.tls.clone(), Arc::clone(&previous.tls_problems));
        }
        if !matches!(spec.protocol, ListenerProtocol::Https(_)) {
            return (None, Arc::default());
        }
        let before = self.previous.listener(&spec.name).and_then(|p| p.tls.as_deref());
        let (names, problems) = ServerNames::compile(spec, &inputs.bindings, &inputs.certificates, before);
        (Some(Arc::new(names)), problems.into())
    }

    /// Warns of routes that no request reaches.
    fn shadows(&mut self, listeners: &[Arc<ListenerSnapshot>]) {
        for (at, listener) in listeners.iter().enumerate() {
            let seen = listeners.iter().take(at).any(|other| Arc::ptr_eq(&other.table, &listener.table));
            for shadowed in if seen { Vec::new() } else { listener.table.shadowed() } {
                let by: Vec<String> = shadowed.by.iter().map(|r| format!("{:?}", r.spec.name)).collect();
                let what = format!("no request reaches the route {:?}", shadowed.route.spec.name);
                let hint = format!("{} takes all of them first", by.join(" and "));
                self.problems.push(Problem::warning(shadowed.route.spec.origin.clone(), what, hint));
            }
        }
    }
}

/// Tables by their routes, so that equal ones are shared by listeners and with the snapshot before.
struct Tables(Vec<(Vec<*const Route>, Arc<Table>)>);

impl Tables {
    fn of(previous: &Snapshot) -> Self {
        let mut tables = Self(Vec::new());
        for listener in &previous.listeners {
            if !tables.0.iter().any(|(_, table)| Arc::ptr_eq(table, &listener.table)) {
                tables.0.push((identity(listener.table.routes()), Arc::clone(&listener.table)));
            }
        }
        tables
    }

    fn table(&mut self, routes: Vec<Arc<Route>>) -> Arc<Table> {
        let identity = identity(&routes);
        if let Some((_, table)) = self.0.iter().find(|(other, _)| *other == identity) {
            return Arc::clone(table);
        }
        let table = Arc::new(Table::build(routes));
        self.0.push((identity, Arc::clone(&table)));
        table
    }
}

fn identity(routes: &[Arc<Route>]) -> Vec<*const Route> {
    let mut pointers: Vec<_> = routes.iter().map(Arc::as_ptr).collect();
    pointers.sort_unstable();
    pointers
}

/// Whether two clusters are treated alike. Endpoints are left to `set_members`, and a place in a file may move freely.
pub(super) fn same_but_endpoints(a: &ClusterSpec, b: &ClusterSpec) -> bool {
    let bare = |spec: &ClusterSpec| ClusterSpec { endpoints: Vec::new(), origin: Origin::default(), ..spec.clone() };
    // Nearly always they are the same altogether, which needs no copies.
    a == b || bare(a) == bare(b)
}

/// Whether two routes differ by the place where they were said, and by nothing else.
fn only_moved(old: &RouteSpec, new: &RouteSpec) -> bool {
    // The age decides between routes that match alike, so it is more than a place.
    old.origin.created == new.origin.created && RouteSpec { origin: new.origin.clone(), ..old.clone() } == *new
}

fn is_broken(route: &Route) -> bool {
    matches!(route.action, Action::Broken { .. })
}

/// Whether the clusters of a route are the ones of these names.
fn still_there(route: &Route, clusters: &Clusters) -> bool {
    route.clusters().all(|own| clusters.get(&own.spec().name).is_some_and(|held| Arc::ptr_eq(&held.cluster, own)))
}

fn kept_or(otherwise: &str, kept: bool) -> String {
    if kept { "its last good version is kept".into() } else { otherwise.into() }
}

#[cfg(test)]
pub(super) mod tests;
