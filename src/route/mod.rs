//! Which route does a request match?
//!
//! The precedence is Gateway API's, which leaves the rank of expressions open, and never the order of definition:
//!
//! 1. Host: exact, then the wildcard with the longest suffix (one label before many), then any. Where no route of the more
//!    specific host matches the rest of the request, the less specific host's routes are tried: `shop.example.com/api/` and
//!    `*.example.com/` together serve `shop.example.com/img` by the second.
//! 2. Path: exact, then regular expressions, the longest expression first, then the longest prefix in whole segments. Where no
//!    route of a longer prefix holds, shorter prefixes are tried. An expression `^/.*$` therefore hides the prefixes of its
//!    host: `routes` and the problems say so.
//! 3. A condition on the method before none, more header conditions before fewer, more query conditions before fewer, a
//!    condition on the source before none.
//! 4. The oldest, then the name.

mod cover;
pub mod explain;
mod host;
mod metrics;
mod path;
mod paths;
mod predicate;
pub mod redirect;
pub mod shadow;
mod shards;
mod table;
pub mod target;

#[cfg(test)]
pub(crate) use table::tests as testing;

pub use explain::{Explanation, Reason, Tried};
pub use metrics::RouteMetrics;
pub use redirect::{Redirect, https_location};
pub use table::{Found, Miss, Table};
pub use target::Target;

use crate::filter::{self, Chain};
use crate::message::{FieldId, Fields};
use crate::model::{self, Keyed, PathMatch, PathRewrite, Policy, RouteSpec, ValueError};
use crate::telemetry::metrics::Registry;
use crate::upstream::Cluster;
use bytes::Bytes;
use http::StatusCode;
use path::PathRule;
use predicate::Conditions;
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

/// One route, compiled: match, filters, action.
#[derive(Clone, Debug)]
pub struct Route {
    /// As it was said.
    pub spec: Arc<RouteSpec>,
    /// Filters of host and route.
    pub chain: Chain,
    /// What is done with a request that matches.
    pub action: Action,
    /// Handles resolved when it was compiled.
    pub metrics: RouteMetrics,
    path: PathRule,
    conditions: Conditions,
}

/// What is done with a request that matches.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send it to a cluster.
    Forward(Target),
    /// Answer with a redirect. Boxed, as the next: most of thousands of routes forward, which takes less.
    Redirect(Box<Redirect>),
    /// Answer directly.
    Respond(Box<Respond>),
    /// Answer 500: a part that must not be left out could not be compiled.
    Broken {
        /// Which part, for the operator.
        reason: String,
    },
}

/// A direct response, ready to be sent.
#[derive(Clone, Debug)]
pub struct Respond {
    /// Status.
    pub status: StatusCode,
    /// Header fields; `content-type` is among them where there is a body, `content-length` is not.
    pub fields: Fields,
    /// The body.
    pub body: Bytes,
}

/// Why a route cannot be compiled, by the part that is wrong: what follows from it differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody can tell which requests it is for.
    Match(ValueError),
    /// A filter that keeps requests out: the route must fail closed.
    Guard(ValueError),
    /// Another filter, or the action.
    Action(ValueError),
    /// No such cluster.
    Cluster(String),
}

impl Fault {
    /// What is wrong and what would be right.
    pub fn error(&self) -> ValueError {
        match self {
            Self::Match(error) | Self::Guard(error) | Self::Action(error) => error.clone(),
            Self::Cluster(name) => ValueError::new(
                format!("there is no cluster {name:?}"),
                "define it under clusters, or correct the name",
            ),
        }
    }
}

impl Route {
    /// Compiles a route, or says everything that is wrong with it.
    pub fn compile(
        spec: &Arc<RouteSpec>,
        cluster: impl Fn(&str) -> Option<Arc<Cluster>>,
        registry: &Registry,
    ) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let path = PathRule::compile(&spec.matches.path).map_err(|e| faults.push(Fault::Match(e))).ok();
        let conditions = Conditions::compile(&spec.matches)
            .map_err(|errors| faults.extend(errors.into_iter().map(Fault::Match)))
            .ok();
        let chain = compile_chain(spec).map_err(|wrong| faults.extend(wrong)).ok();
        let action = Action::compile(spec, cluster).map_err(|wrong| faults.extend(wrong)).ok();
        faults.extend(prefix_without_prefix(spec));
        match (path, conditions, chain, action) {
            (Some(path), Some(conditions), Some(chain), Some(action)) if faults.is_empty() => {
                let metrics = RouteMetrics::new(spec, registry);
                Ok(Self { spec: Arc::clone(spec), chain, action, metrics, path, conditions })
            }
            _ => Err(faults),
        }
    }

    /// The route as one that answers 500, so that its requests do not fall to a route that would let them through. `None` where
    /// its match itself cannot be compiled.
    pub fn broken(spec: &Arc<RouteSpec>, reason: String, registry: &Registry) -> Option<Self> {
        Some(Self {
            spec: Arc::clone(spec),
            chain: Chain::default(),
            action: Action::Broken { reason },
            metrics: RouteMetrics::new(spec, registry),
            path: PathRule::compile(&spec.matches.path).ok()?,
            conditions: Conditions::compile(&spec.matches).ok()?,
        })
    }

    /// The same route, said at another place. Nothing is compiled again: a line put in at the top of a file moves all routes
    /// below it, and their expressions cost more than everything else.
    #[must_use]
    pub fn moved(&self, spec: &Arc<RouteSpec>) -> Self {
        Self { spec: Arc::clone(spec), ..self.clone() }
    }

    /// The clusters it forwards to.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let target = if let Action::Forward(target) = &self.action { Some(target) } else { None };
        target.into_iter().flat_map(Target::clusters)
    }

    /// Its path as it is written in routes.
    pub fn path_text(&self) -> String {
        self.path.text()
    }

    /// Order of precedence among routes of one host: what comes first is less.
    fn precedence(&self, other: &Self) -> Ordering {
        let key = |route: &Self| {
            let matches = &route.spec.matches;
            let counts = (matches.methods.is_empty(), Reverse(matches.headers.len()), Reverse(matches.query.len()));
            (counts, matches.sources.is_empty(), route.spec.origin.created)
        };
        self.path
            .precedence(&other.path)
            .then_with(|| key(self).cmp(&key(other)))
            .then_with(|| self.spec.name.cmp(&other.spec.name))
    }
}

impl Keyed for Arc<Route> {
    type Key = str;

    fn key(&self) -> &str {
        &self.spec.name
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

fn compile_chain(spec: &RouteSpec) -> Result<Chain, Vec<Fault>> {
    let all: Vec<_> = spec.policies.iter().collect();
    Chain::compile(&all).map_err(|errors| {
        let guards: Vec<_> = spec.policies.iter().filter(|p| filter::is_guard(p)).collect();
        let guarded = Chain::compile(&guards).err().unwrap_or_default();
        let kind = |e: ValueError| if guarded.contains(&e) { Fault::Guard(e) } else { Fault::Action(e) };
        errors.into_iter().map(kind).collect()
    })
}

/// An expression matches no prefix that could be replaced.
fn prefix_without_prefix(spec: &RouteSpec) -> Option<Fault> {
    let is_prefix = |path: &Option<PathRewrite>| matches!(path, Some(PathRewrite::Prefix(_)));
    let rewrites = spec.policies.iter().any(|p| matches!(p, Policy::Rewrite(rewrite) if is_prefix(&rewrite.path)));
    let redirects = matches!(&spec.action, model::Action::Redirect(redirect) if is_prefix(&redirect.path));
    let is_regex = matches!(spec.matches.path, PathMatch::Regex(_));
    (is_regex && (rewrites || redirects)).then(|| {
        let hint = "match a prefix instead, or give an expression and what to put in its place";
        Fault::Action(ValueError::new("there is no prefix to replace in a path matched by an expression", hint))
    })
}

impl Action {
    fn compile(spec: &RouteSpec, cluster: impl Fn(&str) -> Option<Arc<Cluster>>) -> Result<Self, Vec<Fault>> {
        let one = |e: ValueError| vec![Fault::Action(e)];
        match &spec.action {
            model::Action::Forward(weighted) => Target::compile(weighted, cluster).map(Self::Forward),
            model::Action::Redirect(redirect) => {
                Redirect::compile(redirect).map(|r| Self::Redirect(Box::new(r))).map_err(one)
            }
            model::Action::Respond(respond) => {
                Respond::compile(respond).map(|r| Self::Respond(Box::new(r))).map_err(one)
            }
        }
    }
}

impl Respond {
    fn compile(spec: &model::RespondSpec) -> Result<Self, ValueError> {
        let status = StatusCode::from_u16(spec.status).ok().filter(|s| (200..=599).contains(&s.as_u16()));
        let Some(status) = status else {
            let what = format!("{} is not a status to respond with", spec.status);
            return Err(ValueError::new(what, "use 200 to 599"));
        };
        let edit = model::HeaderEdit { set: spec.headers.clone(), ..Default::default() };
        if let Err(mut errors) = Chain::compile(&[&Policy::ResponseHeaders(edit)]) {
            return Err(errors.swap_remove(0));
        }
        let mut fields = Fields::default();
        for (name, value) in &spec.headers {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
        if !spec.body.is_empty() && !fields.has(FieldId::ContentType) {
            fields.push_known(FieldId::ContentType, b"text/plain; charset=utf-8");
        }
        Ok(Self { status, fields, body: Bytes::from(spec.body.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{cluster, spec};
    use super::*;
    use crate::model::{RedirectSpec, RespondSpec, RewritePolicy};

    fn compile(spec: RouteSpec) -> Result<Route, Vec<Fault>> {
        Route::compile(&Arc::new(spec), |name| Some(cluster(name)), &Registry::new(1, 1000))
    }

    #[test]
    fn every_fault_of_a_route_is_told_at_once() {
        let mut wrong = spec("r", &[], "~(");
        wrong.action = model::Action::Respond(RespondSpec { status: 700, headers: vec![], body: String::new() }.into());
        wrong.policies = vec![Policy::Rewrite(RewritePolicy { path: None, host: Some("*".into()) })];
        let faults = compile(wrong).unwrap_err();
        assert!(matches!(faults[..], [Fault::Match(_), Fault::Action(_), Fault::Action(_)]), "{faults:?}");
    }

    #[test]
    fn a_prefix_is_replaced_only_where_one_was_matched() {
        let path = Some(PathRewrite::Prefix("/new".into()));
        let redirect = RedirectSpec { scheme: None, host: None, port: None, path, status: 302 };
        for (path, fine) in [("/old", true), ("=/old", true), ("~/old.*", false)] {
            let mut route = spec("r", &[], path);
            route.action = model::Action::Redirect(redirect.clone().into());
            assert_eq!(compile(route).is_ok(), fine, "{path}");
        }
    }

    #[test]
    fn a_direct_response_says_what_its_body_is() {
        let mut route = spec("r", &[], "/");
        route.action = model::Action::Respond(RespondSpec { status: 200, headers: vec![], body: "ok".into() }.into());
        let route = compile(route).unwrap();
        let Action::Respond(respond) = &route.action else { panic!("{route:?}") };
        assert_eq!(respond.fields.get(FieldId::ContentType), Some(&b"text/plain; charset=utf-8"[..]));
        assert_eq!(&respond.body[..], b"ok");
    }
}
