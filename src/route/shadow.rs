//! Which routes can no request reach?

use super::explain::hosts;
use super::host;
use super::predicate::Conditions;
use super::{Route, Table};
use crate::model::HostPattern;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A route that never takes a request, because others take all of its requests first.
#[derive(Clone, Debug)]
pub struct Shadowed {
    /// The route.
    pub route: Arc<Route>,
    /// One that comes first, for each of its hosts; each is named once.
    pub by: Vec<Arc<Route>>,
}

/// One line of the list of all routes in the order of precedence.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Host.
    pub host: &'a HostPattern,
    /// Route; it is listed once for each of its hosts.
    pub route: &'a Arc<Route>,
}

impl Table {
    /// Every route under every host, in the order of precedence.
    pub fn listed(&self) -> Vec<Listed<'_>> {
        let all =
            self.routes().into_iter().flat_map(|route| hosts(route).iter().map(move |host| Listed { host, route }));
        let mut all: Vec<_> = all.collect();
        // Stable: within a host the routes stay in their order.
        all.sort_by(|a, b| host::precedence(a.host).cmp(&host::precedence(b.host)));
        all
    }

    /// Routes of which it is certain that each of their requests is taken by a route of the same host that comes first. What
    /// several routes shadow only together is not found. In the order of precedence.
    pub fn shadowed(&self) -> &[Shadowed] {
        &self.shadowed
    }

    /// Looks anew for shadowed routes under these hosts.
    pub(super) fn shade(&mut self, touched: &HashSet<&HostPattern>) {
        let far = |shadowed: &Shadowed| !hosts(&shadowed.route).iter().any(|host| touched.contains(host));
        let mut found = std::mem::take(&mut self.shadowed);
        found.retain(far);
        let (mut looked, mut indices) = (HashSet::new(), Indices { table: self, of: HashMap::new() });
        for route in touched.iter().flat_map(|host| self.of_host(host)) {
            if looked.insert(Arc::as_ptr(route))
                && let Some(by) = indices.shadows(route)
            {
                found.push(Shadowed { route: Arc::clone(route), by });
            }
        }
        found.sort_by(|a, b| a.route.precedence(&b.route));
        self.shadowed = found;
    }
}

/// Routes of hosts by what their paths cover, made when it is asked for.
struct Indices<'a> {
    table: &'a Table,
    of: HashMap<&'a HostPattern, Index<'a>>,
}

#[derive(Default)]
struct Index<'a> {
    by_path: HashMap<String, Vec<&'a Arc<Route>>>,
    /// Whether there are any open rules at all.
    opens: bool,
}

impl<'a> Indices<'a> {
    /// One that comes first, for each of a route's hosts, each once; `None` where some host of it is free.
    fn shadows(&mut self, route: &'a Arc<Route>) -> Option<Vec<Arc<Route>>> {
        // Nearly every host has a single route.
        if hosts(route).iter().any(|host| self.table.of_host(host).len() < 2) {
            return None;
        }
        let mut by: Vec<Arc<Route>> = Vec::new();
        for host in hosts(route) {
            let index = self.index(host);
            let mut near = route.path.covered_by(index.opens).into_iter().filter_map(|path| index.by_path.get(&path));
            by.push(Arc::clone(near.find_map(|routes| shadow(routes, route))?));
        }
        by.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Some(by)
    }

    fn index(&mut self, host: &'a HostPattern) -> &Index<'a> {
        let table = self.table;
        self.of.entry(host).or_insert_with(|| {
            let mut index = Index::default();
            for route in table.of_host(host) {
                index.by_path.entry(route.path.key()).or_default().push(route);
                index.opens |= route.path.is_open();
            }
            index
        })
    }
}

/// The first of these, whose paths cover the route's, that takes every request of `route`.
fn shadow<'a>(routes: &[&'a Arc<Route>], route: &Arc<Route>) -> Option<&'a Arc<Route>> {
    let takes_all = |other: &&Arc<Route>| {
        other.precedence(route).is_lt() && Conditions::imply(&route.spec.matches, &other.spec.matches)
    };
    routes.iter().copied().find(takes_all)
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{route, spec};
    use super::*;
    use crate::model::RouteSpec;
    use http::Method;

    fn shadowed(specs: Vec<RouteSpec>) -> Vec<(String, String)> {
        let table = Table::build(specs.into_iter().map(route).collect());
        let pair = |s: &Shadowed| (s.route.spec.name.clone(), s.by[0].spec.name.clone());
        table.shadowed().iter().map(pair).collect()
    }

    #[test]
    fn of_two_equal_routes_the_later_is_shadowed() {
        let (a, b) = (spec("a", &["x.test"], "/p"), spec("b", &["x.test"], "/p/"));
        assert_eq!(shadowed(vec![b, a]), [("b".into(), "a".into())]);
    }

    #[test]
    fn a_prefix_hides_no_expression() {
        assert!(
            shadowed(vec![spec("all", &[], "/"), spec("re", &[], "~^/item/[0-9]+$"), spec("p", &[], "/item/")])
                .is_empty()
        );
    }

    #[test]
    fn an_expression_that_matches_everything_hides_the_prefixes_and_shorter_expressions_behind_it() {
        let all = || spec("all", &[], "~^/.*$");
        let others = vec![
            spec("exact", &[], "=/x"),
            spec("longer", &[], "~^/item/[0-9]+$"),
            spec("short", &[], "~/a+"),
            spec("item", &[], "/item/"),
            spec("root", &[], "/"),
        ];
        let hidden = ["short", "item", "root"].map(|name| (name.to_owned(), "all".to_owned()));
        assert_eq!(shadowed([others.clone(), vec![all()]].concat()), hidden);
        let mut get = all();
        get.matches.methods = vec![Method::GET];
        assert!(shadowed([others, vec![get]].concat()).is_empty());
    }

    #[test]
    fn of_two_equal_expressions_the_later_is_hidden_whatever_their_anchors() {
        let found = shadowed(vec![spec("bare", &[], "~/x/[0-9]"), spec("anchored", &[], "~^/x/[0-9]$")]);
        assert_eq!(found, [("bare".into(), "anchored".into())]);
    }

    #[test]
    fn a_route_that_is_free_under_one_host_is_not_shadowed() {
        let (a, b) = (spec("a", &["x.test"], "/p"), spec("b", &["x.test", "y.test"], "/p"));
        assert!(shadowed(vec![a, b]).is_empty());
    }

    #[test]
    fn narrower_conditions_that_come_first_hide_nothing() {
        let mut get = spec("get", &[], "/p");
        get.matches.methods = vec![Method::GET];
        assert!(shadowed(vec![get.clone(), spec("rest", &[], "/p"), spec("short", &[], "/")]).is_empty());
        let again = RouteSpec { name: "get 2".into(), ..get.clone() };
        assert_eq!(shadowed(vec![get, again]), [("get 2".into(), "get".into())]);
    }

    #[test]
    fn the_list_goes_from_the_most_specific_host_to_the_least() {
        let table = Table::build(vec![
            route(spec("any", &[], "/")),
            route(spec("both", &["*.test", "a.test"], "/")),
            route(spec("exact", &["a.test"], "=/x")),
        ]);
        let listed: Vec<_> = table.listed().iter().map(|l| (l.host.to_string(), l.route.spec.name.clone())).collect();
        let expected = [("a.test", "exact"), ("a.test", "both"), ("*.test", "both"), ("*", "any")];
        assert_eq!(listed, expected.map(|(h, n)| (h.to_owned(), n.to_owned())));
    }
}
