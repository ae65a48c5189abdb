//! What becomes of the news of a watch, whatever its kind?

use super::objects::Key;
use super::store::{Change, Store};
use super::watch::keys;
use crate::model::{Origin, Problem};
use crate::telemetry::{Counter, Gauge, Registry, families};
use std::rc::Rc;
use std::sync::Arc;

/// Where the news of one watch goes; what all kinds have in common.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) store: Rc<Store>,
    /// `Service`, as problems name the kind.
    pub(super) kind: &'static str,
    /// `endpointslices.discovery.k8s.io`, as permissions name it.
    pub(super) resource: &'static str,
    /// `None`: all namespaces, or none as with classes.
    pub(super) namespace: Option<Arc<str>>,
    /// The watch, unlike any other.
    pub(super) name: Rc<str>,
    pub(super) gauge: Gauge,
}

impl Desk {
    pub(super) fn new(
        store: &Rc<Store>,
        (kind, resource): (&'static str, &'static str),
        namespace: Option<Arc<str>>,
        registry: &Registry,
    ) -> Self {
        let name: Rc<str> = match &namespace {
            Some(namespace) => format!("{resource} in namespace {namespace}").into(),
            None => resource.into(),
        };
        let gauge = registry.gauge(&families::KUBERNETES_OBJECTS, &[("kind", kind)]);
        Self { store: Rc::clone(store), kind, resource, namespace, name, gauge }
    }

    /// Counts what was begun again.
    pub(super) fn restarts(&self, registry: &Registry) -> Counter {
        registry.counter(&families::KUBERNETES_WATCH_RESTARTS, &[("kind", self.kind)])
    }

    /// The first list of this watch is waited for.
    pub(super) fn required(self) -> Self {
        self.store.missing.borrow_mut().insert(self.name.to_string());
        self
    }

    pub(super) fn of(&self, key: &Key) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
    }

    pub(super) fn listed(&self, unreadable: &[(Key, String)]) {
        self.store.keep_problems(&self.name, &keys(unreadable));
        unreadable.iter().for_each(|(key, why)| self.unreadable(key, why));
        self.arrived();
    }

    pub(super) fn arrived(&self) {
        if self.store.missing.borrow_mut().remove(&*self.name) {
            self.store.tell(Change::Wish);
        }
    }

    pub(super) fn readable(&self, key: &Key) {
        self.store.problem(&self.name, key, None);
    }

    pub(super) fn unreadable(&self, key: &Key, why: &str) {
        let what = format!("the object does not decode: {why}");
        let hint = "what it was before is kept; write it again as this API server's version of the kind has it";
        let problem = Problem::error(Origin::of(format!("{}/{key}", self.kind)), what, hint);
        self.store.problem(&self.name, key, Some(problem));
    }

    pub(super) fn refused(&self, words: &str) {
        let place = match &self.namespace {
            Some(namespace) => format!("{}/{namespace}", self.kind),
            None => self.kind.to_owned(),
        };
        let what = format!("the API server does not allow reading {}: {words}", self.name);
        let scope = match &self.namespace {
            Some(namespace) => format!("a Role in namespace {namespace}"),
            None => "a ClusterRole, or list the namespaces to look at".to_owned(),
        };
        let hint = format!("grant list and watch on {} by {scope}", self.resource);
        if !self.store.missing.borrow().is_empty() {
            tracing::warn!("{what}; {hint}");
        }
        self.store.problem(&self.name, &Key::default(), Some(Problem::error(Origin::of(place), what, hint)));
    }
}

/// As a gauge takes it.
pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
