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

mod listeners;

use super::{HeldCluster, Snapshot};
use crate::model::{
    CertificateSpec, ClusterSpec, Keyed, Model, Origin, Problem, RouteSpec, Sorted, UpstreamProtocol, Wanted,
};
use crate::route::{Action, Fault, Route};
use crate::telemetry::metrics::Registry;
use crate::tls;
use crate::upstream::Cluster;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Compiles a model, and takes over what did not change from the snapshot that serves: what is said by the very same part of the
/// model is not looked at again, unless it went wrong. The result does not depend on the order of what is in the model, nor on
/// how much was taken over.
pub fn compile(model: &Model, previous: &Snapshot, registry: &Registry) -> (Snapshot, Vec<Problem>) {
    let (wanted, troubles) = (&model.wanted, previous.troubles.clone());
    let mut compiler = Compiler { wanted, previous, registry, troubles, problems: Vec::new() };
    let clusters = compiler.clusters();
    let routes = compiler.routes(&clusters);
    let tls = compiler.tls_inputs();
    let listeners = compiler.listeners(&routes, &tls);
    let Compiler { mut problems, troubles, .. } = compiler;
    problems.extend(troubles.clusters.values().chain(troubles.routes.values()).flatten().cloned());
    problems.sort();
    problems.dedup();
    let generation = previous.generation + 1;
    (Snapshot { generation, listeners, clusters, routes, tls, wanted: wanted.clone(), troubles }, problems)
}

struct Compiler<'a> {
    wanted: &'a Wanted,
    previous: &'a Snapshot,
    registry: &'a Registry,
    troubles: Troubles,
    problems: Vec<Problem>,
}

/// What is wrong with clusters and routes, by their names. These are looked at again each time.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles {
    pub(super) clusters: BTreeMap<Box<str>, Vec<Problem>>,
    pub(super) routes: BTreeMap<Box<str>, Vec<Problem>>,
}

type Clusters = Sorted<HeldCluster>;
type Routes = Sorted<Arc<Route>>;

impl<'a> Compiler<'a> {
    fn error(&mut self, origin: &Origin, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::error(origin.clone(), what, hint));
    }

    fn clusters(&mut self) -> Clusters {
        let (wanted, previous) = (self.wanted, self.previous);
        let mut touched = names(previous.wanted.clusters.diff(&wanted.clusters));
        touched.extend(previous.troubles.clusters.keys().map(|name| &**name));
        let renewed = names(previous.wanted.certificates.diff(&wanted.certificates));
        if !renewed.is_empty() {
            let shows =
                |spec: &&Arc<ClusterSpec>| client_certificate(spec).is_some_and(|name| renewed.contains(&**name));
            touched.extend(wanted.clusters.iter().filter(shows).map(|spec| &*spec.name));
        }
        let mut edits = Edits::default();
        for name in touched {
            let now = wanted.clusters.get(name).and_then(|spec| self.cluster(spec));
            edits.note(previous.clusters.get(name), now);
            note(&mut self.troubles.clusters, name, &mut self.problems);
        }
        edits.make(&previous.clusters)
    }

    fn cluster(&mut self, spec: &Arc<ClusterSpec>) -> Option<HeldCluster> {
        let previous = self.previous.clusters.get(&*spec.name);
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
    fn client_certificate(&mut self, spec: &ClusterSpec) -> Result<Option<Arc<CertificateSpec>>, ()> {
        let Some(name) = client_certificate(spec) else { return Ok(None) };
        let found = self.wanted.certificates.get(&**name);
        if found.is_none() {
            let kept = self.previous.clusters.contains_key(&*spec.name);
            let what = format!("there is no certificate {name:?}, which cluster {:?} shows upstream", spec.name);
            self.error(&spec.origin, what, kept_or("the cluster is left out", kept));
            return Err(());
        }
        Ok(found.cloned())
    }

    fn routes(&mut self, clusters: &Clusters) -> Routes {
        let (wanted, previous) = (self.wanted, self.previous);
        let mut touched = names(previous.wanted.routes.diff(&wanted.routes));
        touched.extend(previous.troubles.routes.keys().map(|name| &**name));
        touched.extend(self.routes_of_others(clusters));
        if !self.same_listeners() {
            let named = wanted.routes.iter().filter(|spec| !spec.listeners.is_empty());
            touched.extend(named.map(|spec| &*spec.name));
        }
        let mut edits = Edits::default();
        for name in touched {
            let now = wanted.routes.get(name).and_then(|spec| {
                self.unknown_listeners(spec);
                self.route(spec, clusters)
            });
            edits.note(previous.routes.get(name), now);
            note(&mut self.troubles.routes, name, &mut self.problems);
        }
        edits.make(&previous.routes)
    }

    /// Routes to clusters that are not there any more, or are others now.
    fn routes_of_others(&self, clusters: &Clusters) -> Vec<&'a str> {
        let previous = self.previous;
        let old = previous.clusters.diff(clusters).into_iter().filter_map(|(old, _)| old);
        let gone: HashSet<*const Cluster> = old.map(|held| Arc::as_ptr(&held.cluster)).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let led = |route: &&Arc<Route>| route.clusters().any(|cluster| gone.contains(&Arc::as_ptr(cluster)));
        previous.routes.iter().filter(led).map(Keyed::key).collect()
    }

    fn same_listeners(&self) -> bool {
        let names = |wanted: &'a Wanted| wanted.listeners.iter().map(|listener| &listener.name);
        names(&self.previous.wanted).eq(names(self.wanted))
    }

    fn unknown_listeners(&mut self, spec: &RouteSpec) {
        let wanted = self.wanted;
        let unknown = |name: &&String| !wanted.listeners.iter().any(|listener| listener.is_called(name));
        for name in spec.listeners.iter().filter(unknown) {
            let known: BTreeSet<&str> = wanted.listeners.iter().map(|l| l.name.as_str()).collect();
            let hint = format!("there are {}", known.into_iter().collect::<Vec<_>>().join(", "));
            self.error(&spec.origin, format!("there is no listener {name:?}"), hint);
        }
    }

    fn route(&mut self, spec: &Arc<RouteSpec>, clusters: &Clusters) -> Option<Arc<Route>> {
        let previous = self.previous.routes.get(&*spec.name);
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
}

/// What a collection gains and loses.
struct Edits<T> {
    gone: Vec<T>,
    come: Vec<T>,
}

impl<T> Default for Edits<T> {
    fn default() -> Self {
        Self { gone: Vec::new(), come: Vec::new() }
    }
}

impl<T: Keyed> Edits<T> {
    fn note(&mut self, before: Option<&T>, now: Option<T>) {
        let same = before.zip(now.as_ref()).is_some_and(|(before, now)| before.is(now));
        if !same {
            self.gone.extend(before.cloned());
            self.come.extend(now);
        }
    }

    fn make(self, of: &Sorted<T>) -> Sorted<T> {
        let mut all = of.clone();
        all.edit(self.gone, self.come);
        all
    }
}

/// The names of what is different.
fn names<'a, T: Keyed<Key = str>>(diff: Vec<(Option<&'a T>, Option<&'a T>)>) -> BTreeSet<&'a str> {
    diff.into_iter().filter_map(|(old, new)| new.or(old)).map(Keyed::key).collect()
}

/// Keeps what is wrong with the thing of a name, so that it is told as long as the thing is taken over.
fn note(troubles: &mut BTreeMap<Box<str>, Vec<Problem>>, name: &str, problems: &mut Vec<Problem>) {
    if problems.is_empty() {
        troubles.remove(name);
    } else {
        troubles.insert(name.into(), std::mem::take(problems));
    }
}

/// The certificate that a cluster shows upstream, by its name.
fn client_certificate(spec: &ClusterSpec) -> Option<&String> {
    spec.tls.as_ref().and_then(|tls| tls.client_certificate.as_ref())
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
    route.clusters().all(|own| clusters.get(&*own.spec().name).is_some_and(|held| Arc::ptr_eq(&held.cluster, own)))
}

fn kept_or(otherwise: &str, kept: bool) -> String {
    if kept { "its last good version is kept".into() } else { otherwise.into() }
}

#[cfg(test)]
pub(super) mod tests;
