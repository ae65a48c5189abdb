//! What is shown of a listener and of a route?
//!
//! The shapes of the API, apart from the types inside, so that those can change without breaking anyone's scripts. Clusters,
//! endpoints and certificates are shown as [`crate::upstream`] and [`crate::tls`] describe them.

use crate::model::{
    Action as ActionSpec, ListenerProtocol, ListenerSpec, Match, PathMatch, Policy, StringMatch, TlsVersion,
};
use crate::route::{Action, Route};
use crate::tls::CertificateView;
use crate::upstream::EndpointView;
use serde::Serialize;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

/// An item of `GET /api/v1/listeners`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListenerView {
    /// Name.
    pub name: String,
    /// Where it was said.
    pub origin: String,
    /// As configured; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where it is bound; null: it is not.
    pub bound: Option<SocketAddr>,
    /// `http` or `https`.
    pub protocol: &'static str,
    /// Whether HTTP/2 is spoken, by ALPN or with prior knowledge.
    pub http2: bool,
    /// `1.2` or `1.3`; null for http.
    pub min_tls: Option<&'static str>,
    /// `none`, `requested` or `required`, where a binding does not say otherwise.
    pub client_certificates: &'static str,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol_from: Vec<String>,
    /// Networks whose forwarded headers are believed.
    pub trusted_proxies: Vec<String>,
    /// Port of the redirect to https; null: none.
    pub https_redirect: Option<u16>,
    /// Filters of every request.
    pub filters: Vec<&'static str>,
    /// Connections at the most.
    pub max_connections: u32,
    /// Routes.
    pub routes: usize,
}

impl ListenerView {
    pub(super) fn of(spec: &ListenerSpec, bound: Option<SocketAddr>, routes: usize) -> Self {
        let tls = match &spec.protocol {
            ListenerProtocol::Http => None,
            ListenerProtocol::Https(tls) => Some(tls),
        };
        Self {
            name: spec.name.clone(),
            origin: spec.origin.to_string(),
            address: spec.address,
            bound,
            protocol: protocol(spec),
            http2: tls.is_none_or(|tls| tls.http2),
            min_tls: tls.map(|tls| if tls.min_version == TlsVersion::V1_2 { "1.2" } else { "1.3" }),
            client_certificates: match tls.and_then(|tls| tls.client_auth.as_ref()).map(|auth| auth.required) {
                None => "none",
                Some(false) => "requested",
                Some(true) => "required",
            },
            proxy_protocol_from: texts(&spec.proxy_protocol_from),
            trusted_proxies: texts(&spec.trusted_proxies),
            https_redirect: spec.https_redirect.as_ref().map(|redirect| redirect.port),
            filters: filters(&spec.policies),
            max_connections: spec.limits.connections,
            routes,
        }
    }
}

pub(super) fn protocol(spec: &ListenerSpec) -> &'static str {
    match spec.protocol {
        ListenerProtocol::Http => "http",
        ListenerProtocol::Https(_) => "https",
    }
}

/// An item of `GET /api/v1/routes`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteView {
    /// Name.
    pub name: String,
    /// Where it was said.
    pub origin: String,
    /// Listeners that serve it.
    pub listeners: Vec<String>,
    /// Hosts as in routes files; `*`: any.
    pub hosts: Vec<String>,
    /// Path as in routes files: `/prefix`, `=/exact`, `~expression`.
    pub path: String,
    /// Methods; empty: every one.
    pub methods: Vec<String>,
    /// Header conditions, in words.
    pub headers: Vec<String>,
    /// Query conditions, in words.
    pub query: Vec<String>,
    /// Client networks; empty: every address.
    pub sources: Vec<String>,
    /// Filters by name.
    pub filters: Vec<&'static str>,
    /// What is done.
    pub action: ActionView,
    /// Limit of a whole request in milliseconds; null: none.
    pub request_timeout_ms: Option<u128>,
    /// Limit of one attempt; null: none.
    pub try_timeout_ms: Option<u128>,
    /// Longest silence in either body.
    pub idle_timeout_ms: u128,
    /// Attempts in all.
    pub attempts: u32,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ActionView {
    /// To clusters by weight.
    Forward {
        /// Clusters and their shares.
        clusters: Vec<Share>,
    },
    /// A redirect.
    Redirect {
        /// Status.
        status: u16,
    },
    /// A direct response.
    Respond {
        /// Status.
        status: u16,
    },
    /// It could not be compiled and fails closed: 500.
    Broken {
        /// Why.
        reason: String,
    },
}

/// A cluster and its weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Name.
    pub cluster: String,
    /// Weight.
    pub weight: u32,
}

impl RouteView {
    pub(super) fn of(route: &Route, listeners: Vec<String>) -> Self {
        let spec = &route.spec;
        Self {
            name: spec.name.clone(),
            origin: spec.origin.to_string(),
            listeners,
            hosts: if spec.hosts.is_empty() { vec!["*".into()] } else { texts(&spec.hosts) },
            path: path(&spec.matches.path),
            methods: texts(&spec.matches.methods),
            headers: spec.matches.headers.iter().map(|(name, how)| condition(name, how)).collect(),
            query: spec.matches.query.iter().map(|(name, how)| condition(name, how)).collect(),
            sources: texts(&spec.matches.sources),
            filters: filters(&spec.policies),
            action: ActionView::of(route),
            request_timeout_ms: spec.request_timeout.as_ref().map(Duration::as_millis),
            try_timeout_ms: spec.try_timeout.as_ref().map(Duration::as_millis),
            idle_timeout_ms: spec.idle_timeout.as_millis(),
            attempts: spec.retry.attempts,
        }
    }

    /// What `q` is looked for in.
    pub(super) fn words(route: &Route) -> String {
        let hosts = texts(&route.spec.hosts).join(" ");
        let Match { path: how, .. } = &route.spec.matches;
        format!("{} {hosts} {} {}", route.spec.name, path(how), route.spec.origin)
    }
}

impl ActionView {
    pub(super) fn of(route: &Route) -> Self {
        if let Action::Broken { reason } = &route.action {
            return Self::Broken { reason: reason.clone() };
        }
        match &route.spec.action {
            ActionSpec::Forward(clusters) => {
                let share =
                    |c: &crate::model::WeightedCluster| Share { cluster: c.cluster.to_string(), weight: c.weight };
                Self::Forward { clusters: clusters.iter().map(share).collect() }
            }
            ActionSpec::Redirect(redirect) => Self::Redirect { status: redirect.status },
            ActionSpec::Respond(respond) => Self::Respond { status: respond.status },
        }
    }
}

/// An item of `GET /api/v1/endpoints`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointOf {
    /// Name of its cluster.
    pub cluster: String,
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: EndpointView,
}

/// An item of `GET /api/v1/certificates`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CertificateOf {
    /// Name of the listener that serves it.
    pub listener: String,
    /// The certificate.
    #[serde(flatten)]
    pub certificate: CertificateView,
}

fn texts<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn path(how: &PathMatch) -> String {
    match how {
        PathMatch::Exact(path) => format!("={path}"),
        PathMatch::Prefix(path) => path.clone(),
        PathMatch::Regex(expression) => format!("~{expression}"),
    }
}

fn condition(name: &impl Display, how: &StringMatch) -> String {
    match how {
        StringMatch::Exact(value) => format!("{name}={value}"),
        StringMatch::Regex(expression) => format!("{name}~{expression}"),
        StringMatch::Present => name.to_string(),
        StringMatch::Absent => format!("!{name}"),
    }
}

fn filters(policies: &[Policy]) -> Vec<&'static str> {
    let name = |policy: &Policy| match policy {
        Policy::Access(_) => "access",
        Policy::BodyLimit(_) => "body_limit",
        Policy::HeaderCheck(_) => "header_check",
        Policy::RequestHeaders(_) => "request_headers",
        Policy::ResponseHeaders(_) => "response_headers",
        Policy::Rewrite(_) => "rewrite",
    };
    policies.iter().map(name).collect()
}
