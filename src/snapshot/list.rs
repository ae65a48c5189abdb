//! Which routes are there, in the order of precedence, and which of them does no request reach?

use super::{ListenerSnapshot, Snapshot};
use crate::model::{self, HostPattern, StringMatch};
use crate::route::{Action, Route};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

/// One route under one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteLine {
    /// Listeners that serve it, by name.
    pub listeners: Vec<String>,
    /// Host.
    pub host: String,
    /// Path as it is written in routes.
    pub path: String,
    /// Conditions beside host and path: `GET`, `header x-a`, `query q=1`, `from 10.0.0.0/8`.
    pub conditions: Vec<String>,
    /// What is done: `to shop/web`, `redirect 308`, `respond 200`, `500`.
    pub action: String,
    /// The route's name.
    pub route: String,
    /// Where it was said.
    pub origin: String,
    /// Why no request reaches it; `None` where some may.
    pub unreachable: Option<String>,
}

/// All routes under all their hosts, those first that come first; routes without a listener at the end.
pub fn list(snapshot: &Snapshot) -> Vec<RouteLine> {
    let mut lines = Vec::new();
    let mut seen: Vec<*const crate::route::Table> = Vec::new();
    for listener in &snapshot.listeners {
        let table = Arc::as_ptr(&listener.table);
        if !seen.contains(&table) {
            seen.push(table);
            lines.extend(of_table(snapshot, listener));
        }
    }
    let listed = |route: &Arc<Route>| snapshot.listeners.iter().any(|l| l.table.holds(route));
    let unserved = snapshot.routes.iter().filter(|route| snapshot.listeners.is_empty() || !listed(route));
    lines.extend(unserved.map(|route| {
        let hosts: Vec<String> = route.spec.hosts.iter().map(HostPattern::label).collect();
        let host = if hosts.is_empty() { "*".to_owned() } else { hosts.join(" ") };
        line(route, host, Vec::new(), Some("no listener serves it".into()))
    }));
    lines
}

/// The routes of all listeners that share a table.
fn of_table(snapshot: &Snapshot, first: &ListenerSnapshot) -> Vec<RouteLine> {
    let sharing = || snapshot.listeners.iter().filter(|l| Arc::ptr_eq(&l.table, &first.table));
    let names: Vec<String> = sharing().map(|l| l.spec.name.clone()).collect();
    let redirected = sharing().all(|l| l.spec.https_redirect.is_some());
    let shadowed: HashMap<*const Route, String> = first
        .table
        .shadowed()
        .iter()
        .map(|s| {
            let by: Vec<&str> = s.by.iter().map(|r| r.spec.name.as_str()).collect();
            (Arc::as_ptr(&s.route), format!("{} takes all of its requests first", by.join(" and ")))
        })
        .collect();
    let why = |route: &Arc<Route>| {
        let redirect = || redirected.then(|| "its listeners redirect everything to https".to_owned());
        shadowed.get(&Arc::as_ptr(route)).cloned().or_else(redirect)
    };
    let listed = first.table.listed();
    listed.iter().map(|l| line(l.route, l.host.label(), names.clone(), why(l.route))).collect()
}

fn line(route: &Route, host: String, listeners: Vec<String>, unreachable: Option<String>) -> RouteLine {
    RouteLine {
        listeners,
        host,
        path: route.path_text(),
        conditions: conditions(&route.spec.matches),
        action: action(route),
        route: route.spec.name.clone(),
        origin: route.spec.origin.to_string(),
        unreachable,
    }
}

fn conditions(matches: &model::Match) -> Vec<String> {
    let value = |name: &str, value: &StringMatch| match value {
        StringMatch::Exact(text) => format!("{name}={text}"),
        StringMatch::Regex(pattern) => format!("{name}~{pattern}"),
        StringMatch::Present => name.to_owned(),
        StringMatch::Absent => format!("no {name}"),
    };
    let methods: Vec<&str> = matches.methods.iter().map(http::Method::as_str).collect();
    let mut all: Vec<String> = Vec::new();
    all.extend((!methods.is_empty()).then(|| methods.join("|")));
    all.extend(matches.headers.iter().map(|(name, rule)| format!("header {}", value(name.as_str(), rule))));
    all.extend(matches.query.iter().map(|(name, rule)| format!("query {}", value(name, rule))));
    let sources: Vec<String> = matches.sources.iter().map(ToString::to_string).collect();
    all.extend((!sources.is_empty()).then(|| format!("from {}", sources.join("|"))));
    all
}

fn action(route: &Route) -> String {
    match (&route.action, &route.spec.action) {
        (Action::Broken { .. }, _) => "500".into(),
        (Action::Redirect(redirect), _) => format!("redirect {}", redirect.status.as_u16()),
        (Action::Respond(respond), _) => format!("respond {}", respond.status.as_u16()),
        (Action::Forward(_), model::Action::Forward(weighted)) => {
            let only = weighted.len() == 1;
            let each = weighted.iter().map(|w| match only {
                true => w.cluster.to_string(),
                false => format!("{} {}", w.cluster, w.weight),
            });
            format!("to {}", each.collect::<Vec<_>>().join(", "))
        }
        (Action::Forward(target), _) => format!("to {target:?}"),
    }
}

impl Display for RouteLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.host, self.path)?;
        for condition in &self.conditions {
            write!(f, " [{condition}]")?;
        }
        write!(f, " -> {}  ({}, {})", self.action, self.route, self.origin)?;
        if let Some(why) = &self.unreachable {
            write!(f, "\n  unreachable: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::compile::tests::{compile, listener, model, to};
    use super::*;
    use crate::model::HttpsRedirect;
    use crate::telemetry::metrics::Registry;

    fn lines(model: &model::Fragment) -> Vec<String> {
        let snapshot = compile(model, &Snapshot::default(), &Registry::new(1, 10_000)).0;
        list(&snapshot).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn routes_are_listed_in_order_and_unreachable_ones_are_flagged() {
        let mut get = to("get", "/api/", "c");
        get.matches.methods = vec![http::Method::GET];
        let mut nowhere = to("nowhere", "/n/", "c");
        nowhere.listeners = vec!["none".into()];
        let model =
            model(vec![nowhere, to("root", "/", "c"), to("api 2", "/api", "c"), to("api", "/api/", "c"), get], &["c"]);
        let lines = lines(&model);
        let starts = [
            "a.test /api/ [GET] -> to c  (get,",
            "a.test /api/ -> to c  (api,",
            "a.test /api/ -> to c  (api 2,",
            "a.test / -> ",
            "a.test /n/ ",
        ];
        assert_eq!(lines.len(), starts.len());
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line} / {start}");
        }
        assert!(lines[2].contains("unreachable: api takes all"), "{}", lines[2]);
        assert!(lines[4].contains("unreachable: no listener serves it"));
        assert!(!lines[3].contains("unreachable"));
    }

    #[test]
    fn a_route_whose_listeners_all_redirect_is_unreachable() {
        let mut model = model(vec![to("r", "/", "c")], &["c"]);
        model.listeners[0].https_redirect = Some(HttpsRedirect { port: 443, status: 308 });
        assert!(lines(&model)[0].contains("redirect everything to https"));
        model.listeners.push(listener("other"));
        assert!(!lines(&model)[0].contains("unreachable"));
    }
}
