//! Does the grammar read what a person writes, and say what is wrong where it is wrong?

use super::*;
use crate::config::decode::NoFiles;
use crate::model::{
    Action, BalancePolicy, Check, HashKey, HealthCheck, HostPattern, PathMatch, PathRewrite, Policy, RetryOn,
    RouteSpec, StringMatch, WildcardDepth,
};
use proptest::prelude::*;
use std::time::Duration;

fn read(text: &str) -> Parsed {
    parse("routes.yaml", text, &NoFiles)
}

fn good(text: &str) -> Fragment {
    let parsed = read(text);
    assert_eq!(parsed.problems, [], "{text}");
    parsed.fragment
}

fn route(text: &str) -> RouteSpec {
    RouteSpec::clone(&good(text).routes[0])
}

fn mistakes(text: &str) -> Vec<String> {
    read(text).problems.iter().map(ToString::to_string).collect()
}

fn names(parsed: &Fragment) -> Vec<&str> {
    parsed.routes.iter().map(|r| r.name.as_str()).collect()
}

#[test]
fn the_sketch_loads_as_it_stands() {
    let fragment = good(include_str!("../../../config/sketch.yaml"));
    let expected = [
        "shop.example.com/",
        "shop.example.com/api/",
        "*.desk.example.com,desk.example.com/api/[GET,POST]",
        "*.desk.example.com,desk.example.com=/health",
        "*.desk.example.com,desk.example.com~^/item/[0-9]+$",
        "*.desk.example.com,desk.example.com/old/",
    ];
    assert_eq!(names(&fragment), expected);
    assert_eq!(fragment.clusters.len(), 3);
    assert_eq!(fragment.tls[0].certificates, ["desk-cert"]);
    assert_eq!(fragment.tls[0].hosts.len(), 2);
    let api = &fragment.routes[2];
    assert_eq!(api.request_timeout, Some(Duration::from_secs(10)));
    let Policy::HeaderCheck(check) = &api.policies[0] else { panic!("{:?}", api.policies) };
    assert_eq!(check.checks[0].check, Check::RequiredPattern("[0-9a-f]{32}".into()));
    assert_eq!(check.checks[1].check, Check::Forbidden);
    let Action::Forward(clusters) = &fragment.routes[4].action else { panic!() };
    assert_eq!(clusters.iter().map(|c| c.weight).collect::<Vec<_>>(), [90, 10]);
    let Action::Redirect(redirect) = &fragment.routes[5].action else { panic!() };
    assert_eq!((redirect.status, &redirect.path), (308, &Some(PathRewrite::Prefix("/new/".into()))));
}

#[test]
fn a_wildcard_is_of_many_labels_unless_its_document_says_one() {
    let depths = |text: &str| {
        let fragment = good(text);
        let depth = |host: &HostPattern| matches!(host, HostPattern::Wildcard(_, WildcardDepth::One));
        let all = fragment.routes.iter().flat_map(|r| &r.hosts).chain(fragment.tls.iter().flat_map(|tls| &tls.hosts));
        all.map(depth).collect::<Vec<_>>()
    };
    let routes = "tls: x\nroutes: [{ path: /, respond: 200 }]\n";
    assert_eq!(depths(&format!("host: \"*.a.test\"\n{routes}")), [false; 2]);
    assert_eq!(depths(&format!("host: \"*.a.test\"\nwildcard: many\n{routes}")), [false; 2]);
    assert_eq!(depths(&format!("hosts: \"*.a.test\"\nwildcard: one\n{routes}")), [true; 2]);
    assert_eq!(depths("wildcard: one\ntls: x\n\"*.a.test/\": { respond: 200 }\n"), [true; 2]);
    let both = "\"*.a.test/\": { respond: 200 }\n---\nwildcard: one\n\"*.a.test/\": { respond: 200 }\n";
    assert_eq!(names(&good(both)), ["*.a.test/", "*.a.test(one)/"]);
    assert!(mistakes("wildcard: two\na.test/: { respond: 200 }\n")[0].contains("known here: many, one"));
}

#[test]
fn a_line_may_name_any_host_a_wildcard_an_exact_path_and_an_expression() {
    let text = "/: a\n\"*.x.test/y\": b\nx.test=/health: c\n\"x.test~^/item/[0-9]+$\": d\n\"*/z\": e\n";
    let fragment = good(text);
    assert_eq!(names(&fragment), ["*/", "*.x.test/y", "x.test=/health", "x.test~^/item/[0-9]+$", "*/z"]);
    assert!(fragment.routes[0].hosts.is_empty());
    assert!(matches!(fragment.routes[2].matches.path, PathMatch::Exact(_)));
}

#[test]
fn a_line_may_hold_a_long_route_and_weights() {
    let fragment = good("a.test/: { to: x, timeout: 5s }\nb.test/: [x, { cluster: y, weight: 0 }]\n");
    assert_eq!(fragment.routes[0].request_timeout, Some(Duration::from_secs(5)));
    assert!(matches!(&fragment.routes[1].action, Action::Forward(two) if two.len() == 2));
}

#[test]
fn lines_and_clusters_and_settings_may_share_a_document() {
    let fragment =
        good("tls: cert\naccess: { allow: 10.0.0.0/8 }\na.test/: x\nb.test/: x\nclusters: { x: 127.0.0.1:1 }\n");
    assert_eq!(fragment.tls[0].hosts.len(), 2);
    assert_eq!(fragment.clusters[0].endpoints.len(), 1);
    assert!(fragment.routes.iter().all(|r| matches!(r.policies[..], [Policy::Access(_)])));
}

#[test]
fn a_wrong_route_is_left_out_and_the_others_stay() {
    let parsed = read("a.test/: x\nb.test/: { too: x }\nc.test/: x\nd.test: x\n");
    assert_eq!(names(&parsed.fragment), ["a.test/", "c.test/"]);
    assert_eq!(parsed.refused.routes, ["b.test/"]);
    let said: Vec<_> = parsed.problems.iter().map(ToString::to_string).collect();
    assert!(said[0].starts_with("routes.yaml:2:10: b.test/: error: nothing is done"), "{said:#?}");
    assert!(said[1].contains("did you mean \"to\"?"), "{said:#?}");
    assert!(said[2].contains("\"d.test/\" for all of this host"), "{said:#?}");
}

#[test]
fn a_wrong_setting_refuses_every_route_of_its_document_alone() {
    let text = "hosts: a.test\nheders: { forbid: x }\nroutes: [{ path: /, to: x }]\n---\nb.test/: x\n";
    let parsed = read(text);
    assert_eq!(names(&parsed.fragment), ["b.test/"]);
    assert_eq!(parsed.refused.routes, ["a.test/"]);
    assert!(mistakes(text)[0].contains("did you mean \"headers\"?"));
}

#[test]
fn a_text_that_is_not_yaml_is_refused_whole() {
    let parsed = read("a.test/: [x\n");
    assert!(parsed.refused.text && parsed.fragment == Fragment::default());
    assert_eq!(parsed.problems.len(), 1);
}

#[test]
fn a_route_that_is_there_twice_counts_once() {
    let parsed = read("hosts: a.test\nroutes:\n  - { path: /, to: x }\n  - { path: /, to: y }\n---\na.test/: z\n");
    assert_eq!(parsed.fragment.routes.len(), 1);
    assert_eq!(parsed.problems.len(), 2);
    assert!(parsed.problems[0].hint.contains("line 3"), "{:?}", parsed.problems);
    let parsed = read("a.test/: x\na.test/: y\nb.test/: x\n");
    assert_eq!((parsed.fragment.routes.len(), parsed.problems.len()), (2, 1));
}

#[test]
fn conditions_tell_routes_of_one_path_apart_by_name() {
    let text = "hosts: a.test\nroutes:\n  - { path: /, to: x }\n  - { path: /, to: y, match: { headers: { x-canary: \"1\" } } }\n\
                \x20 - { path: /, to: z, match: { query: { v: \"~[0-9]+\" }, source: 10.0.0.0/8 } }\n\
                \x20 - { path: /, to: z, match: { headers: { cookie: { present: false } } } }\n";
    let fragment = good(text);
    assert_eq!(
        names(&fragment),
        ["a.test/", "a.test/[x-canary=1]", "a.test/[?v~[0-9]+;10.0.0.0/8]", "a.test/[!cookie]"]
    );
    assert_eq!(fragment.routes[3].matches.headers[0].1, StringMatch::Absent);
}

#[test]
fn a_path_is_taken_in_the_form_that_requests_have() {
    let path = |text: &str| route(&format!("routes: [{{ path: \"{text}\", to: x }}]")).matches.path;
    assert_eq!(path("/stra\u{df}e/"), PathMatch::Prefix("/stra%C3%9Fe/".into()));
    assert_eq!(path("/%61b"), PathMatch::Prefix("/ab".into()));
    assert_eq!(path("=/a b"), PathMatch::Exact("/a%20b".into()));
    for wrong in ["api", "/a?b=1", "/a#b", "~(", "=x", "/a%2fb", ""] {
        assert!(!mistakes(&format!("routes: [{{ path: \"{wrong}\", to: x }}]")).is_empty(), "{wrong}");
    }
}

#[test]
fn a_route_adds_to_what_its_document_says() {
    let text = "host: a.test\nmax_body: 1MiB\ntimeout: 5s\nheaders: { forbid: x-a }\nretry: off\nroutes:\n\
                \x20 - { path: /, to: x, max_body: 2MiB, headers: { forbid: x-b }, timeout: off }\n  - { path: /y, to: x }\n";
    let fragment = good(text);
    let route = &fragment.routes[0];
    assert_eq!(route.policies.iter().filter(|p| matches!(p, Policy::HeaderCheck(_))).count(), 2);
    assert!(
        route.policies.contains(&Policy::BodyLimit(2 << 20)) && !route.policies.contains(&Policy::BodyLimit(1 << 20))
    );
    assert_eq!(route.request_timeout, None);
    assert_eq!(
        (fragment.routes[1].request_timeout, fragment.routes[1].retry.attempts),
        (Some(Duration::from_secs(5)), 1)
    );
}

#[test]
fn retries_name_their_failures() {
    let retry = route("a/: { to: x, retry: { attempts: 3, on: [connect, timeout, 503], backoff: 5ms } }").retry;
    assert_eq!((retry.attempts, retry.backoff), (3, Duration::from_millis(5)));
    assert_eq!(retry.on[..], [RetryOn::Connect, RetryOn::Timeout, RetryOn::Status(503)]);
    assert_eq!(route("a/: { to: x, retry: 4 }").retry.attempts, 4);
    assert_eq!(mistakes("a/: { to: x, retry: { on: 404 } }").len(), 1);
}

#[test]
fn a_rewrite_replaces_what_the_route_matched() {
    let rewrite = |text: &str| match route(text).policies.remove(0) {
        Policy::Rewrite(rewrite) => rewrite.path.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(rewrite("a/v1/: { to: x, rewrite: { path: /v2/ } }"), PathRewrite::Prefix("/v2/".into()));
    assert_eq!(rewrite("a=/v1: { to: x, rewrite: { path: /v2 } }"), PathRewrite::Full("/v2".into()));
    let regex = rewrite("a/: { to: x, rewrite: { path: { regex: \"^/u/([0-9]+)\", replace: /user/$1 } } }");
    assert_eq!(regex, PathRewrite::Regex { pattern: "^/u/([0-9]+)".into(), replace: "/user/$1".into() });
}

#[test]
fn a_cluster_says_all_of_its_settings() {
    let text = "clusters:\n  a:\n    endpoints: [{ address: \"[::1]:1\", weight: 3 }]\n    protocol: h2\n    balance: { hash: { cookie: sid } }\n\
                \x20   health_check: { grpc: \"\", interval: 1s }\n    outlier: off\n  b: { endpoints: 127.0.0.1:2, health_check: /up?x=1 }\n\
                \x20 c: [127.0.0.1:3]\n";
    let clusters = good(text).clusters;
    assert_eq!(clusters[0].balance, BalancePolicy::Hash(HashKey::Cookie("sid".into())));
    assert_eq!(clusters[0].health_check.as_ref().unwrap().check, HealthCheck::Grpc { service: String::new() });
    assert_eq!((clusters[0].endpoints[0].weight, &clusters[0].outlier), (3, &None));
    let check = HealthCheck::Http { path: "/up?x=1".into(), host: None, status: None };
    assert_eq!(clusters[1].health_check.as_ref().unwrap().check, check);
    assert_eq!(&*clusters[2].name, "c");
}

#[test]
fn a_wrong_cluster_is_left_out_and_the_others_stay() {
    let parsed = read("clusters: { a: [localhost:1], b: [127.0.0.1:1] }");
    assert_eq!(parsed.fragment.clusters.len(), 1);
    assert_eq!(parsed.refused.clusters, ["a"]);
    assert!(parsed.problems[0].hint.contains("names are not looked up"));
}

#[test]
fn headers_that_frame_a_message_cannot_be_edited() {
    for name in ["content-length", "Transfer-Encoding", "host"] {
        assert_eq!(
            mistakes(&format!("a/: {{ to: x, request_headers: {{ set: {{ {name}: a }} }} }}")).len(),
            1,
            "{name}"
        );
    }
    assert_eq!(mistakes("a/: { respond: { headers: { content-length: 5 } } }").len(), 1);
}

#[test]
fn the_last_good_version_of_what_is_wrong_stays() {
    let last = good("tls: c\na.test/: x\nb.test/: y\nclusters: { x: 127.0.0.1:1 }\n");
    let parsed = read("tls: c\na.test/: { to: x, timeout: 5 }\nc.test/: y\nclusters: { x: oops }\n");
    let (fragment, problems) = keep_last_good("routes.yaml", parsed, &last);
    assert_eq!(names(&fragment), ["c.test/", "a.test/"]);
    assert_eq!(fragment.clusters, last.clusters);
    assert_eq!(problems.iter().filter(|p| p.what.contains("last good version")).count(), 2);

    let (fragment, problems) = keep_last_good("routes.yaml", read("a: ["), &last);
    assert_eq!(fragment, last);
    assert_eq!(problems.len(), 2);

    let wrong = "tls: c\nheadrs: { forbid: x }\na.test/: x\nb.test/: y\n";
    let (fragment, _) = keep_last_good("routes.yaml", read(wrong), &last);
    assert_eq!((fragment.routes.len(), fragment.tls.len()), (2, 1));
}

#[test]
fn twenty_thousand_lines_are_read() {
    let text: String = (0..20_000).map(|n| format!("h{n}.test/: x\n")).collect();
    assert_eq!(good(&text).routes.len(), 20_000);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(a\\.test/|hosts|routes|to|path|clusters|tls|: |\\{|\\}|\\[|\\]|, |\n|- |  |x|\"|~|=/){0,30}") {
        let _ = read(&text);
    }
}

#[test]
fn a_request_may_last_unless_its_route_says_otherwise() {
    let fragment = good("a.test/: x\n");
    assert_eq!(fragment.routes[0].request_timeout, None);
    assert_eq!(fragment.routes[0].idle_timeout, super::IDLE_TIMEOUT);
}
