//! Do the writers of objects learn from the objects themselves what became of them?

use crate::beside;
use crate::harness::gate::Gate;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{LONG, SOON, eventually, holds};
use crate::leader::{routes, two_gates};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::ListParams;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub const CASES: &[Case] = &[
    beside!(whoever_edits_a_config_map_can_wait_until_the_edit_is_live),
    beside!(an_event_names_the_line_and_two_gates_write_it_once),
    beside!(an_ingress_has_the_addresses_of_gates_that_are_ready),
    beside!(addresses_of_a_gate_that_drains_are_taken_back_at_once),
    beside!(an_ingress_that_is_of_another_class_is_left_to_its_controller),
    beside!(the_oldest_service_keeps_the_host_it_exposes_and_the_other_is_told),
];

async fn whoever_edits_a_config_map_can_wait_until_the_edit_is_live(test: Test) {
    test.deploy("web", 1).await;
    let gate = test.gate("node-a").start().await;
    for path in ["/one", "/two", "/three"] {
        edit_and_wait(&test, &routes("routes", &format!("routes: [{{ path: {path}, to: NAMESPACE/web }}]"), &test))
            .await;
        assert_eq!(gate.get("shop.test", path).await.unwrap().status, 200, "live means that it serves");
        assert_eq!(annotation(&test, "accepted").await.as_deref(), Some("1"));
        assert_eq!(
            (annotation(&test, "refused").await.as_deref(), annotation(&test, "problems").await),
            (Some("0"), None)
        );
    }
    edit_and_wait(&test, &routes("routes", "routes: [{ path: /one, to: NAMESPACE/web }, { path: /x, too: y }]", &test))
        .await;
    let told = (annotation(&test, "accepted").await, annotation(&test, "refused").await);
    assert_eq!(told, (Some("1".into()), Some("1".into())));
    let problems = annotation(&test, "problems").await.unwrap();
    assert!(problems.contains("shop.yaml:2:") && problems.contains("too"), "{problems}");
    let live =
        eventually(SOON, || async { events(&test, "RoutesLive").await.pop().ok_or("no Event".to_owned()) }).await;
    assert!(live.contains("is live"), "{live}");
    assert_eq!(
        gate.metric("tidegate_kubernetes_writes_total", &["configmap"]).await,
        4.0,
        "our own writes are no edits"
    );
}

async fn an_event_names_the_line_and_two_gates_write_it_once(test: Test) {
    test.deploy("web", 1).await;
    let (leader, follower) = two_gates(&test).await;
    // One problem each: what to do with a request is said.
    let text = "routes:\n- { path: /, to: NAMESPACE/web }\n- { path: /x, to: NAMESPACE/web, too: y }";
    edit_and_wait(&test, &routes("routes", text, &test)).await;
    let said = |count: usize| {
        let test = test.clone();
        move || {
            let test = test.clone();
            async move {
                let said = events(&test, "RouteRefused").await;
                holds(said.len() == count, || format!("{said:?}")).map(|()| said)
            }
        }
    };
    let first = eventually(SOON, said(1)).await.remove(0);
    assert!(first.starts_with("shop.yaml:4:") && first.contains("too"), "{first}");
    // The second problem comes after everything that would have been written of the first.
    edit_and_wait(&test, &routes("routes", &format!("{text}\n- {{ path: /z, to: NAMESPACE/web, two: y }}"), &test))
        .await;
    let both = eventually(SOON, said(2)).await;
    assert!(both.contains(&first), "{both:?}");
    for kind in ["event", "configmap", "ingress"] {
        assert_eq!(follower.metric("tidegate_kubernetes_writes_total", &[kind]).await, 0.0, "{kind} by a follower");
        let failed = leader.metric("tidegate_kubernetes_write_failures_total", &[kind]).await;
        assert_eq!(failed, 0.0, "{kind}: {}", leader.log());
    }
}

async fn an_ingress_has_the_addresses_of_gates_that_are_ready(test: Test) {
    test.deploy("web", 1).await;
    test.apply(ingress("web", &test.namespace)).await;
    let (leader, follower) = two_gates(&test).await;
    shows(&test, "web", &[&leader, &follower]).await;
    follower.kill();
    shows(&test, "web", &[&leader]).await;
    let again = test.gate("node-b").start().await;
    shows(&test, "web", &[&leader, &again]).await;
    assert_eq!(written_order(&test, "web").await, sorted(&[&leader, &again]));
}

async fn addresses_of_a_gate_that_drains_are_taken_back_at_once(test: Test) {
    test.deploy("web", 1).await;
    test.apply(ingress("web", &test.namespace)).await;
    let (leader, follower) = two_gates(&test).await;
    shows(&test, "web", &[&leader, &follower]).await;
    // The one that leads: its follower has to lead first, and must not take the dead for living.
    let gone = leader.addresses();
    assert!(leader.stop().await.success(), "{}", leader.log());
    eventually(2 * SOON, || async {
        let now = addresses(&test, "web").await;
        holds(!now.iter().any(|a| gone.contains(a)), || format!("{now:?}"))
    })
    .await;
    shows(&test, "web", &[&follower]).await;
}

async fn an_ingress_that_is_of_another_class_is_left_to_its_controller(test: Test) {
    test.deploy("web", 1).await;
    test.apply(ingress("ours", &test.namespace)).await;
    test.apply(ingress("theirs", "another")).await;
    let status = r#"{"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}}"#;
    test.kubectl(&["patch", "ingress", "theirs", "--subresource=status", "--type=merge", "-p", status]).await;
    let gate = test.gate("node-a").start().await;
    shows(&test, "ours", &[&gate]).await;
    test.apply(ingress("ours", "another")).await;
    shows(&test, "ours", &[]).await;
    assert_eq!(written_order(&test, "theirs").await, ["198.51.100.7".parse::<IpAddr>().unwrap()]);
}

async fn the_oldest_service_keeps_the_host_it_exposes_and_the_other_is_told(test: Test) {
    let young = Test::named("young", &format!("{}-a", test.namespace), test.cluster.clone()).await.unwrap();
    test.remove_at_end(format!("namespace/{}", young.namespace));
    let host = format!("{}.test", test.namespace);
    let expose = format!("tidegate.io/expose={host}/");
    let node = test.cluster.node("node-b");
    let (first, second) = (node.pod(43), node.pod(44));
    test.endpoints("web", &[(first, "node-b")]).await;
    test.kubectl(&["annotate", "service", "web", &expose]).await;
    // Times of creation are whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    young.endpoints("web", &[(second, "node-b")]).await;
    young.kubectl(&["annotate", "service", "web", &expose]).await;
    let allowed = |namespace: &str| format!("{{ namespace: {namespace}, hosts: [{host}] }}");
    let allowed = format!("expose: [{}, {}]", allowed(&test.namespace), allowed(&young.namespace));
    let gate = test.gate("node-a").kubernetes(&allowed).start().await;
    assert_eq!(gate.answers(&host, "/", 200).await.echo().unwrap().address, first);
    let about =
        ["get", "events.events.k8s.io", "-o", "jsonpath={range .items[*]}{.reason} {.regarding.kind} {.note}{end}"];
    eventually(LONG, || async {
        let told = young.kubectl(&about).await;
        holds(
            told.contains("HostTaken Service") && told.contains(&format!("by Service/{}/web", test.namespace)),
            || told.clone(),
        )
    })
    .await;
    // Denied unless it is allowed, whoever is the oldest.
    drop(gate);
    let one = format!("expose: [{{ namespace: {}, hosts: [{host}] }}]", young.namespace);
    let gate = test.gate("node-a").kubernetes(&one).start().await;
    assert_eq!(gate.answers(&host, "/", 200).await.echo().unwrap().address, second);
}

/// As `README` says it: the version that `kubectl apply` prints is waited for.
async fn edit_and_wait(test: &Test, yaml: &str) {
    let apply = ["apply", "--server-side", "-f", "-", "-o", "jsonpath={.metadata.resourceVersion}"];
    let version = test.try_kubectl(&apply, yaml).await.unwrap();
    let wanted = format!("--for=jsonpath={{.metadata.annotations.tidegate\\.io/live}}={version}");
    test.kubectl(&["wait", &wanted, "configmap/routes", "--timeout=20s"]).await;
}

async fn annotation(test: &Test, name: &str) -> Option<String> {
    let map = test.api::<ConfigMap>().get("routes").await.unwrap();
    map.metadata.annotations.unwrap_or_default().remove(&format!("tidegate.io/{name}"))
}

/// Notes of the Events on the ConfigMap with this reason.
async fn events(test: &Test, reason: &str) -> Vec<String> {
    let map = test.api::<ConfigMap>().get("routes").await.unwrap();
    let all = test.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let about = |event: &Event| event.regarding.as_ref().is_some_and(|r| r.uid == map.metadata.uid);
    all.into_iter()
        .filter(|event| about(event) && event.reason.as_deref() == Some(reason))
        .filter_map(|event| event.note)
        .collect()
}

fn ingress(name: &str, class: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\n\
         metadata: {{ name: {name}, annotations: {{ kubernetes.io/ingress.class: {class} }} }}\n\
         spec:\n  rules:\n  - host: {name}.test\n    http:\n      paths:\n      \
         - {{ path: /, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}\n"
    )
}

/// Waits until the Ingress has the addresses of these gates and no others.
async fn shows(test: &Test, name: &str, gates: &[&Gate]) {
    let wanted: BTreeSet<IpAddr> = gates.iter().flat_map(|gate| gate.addresses()).collect();
    eventually(LONG, || async {
        let now = addresses(test, name).await;
        holds(now == wanted, || format!("{now:?}, not {wanted:?}"))
    })
    .await;
}

async fn addresses(test: &Test, name: &str) -> BTreeSet<IpAddr> {
    written_order(test, name).await.into_iter().collect()
}

async fn written_order(test: &Test, name: &str) -> Vec<IpAddr> {
    let ingress = test.api::<Ingress>().get(name).await.unwrap();
    let balancer = ingress.status.and_then(|status| status.load_balancer);
    let entries = balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
    entries.iter().map(|entry| entry.ip.as_deref().unwrap().parse().unwrap()).collect()
}

fn sorted(gates: &[&Gate]) -> Vec<IpAddr> {
    gates.iter().flat_map(|gate| gate.addresses()).collect::<BTreeSet<_>>().into_iter().collect()
}
