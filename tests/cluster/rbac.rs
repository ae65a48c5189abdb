//! May a gate do what it does, and does it do what it may?
//!
//! The audit log of the API server says which requests a gate made with the token of its ServiceAccount. It is held against
//! the rules in `deploy/`: nothing forbidden was asked, and no verb is granted that nobody uses.

use super::conformance::tls_secret;
use super::deploy::render;
use crate::beside;
use crate::harness::gate::Gate;
use crate::harness::pki::Authority;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{AGES, SOON, eventually, holds};
use serde_json::Value;
use std::collections::BTreeSet;

pub const CASES: &[Case] = &[
    beside!(a_gate_asks_for_nothing_it_may_not_and_uses_every_verb_it_has),
    beside!(a_gate_of_listed_namespaces_needs_no_right_beyond_them),
];

/// What a user may do, or did: verb and resource with its group.
type Deeds = BTreeSet<(String, String)>;

/// What is deployed, bound roles only: everything but `tidegate-secrets`, which the owners of other namespaces bind.
fn deployed() -> Deeds {
    granted(include_str!("../../deploy/kustomize/base/rbac.yaml"))
}

fn granted(yaml: &str) -> Deeds {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let mut all = Deeds::new();
    for text in yaml.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(text).unwrap();
        if object["metadata"]["name"] == "tidegate-secrets" {
            continue;
        }
        for rule in object["rules"].as_array().into_iter().flatten() {
            for (group, resource) in texts(&rule["apiGroups"])
                .iter()
                .flat_map(|g| texts(&rule["resources"]).into_iter().map(move |r| (g.clone(), r)))
            {
                let (kind, part) = resource.split_once('/').map_or((resource.as_str(), None), |(k, p)| (k, Some(p)));
                let mut name = kind.to_owned();
                if !group.is_empty() {
                    name = format!("{name}.{group}");
                }
                if let Some(part) = part {
                    name = format!("{name}/{part}");
                }
                all.extend(texts(&rule["verbs"]).into_iter().map(|verb| (verb, name.clone())));
            }
        }
    }
    all
}

async fn class(test: &Test) {
    let class = &test.namespace;
    test.remove_at_end(format!("ingressclass/{class}"));
    test.apply(format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{ name: {class} }}\nspec: {{ controller: tidegate.io/{class} }}"
    ))
    .await;
}

/// A routes ConfigMap, right or wrong.
async fn routes(test: &Test, text: &str) {
    let text = serde_json::to_string(text).unwrap();
    test.apply(format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: routes, labels: {{ tidegate.io/routes: \"\" }} }}\ndata: {{ shop.yaml: {text} }}\n"
    ))
    .await;
}

async fn ingress(test: &Test) {
    test.apply(ingress_of(&test.namespace)).await;
}

/// An Ingress of this class.
fn ingress_of(class: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: web }}\nspec: {{ ingressClassName: {}, rules: [{{ host: ingress.test, http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}] }} }}] }}",
        class
    )
}

/// Waits until the audit log has this.
async fn done(test: &Test, verb: &str, resource: &str) {
    eventually(AGES, || async {
        let records = test.cluster.audit(&test.gate_user());
        let found = records.iter().any(|r| r.verb == verb && r.resource == resource && r.code < 400);
        let same: Vec<_> = records.iter().filter(|r| r.resource == resource).collect();
        holds(found, || format!("no {verb} of {resource}: {same:#?}"))
    })
    .await;
}

/// Everything a gate does: routes, certificates, an Ingress, a mistake that comes back, a leader.
async fn life(test: &Test, gate: &Gate) {
    let authority = Authority::new("rbac");
    let identity = authority.issue(&["secure.test"]);
    test.apply(tls_secret("secure", &identity.chain, &identity.key)).await;
    let right = format!("hosts: [secure.test]\ntls: secure\nroutes: [{{ path: /, to: {}/web }}]\n", test.namespace);
    let wrong = format!("{right}---\nhosts: [wrong.test]\nroutes: [{{ path: /, too: nowhere }}]\n");
    ingress(test).await;
    routes(test, &wrong).await;
    gate.answers("ingress.test", "/", 200).await;
    eventually(SOON, || gate.get_tls("secure.test", "/", authority.trusted())).await.expect(200).unwrap();
    eventually(SOON, || async {
        let events = test.kubectl(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"]).await;
        holds(events.contains("RouteRefused"), || format!("Events: {events}"))
    })
    .await;
    routes(test, &right).await;
    eventually(SOON, || async {
        let problems = gate.api("problems").await.to_string();
        holds(!problems.contains("wrong.test") && !problems.contains("too"), || problems)
    })
    .await;
    // The mistake comes back: its Event is there and is written on.
    routes(test, &wrong).await;
    test.lease_of_a_gate("node-that-was", "2026-01-01T00:00:00.000000Z").await;
    done(test, "patch", "events.events.k8s.io").await;
    done(test, "patch", "ingresses.networking.k8s.io/status").await;
    done(test, "patch", "configmaps").await;
    done(test, "delete", "leases.coordination.k8s.io").await;
}

async fn a_gate_asks_for_nothing_it_may_not_and_uses_every_verb_it_has(test: Test) {
    class(&test).await;
    test.endpoints("web", &[(test.cluster.node("node-b").pod(31), "node-b")]).await;
    let gate = test.gate("node-a").start().await;
    life(&test, &gate).await;
    assert!(gate.stop().await.success(), "{}", gate.log());
    let records = test.cluster.audit(&test.gate_user());
    let forbidden: Vec<_> = records.iter().filter(|r| r.code == 403 || r.code == 401).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
    let used: Deeds = records.iter().map(|r| (r.verb.clone(), r.resource.clone())).collect();
    let streamed = |resource: &str| {
        let mut asked = records.iter().filter(|r| r.resource == resource && r.verb == "watch");
        asked.any(|r| r.uri.contains("sendInitialEvents=true"))
    };
    // This API server streams what there is by a watch; those before 1.34 are asked for lists, by the same code.
    let unused: Vec<_> = deployed()
        .difference(&used)
        .filter(|(verb, resource)| !(verb == "list" && streamed(resource)))
        .cloned()
        .collect();
    assert!(unused.is_empty(), "granted and not used: {unused:?}");
    let rights = deployed();
    let beyond: Vec<_> = used.difference(&rights).collect();
    assert!(beyond.is_empty(), "used and not in deploy/: {beyond:?}");
}

/// The Roles of the overlay for listed namespaces, of which there is one.
fn roles_only(test: &Test, listed: &str) -> String {
    let all = render(test, "overlays/single-namespace");
    let wanted = ["kind: ServiceAccount", "kind: Role", "kind: RoleBinding"];
    let wanted: Vec<&str> = all.split("\n---\n").filter(|one| one.lines().any(|line| wanted.contains(&line))).collect();
    assert_eq!(wanted.len(), 5, "an account, a Role and its binding here and there");
    let here = wanted.join("\n---\n").replace("namespace: tidegate", &format!("namespace: {}", test.namespace));
    here.replace("namespace: default", &format!("namespace: {listed}"))
}

async fn a_gate_of_listed_namespaces_needs_no_right_beyond_them(test: Test) {
    let shop = Test::named("shop", &format!("{}-shop", test.namespace), test.cluster.clone()).await.unwrap();
    test.remove_at_end(format!("namespace/{}", shop.namespace));
    shop.endpoints("web", &[(test.cluster.node("node-b").pod(32), "node-b")]).await;
    let listed = format!("namespaces: [{}], ingress: {{ class: {} }}", shop.namespace, test.namespace);
    let gate = test.gate("node-a").only_kubernetes(&listed).permitted(roles_only(&test, &shop.namespace)).start().await;
    let ingress = ingress_of(&test.namespace);
    shop.apply(&ingress).await;
    gate.answers("ingress.test", "/", 200).await;
    let text = format!(
        "routes.test/: {0}/web\n---\nhosts: [wrong.test]\nroutes: [{{ path: /, too: {0}/web }}]\n",
        shop.namespace
    );
    routes(&test, &text).await;
    gate.answers("routes.test", "/", 200).await;
    done(&test, "create", "events.events.k8s.io").await;
    done(&test, "patch", "ingresses.networking.k8s.io/status").await;
    done(&test, "patch", "configmaps").await;
    assert!(gate.stop().await.success(), "{}", gate.log());
    let own = [test.namespace.as_str(), shop.namespace.as_str()];
    let records = test.cluster.audit(&test.gate_user());
    let wrong: Vec<_> =
        records.iter().filter(|r| matches!(r.code, 401 | 403) || !own.contains(&r.namespace.as_str())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
