//! What serves when a part of the configuration is wrong, and what stays the same when it is not?

use super::*;
use crate::model::{
    self, AccessPolicy, Check, EncodedSlash, FieldCheck, FieldName, Fragment, HeaderCheckPolicy, HeaderEdit, Limits,
    ListenerProtocol, ListenerSpec, PathMatch, Policy, ProxyHeaders, Severity, TimeoutSpec, UpstreamTlsSpec,
    WeightedCluster,
};
use crate::route::testing::spec;
use proptest::prelude::*;

fn origin() -> Origin {
    Origin::of("routes.yaml")
}

fn cluster(name: &str) -> ClusterSpec {
    ClusterSpec::new(name, origin(), vec![])
}

pub(in crate::snapshot) fn to(name: &str, path: &str, target: &str) -> RouteSpec {
    let mut route = spec(name, &["a.test"], path);
    route.origin = origin();
    route.action = model::Action::Forward(vec![WeightedCluster { cluster: target.into(), weight: 1 }]);
    route
}

pub(in crate::snapshot) fn listener(name: &str) -> ListenerSpec {
    ListenerSpec {
        name: name.into(),
        origin: origin(),
        address: ([127, 0, 0, 1], 0).into(),
        protocol: ListenerProtocol::Http,
        proxy_protocol_from: vec![],
        trusted_proxies: vec![],
        https_redirect: None,
        encoded_slash: EncodedSlash::default(),
        policies: vec![],
        headers: ProxyHeaders::default(),
        limits: Limits::default(),
        timeouts: TimeoutSpec::default(),
    }
}

pub(in crate::snapshot) fn model(routes: Vec<RouteSpec>, clusters: &[&str]) -> Fragment {
    let clusters = clusters.iter().map(|name| cluster(name).into()).collect();
    Fragment {
        listeners: vec![listener("http")],
        routes: routes.into_iter().map(Arc::new).collect(),
        clusters,
        ..Fragment::default()
    }
}

fn registry() -> Registry {
    Registry::new(1, 10_000)
}

/// Compiles what one fragment alone wants.
pub(in crate::snapshot) fn compile(
    wanted: &Fragment,
    previous: &Snapshot,
    registry: &Registry,
) -> (Snapshot, Vec<Problem>) {
    super::compile(&wanted.clone().into(), previous, registry)
}

fn first(model: &Fragment) -> Snapshot {
    let (snapshot, problems) = compile(model, &Snapshot::default(), &registry());
    assert_eq!(problems, []);
    snapshot
}

fn bad_check() -> Policy {
    let check = FieldCheck { name: FieldName::parse("x").unwrap(), check: Check::Pattern("(".into()) };
    Policy::HeaderCheck(HeaderCheckPolicy { checks: vec![check], status: 403, audit: false })
}

fn bad_edit() -> Policy {
    let remove = vec![FieldName::parse("content-length").unwrap()];
    Policy::RequestHeaders(HeaderEdit { remove, ..HeaderEdit::default() })
}

#[test]
fn one_wrong_route_leaves_the_others_serving() {
    let mut wrong = to("wrong", "/w", "c");
    wrong.matches.path = PathMatch::Regex("(".into());
    let model = model(vec![to("good", "/g", "c"), wrong, to("lost", "/l", "none")], &["c"]);
    let (snapshot, problems) = compile(&model, &Snapshot::default(), &registry());
    assert_eq!(snapshot.routes.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|p| p.severity == Severity::Error && p.hint.contains("left out")));
    assert_eq!(snapshot.listener("http").unwrap().table.routes().len(), 1);
}

#[test]
fn a_wrong_route_keeps_its_last_good_version_while_its_cluster_is_there() {
    let before = first(&model(vec![to("r", "/r", "c")], &["c"]));
    let wrong = vec![to("r", "/r", "none")];
    let (kept, problems) = compile(&model(wrong.clone(), &["c"]), &before, &registry());
    assert!(Arc::ptr_eq(kept.route("r").unwrap(), before.route("r").unwrap()));
    assert!(problems[0].hint.contains("last good"));
    let (still, problems) = compile(&model(wrong.clone(), &["c"]), &kept, &registry());
    assert!(Arc::ptr_eq(still.route("r").unwrap(), before.route("r").unwrap()));
    assert_eq!(problems.len(), 1, "a problem is told as long as it is there");
    let (gone, _) = compile(&model(wrong, &["d"]), &kept, &registry());
    assert!(gone.routes.is_empty());
}

#[test]
fn a_last_good_version_follows_a_cluster_that_is_made_anew() {
    let before = first(&model(vec![to("r", "/r", "c")], &["c"]));
    let mut changed = model(vec![to("r", "/r", "none")], &["c"]);
    Arc::make_mut(&mut changed.clusters[0]).max_idle = 1;
    let (kept, _) = compile(&changed, &before, &registry());
    let cluster = kept.cluster("c").unwrap();
    assert!(!Arc::ptr_eq(cluster, before.cluster("c").unwrap()));
    assert!(kept.route("r").unwrap().clusters().all(|c| Arc::ptr_eq(c, cluster)));
}

#[test]
fn a_guard_that_cannot_be_compiled_closes_its_route_even_if_a_good_version_served() {
    let before = first(&model(vec![to("r", "/r", "c")], &["c"]));
    let mut wrong = to("r", "/r", "c");
    wrong.policies = vec![Policy::Access(AccessPolicy::default()), bad_check()];
    for previous in [&before, &Snapshot::default()] {
        let (snapshot, problems) = compile(&model(vec![wrong.clone()], &["c"]), previous, &registry());
        assert!(matches!(snapshot.route("r").unwrap().action, Action::Broken { .. }));
        assert!(problems[0].hint.contains("answers 500"));
    }
    wrong.matches.path = PathMatch::Regex("(".into());
    let (snapshot, _) = compile(&model(vec![wrong], &["c"]), &before, &registry());
    assert!(is_broken(snapshot.route("r").unwrap()), "without a match of its own it closes what it served");
}

#[test]
fn another_filter_that_cannot_be_compiled_keeps_the_last_good_version_or_closes() {
    let before = first(&model(vec![to("r", "/r", "c")], &["c"]));
    let mut wrong = to("r", "/r", "c");
    wrong.policies = vec![bad_edit()];
    let (kept, _) = compile(&model(vec![wrong.clone()], &["c"]), &before, &registry());
    assert!(Arc::ptr_eq(kept.route("r").unwrap(), before.route("r").unwrap()));
    let (closed, _) = compile(&model(vec![wrong], &["c"]), &Snapshot::default(), &registry());
    assert!(is_broken(closed.route("r").unwrap()));
}

#[test]
fn a_broken_route_is_told_each_time_and_heals() {
    let mut wrong = to("r", "/r", "c");
    wrong.policies = vec![bad_check()];
    let (broken, _) = compile(&model(vec![wrong.clone()], &["c"]), &Snapshot::default(), &registry());
    let (again, problems) = compile(&model(vec![wrong], &["c"]), &broken, &registry());
    assert_eq!(problems.len(), 1);
    let (healed, problems) = compile(&model(vec![to("r", "/r", "c")], &["c"]), &again, &registry());
    assert!(problems.is_empty() && !is_broken(healed.route("r").unwrap()));
}

#[test]
fn what_did_not_change_is_the_same() {
    let before = first(&model(vec![to("r", "/r", "c"), to("s", "/s", "d")], &["c", "d"]));
    let (same, _) = compile(&model(vec![to("r", "/r", "c"), to("s", "/s", "d")], &["c", "d"]), &before, &registry());
    assert!(Arc::ptr_eq(&same.listeners[0], &before.listeners[0]));
    let mut changed = model(vec![to("r", "/r", "c"), to("s", "/other", "d")], &["c", "d"]);
    Arc::make_mut(&mut changed.clusters[0]).origin.key = "moved".into();
    let (after, _) = compile(&changed, &before, &registry());
    assert!(Arc::ptr_eq(after.route("r").unwrap(), before.route("r").unwrap()));
    assert!(!Arc::ptr_eq(after.route("s").unwrap(), before.route("s").unwrap()));
    for name in ["c", "d"] {
        assert!(Arc::ptr_eq(after.cluster(name).unwrap(), before.cluster(name).unwrap()));
    }
    assert!(!Arc::ptr_eq(&after.listeners[0].table, &before.listeners[0].table));
    assert!(Arc::ptr_eq(&after.listeners[0].chain, &before.listeners[0].chain));
    assert!(Arc::ptr_eq(&after.listeners[0].spec, &before.listeners[0].spec));
    assert_eq!(after.generation, 2);
}

#[test]
fn a_route_that_only_moved_says_its_new_place() {
    let mut model = model(vec![to("r", "/r", "c")], &["c"]);
    let before = first(&model);
    Arc::make_mut(&mut model.routes[0]).origin.key = "routes[1]".into();
    let (after, _) = compile(&model, &before, &registry());
    assert_eq!(after.route("r").unwrap().spec.origin.key, "routes[1]");
    assert!(Arc::ptr_eq(after.listeners[0].table.routes()[0], after.route("r").unwrap()));
    assert!(still_there(after.route("r").unwrap(), &after.clusters));
}

#[test]
fn listeners_with_the_same_routes_share_one_table() {
    let mut model = model(vec![to("r", "/r", "c"), to("s", "/s", "c")], &["c"]);
    model.listeners.extend([listener("b"), listener("c")]);
    Arc::make_mut(&mut model.routes[1]).listeners = vec!["c".into()];
    let snapshot = first(&model);
    let table = |name: &str| &snapshot.listener(name).unwrap().table;
    assert!(Arc::ptr_eq(table("http"), table("b")));
    assert_eq!((table("b").routes().len(), table("c").routes().len()), (1, 2));
}

#[test]
fn an_unknown_listener_is_a_problem_and_the_known_ones_serve() {
    let mut model = model(vec![to("r", "/r", "c")], &["c"]);
    Arc::make_mut(&mut model.routes[0]).listeners = vec!["http".into(), "htps".into()];
    let (snapshot, problems) = compile(&model, &Snapshot::default(), &registry());
    assert!(problems[0].what.contains("htps") && problems[0].hint.contains("http"));
    assert_eq!(snapshot.listeners[0].table.routes().len(), 1);
}

#[test]
fn a_listener_with_a_filter_that_cannot_be_compiled_is_closed() {
    let mut model = model(vec![], &[]);
    model.listeners[0].policies = vec![bad_check()];
    let (snapshot, problems) = compile(&model, &Snapshot::default(), &registry());
    assert!(snapshot.listeners[0].chain.is_closed());
    assert_eq!(problems.len(), 1);
    let (_, again) = compile(&model, &snapshot, &registry());
    assert_eq!(problems, again);
}

#[test]
fn a_cluster_whose_tls_cannot_be_set_up_keeps_its_last_good_version() {
    let with_tls = |certificate: Option<&str>| {
        let mut model = model(vec![to("r", "/r", "c")], &["c"]);
        let tls = UpstreamTlsSpec {
            ca: model::Pem::default().into(),
            server_name: "c.test".into(),
            client_certificate: certificate.map(str::to_owned),
        };
        Arc::make_mut(&mut model.clusters[0]).tls = Some(tls.into());
        model
    };
    let before = first(&model(vec![to("r", "/r", "c")], &["c"]));
    for wrong in [with_tls(None), with_tls(Some("none"))] {
        let (kept, problems) = compile(&wrong, &before, &registry());
        assert!(Arc::ptr_eq(kept.cluster("c").unwrap(), before.cluster("c").unwrap()));
        assert_eq!(problems.len(), 1);
        let (none, problems) = compile(&wrong, &Snapshot::default(), &registry());
        assert!(none.clusters.is_empty() && none.routes.is_empty());
        assert_eq!(problems.len(), 2, "the cluster, and the route that needs it");
    }
}

#[test]
fn a_shadowed_route_is_a_warning() {
    let (_, problems) =
        compile(&model(vec![to("a", "/p", "c"), to("b", "/p/", "c")], &["c"]), &Snapshot::default(), &registry());
    assert_eq!(problems.len(), 1);
    assert!(problems[0].severity == Severity::Warning && problems[0].what.contains("\"b\""));
}

#[test]
fn every_cluster_of_a_route_is_in_its_snapshot() {
    let models = [
        model(vec![to("r", "/r", "c")], &["c"]),
        model(vec![to("r", "/r", "none"), to("s", "/s", "d")], &["c", "d"]),
        model(vec![to("r", "/r", "none"), to("s", "/s", "none")], &["d"]),
        model(vec![to("r", "/r", "d")], &["d"]),
    ];
    let mut snapshot = Snapshot::default();
    for model in &models {
        snapshot = compile(model, &snapshot, &registry()).0;
        for route in snapshot.listeners.iter().flat_map(|l| l.table.routes()) {
            assert!(still_there(route, &snapshot.clusters));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_order_of_definition_changes_nothing(
        (one, other) in prop::collection::vec((0usize..6, 0usize..4, 0usize..3), 0..10).prop_flat_map(|all| {
            (Just(all.clone()), Just(all).prop_shuffle())
        }),
    ) {
        let build = |list: &[(usize, usize, usize)]| {
            let paths = ["/", "/a", "/a/b", "~/x.*"];
            let targets = ["c", "d", "none"];
            let route = |(name, path, target): &(usize, usize, usize)| to(&format!("r{name}"), paths[*path], targets[*target]);
            let wanted = Fragment { routes: list.iter().map(|one| route(one).into()).collect(), ..model(vec![], &["d", "c"]) };
            let fragment = Arc::new(wanted.into());
            let (merged, problems) = crate::source::merge(&[fragment]);
            let (snapshot, more) = super::compile(&merged, &Snapshot::default(), &registry());
            let order: Vec<String> = snapshot.listeners[0].table.routes().iter().map(|r| r.spec.name.clone()).collect();
            (order, problems, more)
        };
        prop_assert_eq!(build(&one), build(&other));
    }
}

/// A route that says in its name what it is, so that it has no last good version which is another one.
fn named((hosts, path, target, at): (usize, usize, usize, usize)) -> RouteSpec {
    let hosts = [&["a.test"][..], &["b.test"], &["a.test", "b.test"], &["*.test", "a.test"], &[]][hosts];
    let path = ["/", "/a", "/a/", "/a/b", "=/a", "~/a.*", "~^/.*$", "~("][path];
    let target = ["c", "d", "e", "none"][target];
    let listeners = [&[][..], &["http"], &["other"], &["third", "http"], &["nowhere"]][at];
    let mut route = to(&format!("{hosts:?} {path} {target} {listeners:?}"), path, target);
    route.hosts = spec("", hosts, "/").hosts;
    route.listeners = listeners.iter().map(|name| (*name).to_owned()).collect();
    route
}

/// Everything that can be told of a snapshot.
fn told((snapshot, problems): &(Snapshot, Vec<Problem>)) -> impl PartialEq + std::fmt::Debug + use<> {
    let names = |routes: Vec<&Arc<Route>>| routes.iter().map(|route| route.spec.name.clone()).collect::<Vec<_>>();
    let tables: Vec<_> = snapshot.listeners.iter().map(|l| (l.spec.name.clone(), names(l.table.routes()))).collect();
    let shared: Vec<_> = snapshot.listeners.iter().map(|l| Arc::as_ptr(&l.table)).collect();
    let shared: Vec<_> = shared.iter().map(|table| shared.iter().position(|other| other == table)).collect();
    let lines: Vec<String> = crate::snapshot::list(snapshot).iter().map(ToString::to_string).collect();
    let clusters: Vec<_> = snapshot.clusters.iter().map(|held| format!("{:?}", held.cluster.spec())).collect();
    let whole = snapshot.routes.iter().all(|route| still_there(route, &snapshot.clusters));
    (names(snapshot.routes.iter().collect()), tables, (shared, whole), lines, clusters, problems.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn what_was_compiled_before_makes_no_difference(
        rounds in prop::collection::vec(
            (
                prop::collection::vec((0usize..5, 0usize..8, 0usize..4, 0usize..5), 0..12),
                prop::sample::subsequence(vec!["c", "d", "e"], 0..=3),
                prop::sample::subsequence(vec!["http", "other", "third"], 0..=3),
                (0u32..3, any::<bool>()),
            ),
            1..8,
        ),
    ) {
        let mut incremental = (Snapshot::default(), Vec::new());
        let (mut merger, mut known) = (crate::source::merge::Merger::default(), std::collections::HashMap::new());
        for (routes, clusters, listeners, (max_idle, anew)) in rounds {
            if anew {
                known.clear();
            }
            let mut wanted = model(Vec::new(), &clusters);
            let routes = routes.into_iter().map(|route| Arc::clone(known.entry(route).or_insert_with(|| named(route).into())));
            wanted.routes = routes.collect();
            wanted.listeners = listeners.into_iter().map(listener).collect();
            wanted.clusters.iter_mut().take(1).for_each(|cluster| Arc::make_mut(cluster).max_idle = max_idle);
            let (model, _) = merger.merge(&[Arc::new(wanted.into())]);
            incremental = super::compile(&model, &incremental.0, &registry());
            prop_assert_eq!(told(&incremental), told(&super::compile(&model, &Snapshot::default(), &registry())));
        }
    }
}
