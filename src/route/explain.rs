//! Which route takes a request, and why does none of the others?

use super::host::{covers, precedence};
use super::{Miss, Route, Table};
use crate::message::RequestHead;
use crate::model::{HostPattern, RouteSpec};
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;

/// How a request goes through a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The route that takes the request, by name; `None`: no route does.
    pub route: Option<String>,
    /// The host of the table that it was found under: `*.example.com`.
    pub host: Option<String>,
    /// Bytes of the path that its prefix matched.
    pub prefix: usize,
    /// Routes of the hosts that cover the request's, in the order of precedence, the one that takes it included.
    pub tried: Vec<Tried>,
    /// How many routes are of other hosts altogether.
    pub other_hosts: usize,
}

/// What became of one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Its name.
    pub route: String,
    /// The host it was tried under.
    pub host: String,
    /// Its path as it is written in routes.
    pub path: String,
    /// Where it was said.
    pub origin: String,
    /// What became of it.
    pub reason: Reason,
}

/// Why a route takes a request or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "snake_case")]
pub enum Reason {
    /// It takes the request.
    Taken,
    /// It would, but another one comes first.
    Later(String),
    /// Its path does not match.
    Path(String),
    /// Another condition does not hold.
    Condition(String),
}

impl Table {
    /// Explains what [`Table::find`] does. Slow, and for people.
    pub fn explain(&self, head: &RequestHead, client: IpAddr) -> Explanation {
        let mut under: Vec<(&HostPattern, &Arc<Route>)> = Vec::new();
        let mut other_hosts = 0;
        for route in self.routes() {
            let before = under.len();
            let hosts = hosts(route).iter().filter(|pattern| covers(pattern, &head.host));
            under.extend(hosts.map(|pattern| (pattern, route)));
            other_hosts += usize::from(under.len() == before);
        }
        // Stable: within a host the routes stay in their order.
        under.sort_by(|a, b| precedence(a.0).cmp(&precedence(b.0)));
        let found = self.find(head, client).ok();
        let mut taken = false;
        let mut host = None;
        let mut tried = Vec::new();
        for (pattern, route) in under {
            let reason = reason(route, head, client, found.map(|f| f.route), &mut taken);
            if reason == Reason::Taken {
                host = Some(pattern.label());
            }
            tried.push(Tried {
                route: route.spec.name.clone(),
                host: pattern.label(),
                path: route.path.text(),
                origin: route.spec.origin.to_string(),
                reason,
            });
        }
        Explanation {
            route: found.map(|f| f.route.spec.name.clone()),
            host,
            prefix: found.map_or(0, |f| f.prefix),
            tried,
            other_hosts,
        }
    }
}

impl Miss {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "no route has this host",
            Self::Path => "no route of this host matches the rest of the request",
        }
    }
}

/// A route's hosts; any where it names none.
pub(super) fn hosts(route: &Route) -> &[HostPattern] {
    hosts_of(&route.spec)
}

/// The hosts that a route stands under; one without hosts stands under any.
pub(super) fn hosts_of(spec: &RouteSpec) -> &[HostPattern] {
    if spec.hosts.is_empty() { &[HostPattern::Any] } else { &spec.hosts }
}

fn reason(
    route: &Arc<Route>,
    head: &RequestHead,
    client: IpAddr,
    found: Option<&Arc<Route>>,
    taken: &mut bool,
) -> Reason {
    if !route.path.matches(&head.path) {
        return Reason::Path(format!("{} does not match {}", route.path.text(), head.path));
    }
    if let Some(why) = route.conditions.why_not(&route.spec.matches, head, client) {
        return Reason::Condition(why);
    }
    match found {
        Some(first) if *taken || !Arc::ptr_eq(first, route) => {
            Reason::Later(format!("{} comes first", first.spec.name))
        }
        _ => {
            *taken = true;
            Reason::Taken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{route, spec};
    use super::*;
    use http::Method;

    #[test]
    fn every_route_of_the_host_says_why() {
        let mut post = spec("post", &["a.test"], "/api/");
        post.matches.methods = vec![Method::POST];
        let table = Table::build(vec![
            route(spec("root", &["*.test"], "/")),
            route(spec("other", &["b.example"], "/")),
            route(spec("img", &["a.test"], "/img/")),
            route(post),
            route(spec("api", &["a.test", "*.test"], "/api/")),
        ]);
        let head = RequestHead::sample(Method::GET, "a.test", "/api/x");
        let explanation = table.explain(&head, "192.0.2.1".parse().unwrap());
        assert_eq!(explanation.route.as_deref(), Some("api"));
        assert_eq!((explanation.host.as_deref(), explanation.prefix), (Some("a.test"), 4));
        assert_eq!(explanation.other_hosts, 1);
        let said: Vec<_> = explanation.tried.iter().map(|t| (t.route.as_str(), t.host.as_str(), &t.reason)).collect();
        assert!(
            matches!(
                said[..],
                [
                    ("post", "a.test", Reason::Condition(_)),
                    ("api", "a.test", Reason::Taken),
                    ("img", "a.test", Reason::Path(_)),
                    ("api", "*.test", Reason::Later(_)),
                    ("root", "*.test", Reason::Later(_)),
                ]
            ),
            "{said:?}"
        );
    }
}
