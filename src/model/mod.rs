//! What does the user want, as plain data?
//!
//! Sources deliver [`Fragment`]s, merging makes one [`Model`] of them, compiling makes the snapshot that serves. Everything
//! here can be compared, cloned and printed; nothing here knows sockets, time or where it came from beyond its [`Origin`].

pub mod certificate;
pub mod cluster;
pub mod endpoints;
pub mod listener;
pub mod origin;
pub mod policy;
pub mod route;
pub mod sorted;
pub mod value;
pub mod wanted;

pub use certificate::{Authorities, CertificateSpec, ClientAuthSpec, Pem, TlsBinding};
pub use cluster::{
    BalancePolicy, ClusterSpec, EndpointSpec, HashKey, HealthCheck, HealthCheckSpec, Nearness, OutlierSpec,
    ProxyHeader, UpstreamProtocol, UpstreamTlsSpec,
};
pub use endpoints::EndpointList;
pub use listener::{
    EncodedSlash, HttpsRedirect, Limits, ListenerProtocol, ListenerSpec, OddNames, ProxyHeaders, ServerHeader,
    TimeoutSpec, TlsSpec, TlsVersion,
};
pub use origin::{Origin, Position, Problem, Severity};
pub use policy::{AccessPolicy, Check, FieldCheck, HeaderCheckPolicy, HeaderEdit, PathRewrite, Policy, RewritePolicy};
pub use route::{
    Action, Match, PathMatch, RedirectSpec, RespondSpec, RetryOn, RetrySpec, RouteSpec, StringMatch, WeightedCluster,
};
pub use sorted::{Keyed, Sorted};
pub use value::{FieldName, HostPattern, ValueError, WildcardDepth};
pub use wanted::Wanted;

use std::sync::Arc;

/// The model as one source sees it: file, install configuration, later Kubernetes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fragment {
    /// Listeners this source asks for (install configuration, later Gateways).
    pub listeners: Vec<ListenerSpec>,
    /// Routes, in no particular order: precedence never depends on the order of definition. Shared, because the source, the
    /// model and the snapshot all hold them, and of thousands a change touches a few.
    pub routes: Vec<Arc<RouteSpec>>,
    /// Which certificates serve which host names.
    pub tls: Vec<TlsBinding>,
    /// Certificates by name, keys redacted in `Debug`.
    pub certificates: Vec<CertificateSpec>,
    /// Named upstream services.
    pub clusters: Vec<Arc<ClusterSpec>>,
}

/// The merged wish of all sources, conflicts already resolved; input of the compiler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Everything that was accepted; each name is there once.
    pub wanted: Wanted,
}

impl From<Fragment> for Model {
    fn from(fragment: Fragment) -> Self {
        Self { wanted: fragment.into() }
    }
}
