//! What does one object ask for, before it is known what else there is?

use super::super::objects::{Key, Meta};
use crate::model::{
    Action, Fragment, HostPattern, Match, Origin, PathMatch, Problem, RetrySpec, RouteSpec, WeightedCluster,
};
use crate::source::grammar::{IDLE_TIMEOUT, shorten, show_path};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What one object (or one text of a ConfigMap) asks for. It depends on that object alone, so that it is made once for each
/// version of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Piece {
    /// Routes and certificate bindings; clusters are settings of Services.
    pub(super) fragment: Fragment,
    /// A route that takes what no other one of any object wants.
    pub(super) fallback: Option<Arc<RouteSpec>>,
    /// The Secrets behind certificate names. A name that is not here is one of the install configuration.
    pub(super) secrets: BTreeMap<String, Key>,
    /// What is wrong with the object itself.
    pub(super) problems: Vec<Problem>,
    /// Clusters whose settings are wrong and never were right. They get no endpoints: what is left out could be the TLS, and
    /// requests would go in cleartext.
    pub(super) closed: Vec<String>,
    /// Routes that are left out, or are not as written now.
    pub(super) refused: usize,
}

impl Piece {
    /// Leaves out a route.
    pub(super) fn refuse(&mut self, origin: Origin, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::error(origin, what, hint));
        self.refused += 1;
    }
}

/// The origin of what an object says under a key.
pub(super) fn origin(kind: &str, meta: &Meta, key: impl Into<String>) -> Origin {
    let place = format!("{kind}/{}", meta.key);
    Origin { place: place.into(), position: None, key: key.into(), created: meta.created }
}

/// A plain route of an object to one cluster. Its name tells host, path and object: `shop.example.com/api (Ingress shop/web)`.
pub(super) fn route(of: &str, host: HostPattern, path: PathMatch, cluster: String, origin: Origin) -> RouteSpec {
    RouteSpec {
        name: shorten(format!("{host}{} ({of})", show_path(&path))),
        origin,
        listeners: Vec::new(),
        hosts: if host == HostPattern::Any { Vec::new() } else { vec![host] },
        matches: Match { path, ..Match::default() },
        policies: Vec::new(),
        action: Action::Forward(vec![WeightedCluster { cluster, weight: 1 }]),
        request_timeout: None,
        try_timeout: None,
        idle_timeout: IDLE_TIMEOUT,
        retry: RetrySpec::default(),
    }
}

/// Whether this may be the name of a Service or a namespace (RFC 1123 label): anything else could make one object's cluster look
/// like another's.
pub(super) fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// A piece and the object that it is of.
#[derive(Clone, Copy)]
pub(super) struct Owned<'a> {
    /// Its place among the pieces in the order of their keys.
    pub(super) number: usize,
    pub(super) owner: Owner,
    pub(super) meta: &'a Meta,
    /// The key in a ConfigMap; empty for other objects.
    pub(super) text: &'a str,
    pub(super) piece: &'a Piece,
}

/// Kinds of objects that ask for routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    ConfigMap,
    Ingress,
    Service,
}

impl<'a> Owned<'a> {
    /// What is less wins a conflict: the oldest, then namespace and name.
    pub(super) fn rank(&self) -> (u64, &'a Key, Owner, &'a str) {
        (self.meta.created, &self.meta.key, self.owner, self.text)
    }
}

impl fmt::Display for Owned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.owner, self.meta.key)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, "/{}", self.text) }
    }
}
