//! What does one object ask for, before it is known what else there is?

use super::super::objects::{Key, Meta};
use crate::model::{
    Action, Fragment, HostPattern, Match, Origin, PathMatch, Problem, RetrySpec, RouteSpec, WeightedCluster,
};
use crate::source::grammar::{IDLE_TIMEOUT, shorten, show_path};
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
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
    const NOTHING: Self = Self {
        fragment: Fragment {
            listeners: Vec::new(),
            routes: Vec::new(),
            tls: Vec::new(),
            certificates: Vec::new(),
            clusters: Vec::new(),
        },
        fallback: None,
        secrets: BTreeMap::new(),
        problems: Vec::new(),
        closed: Vec::new(),
        refused: 0,
    };

    /// Leaves out a route.
    pub(super) fn refuse(&mut self, origin: Origin, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::error(origin, what, hint));
        self.refused += 1;
    }

    /// Whether certificates, authorities or the settings of clusters depend on it.
    pub(super) fn secures(&self) -> bool {
        !(self.fragment.tls.is_empty() && self.fragment.clusters.is_empty() && self.closed.is_empty())
    }

    /// Whether they are the same with this one.
    pub(super) fn secures_as(&self, other: &Self) -> bool {
        self.fragment.tls == other.fragment.tls
            && self.fragment.clusters == other.fragment.clusters
            && self.closed == other.closed
            && self.secrets == other.secrets
    }

    /// Takes the very routes of the version before where they are equal, so that nobody has to compare them again.
    pub(super) fn adopt(&mut self, before: &Owned) {
        let old = &before.routes;
        let mut by_name: Option<HashMap<&str, &Arc<RouteSpec>>> = None;
        for (place, route) in self.fragment.routes.iter_mut().enumerate() {
            let known = old.get(place).filter(|old| *old == route).or_else(|| {
                let names = || old.iter().map(|route| (route.name.as_str(), route)).collect();
                by_name.get_or_insert_with(names).get(route.name.as_str()).copied().filter(|old| *old == route)
            });
            if let Some(known) = known {
                *route = Arc::clone(known);
            }
        }
        if let (Some(new), Some(old)) = (&mut self.fallback, &before.piece().fallback)
            && new == old
        {
            *new = Arc::clone(old);
        }
    }
}

/// The origin of what an object says under a key.
pub(super) fn origin(kind: &str, meta: &Meta, key: impl Into<Cow<'static, str>>) -> Origin {
    let place = format!("{kind}/{}", meta.key);
    Origin { place: place.into(), position: None, key: key.into(), created: meta.created }
}

/// A plain route of an object to one cluster. Its name tells host, path and object: `shop.example.com/api (Ingress shop/web)`.
pub(super) fn route(of: &str, host: HostPattern, path: PathMatch, cluster: String, origin: Origin) -> RouteSpec {
    let mut name = shorten(format!("{host}{} ({of})", show_path(&path)));
    // A text that was put together has room to grow.
    name.shrink_to_fit();
    RouteSpec {
        name,
        origin,
        listeners: Vec::new(),
        hosts: if host == HostPattern::Any { Vec::new() } else { vec![host] },
        matches: Match { path, ..Match::default() },
        policies: Vec::new(),
        action: Action::Forward(vec![WeightedCluster { cluster: cluster.into(), weight: 1 }]),
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

/// Most objects ask for one.
pub(super) type Routes = SmallVec<[Arc<RouteSpec>; 1]>;

/// A piece, the object that it is of, and what came of it beside all others.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) owner: Owner,
    /// Of a ConfigMap as it was when this text of it was read.
    pub(super) meta: Arc<Meta>,
    /// The key in a ConfigMap; empty for other objects.
    pub(super) text: Box<str>,
    pub(super) routes: Routes,
    /// Everything but its routes; nothing of most of thousands.
    rest: Option<Box<Piece>>,
    pub(super) state: RefCell<State>,
}

/// What came of a piece.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The routes that nobody older has.
    pub(super) routes: Routes,
    /// What its author is told beyond what is wrong with the piece itself.
    pub(super) problems: Vec<Problem>,
    /// Routes that serve.
    pub(super) accepted: usize,
    /// Routes that do not.
    pub(super) refused: usize,
}

/// Kinds of objects that ask for routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    ConfigMap,
    Ingress,
    Service,
}

impl Owned {
    pub(super) fn new(owner: Owner, meta: &Arc<Meta>, text: impl Into<Box<str>>, mut piece: Piece) -> Rc<Self> {
        let routes = std::mem::take(&mut piece.fragment.routes).into_iter().collect();
        let rest = (piece != Piece::default()).then(|| Box::new(piece));
        Rc::new(Self { owner, meta: Arc::clone(meta), text: text.into(), routes, rest, state: RefCell::default() })
    }

    /// Its piece, the routes aside.
    pub(super) fn piece(&self) -> &Piece {
        static NOTHING: Piece = Piece::NOTHING;
        self.rest.as_deref().unwrap_or(&NOTHING)
    }

    /// Its piece as a fragment.
    pub(super) fn fragment(&self) -> Fragment {
        Fragment { routes: self.routes.to_vec(), ..self.piece().fragment.clone() }
    }

    /// What is less wins a conflict: the oldest, then namespace and name.
    pub(super) fn rank(&self) -> (u64, &Key, Owner, &str) {
        (self.meta.created, &self.meta.key, self.owner, &self.text)
    }

    /// The route at a place; past the last one is the one that takes what is left.
    pub(super) fn route(&self, place: usize) -> Option<&Arc<RouteSpec>> {
        let fallback = || self.piece().fallback.as_ref().filter(|_| place == self.routes.len());
        self.routes.get(place).or_else(fallback)
    }

    /// Whether the route at a place is the one that takes what is left.
    pub(super) fn is_fallback(&self, place: usize) -> bool {
        place >= self.routes.len()
    }

    /// How many routes it has, the one that takes what is left included.
    pub(super) fn count(&self) -> usize {
        self.routes.len() + usize::from(self.piece().fallback.is_some())
    }
}

impl fmt::Display for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.owner, self.meta.key)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, "/{}", self.text) }
    }
}
