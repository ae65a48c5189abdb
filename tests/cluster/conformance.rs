//! Does an Ingress mean here what the Ingress API says it means?
//!
//! The scenarios of kubernetes-sigs/ingress-controller-conformance, thirty of them, over the real API server: six of the
//! default backend, six of hosts, one of the class, one of load balancing, sixteen of paths. The suite wants a `Server` header on
//! every response and every replica to be asked; hence two settings of the gate that are not the default ones.

use crate::beside;
use crate::harness::gate::Gate;
use crate::harness::http::{self, Response, request};
use crate::harness::pki::Authority;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{SOON, eventually, holds};
use k8s_openapi::api::networking::v1::Ingress;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub const CASES: &[Case] = &[
    beside!(the_default_backend_takes_every_request_as_it_is),
    beside!(a_host_is_matched_exactly_and_a_wildcard_stands_for_one_label),
    beside!(an_ingress_of_another_class_is_left_alone),
    beside!(every_replica_takes_part),
    beside!(paths_are_matched_as_their_type_says),
];

/// A class of the test's own, and a gate that serves it.
async fn gate(test: &Test) -> Gate {
    let class = &test.namespace;
    test.remove_at_end(format!("ingressclass/{class}"));
    test.apply(format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{ name: {class} }}\nspec: {{ controller: tidegate.io/{class} }}"
    ))
    .await;
    let header = "proxy_headers: { server: { set: tidegate } }";
    let listeners = format!(
        "{{ http: {{ address: \":80\", {header} }}, https: {{ address: \":443\", protocol: https, {header} }} }}"
    );
    test.gate("node-a").kubernetes("locality: false").section("listeners", &listeners).start().await
}

/// Services by name, each with one endpoint that answers as itself.
async fn services(test: &Test, names: &[&str]) -> BTreeMap<String, IpAddr> {
    let node = test.cluster.node("node-b");
    let mut all = BTreeMap::new();
    for (number, name) in (20..).zip(names) {
        test.endpoints(name, &[(node.pod(number), "node-b")]).await;
        all.insert((*name).to_owned(), node.pod(number));
    }
    all
}

/// An Ingress of the test's class with this spec.
async fn ingress(test: &Test, name: &str, spec: &str) {
    test.apply(format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: {name} }}\nspec:\n  ingressClassName: {}\n{spec}",
        test.namespace
    ))
    .await;
}

fn path(kind: &str, path: &str, service: &str) -> String {
    format!(
        "          - {{ path: {path}, pathType: {kind}, backend: {{ service: {{ name: {service}, port: {{ number: 80 }} }} }} }}\n"
    )
}

/// `Some`: the service that must answer; `None`: 404.
fn judge(response: &Response, wanted: Option<&str>, services: &BTreeMap<String, IpAddr>) -> Result<(), String> {
    let Some(service) = wanted else {
        return holds(response.status == 404, || format!("{} {}, not 404", response.status, response.text()));
    };
    let by = response.echo()?.address;
    let found = services.iter().find(|(_, address)| **address == by).map(|(name, _)| name.as_str());
    holds(found == Some(service), || format!("answered by {found:?}, not {service}"))
}

async fn the_default_backend_takes_every_request_as_it_is(test: Test) {
    let gate = gate(&test).await;
    let services = services(&test, &["default-backend"]).await;
    ingress(&test, "default", "  defaultBackend: { service: { name: default-backend, port: { number: 80 } } }").await;
    gate.answers("any.test", "/", 200).await;
    let rows = [
        ("GET", "my.host", "/"),
        ("POST", "some.host", "/path"),
        ("PUT", "other.host", "/resource"),
        ("DELETE", "some.host", "/resource"),
        ("PATCH", "my.host", "/resource"),
        ("GET", "192.0.2.7", "/by/address"),
    ];
    for (method, host, path) in rows {
        let asked = request(method, host, path, &[("user-agent", "Go-http-client/1.1")], "");
        let response = http::send(gate.http(), asked).await.unwrap();
        judge(&response, Some("default-backend"), &services)
            .unwrap_or_else(|why| panic!("{method} {host}{path}: {why}"));
        for header in ["content-length", "content-type", "date", "server"] {
            assert!(
                response.header(header).is_some_and(|value| !value.is_empty()),
                "{method} {host}{path}: no {header}"
            );
        }
        let echo = response.echo().unwrap();
        assert_eq!((echo.method.as_str(), echo.host.as_str(), echo.path.as_str()), (method, host, path));
        assert_eq!(echo.headers["user-agent"], "Go-http-client/1.1");
    }
}

async fn a_host_is_matched_exactly_and_a_wildcard_stands_for_one_label(test: Test) {
    let gate = gate(&test).await;
    let services = services(&test, &["foo-bar-com", "wildcard-foo-com"]).await;
    let authority = Authority::new("conformance");
    let identity = authority.issue(&["foo.bar.com"]);
    test.apply(tls_secret("conformance-tls", &identity.chain, &identity.key)).await;
    let spec = "
  tls: [{ hosts: [foo.bar.com], secretName: conformance-tls }]
  rules:
    - host: \"*.foo.com\"
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: wildcard-foo-com, port: { number: 80 } } } }] }
    - host: foo.bar.com
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: foo-bar-com, port: { name: http } } } }] }
";
    ingress(&test, "host-rules", spec).await;
    gate.answers("foo.bar.com", "/", 200).await;
    let rows = [
        ("foo.bar.com", Some("foo-bar-com")),
        ("subdomain.bar.com", None),
        ("bar.foo.com", Some("wildcard-foo-com")),
        ("baz.bar.foo.com", None),
        ("foo.com", None),
    ];
    for (host, wanted) in rows {
        let response = gate.get(host, "/").await.unwrap();
        judge(&response, wanted, &services).unwrap_or_else(|why| panic!("{host}: {why}"));
    }
    let secure = eventually(SOON, || gate.get_tls("foo.bar.com", "/", authority.trusted())).await;
    judge(&secure, Some("foo-bar-com"), &services).unwrap_or_else(|why| panic!("https: {why}"));
}

pub fn tls_secret(name: &str, chain: &str, key: &str) -> String {
    let text = |pem: &str| serde_json::to_string(pem).unwrap();
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{ name: {name} }}\nstringData: {{ tls.crt: {}, tls.key: {} }}",
        text(chain),
        text(key)
    )
}

/// The addresses in the status of an Ingress.
async fn published(test: &Test, name: &str) -> BTreeSet<String> {
    let found = test.api::<Ingress>().get(name).await.unwrap();
    let balancer = found.status.and_then(|status| status.load_balancer);
    balancer.and_then(|b| b.ingress).into_iter().flatten().filter_map(|i| i.ip).collect()
}

async fn an_ingress_of_another_class_is_left_alone(test: Test) {
    let gate = gate(&test).await;
    services(&test, &["web"]).await;
    let spec = |host: &str| {
        format!("  rules:\n    - host: {host}\n      http:\n        paths:\n{}", path("Prefix", "/", "web"))
    };
    ingress(&test, "ours", &spec("ours.test")).await;
    test.apply(format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: theirs }}\nspec:\n  ingressClassName: some-invalid-class-name\n{}",
        spec("theirs.test")
    ))
    .await;
    gate.answers("ours.test", "/", 200).await;
    assert_eq!(gate.get("theirs.test", "/").await.unwrap().status, 404);
    let own: BTreeSet<String> = gate.addresses().iter().map(ToString::to_string).collect();
    eventually(crate::harness::LONG, || async {
        let ours = published(&test, "ours").await;
        holds(ours == own, || format!("published: {ours:?}, not {own:?}"))
    })
    .await;
    assert_eq!(published(&test, "theirs").await, BTreeSet::new());
}

async fn every_replica_takes_part(test: Test) {
    let gate = gate(&test).await;
    let pods: BTreeSet<IpAddr> = test.deploy("replicas", 10).await.iter().map(|pod| pod.address).collect();
    let spec =
        format!("  rules:\n    - host: load.test\n      http:\n        paths:\n{}", path("Prefix", "/", "replicas"));
    ingress(&test, "load", &spec).await;
    eventually(SOON, || async {
        let endpoints = gate.api("endpoints").await.to_string();
        let known = pods.iter().filter(|pod| endpoints.contains(&pod.to_string())).count();
        holds(known == pods.len(), || format!("{known} of {} endpoints are known", pods.len()))
    })
    .await;
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        seen.insert(gate.answers("load.test", "/", 200).await.echo().unwrap().address);
    }
    assert_eq!(seen, pods);
}

async fn paths_are_matched_as_their_type_says(test: Test) {
    let gate = gate(&test).await;
    let names = ["foo-exact", "foo-prefix", "aaa-prefix", "aaa-slash-bbb-prefix", "foo-slash-exact"];
    let services = services(&test, &names).await;
    let rule =
        |host: &str, paths: &[String]| format!("    - host: {host}\n      http:\n        paths:\n{}", paths.concat());
    let rules = [
        rule("exact-path-rules", &[path("Exact", "/foo", "foo-exact")]),
        rule(
            "prefix-path-rules",
            &[
                path("Prefix", "/foo", "foo-prefix"),
                path("Prefix", "/aaa", "aaa-prefix"),
                path("Prefix", "/aaa/bbb", "aaa-slash-bbb-prefix"),
            ],
        ),
        rule("mixed-path-rules", &[path("Prefix", "/foo", "foo-prefix"), path("Exact", "/foo", "foo-exact")]),
        rule(
            "trailing-slash-path-rules",
            &[path("Prefix", "/aaa/bbb/", "aaa-slash-bbb-prefix"), path("Exact", "/foo/", "foo-slash-exact")],
        ),
    ];
    ingress(&test, "path-rules", &format!("  rules:\n{}", rules.concat())).await;
    gate.answers("exact-path-rules", "/foo", 200).await;
    let rows = [
        ("exact-path-rules", "/foo", Some("foo-exact")),
        ("exact-path-rules", "/foo/", None),
        ("exact-path-rules", "/FOO", None),
        ("exact-path-rules", "/bar", None),
        ("prefix-path-rules", "/foo", Some("foo-prefix")),
        ("prefix-path-rules", "/foo/", Some("foo-prefix")),
        ("prefix-path-rules", "/FOO", None),
        ("prefix-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-prefix")),
        ("prefix-path-rules", "/aaa/bbb/ccc", Some("aaa-slash-bbb-prefix")),
        ("prefix-path-rules", "/aaa/ccc", Some("aaa-prefix")),
        ("prefix-path-rules", "/aaaccc", None),
        ("mixed-path-rules", "/foo", Some("foo-exact")),
        ("mixed-path-rules", "/foo/", Some("foo-prefix")),
        ("trailing-slash-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-prefix")),
        ("trailing-slash-path-rules", "/foo/", Some("foo-slash-exact")),
        ("trailing-slash-path-rules", "/foo", None),
    ];
    for (host, path, wanted) in rows {
        let response = gate.get(host, path).await.unwrap();
        judge(&response, wanted, &services).unwrap_or_else(|why| panic!("{host}{path}: {why}"));
    }
}
