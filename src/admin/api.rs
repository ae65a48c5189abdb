//! What serves, and what became of what was asked for, as JSON?
//!
//! Lists are `{"total", "offset", "items"}` and take `q` (text that an item must hold), `offset` and `limit` (1000). Keys may be
//! added; those that are there keep their meaning. Times are seconds since the epoch.

use super::Desk;
use super::query::Query;
use super::reply::{self, Reply};
use super::view::{CertificateOf, EndpointOf, ListenerView, RouteView};
use crate::model::{Keyed, Problem, Severity};
use crate::route::Route;
use crate::snapshot::explain::{ExplainRequest, explain as explain_request};
use crate::snapshot::{ListenerSnapshot, Snapshot};
use http::StatusCode;
use serde::Serialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// `GET /api/v1/config`
#[derive(Debug, Serialize)]
struct Config {
    version: &'static str,
    /// Of the configuration that serves; 0 before the first.
    generation: u64,
    /// When it was published; null before the first.
    published_at: Option<f64>,
    /// How long the steps of that took, in microseconds.
    timings_us: Timings,
    problems: Counts,
    ready: bool,
    /// What is waited for; empty when ready.
    waiting: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Timings {
    merge: u128,
    compile: u128,
    swap: u128,
}

#[derive(Debug, Serialize)]
struct Counts {
    errors: usize,
    warnings: usize,
}

pub(super) fn config(desk: &Desk, _: &Query) -> Reply {
    let report = desk.handles.report.borrow().clone();
    let count = |severity| report.problems.iter().filter(|problem| problem.severity == severity).count();
    let waiting = desk.handles.readiness.reasons();
    reply::json(&Config {
        version: env!("CARGO_PKG_VERSION"),
        generation: report.generation,
        published_at: report.published_at.map(seconds),
        timings_us: Timings {
            merge: report.timings.merge.as_micros(),
            compile: report.timings.compile.as_micros(),
            swap: report.timings.swap.as_micros(),
        },
        problems: Counts { errors: count(Severity::Error), warnings: count(Severity::Warning) },
        ready: waiting.is_empty(),
        waiting,
    })
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An item of `GET /api/v1/problems`
#[derive(Debug, Serialize)]
struct ProblemView<'a> {
    /// `error`: not honoured. `warning`: honoured, but probably not what was meant.
    severity: &'static str,
    /// File or object.
    place: &'a str,
    line: Option<u32>,
    column: Option<u32>,
    /// Key path in the document.
    key: &'a str,
    /// The four above, as compilers write them.
    at: String,
    what: &'a str,
    hint: &'a str,
}

impl<'a> ProblemView<'a> {
    fn of(problem: &'a Problem) -> Self {
        let origin = &problem.origin;
        Self {
            severity: match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            place: &origin.place,
            line: origin.position.map(|at| at.line),
            column: origin.position.map(|at| at.column),
            key: &origin.key,
            at: origin.to_string(),
            what: &problem.what,
            hint: &problem.hint,
        }
    }
}

pub(super) fn problems(desk: &Desk, query: &Query) -> Reply {
    let problems = desk.handles.report.borrow().problems.clone();
    reply::json(&query.page(problems.iter(), ToString::to_string, ProblemView::of))
}

/// Items are [`ListenerView`].
pub(super) fn listeners(desk: &Desk, query: &Query) -> Reply {
    let (snapshot, bound) = (desk.handles.shared.full(), desk.handles.bound.borrow().clone());
    let view = |listener: &Arc<ListenerSnapshot>| {
        let spec = &listener.spec;
        ListenerView::of(spec, bound_at(&bound, &spec.name), listener.table.len())
    };
    reply::json(&query.page(snapshot.listeners.iter(), |listener| listener.spec.name.clone(), view))
}

fn bound_at(bound: &[(String, SocketAddr)], name: &str) -> Option<SocketAddr> {
    bound.iter().find(|(bound, _)| bound == name).map(|(_, address)| *address)
}

/// Items are [`RouteView`], by name. What is in the configuration and serves on no listener has no listeners.
pub(super) fn routes(desk: &Desk, query: &Query) -> Reply {
    let snapshot = desk.handles.shared.full();
    let listeners = listeners_of_routes(&snapshot);
    let view = |route: &Arc<Route>| {
        let names = listeners.get(&Arc::as_ptr(route)).cloned().unwrap_or_default();
        RouteView::of(route, names.into_iter().map(str::to_owned).collect())
    };
    reply::json(&query.page(snapshot.routes.iter(), |route| RouteView::words(route), view))
}

fn listeners_of_routes(snapshot: &Snapshot) -> HashMap<*const Route, Vec<&str>> {
    let mut found: HashMap<_, Vec<&str>> = HashMap::new();
    for listener in &snapshot.listeners {
        for route in listener.table.routes() {
            found.entry(Arc::as_ptr(route)).or_default().push(&listener.spec.name);
        }
    }
    found
}

/// Items are [`crate::upstream::ClusterView`], by name.
pub(super) fn clusters(desk: &Desk, query: &Query) -> Reply {
    let snapshot = desk.handles.shared.full();
    let clusters = snapshot.clusters.iter().map(|held| &held.cluster);
    reply::json(&query.page(clusters, |cluster| cluster.spec().name.to_string(), |cluster| cluster.describe()))
}

/// Items are [`EndpointOf`]; `cluster` asks for one cluster's.
pub(super) fn endpoints(desk: &Desk, query: &Query) -> Reply {
    let snapshot = desk.handles.shared.full();
    let wanted = |name: &str| query.get("cluster").is_none_or(|asked| asked == name);
    let clusters = snapshot.clusters.iter().filter(|held| wanted(held.key()));
    let all = clusters.flat_map(|held| {
        let of = |endpoint| EndpointOf { cluster: held.key().to_owned(), endpoint };
        held.cluster.describe().endpoints.into_iter().map(of)
    });
    reply::json(&query.page(all, |of| format!("{} {}", of.cluster, of.endpoint.address), |of| of))
}

/// Items are [`CertificateOf`].
pub(super) fn certificates(desk: &Desk, query: &Query) -> Reply {
    let snapshot = desk.handles.shared.full();
    let all = snapshot.listeners.iter().flat_map(|listener| {
        let views = listener.tls.iter().flat_map(|tls| tls.describe());
        views.map(|certificate| CertificateOf { listener: listener.spec.name.clone(), certificate })
    });
    let words =
        |of: &CertificateOf| format!("{} {} {}", of.certificate.name, of.listener, of.certificate.hosts.join(" "));
    reply::json(&query.page(all, words, |of| of))
}

/// [`crate::snapshot::explain::Explanation`] of `url`, with `method` (GET), any number of `header` (`name: value`), `client` and
/// `listener`; `format=text` for people.
pub(super) fn explain(desk: &Desk, query: &Query) -> Reply {
    let Some(url) = query.get("url") else {
        let hint = "such as /api/v1/explain?method=GET&url=https://shop.example.com/api/&header=x-api-key:%20a";
        return reply::wrong(StatusCode::BAD_REQUEST, "the parameter url is missing", hint);
    };
    let method = query.get("method").unwrap_or("GET");
    match ExplainRequest::parse(method, url, &query.all("header"), query.get("client")) {
        Ok(request) => {
            let request = ExplainRequest { listener: query.get("listener").map(str::to_owned), ..request };
            let explanation = explain_request(&desk.handles.shared.full(), &request);
            if query.get("format") == Some("text") {
                return reply::text(StatusCode::OK, explanation.to_string());
            }
            reply::json(&explanation)
        }
        Err(error) => reply::wrong(StatusCode::BAD_REQUEST, &error.what, &error.hint),
    }
}

/// Items are [`crate::snapshot::RouteLine`], in the order of precedence; `format=text` for people, whole.
pub(super) fn precedence(desk: &Desk, query: &Query) -> Reply {
    let lines = crate::snapshot::list(&desk.handles.shared.full());
    if query.get("format") == Some("text") {
        return reply::text(StatusCode::OK, lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }
    reply::json(&query.page(lines.into_iter(), ToString::to_string, |line| line))
}

/// Items are [`crate::telemetry::ConnectionView`]; `total` counts those without a row, too.
pub(super) fn connections(desk: &Desk, query: &Query) -> Reply {
    let (open, views) = desk.handles.connections.list(MAX_CONNECTIONS);
    let mut page = query.page(views.into_iter(), |view| format!("{} {}", view.peer, view.listener), |view| view);
    if query.get("q").is_none_or(str::is_empty) {
        page.total = open;
    }
    reply::json(&page)
}

const MAX_CONNECTIONS: usize = 1000;
