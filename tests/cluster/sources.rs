//! Is what serves what the cluster says, through restarts of the API server, new tokens, and Secrets that come and go?

use crate::harness::control_plane::kubeconfig;
use crate::harness::gate::Gate;
use crate::harness::http::Response;
use crate::harness::pki::{Authority, Identity};
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{LONG, SOON, eventually, holds};
use crate::{alone, beside};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    beside!(a_route_is_served_as_soon_as_its_config_map_says_so),
    beside!(a_service_without_endpoints_is_503_until_it_has_one),
    beside!(a_service_that_appears_later_comes_alive),
    beside!(endpoints_follow_a_service_without_another_configuration),
    beside!(pods_on_their_way_out_serve_while_no_other_is_left),
    beside!(the_pods_of_the_own_node_are_asked_first),
    beside!(a_renewed_certificate_is_served_within_a_second),
    beside!(a_secret_that_comes_later_is_served_and_its_absence_is_told),
    alone!(while_the_api_server_is_away_everything_serves_and_what_changed_then_is_seen_after),
    alone!(a_gate_that_starts_without_an_api_server_waits_for_it_and_never_answers_404),
    alone!(a_permission_that_is_taken_away_is_a_problem_and_what_was_learnt_keeps_serving),
    alone!(a_token_that_is_no_longer_good_is_read_again),
];

/// Routes of the test, in one ConfigMap.
fn routes(text: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "routes", "labels": { "tidegate.io/routes": "" } },
            "data": { "routes.yaml": text } })
}

async fn publish(test: &Test, text: &str) {
    let api: Api<ConfigMap> = test.api();
    let apply = PatchParams::apply("test").force();
    api.patch("routes", &apply, &Patch::Apply(routes(text))).await.unwrap();
}

fn host(test: &Test) -> String {
    format!("{}.test", test.namespace)
}

/// A line of routes: this path of the test's host to that Service of the test.
fn route(test: &Test, path: &str, service: &str) -> String {
    format!("{}{path}: {}/{service}\n", host(test), test.namespace)
}

async fn generation(gate: &Gate) -> f64 {
    gate.metric("tidegate_config_generation", &[]).await
}

/// Addresses that answer, asked so often.
async fn answering(gate: &Gate, host: &str, times: usize) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    for _ in 0..times {
        found.insert(gate.get(host, "/").await.unwrap().echo().unwrap().address);
    }
    found
}

async fn a_route_is_served_as_soon_as_its_config_map_says_so(test: Test) {
    let pod = test.deploy("web", 1).await.remove(0);
    publish(&test, &route(&test, "/a", "web")).await;
    let gate = test.gate("node-a").start().await;
    assert_eq!(gate.get(&host(&test), "/a").await.unwrap().echo().unwrap().address, pod.address);
    assert_eq!(gate.get(&host(&test), "/b").await.unwrap().status, 404);
    let mut times = Vec::new();
    for n in 0..30 {
        let path = format!("/n{n}");
        let start = Instant::now();
        publish(&test, &route(&test, &path, "web")).await;
        while gate.get(&host(&test), &path).await.unwrap().status != 200 {
            assert!(start.elapsed() < SOON, "{}", gate.log());
        }
        times.push(start.elapsed());
    }
    times.sort();
    println!("from a PATCH of a route to its first answer: p50 {:?}, max {:?}", times[15], times[29]);
    assert_eq!(gate.get(&host(&test), "/a").await.unwrap().status, 404, "what is no longer said is gone");
    assert!(times[15] < Duration::from_millis(500), "{times:?}");
}

async fn a_service_without_endpoints_is_503_until_it_has_one(test: Test) {
    test.endpoints("web", &[]).await;
    publish(&test, &route(&test, "/", "web")).await;
    let gate = test.gate("node-a").start().await;
    let answer = gate.get(&host(&test), "/").await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let pod = test.cluster.node("node-b").pod(21);
    test.endpoints("web", &[(pod, "node-b")]).await;
    assert_eq!(gate.answers(&host(&test), "/", 200).await.echo().unwrap().address, pod);
    test.endpoints("web", &[]).await;
    gate.answers(&host(&test), "/", 503).await;
}

async fn a_service_that_appears_later_comes_alive(test: Test) {
    publish(&test, &route(&test, "/", "later")).await;
    let gate = test.gate("node-a").start().await;
    assert_eq!(gate.get(&host(&test), "/").await.unwrap().status, 503, "never 404");
    let pod = test.deploy("later", 1).await.remove(0);
    assert_eq!(gate.answers(&host(&test), "/", 200).await.echo().unwrap().address, pod.address);
    test.kubectl(&["delete", "service", "later"]).await;
    gate.answers(&host(&test), "/", 503).await;
}

async fn endpoints_follow_a_service_without_another_configuration(test: Test) {
    let pods = |numbers: &[u8]| -> Vec<(IpAddr, &str)> {
        numbers.iter().map(|n| (test.cluster.node("node-b").pod(*n), "node-b")).collect()
    };
    test.endpoints("web", &pods(&[31])).await;
    publish(&test, &route(&test, "/", "web")).await;
    let gate = test.gate("node-a").start().await;
    gate.answers(&host(&test), "/", 200).await;
    let before = generation(&gate).await;
    let traffic = gate.traffic(&host(&test), "/");
    let slices: Api<EndpointSlice> = test.api();
    let mut times = Vec::new();
    for n in 32..52_u8 {
        let pod = test.cluster.node("node-b").pod(n);
        let endpoints = json!([{ "addresses": [pod.to_string()], "conditions": { "ready": true } }]);
        let start = Instant::now();
        let patch = Patch::Merge(json!({ "endpoints": endpoints }));
        slices.patch("web-ipv4", &PatchParams::default(), &patch).await.unwrap();
        while gate.get(&host(&test), "/").await.unwrap().echo().unwrap().address != pod {
            assert!(start.elapsed() < SOON, "{}", gate.log());
        }
        times.push(start.elapsed());
    }
    times.sort();
    println!("from a PATCH of endpoints to the first answer of the new one: p50 {:?}, max {:?}", times[10], times[19]);
    traffic.stop().await.assert_none_failed();
    assert_eq!(generation(&gate).await, before);
    test.endpoints("web", &pods(&[31, 32])).await;
    eventually(SOON, || async {
        let found = answering(&gate, &host(&test), 20).await;
        holds(found.len() == 2, || format!("{found:?}"))
    })
    .await;
}

async fn pods_on_their_way_out_serve_while_no_other_is_left(test: Test) {
    let yaml = crate::harness::objects::application("web", 2).replace("terminate-after: 1s", "terminate-after: 8s");
    test.apply(yaml).await;
    test.ready_pods("web", 2).await;
    publish(&test, &route(&test, "/", "web")).await;
    let gate = test.gate("node-a").start().await;
    gate.answers(&host(&test), "/", 200).await;
    let traffic = gate.traffic(&host(&test), "/");
    traffic.more(50).await;
    let start = Instant::now();
    test.kubectl(&["scale", "deployment/web", "--replicas=0"]).await;
    test.ready_pods("web", 0).await;
    while start.elapsed() < Duration::from_secs(3) {
        traffic.more(100).await;
    }
    traffic.stop().await.assert_none_failed();
    let gone = eventually(LONG, || async { gate.get(&host(&test), "/").await?.expect(503) }).await;
    assert!(gone.header("retry-after").is_some());
}

async fn the_pods_of_the_own_node_are_asked_first(test: Test) {
    let near = test.cluster.node("node-b").pod(61);
    let far = [("node-a", 62), ("node-c", 63)].map(|(node, n)| (test.cluster.node(node).pod(n), node));
    test.endpoints("web", &[(near, "node-b"), far[0], far[1]]).await;
    publish(&test, &route(&test, "/", "web")).await;
    let gate = test.gate("node-b").start().await;
    gate.answers(&host(&test), "/", 200).await;
    assert_eq!(answering(&gate, &host(&test), 20).await, [near].into());
    test.endpoints("web", &far).await;
    eventually(SOON, || async {
        let found = answering(&gate, &host(&test), 20).await;
        // The zone of node-a is its own.
        holds(found == [far[0].0].into(), || format!("{found:?}"))
    })
    .await;
}

fn certificate(identity: &Identity) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "cert" }, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": identity.chain, "tls.key": identity.key } })
}

fn with_certificate(test: &Test) -> String {
    format!("hosts: [{}]\ntls: cert\nroutes: [{{ path: /, to: {}/web }}]\n", host(test), test.namespace)
}

async fn a_renewed_certificate_is_served_within_a_second(test: Test) {
    let authority = Authority::new("test");
    let host = host(&test);
    let (old, new) = (authority.issue(&[&host]), authority.issue(&[&host]));
    test.deploy("web", 1).await;
    let secrets: Api<Secret> = test.api();
    secrets.create(&PostParams::default(), &serde_json::from_value(certificate(&old)).unwrap()).await.unwrap();
    publish(&test, &with_certificate(&test)).await;
    let gate = test.gate("node-a").start().await;
    let shown = |answer: &Response| answer.certificate.clone().unwrap();
    // The first handshake after it is ready: no alert for a certificate that is there.
    let first = gate.get_tls(&host, "/", authority.trusted()).await.unwrap();
    assert_eq!(first.status, 200);
    let start = Instant::now();
    secrets.patch("cert", &PatchParams::default(), &Patch::Merge(certificate(&new))).await.unwrap();
    while shown(&gate.get_tls(&host, "/", authority.trusted()).await.unwrap()) == shown(&first) {
        assert!(start.elapsed() < Duration::from_secs(1), "{}", gate.log());
    }
    println!("from a PATCH of a Secret to a handshake with it: {:?}", start.elapsed());
    let wrong = json!({ "data": { "tls.key": "bm8ga2V5" } });
    let before = shown(&gate.get_tls(&host, "/", authority.trusted()).await.unwrap());
    secrets.patch("cert", &PatchParams::default(), &Patch::Merge(wrong)).await.unwrap();
    eventually(SOON, || async {
        let problems = gate.metric("tidegate_config_problems", &["error"]).await;
        holds(problems > 0.0, || "no problem is told".into())
    })
    .await;
    assert_eq!(
        shown(&gate.get_tls(&host, "/", authority.trusted()).await.unwrap()),
        before,
        "the last good one serves"
    );
}

async fn a_secret_that_comes_later_is_served_and_its_absence_is_told(test: Test) {
    let authority = Authority::new("test");
    let host = host(&test);
    test.deploy("web", 1).await;
    publish(&test, &with_certificate(&test)).await;
    let gate = test.gate("node-a").start().await;
    assert!(gate.get_tls(&host, "/", authority.trusted()).await.unwrap_err().contains("TLS"));
    assert!(gate.metric("tidegate_config_problems", &[]).await > 0.0);
    test.apply(certificate(&authority.issue(&[&host])).to_string()).await;
    eventually(SOON, || async { gate.get_tls(&host, "/", authority.trusted()).await?.expect(200) }).await;
    eventually(SOON, || async {
        let problems = gate.metric("tidegate_config_problems", &[]).await;
        holds(problems == 0.0, || format!("{problems} problems"))
    })
    .await;
}

/// A Service whose endpoint no controller looks after: they too have to find the API server again.
async fn stand_in(test: &Test) {
    test.endpoints("web", &[(test.cluster.node("node-b").pod(11), "node-b")]).await;
}

async fn while_the_api_server_is_away_everything_serves_and_what_changed_then_is_seen_after(test: Test) {
    stand_in(&test).await;
    publish(&test, &(route(&test, "/a", "web") + &route(&test, "/old", "web"))).await;
    let gate = test.gate("node-a").start().await;
    gate.answers(&host(&test), "/a", 200).await;
    let traffic = gate.traffic(&host(&test), "/a");
    test.cluster.control_plane.kill_api_server();
    eventually(LONG, || async { holds(gate.log().contains("the API server is away"), || gate.log()) }).await;
    traffic.more(500).await;
    assert_eq!(gate.admin("/readyz").await.unwrap().status, 200);
    test.cluster.control_plane.restart_api_server().unwrap();
    // It must not ask between the two, when there is no route. Its watches are older than what the new API server remembers, so
    // it lists anew.
    gate.signal(Signal::STOP);
    let maps: Api<ConfigMap> = test.api();
    maps.delete("routes", &DeleteParams::default()).await.unwrap();
    publish(&test, &(route(&test, "/a", "web") + &route(&test, "/new", "web"))).await;
    gate.signal(Signal::CONT);
    eventually(LONG, || async { gate.get(&host(&test), "/new").await?.expect(200) }).await;
    assert_eq!(gate.get(&host(&test), "/old").await.unwrap().status, 404);
    traffic.stop().await.assert_none_failed();
    let log = gate.log();
    assert_eq!((log.matches("API server is away").count(), log.matches("API server is back").count()), (1, 1), "{log}");
    assert!(gate.metric("tidegate_kubernetes_watch_restarts_total", &["ConfigMap"]).await > 0.0);
}

async fn a_gate_that_starts_without_an_api_server_waits_for_it_and_never_answers_404(test: Test) {
    stand_in(&test).await;
    publish(&test, &route(&test, "/", "web")).await;
    let file = test.cluster.folder.join(format!("{}.kubeconfig", test.namespace));
    let gate = test.gate("node-b").kubernetes(&format!("kubeconfig: {}", file.display())).spawn().await;
    eventually(LONG, || async { holds(gate.log().contains("no way to a Kubernetes cluster"), || gate.log()) }).await;
    let user = json!({ "token": test.token(3600).await.trim() });
    test.cluster.control_plane.kill_api_server();
    std::fs::write(&file, kubeconfig(&test.cluster.control_plane.ca(), &test.namespace, &user)).unwrap();
    eventually(LONG, || async { holds(gate.log().contains("the API server is away"), || gate.log()) }).await;
    assert_eq!(gate.admin("/readyz").await.unwrap().status, 503);
    assert!(gate.get(&host(&test), "/").await.is_err(), "no port is open yet");
    test.cluster.control_plane.restart_api_server().unwrap();
    let start = Instant::now();
    loop {
        match gate.get(&host(&test), "/").await {
            Ok(answer) => break assert_eq!(answer.status, 200),
            Err(why) => assert!(start.elapsed() < LONG, "{why}\n{}", gate.log()),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn a_permission_that_is_taken_away_is_a_problem_and_what_was_learnt_keeps_serving(test: Test) {
    stand_in(&test).await;
    publish(&test, &route(&test, "/", "web")).await;
    let gate = test.gate("node-a").start().await;
    let binding = format!("clusterrolebinding/{}", test.namespace);
    let said = test.kubectl(&["get", &binding, "-o", "json"]).await;
    test.kubectl(&["delete", &binding]).await;
    // So that its watches do not go on for as long as they were allowed to.
    test.cluster.control_plane.kill_api_server();
    test.cluster.control_plane.restart_api_server().unwrap();
    let missing = "grant list and watch on endpointslices.discovery.k8s.io by a ClusterRole";
    eventually(LONG, || async { holds(gate.api("problems").await.to_string().contains(missing), || gate.log()) }).await;
    assert_eq!(gate.get(&host(&test), "/").await.unwrap().status, 200);
    let mut object: Value = serde_json::from_str(&said).unwrap();
    object["metadata"] = json!({ "name": test.namespace });
    test.apply(object.to_string()).await;
    eventually(LONG + LONG, || async {
        let problems = gate.api("problems").await.to_string();
        holds(!problems.contains("does not allow"), || problems)
    })
    .await;
}

async fn a_token_that_is_no_longer_good_is_read_again(test: Test) {
    stand_in(&test).await;
    publish(&test, &route(&test, "/a", "web")).await;
    let gate = test.gate("node-a").start().await;
    // Its tokens go with a ServiceAccount; one of the same name is another.
    test.kubectl(&["delete", "serviceaccount", "tidegate"]).await;
    test.kubectl(&["create", "serviceaccount", "tidegate"]).await;
    test.cluster.control_plane.kill_api_server();
    test.cluster.control_plane.restart_api_server().unwrap();
    let answers = || async { gate.metric("tidegate_kubernetes_watch_restarts_total", &["ConfigMap"]).await };
    eventually(LONG, || async { holds(answers().await > 3.0, || gate.log()) }).await;
    assert_eq!(gate.get(&host(&test), "/a").await.unwrap().status, 200);
    gate.renew_token(&test.token(3600).await);
    publish(&test, &route(&test, "/b", "web")).await;
    eventually(LONG, || async { gate.get(&host(&test), "/b").await?.expect(200) }).await;
}
