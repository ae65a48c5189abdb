//! How is a listener's route found among a hundred thousand, as fast as among one?

use super::Route;
use super::explain::{hosts, hosts_of};
use super::host::Hosts;
use super::paths::Paths;
use super::shadow::Shadowed;
use crate::message::RequestHead;
use crate::message::path::loosely;
use crate::model::{HostPattern, RouteSpec};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The index of a listener's routes. Immutable; a look-up allocates nothing and costs what the request's own host and path
/// cost, not what the number of routes would. Expressions are tried one by one, but only those of the request's own hosts.
#[derive(Clone, Debug, Default)]
pub struct Table {
    hosts: Hosts,
    /// How many routes there are.
    len: usize,
    /// A number that tables of the same routes have in common.
    identity: u64,
    pub(super) shadowed: Vec<Shadowed>,
}

/// A route that matched.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// Bytes of the path that its prefix matched, a trailing slash excluded; the whole path where it was matched exactly, 0
    /// where an expression did.
    pub prefix: usize,
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No route has this host: 404, or 421 where the connection was meant for another.
    Host,
    /// The host is known, but no route of it matches the rest: 404.
    Path,
}

impl Table {
    /// Indexes routes. Their order does not matter.
    pub fn build(routes: Vec<Arc<Route>>) -> Self {
        Self::default().changed(&[], &routes)
    }

    /// The same table without these routes, and with those. It shares with this one whatever belongs to other hosts: of thousands
    /// of hosts, a change of one costs nearly nothing.
    #[must_use]
    pub fn changed(&self, gone: &[Arc<Route>], come: &[Arc<Route>]) -> Self {
        let mut touched: HashMap<&HostPattern, (HashSet<*const Route>, Vec<Arc<Route>>)> = HashMap::new();
        for (route, host) in under_hosts(gone) {
            touched.entry(host).or_default().0.insert(Arc::as_ptr(route));
        }
        for (route, host) in under_hosts(come) {
            touched.entry(host).or_default().1.push(Arc::clone(route));
        }
        let mut table = self.clone();
        table.hosts.reserve(come.len().saturating_sub(gone.len()));
        for (host, (gone, routes)) in &mut touched {
            let old = self.hosts.get(host).map_or(&[][..], Paths::routes);
            routes.extend(old.iter().filter(|route| !gone.contains(&Arc::as_ptr(route))).cloned());
            table.hosts.set(host, Paths::of(std::mem::take(routes)));
        }
        let sum = |routes: &[Arc<Route>]| routes.iter().map(number).fold(0, u64::wrapping_add);
        table.identity = table.identity.wrapping_add(sum(come)).wrapping_sub(sum(gone));
        table.len = table.len + come.len() - gone.len();
        table.shade(&touched.into_keys().collect());
        table
    }

    /// Whether both have the very same routes.
    pub fn is_same(&self, other: &Self) -> bool {
        let pointers = |table: &Self| table.routes().into_iter().map(Arc::as_ptr).collect::<HashSet<_>>();
        (self.len, self.identity) == (other.len, other.identity) && pointers(self) == pointers(other)
    }

    /// The route of a normalized request; `client` is the client's address as the context has it.
    pub fn find(&self, head: &RequestHead, client: IpAddr) -> Result<Found<'_>, Miss> {
        self.find_as(&head.path, head, client)
    }

    /// Whether an upstream that merges slashes or cuts parameters off segments would take this request for one of another route,
    /// past whatever that route asks for (`//admin`, `/admin;x`). Not where the route itself names such a path.
    pub fn is_ambiguous(&self, found: Found<'_>, head: &RequestHead, client: IpAddr) -> bool {
        loosely(&head.path, found.prefix).is_some_and(|loose| {
            self.find_as(&loose, head, client).is_ok_and(|other| !Arc::ptr_eq(other.route, found.route))
        })
    }

    fn find_as(&self, path: &str, head: &RequestHead, client: IpAddr) -> Result<Found<'_>, Miss> {
        let mut miss = Miss::Host;
        for paths in self.hosts.covering(&head.host) {
            miss = Miss::Path;
            if let Some((route, prefix)) = paths.find(path, |route| route.conditions.hold(head, client)) {
                return Ok(Found { route, prefix });
            }
        }
        Err(miss)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All routes in the order of precedence, hosts aside. Slow, and for people.
    pub fn routes(&self) -> Vec<&Arc<Route>> {
        let mut all: Vec<_> = self.hosts.all().flat_map(Paths::routes).collect();
        all.sort_by(|a, b| a.precedence(b));
        // A route of several hosts stands under each.
        all.dedup_by(|a, b| Arc::ptr_eq(a, b));
        all
    }

    /// The routes of a host in the order of precedence.
    pub(super) fn of_host(&self, host: &HostPattern) -> &[Arc<Route>] {
        self.hosts.get(host).map_or(&[], Paths::routes)
    }

    /// How many routes are looked at when this one comes or goes; `None`: more than so many.
    pub fn beside(&self, spec: &RouteSpec, most: usize) -> Option<usize> {
        // What is hidden under one host may be hidden under the others of its own.
        let near = hosts_of(spec).iter().flat_map(|host| self.of_host(host)).flat_map(|route| hosts(route));
        let near: Vec<&HostPattern> = near.take(most + 1).collect();
        let hosts: HashSet<&HostPattern> = near.iter().copied().collect();
        let all = hosts.iter().flat_map(|host| self.of_host(host)).take(most + 1).count().max(near.len());
        (all <= most).then_some(all)
    }

    /// Whether it has this very route.
    pub fn holds(&self, route: &Arc<Route>) -> bool {
        let under = |host| self.of_host(host).iter().any(|other| Arc::ptr_eq(other, route));
        hosts(route).first().is_some_and(under)
    }
}

/// Routes with each of their hosts. A host that stands there twice counts once.
fn under_hosts(routes: &[Arc<Route>]) -> impl Iterator<Item = (&Arc<Route>, &HostPattern)> {
    let first = |all: &[HostPattern], at: usize, host: &HostPattern| all.iter().position(|h| h == host) == Some(at);
    routes.iter().flat_map(move |route| {
        let all = hosts(route);
        let once = all.iter().enumerate().filter(move |(at, host)| first(all, *at, host));
        once.map(move |(_, host)| (route, host))
    })
}

/// A number of its own for a route.
fn number(route: &Arc<Route>) -> u64 {
    (Arc::as_ptr(route) as usize as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::host::{covers, precedence};
    use super::*;
    use crate::model::{Action, ClusterSpec, FieldName, Match, Origin, PathMatch, RespondSpec, RetrySpec, RouteSpec};
    use crate::model::{StringMatch, WildcardDepth};
    use crate::telemetry::metrics::Registry;
    use crate::upstream::Cluster;
    use http::Method;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::time::Duration;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    pub(crate) fn cluster(name: &str) -> Arc<Cluster> {
        Cluster::new(&ClusterSpec::new(name, Origin::default(), vec![]), None, &Registry::new(1, 1000))
    }

    /// A route that answers 200: `host/path` with `=` and `~` as in files.
    pub(crate) fn spec(name: &str, hosts: &[&str], path: &str) -> RouteSpec {
        let path = match path.as_bytes()[0] {
            b'=' => PathMatch::Exact(path[1..].into()),
            b'~' => PathMatch::Regex(path[1..].into()),
            _ => PathMatch::Prefix(path.into()),
        };
        RouteSpec {
            name: name.into(),
            origin: Origin::default(),
            listeners: vec![],
            hosts: hosts.iter().map(|h| host(h)).collect(),
            matches: Match { path, ..Match::default() },
            policies: vec![],
            action: Action::Respond(RespondSpec { status: 200, headers: vec![], body: String::new() }.into()),
            request_timeout: None,
            try_timeout: None,
            idle_timeout: Duration::from_secs(60),
            retry: RetrySpec::default(),
        }
    }

    fn host(text: &str) -> HostPattern {
        match text.strip_prefix("1:") {
            Some(rest) => HostPattern::parse(rest, WildcardDepth::One).unwrap(),
            None => HostPattern::parse(text, WildcardDepth::Many).unwrap(),
        }
    }

    pub(crate) fn route(spec: RouteSpec) -> Arc<Route> {
        let registry = Registry::new(1, 1000);
        Arc::new(Route::compile(&Arc::new(spec), |name| Some(cluster(name)), &registry).unwrap())
    }

    fn find(table: &Table, method: Method, host: &str, path: &str) -> Result<String, Miss> {
        table.find(&RequestHead::sample(method, host, path), CLIENT).map(|found| found.route.spec.name.clone())
    }

    #[test]
    fn a_less_specific_host_serves_what_the_specific_one_does_not_match() {
        let table = Table::build(vec![
            route(spec("exact", &["shop.a.test"], "/api/")),
            route(spec("wild", &["*.a.test"], "/img/")),
            route(spec("any", &[], "/any/")),
        ]);
        assert_eq!(find(&table, Method::GET, "shop.a.test", "/api/x").unwrap(), "exact");
        assert_eq!(find(&table, Method::GET, "shop.a.test", "/img/x").unwrap(), "wild");
        assert_eq!(find(&table, Method::GET, "shop.a.test", "/any/x").unwrap(), "any");
        assert_eq!(find(&table, Method::GET, "shop.a.test", "/").unwrap_err(), Miss::Path);
    }

    #[test]
    fn a_path_that_a_loose_reader_would_take_to_another_route_is_ambiguous() {
        let table = Table::build(vec![
            route(spec("all", &[], "/")),
            route(spec("admin", &[], "/admin/")),
            route(spec("named", &[], "/objects//")),
            route(spec("exact", &[], "=/admin;public")),
        ]);
        let ambiguous = |path: &str| {
            let head = RequestHead::sample(Method::GET, "a.test", path);
            table.is_ambiguous(table.find(&head, CLIENT).unwrap(), &head, CLIENT)
        };
        for path in ["//admin", "//admin/x", "/admin;x", "/;/admin", "/;x=1/admin/y", "///admin"] {
            assert!(ambiguous(path), "{path}");
        }
        for path in ["/", "/x//y", "/x;y=1", "/admin//x", "/admin/x;y", "/objects//admin", "/admin;public", "/adminx;y"]
        {
            assert!(!ambiguous(path), "{path}");
        }
    }

    #[test]
    fn an_unknown_host_is_told_from_an_unknown_path() {
        let table = Table::build(vec![route(spec("a", &["a.test"], "/a"))]);
        assert_eq!(find(&table, Method::GET, "b.test", "/a").unwrap_err(), Miss::Host);
        assert_eq!(find(&table, Method::GET, "a.test", "/b").unwrap_err(), Miss::Path);
        assert_eq!(find(&Table::default(), Method::GET, "a.test", "/").unwrap_err(), Miss::Host);
    }

    #[test]
    fn method_then_headers_then_query_then_age_then_name_decide() {
        let mut specs = vec![spec("z", &[], "/"); 7];
        let header = |n: &str| (FieldName::parse(n).unwrap(), StringMatch::Present);
        specs[0].matches.methods = vec![Method::GET];
        specs[0].name = "method".into();
        specs[1].matches.headers = vec![header("x-a"), header("x-b")];
        specs[1].name = "two headers".into();
        specs[2].matches.headers = vec![header("x-a")];
        specs[2].name = "one header".into();
        specs[3].matches.query = vec![("q".into(), StringMatch::Present)];
        specs[3].name = "query".into();
        specs[4].origin.created = 0;
        specs[4].name = "old".into();
        specs[5].origin.created = 5;
        specs[5].name = "new a".into();
        specs[6].origin.created = 5;
        specs[6].name = "new b".into();
        let mut head = RequestHead::sample(Method::GET, "a.test", "/?q=1");
        head.fields.push(b"x-a", b"");
        head.fields.push(b"x-b", b"");
        let expected: Vec<String> = specs.iter().map(|s| s.name.clone()).collect();
        for expected in expected {
            let routes: Vec<_> = specs.iter().rev().cloned().map(route).collect();
            assert_eq!(Table::build(routes).find(&head, CLIENT).unwrap().route.spec.name, expected);
            specs.remove(0);
        }
    }

    #[test]
    fn a_shorter_prefix_serves_where_the_longer_ones_conditions_fail() {
        let mut post = spec("post", &[], "/api/v1");
        post.matches.methods = vec![Method::POST];
        let table = Table::build(vec![route(post), route(spec("rest", &[], "/api")), route(spec("re", &[], "~/x"))]);
        assert_eq!(find(&table, Method::POST, "a", "/api/v1/x").unwrap(), "post");
        assert_eq!(find(&table, Method::GET, "a", "/api/v1/x").unwrap(), "rest");
        assert_eq!(find(&table, Method::GET, "a", "/x").unwrap(), "re");
    }

    #[test]
    fn an_expression_goes_before_the_prefixes_of_its_host_but_not_of_a_more_specific_one() {
        let mut post = spec("post", &[], "~/item/[0-9]+");
        post.matches.methods = vec![Method::POST];
        let routes = [post, spec("all", &[], "/"), spec("item", &[], "/item/"), spec("own", &["a.test"], "/item/")];
        let table = Table::build(routes.into_iter().map(route).collect());
        assert_eq!(find(&table, Method::POST, "b", "/item/7").unwrap(), "post");
        assert_eq!(find(&table, Method::GET, "b", "/item/7").unwrap(), "item", "its method is another");
        assert_eq!(find(&table, Method::POST, "b", "/item/x").unwrap(), "item");
        assert_eq!(find(&table, Method::POST, "a.test", "/item/7").unwrap(), "own");
    }

    /// Rank of a path condition, then its length: what is longer comes first.
    fn rank(route: &Route) -> (u8, Reverse<usize>) {
        match &route.spec.matches.path {
            PathMatch::Exact(_) => (0, Reverse(0)),
            PathMatch::Regex(source) => (1, Reverse(source.len())),
            PathMatch::Prefix(path) => (2, Reverse(path.trim_end_matches('/').len())),
        }
    }

    /// What the precedence means, said plainly: every route whose conditions hold, sorted by all criteria at once.
    fn naive(routes: &[Arc<Route>], head: &RequestHead) -> Result<String, Miss> {
        let any = [HostPattern::Any];
        let hosts = |r: &'_ Arc<Route>| if r.spec.hosts.is_empty() { any.to_vec() } else { r.spec.hosts.clone() };
        let mut known = false;
        let mut best: Option<(HostPattern, &Arc<Route>)> = None;
        for route in routes {
            for pattern in hosts(route).into_iter().filter(|p| covers(p, &head.host)) {
                known = true;
                if !route.path.matches(&head.path) || !route.conditions.hold(head, CLIENT) {
                    continue;
                }
                let better = best.as_ref().is_none_or(|(host, other)| {
                    let hosts = precedence(&pattern).cmp(&precedence(host));
                    let paths = || rank(route).cmp(&rank(other));
                    hosts.then_with(paths).then_with(|| route.precedence(other)).is_lt()
                });
                if better {
                    best = Some((pattern, route));
                }
            }
        }
        let miss = if known { Miss::Path } else { Miss::Host };
        best.map(|(_, route)| route.spec.name.clone()).ok_or(miss)
    }

    fn any_spec() -> impl Strategy<Value = RouteSpec> {
        let hosts =
            prop::sample::subsequence(vec!["a.test", "b.a.test", "*.a.test", "1:*.a.test", "*.test", "*"], 0..3);
        let paths =
            ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "=/a", "=/a/", "=/a/b", "~/a.*", "~/a/[a-c]", "~/a/.", "~.*"];
        let methods = prop::sample::subsequence(vec![Method::GET, Method::POST], 0..2);
        let headers = prop::sample::subsequence(vec!["x-a", "x-b"], 0..2);
        (hosts, prop::sample::select(paths.to_vec()), methods, headers, any::<bool>(), 0u64..3).prop_map(
            |(hosts, path, methods, headers, query, created)| {
                let mut spec = spec("", &hosts, path);
                spec.matches.methods = methods;
                spec.matches.headers =
                    headers.iter().map(|h| (FieldName::parse(h).unwrap(), StringMatch::Present)).collect();
                spec.matches.query = if query { vec![("q".into(), StringMatch::Present)] } else { vec![] };
                spec.origin.created = created;
                spec
            },
        )
    }

    fn any_request() -> impl Strategy<Value = RequestHead> {
        let hosts = ["a.test", "b.a.test", "c.b.a.test", "test", "x.test", "other", ""];
        let paths = ["/", "/a", "/a/", "/a/b", "/a/b/c/d", "/ab", "/abc", "/a/c", "/?q=1", "/a?q", "/a/b?q=2"];
        let methods = [Method::GET, Method::POST, Method::PUT];
        let headers = prop::sample::subsequence(vec!["x-a", "x-b"], 0..=2);
        (
            prop::sample::select(hosts.to_vec()),
            prop::sample::select(paths.to_vec()),
            prop::sample::select(methods.to_vec()),
            headers,
        )
            .prop_map(|(host, path, method, headers)| {
                let mut head = RequestHead::sample(method, host, path);
                for name in headers {
                    head.fields.push(name.as_bytes(), b"1");
                }
                head
            })
    }

    proptest! {
        #[test]
        fn the_table_finds_what_a_plain_search_finds_in_any_order_of_definition(
            (first, second) in prop::collection::vec(any_spec(), 0..14).prop_flat_map(|mut specs| {
                for (at, spec) in specs.iter_mut().enumerate() {
                    spec.name = format!("r{at}");
                }
                (Just(specs.clone()), Just(specs).prop_shuffle())
            }),
            heads in prop::collection::vec(any_request(), 1..12),
        ) {
            let first: Vec<_> = first.into_iter().map(route).collect();
            let table = Table::build(first.clone());
            let shuffled = Table::build(second.into_iter().map(route).collect());
            for head in &heads {
                let name = |found: Result<Found<'_>, Miss>| found.map(|f| f.route.spec.name.clone());
                let found = name(table.find(head, CLIENT));
                prop_assert_eq!(&found, &naive(&first, head));
                prop_assert_eq!(&found, &name(shuffled.find(head, CLIENT)));
            }
        }

        #[test]
        fn the_prefix_that_was_matched_ends_at_a_segment(
            specs in prop::collection::vec(any_spec(), 1..8),
            head in any_request(),
        ) {
            let table = Table::build(specs.into_iter().map(route).collect());
            if let Ok(found) = table.find(&head, CLIENT) {
                let rest = head.path.get(found.prefix..).unwrap();
                prop_assert!(rest.is_empty() || rest.starts_with('/'));
            }
        }
    }
}
