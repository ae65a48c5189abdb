//! Does the explanation say what a request would really meet?

use super::super::compile::tests::{compile, listener, model, to};
use super::*;
use crate::model::{
    AccessPolicy, Check, ClusterSpec, EndpointSpec, FieldCheck, Fragment, HeaderCheckPolicy, HttpsRedirect, Origin,
    PathRewrite, Policy, RewritePolicy,
};
use crate::telemetry::metrics::Registry;

fn snapshot(model: &Fragment) -> Snapshot {
    compile(model, &Snapshot::default(), &Registry::new(1, 10_000)).0
}

fn ask(model: &Fragment, method: &str, url: &str, headers: &[&str]) -> Explanation {
    let request = ExplainRequest::parse(method, url, headers, Some("192.0.2.1")).unwrap();
    explain(&snapshot(model), &request)
}

fn shop() -> Fragment {
    let mut api = to("api", "/api/", "shop/api");
    let checks = vec![FieldCheck { name: FieldName::parse("x-key").unwrap(), check: Check::Required }];
    api.policies = vec![
        Policy::HeaderCheck(HeaderCheckPolicy { checks, status: 401, audit: false }),
        Policy::Rewrite(RewritePolicy { path: Some(PathRewrite::Prefix("/v1".into())), host: None }),
    ];
    let mut model = model(vec![api, to("web", "/", "shop/web")], &["shop/web"]);
    let endpoints = vec![EndpointSpec::new("127.0.0.1:9004".parse().unwrap(), 1)];
    model.clusters.push(ClusterSpec::new("shop/api", Origin::default(), endpoints).into());
    model
}

#[test]
fn a_request_is_followed_to_its_endpoints() {
    let said = ask(&shop(), "GET", "http://a.test/api/x?q=1", &["X-Key: 1"]);
    assert_eq!(said.outcome, "forwarded to shop/api");
    assert_eq!(said.listener.as_deref(), Some("http"));
    let Some(ActionView::Forward { path, clusters, .. }) = &said.action else { panic!("{said:?}") };
    assert_eq!(path, "/v1/x?q=1");
    assert_eq!(clusters[0].endpoints[0].address.port(), 9004);
    let text = said.to_string();
    for part in [
        "forwarded to shop/api",
        "listener  http",
        "route     api",
        "endpoint 127.0.0.1:9004 healthy",
        "  web (a.test /)",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_refusal_names_the_filter_and_the_rest_is_told_all_the_same() {
    let said = ask(&shop(), "GET", "http://a.test/api/x", &[]);
    assert!(said.outcome.starts_with("401 by header_check of the route"), "{}", said.outcome);
    assert!(!said.filters[0].passed && said.action.is_some());
    let mut model = shop();
    let deny = vec!["192.0.2.0/24".parse().unwrap()];
    model.listeners[0].policies = vec![Policy::Access(AccessPolicy { allow: vec![], deny })];
    let said = ask(&model, "GET", "http://a.test/", &[]);
    assert!(said.outcome.starts_with("403 by access of the listener"), "{}", said.outcome);
    assert_eq!(said.routes.unwrap().route.as_deref(), Some("web"));
}

#[test]
fn what_matches_nothing_says_whether_the_host_or_the_path_is_unknown() {
    assert_eq!(ask(&shop(), "GET", "b.test/", &[]).outcome, "404: no route has this host");
    let only = model(vec![to("api", "/api/", "c")], &["c"]);
    let said = ask(&only, "GET", "a.test/x", &[]);
    assert!(said.outcome.starts_with("404: no route of this host"));
    assert!(said.to_string().contains("/api/ does not match /x"), "{said}");
}

#[test]
fn a_request_that_is_refused_before_matching_says_why() {
    assert!(ask(&shop(), "GET", "http://a.test/%2F", &[]).outcome.starts_with("400: "));
    assert!(ask(&shop(), "TRACE", "http://a.test/", &[]).outcome.starts_with("405: "));
}

#[test]
fn the_listener_is_chosen_by_scheme_then_port() {
    let mut model = shop();
    let mut second = listener("second");
    second.address.set_port(8080);
    second.https_redirect = Some(HttpsRedirect { port: 443, status: 308 });
    model.listeners.push(second);
    let said = ask(&model, "GET", "http://a.test:8080/x", &[]);
    assert_eq!(said.outcome, "308 to https://a.test/x: the listener redirects to https");
    assert_eq!(ask(&model, "GET", "http://a.test:1/x", &[]).listener.as_deref(), Some("http"));
    let none = ask(&model, "GET", "https://a.test/x", &[]);
    assert_eq!((none.listener, none.listener_because.as_str()), (None, "no listener speaks https"));
}

#[test]
fn what_cannot_be_read_is_an_error_with_a_hint() {
    for (method, url, header, client) in [
        ("G T", "a.test/", "a: b", None),
        ("GET", "ftp://a.test/", "a: b", None),
        ("GET", "a.test/", "a", None),
        ("GET", "a.test/", "a b: c", None),
        ("GET", "a.test/", "a: b", Some("here")),
    ] {
        assert!(ExplainRequest::parse(method, url, &[header], client).is_err(), "{method} {url} {header}");
    }
    let plain = ExplainRequest::parse("GET", "a.test", &[], None).unwrap();
    assert_eq!((plain.authority.as_str(), plain.target.as_str()), ("a.test", "/"));
    assert_eq!(ExplainRequest::parse("GET", "a.test?x#y", &[], None).unwrap().target, "/?x");
}

#[test]
fn an_endpoint_says_how_near_it_is_where_that_matters() {
    let mut model = shop();
    for endpoint in model.clusters.iter_mut().flat_map(|c| &mut Arc::make_mut(c).endpoints) {
        endpoint.near = crate::model::Nearness::Zone;
    }
    let said = ask(&model, "GET", "http://a.test/api/x", &["x-key: 1"]).to_string();
    assert!(said.contains(" healthy, same zone\n"), "{said}");
}
