//! What is kept of each Kubernetes object? Only what is translated: no managedFields, no types of the API.

use crate::model::Pem;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Namespace and name. A copy is a pointer: of thousands of objects, each name stands in many places.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<Name>);

/// What a [`Key`] consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

impl Key {
    /// A key of these.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Name { namespace: namespace.into(), name: name.into() }))
    }
}

impl Deref for Key {
    type Target = Name;

    fn deref(&self) -> &Name {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// What every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace and name.
    pub key: Key,
    /// Another object of the same name has another one.
    pub uid: Arc<str>,
    /// resourceVersion: changes with each write. Empty where nobody asks for it, as of Ingresses and Services.
    pub version: Arc<str>,
    /// Seconds since the epoch; the oldest wins a conflict.
    pub created: u64,
}

/// A ConfigMap with routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutesConfigMap {
    /// Who it is.
    pub meta: Arc<Meta>,
    /// Each value is a text of routes.
    pub data: BTreeMap<String, String>,
    /// Keys of `binaryData`, which hold no text.
    pub binary: Vec<String>,
    /// Annotations that begin with `tidegate.io/`: what was last written back.
    pub annotations: BTreeMap<String, String>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Who it is.
    pub meta: Arc<Meta>,
    /// The other name that it stands for, where it is of type ExternalName.
    pub external_name: Option<String>,
    /// Its ports, TCP only.
    pub ports: Vec<ServicePort>,
    /// The annotation `tidegate.io/expose`.
    pub expose: Option<String>,
    /// The annotation `tidegate.io/port`: name or number of the port that is exposed.
    pub expose_port: Option<String>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, by which EndpointSlices call it too; empty where the only port has none.
    pub name: Box<str>,
    /// The port of the Service. That of an endpoint is in its slice.
    pub port: u16,
    /// `kubernetes.io/h2c`, `kubernetes.io/ws`, `https`…
    pub app_protocol: Option<Box<str>>,
}

/// An Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingress {
    /// Who it is.
    pub meta: Arc<Meta>,
    /// `spec.ingressClassName`.
    pub class: Option<Arc<str>>,
    /// The old annotation `kubernetes.io/ingress.class`.
    pub class_annotation: Option<String>,
    /// Keys of annotations for ingress-nginx, which ask for what is not done.
    pub annotations: Vec<String>,
    /// `spec.defaultBackend`.
    pub default_backend: Option<IngressBackend>,
    /// `spec.rules`.
    pub rules: Vec<IngressRule>,
    /// `spec.tls`.
    pub tls: Vec<IngressTls>,
    /// Addresses in `status.loadBalancer`, as they are written there now.
    pub addresses: Arc<[Box<str>]>,
}

impl Ingress {
    /// Whether this asks for the same. Our own words in a status come back, and ask for nothing.
    pub fn asks_as(&self, other: &Self) -> bool {
        let Self { meta, class, class_annotation, annotations, default_backend, rules, tls, addresses: _ } = self;
        *meta == other.meta
            && *class == other.class
            && *class_annotation == other.class_annotation
            && *annotations == other.annotations
            && *default_backend == other.default_backend
            && *rules == other.rules
            && *tls == other.tls
    }
}

/// Where an Ingress sends requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngressBackend {
    /// A Service of the Ingress's own namespace and its port.
    Service(String, IngressPort),
    /// Anything else, which nobody here can serve; its kind.
    Resource(String),
}

/// How an Ingress names a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngressPort {
    /// By the name of a ServicePort.
    Name(String),
    /// By its number.
    Number(u16),
}

/// A rule of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngressRule {
    /// Exact, or with a wildcard of one label; `None`: any.
    pub host: Option<String>,
    /// Empty: everything goes to the default backend.
    pub paths: Vec<IngressPath>,
}

/// A path of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressPath {
    /// As written; `None`: `/`, or nothing at all where that would mean the same.
    pub path: Option<String>,
    /// `Exact`, `Prefix`, `ImplementationSpecific`, or what a later version invents.
    pub path_type: Cow<'static, str>,
    /// Where it goes.
    pub backend: IngressBackend,
}

/// A `tls` entry of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngressTls {
    /// Hosts; empty: those of the certificate.
    pub hosts: Vec<String>,
    /// Name of the Secret in the same namespace; `None`: TLS by whatever certificate there is.
    pub secret: Option<String>,
}

/// An IngressClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngressClass {
    /// Who it is; without a namespace.
    pub meta: Arc<Meta>,
    /// `spec.controller`.
    pub controller: String,
    /// Whether Ingresses without a class are of this one.
    pub is_default: bool,
}

/// A Secret that something refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secret {
    /// Who it is.
    pub meta: Meta,
    /// `kubernetes.io/tls`, `Opaque`…
    pub kind: String,
    /// `tls.crt`.
    pub certificate: Option<Pem>,
    /// `tls.key`.
    pub key: Option<Pem>,
    /// `ca.crt`.
    pub ca: Option<Pem>,
}

/// What is known of a Secret that something refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// Nothing yet: its watch has not delivered.
    Unknown,
    /// It does not exist.
    Absent,
    /// It may not be read; the words of the API server.
    Forbidden(String),
    /// It is there.
    Present(Arc<Secret>),
}

/// Everything that was watched, EndpointSlices apart.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Routes ConfigMaps of the gate's own namespace.
    pub config_maps: BTreeMap<Key, Arc<RoutesConfigMap>>,
    /// Services of all namespaces that are looked at.
    pub services: BTreeMap<Key, Arc<Service>>,
    /// Ingresses of all namespaces that are looked at.
    pub ingresses: BTreeMap<Key, Arc<Ingress>>,
    /// IngressClasses; none in a gate that looks at some namespaces only.
    pub classes: BTreeMap<Key, Arc<IngressClass>>,
    /// Secrets that something referred to in the last translation.
    pub secrets: BTreeMap<Key, SecretState>,
}

/// The Secrets that a translation asks for: each is watched by its name, nothing else is.
pub type WantedSecrets = BTreeSet<Key>;
