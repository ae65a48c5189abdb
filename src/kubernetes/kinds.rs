//! Which kinds are followed, and where?

use super::desk::Desk;
use super::endpoints::SliceKeeper;
use super::keep::{Keeper, Kept};
use super::objects::{Ingress, IngressClass, RoutesConfigMap, Service};
use super::store::Store;
use super::watch::{self, Sink, Watch};
use crate::config::kubernetes::Settings;
use crate::lifecycle::{Task, Tasks};
use crate::telemetry::Registry;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use kube::api::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

/// Label of ConfigMaps with routes, whatever its value.
const ROUTES: &str = "tidegate.io/routes";

/// Starts watches.
pub(super) struct Kinds<'a> {
    pub(super) store: &'a Rc<Store>,
    pub(super) shared: &'a Rc<watch::Shared>,
    pub(super) tasks: &'a Tasks,
    pub(super) registry: &'a Registry,
}

impl Kinds<'_> {
    /// Starts every watch that the settings ask for, Secrets apart. They end when they are dropped.
    pub(super) fn start(&self, settings: &Settings) -> Vec<Task> {
        let own = Arc::clone(self.shared.connection.namespace());
        let mut tasks = vec![self.kept::<core::ConfigMap, RoutesConfigMap>(
            ("ConfigMap", "configmaps"),
            Some(own),
            Some(ROUTES.to_owned()),
        )];
        let all: Vec<Option<Arc<str>>> = match settings.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str().into())).collect(),
        };
        for namespace in all {
            tasks.push(self.kept::<core::Service, Service>(("Service", "services"), namespace.clone(), None));
            if settings.ingress.enabled {
                let names = ("Ingress", "ingresses.networking.k8s.io");
                tasks.push(self.kept::<networking::Ingress, Ingress>(names, namespace.clone(), None));
            }
            tasks.push(self.slices(namespace));
        }
        // Classes are of the cluster: a gate of some namespaces has Roles alone, and goes on by the name of its class.
        if settings.ingress.enabled && settings.namespaces.is_empty() {
            tasks.push(self.classes());
        }
        tasks
    }

    fn kept<K, O>(
        &self,
        names: (&'static str, &'static str),
        namespace: Option<Arc<str>>,
        labels: Option<String>,
    ) -> Task
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Into<O>
            + 'static,
        O: Kept,
    {
        let desk = Desk::new(self.store, names, namespace, self.registry).required();
        self.namespaced::<K, _>(desk.clone(), labels, Keeper::<O>::new(desk))
    }

    fn slices(&self, namespace: Option<Arc<str>>) -> Task {
        let names = ("EndpointSlice", "endpointslices.discovery.k8s.io");
        let desk = Desk::new(self.store, names, namespace, self.registry).required();
        let keeper = SliceKeeper::new(desk.clone(), self.registry);
        self.namespaced::<discovery::EndpointSlice, _>(desk, None, keeper)
    }

    fn classes(&self) -> Task {
        let names = ("IngressClass", "ingressclasses.networking.k8s.io");
        let desk = Desk::new(self.store, names, None, self.registry).required();
        let keeper = Keeper::<IngressClass>::new(desk.clone());
        self.spawn::<networking::IngressClass, _>(desk, None, Api::all, keeper)
    }

    fn namespaced<K, S>(&self, desk: Desk, labels: Option<String>, sink: S) -> Task
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
        S: Sink<K> + 'static,
    {
        let namespace = desk.namespace.clone();
        let api = move |client| match &namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        self.spawn(desk, labels, api, sink)
    }

    fn spawn<K, S>(
        &self,
        desk: Desk,
        labels: Option<String>,
        api: impl Fn(kube::Client) -> Api<kube::core::DeserializeGuard<K>> + 'static,
        sink: S,
    ) -> Task
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        S: Sink<K> + 'static,
    {
        let restarts = desk.restarts(self.registry);
        let watch = Watch { resource: desk.resource, api: Box::new(api), labels, fields: None, restarts };
        self.tasks.spawn_local(format!("watch of {}", desk.name), watch::follow(watch, Rc::clone(self.shared), sink))
    }
}
