//! Does traffic follow the pods, and does no client notice?

use crate::beside;
use crate::harness::gate::Gate;
use crate::harness::objects::application;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{LONG, SOON, eventually, holds};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

pub const CASES: &[Case] = &[
    beside!(a_deployment_that_is_scaled_up_and_down_loses_no_request),
    beside!(a_deployment_that_is_rolled_loses_no_request),
    beside!(a_pod_that_is_killed_without_a_word_costs_no_request),
    beside!(terminating_pods_serve_while_there_is_no_other),
    beside!(pods_of_the_same_node_are_preferred_then_those_of_the_zone),
    beside!(an_endpoint_of_both_families_counts_once),
    beside!(a_numeric_and_a_named_port_lead_to_their_own_targets),
    beside!(a_headless_service_leads_to_its_pods),
    beside!(a_named_target_port_is_another_number_in_each_pod),
    beside!(the_endpoints_of_a_service_are_those_of_all_its_slices),
    beside!(pods_that_are_not_ready_serve_where_their_service_says_so),
    beside!(an_endpoint_on_its_way_out_is_asked_only_when_no_ready_one_is_left),
    beside!(endpoints_are_near_by_the_hints_of_their_slice),
];

async fn a_deployment_that_is_scaled_up_and_down_loses_no_request(test: Test) {
    test.deploy("web", 2).await;
    test.serve("web").await;
    let gate = test.gate("node-a").kubernetes("locality: false").start().await;
    gate.answers("shop.test", "/", 200).await;
    let traffic = gate.traffic("shop.test", "/");
    traffic.more(50).await;
    test.kubectl(&["scale", "deployment/web", "--replicas=6"]).await;
    let pods = test.ready_pods("web", 6).await;
    eventually(SOON, || async {
        let said: BTreeSet<IpAddr> = test.asked(&gate, 30).await?;
        holds(pods.iter().all(|pod| said.contains(&pod.address)), || format!("{said:?} of {pods:?}"))
    })
    .await;
    test.kubectl(&["scale", "deployment/web", "--replicas=1"]).await;
    let pods = test.ready_pods("web", 1).await;
    eventually(SOON, || async {
        let said: BTreeSet<IpAddr> = test.asked(&gate, 20).await?;
        holds(said == [pods[0].address].into(), || format!("{said:?}, not {pods:?}"))
    })
    .await;
    traffic.more(200).await;
    traffic.stop().await.assert_none_failed();
}

async fn a_deployment_that_is_rolled_loses_no_request(test: Test) {
    let before = test.deploy("web", 3).await;
    test.serve("web").await;
    let gate = test.gate("node-b").start().await;
    gate.answers("shop.test", "/", 200).await;
    let traffic = gate.traffic("shop.test", "/wait/20");
    traffic.more(50).await;
    test.kubectl(&["rollout", "restart", "deployment/web"]).await;
    test.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).await;
    let after = test.ready_pods("web", 3).await;
    assert!(after.iter().all(|pod| before.iter().all(|old| old.name != pod.name)), "{after:?}");
    // Until the last of the old ones is gone.
    eventually(LONG, || async {
        let left = test.kubectl(&["get", "pods", "-o", "name"]).await;
        holds(left.lines().count() == 3, || left.clone())
    })
    .await;
    traffic.more(100).await;
    traffic.stop().await.assert_none_failed();
}

async fn a_pod_that_is_killed_without_a_word_costs_no_request(test: Test) {
    let pods = test.deploy("web", 3).await;
    test.serve("web").await;
    let gate = test.gate("node-a").kubernetes("locality: false").start().await;
    gate.answers("shop.test", "/", 200).await;
    let traffic = gate.traffic("shop.test", "/wait/10");
    traffic.more(100).await;
    let victim = pods[1].address;
    test.cluster.echoes.kill(victim).unwrap();
    traffic.more(300).await;
    let tally = traffic.stop().await;
    test.cluster.echoes.revive(victim).unwrap();
    tally.assert_none_failed();
}

async fn terminating_pods_serve_while_there_is_no_other(test: Test) {
    test.apply(application("web", 1).replace("terminate-after: 1s", "terminate-after: 4s")).await;
    let old = test.ready_pods("web", 1).await.remove(0);
    test.serve("web").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    let traffic = gate.traffic("shop.test", "/");
    // The one that replaces it is not ready at once.
    let late = r#"{"spec":{"template":{"metadata":{"annotations":{"test.tidegate.io/ready-after":"2s"}}},"replicas":1,
        "strategy":{"rollingUpdate":{"maxUnavailable":1,"maxSurge":0}}}}"#;
    test.kubectl(&["patch", "deployment/web", "-p", late]).await;
    eventually(LONG, || async {
        let pods = test.pods("web").await;
        holds(pods.len() == 1 && pods[0].name != old.name, || format!("{pods:?}"))
    })
    .await;
    let new = test.pods("web").await.remove(0);
    eventually(SOON, || async {
        let said = test.asked(&gate, 5).await?;
        holds(said == [new.address].into(), || format!("{said:?}, not {new:?}"))
    })
    .await;
    let tally = traffic.stop().await;
    tally.assert_none_failed();
    assert!(tally.by.contains_key(&old.address) && tally.by.contains_key(&new.address), "{tally:?}");
}

async fn pods_of_the_same_node_are_preferred_then_those_of_the_zone(test: Test) {
    // The zone of node-a and node-b is the same; each has one endpoint, and node-c too.
    let address = |node: &str| test.cluster.node(node).pod(21);
    let all = ["node-a", "node-b", "node-c"].map(|node| (address(node), node));
    test.endpoints("web", &all).await;
    test.serve("web").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    assert_eq!(test.asked(&gate, 12).await.unwrap(), [address("node-a")].into());
    test.endpoints("web", &all[1..]).await;
    eventually(SOON, || async {
        let said = test.asked(&gate, 12).await?;
        holds(said == [address("node-b")].into(), || format!("{said:?}"))
    })
    .await;
    test.endpoints("web", &all[2..]).await;
    eventually(SOON, || async {
        let said = test.asked(&gate, 12).await?;
        holds(said == [address("node-c")].into(), || format!("{said:?}"))
    })
    .await;
}

async fn an_endpoint_of_both_families_counts_once(test: Test) {
    let node = test.cluster.node("node-c");
    test.endpoints("web", &[(node.pod(31), "node-c"), (node.pod6(31), "node-c")]).await;
    test.serve("web").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    assert_eq!(test.asked(&gate, 12).await.unwrap(), [node.pod(31)].into());
    test.endpoints("web", &[(node.pod6(31), "node-c")]).await;
    eventually(SOON, || async {
        let said = test.asked(&gate, 12).await?;
        holds(said == [node.pod6(31)].into(), || format!("{said:?}"))
    })
    .await;
}

async fn a_numeric_and_a_named_port_lead_to_their_own_targets(test: Test) {
    let two = "ports: [{ name: web, containerPort: 8080 }, { name: admin, containerPort: 8081 }]";
    let manifests = application("web", 1)
        .replace(
            "ports: [{ name: http, port: 80, targetPort: web }]",
            "ports: [{ name: front, port: 80, targetPort: web }, { name: back, port: 81, targetPort: admin }]",
        )
        .replace("ports: [{ name: web, containerPort: 8080 }]", two);
    test.apply(manifests).await;
    test.ready_pods("web", 1).await;
    let web = test.to("web");
    let text = format!(
        "hosts: [shop.test]\nroutes:\n  - {{ path: /name, to: \"{web}:back\" }}\n  - {{ path: /number, to: \"{web}:81\" }}\n  - {{ path: /, to: \"{web}:80\" }}\n"
    );
    test.routes("shop", &text).await;
    let gate = test.gate("node-a").start().await;
    for (path, port) in [("/name", 8081), ("/number", 8081), ("/", 8080)] {
        assert_eq!(gate.answers("shop.test", path, 200).await.echo().unwrap().port, port, "{path}");
    }
}

/// A Service without selector whose port `http` leads to what stands in its slices.
const BY_HAND: &str = "{ apiVersion: v1, kind: Service, metadata: { name: web }, spec: { ports: [{ name: http, port: 80, targetPort: http }] } }";

/// A slice of the Service `web`, made by hand, with its port and its endpoints as JSON.
async fn slice(test: &Test, name: &str, port: u16, endpoints: &[Value]) {
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "web" } },
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }], "endpoints": endpoints,
    });
    test.apply(object.to_string()).await;
}

/// An endpoint that is ready, serving, terminating.
fn endpoint(address: IpAddr, [ready, serving, terminating]: [bool; 3]) -> Value {
    json!({
        "addresses": [address],
        "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
    })
}

const READY: [bool; 3] = [true, true, false];

/// Waits until exactly these answer, each by address and port.
async fn become_these(gate: &Gate, wanted: &[(IpAddr, u16)]) {
    let wanted: BTreeSet<_> = wanted.iter().copied().collect();
    eventually(SOON, || async {
        let mut said = BTreeSet::new();
        for _ in 0..12 * wanted.len() {
            let echo = gate.get("shop.test", "/").await?.expect(200)?.echo()?;
            said.insert((echo.address, echo.port));
        }
        holds(said == wanted, || format!("{said:?}, not {wanted:?}"))
    })
    .await;
}

async fn a_headless_service_leads_to_its_pods(test: Test) {
    let selector = "selector: { app: web }\n  ports";
    let manifests = application("web", 3);
    assert!(manifests.contains(selector), "the Service has another form");
    test.apply(manifests.replace(selector, &format!("clusterIP: None\n  {selector}"))).await;
    let pods = test.ready_pods("web", 3).await;
    test.serve("web").await;
    let gate = test.gate("node-a").kubernetes("locality: false").start().await;
    become_these(&gate, &pods.iter().map(|pod| (pod.address, 8080)).collect::<Vec<_>>()).await;
    test.kubectl(&["scale", "deployment/web", "--replicas=1"]).await;
    let left = test.ready_pods("web", 1).await;
    become_these(&gate, &[(left[0].address, 8080)]).await;
}

async fn a_named_target_port_is_another_number_in_each_pod(test: Test) {
    let pod = |name: &str, port: u16| {
        format!(
            "{{ apiVersion: v1, kind: Pod, metadata: {{ name: {name}, labels: {{ app: web }} }}, spec: {{ containers: [{{ name: web, image: example.com/web, ports: [{{ name: web, containerPort: {port} }}] }}] }} }}"
        )
    };
    let service = "{ apiVersion: v1, kind: Service, metadata: { name: web }, spec: { selector: { app: web }, ports: [{ port: 80, targetPort: web }] } }";
    test.apply([&pod("one", 8080), &pod("two", 8081), service].map(String::from).join("\n---\n")).await;
    let pods = test.ready_pods("web", 2).await;
    test.serve("web").await;
    let gate = test.gate("node-a").kubernetes("locality: false").start().await;
    // The controller makes a slice for each number.
    let number = |name: &str| if name == "one" { 8080 } else { 8081 };
    become_these(&gate, &pods.iter().map(|pod| (pod.address, number(&pod.name))).collect::<Vec<_>>()).await;
}

async fn the_endpoints_of_a_service_are_those_of_all_its_slices(test: Test) {
    let pods = [11, 12, 13, 14].map(|n| test.cluster.node("node-b").pod(n));
    test.apply(BY_HAND).await;
    slice(&test, "web-one", 8080, &[endpoint(pods[0], READY), endpoint(pods[1], READY)]).await;
    slice(&test, "web-two", 8081, &[endpoint(pods[2], READY)]).await;
    test.serve("web").await;
    let gate = test.gate("node-a").start().await;
    become_these(&gate, &[(pods[0], 8080), (pods[1], 8080), (pods[2], 8081)]).await;
    slice(&test, "web-three", 8080, &[endpoint(pods[3], READY)]).await;
    slice(&test, "web-two", 8080, &[endpoint(pods[2], READY)]).await;
    become_these(&gate, &pods.map(|pod| (pod, 8080))).await;
    test.kubectl(&["delete", "endpointslice", "web-one"]).await;
    become_these(&gate, &[(pods[2], 8080), (pods[3], 8080)]).await;
    // One that is taken from the Service is none of its any more.
    test.kubectl(&["label", "endpointslice", "web-two", "kubernetes.io/service-name-"]).await;
    become_these(&gate, &[(pods[3], 8080)]).await;
}

async fn pods_that_are_not_ready_serve_where_their_service_says_so(test: Test) {
    let never = "annotations: { test.tidegate.io/ready-after: 1h, ";
    let manifests = application("web", 1).replace("annotations: { ", never);
    assert!(manifests.contains(never), "the annotations have another form");
    test.apply(manifests).await;
    test.serve("web").await;
    let gate = test.gate("node-a").start().await;
    let address = eventually(LONG, || async {
        let said = test.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.podIP}"]).await;
        said.parse::<IpAddr>().map_err(|error| format!("{said:?}: {error}"))
    })
    .await;
    gate.answers("shop.test", "/", 503).await;
    let published = r#"{"spec": {"publishNotReadyAddresses": true}}"#;
    test.kubectl(&["patch", "service", "web", "-p", published]).await;
    assert_eq!(gate.answers("shop.test", "/", 200).await.echo().unwrap().address, address);
    assert!(test.pods("web").await.is_empty(), "and it still is not ready");
}

async fn an_endpoint_on_its_way_out_is_asked_only_when_no_ready_one_is_left(test: Test) {
    let [leaving, ready, unready] = [15, 16, 17].map(|n| test.cluster.node("node-b").pod(n));
    const LEAVING: [bool; 3] = [false, true, true];
    const NOT: [bool; 3] = [false, false, false];
    test.apply(BY_HAND).await;
    let both = |second| [endpoint(leaving, LEAVING), endpoint(ready, second), endpoint(unready, NOT)];
    slice(&test, "web", 8080, &both(READY)).await;
    test.serve("web").await;
    let gate = test.gate("node-a").start().await;
    become_these(&gate, &[(ready, 8080)]).await;
    slice(&test, "web", 8080, &both(NOT)).await;
    become_these(&gate, &[(leaving, 8080)]).await;
    slice(&test, "web", 8080, &both(LEAVING)).await;
    become_these(&gate, &[(leaving, 8080), (ready, 8080)]).await;
    // Serving no more, it ends.
    let ended = [endpoint(leaving, [false, false, true]), endpoint(ready, [false, false, true])];
    slice(&test, "web", 8080, &ended).await;
    gate.answers("shop.test", "/", 503).await;
}

async fn endpoints_are_near_by_the_hints_of_their_slice(test: Test) {
    let far = [18, 19, 20].map(|n| test.cluster.node("node-c").pod(n));
    let hinted = |address: IpAddr, hints: Value| {
        let mut endpoint = endpoint(address, READY);
        endpoint["nodeName"] = "node-c".into();
        endpoint["zone"] = test.cluster.node("node-c").zone.into();
        endpoint["hints"] = hints;
        endpoint
    };
    let zones = |zones: &[&str]| json!({ "forZones": zones.iter().map(|z| json!({ "name": z })).collect::<Vec<_>>() });
    test.apply(BY_HAND).await;
    test.serve("web").await;
    let plain = hinted(far[0], Value::Null);
    slice(&test, "web", 8080, &[plain.clone(), hinted(far[1], zones(&["east"])), hinted(far[2], zones(&["west"]))])
        .await;
    let gate = test.gate("node-a").kubernetes("zone: east").start().await;
    become_these(&gate, &[(far[1], 8080)]).await;
    // A node before its zone.
    let here = json!({ "forZones": [{ "name": "west" }], "forNodes": [{ "name": "node-a" }] });
    slice(&test, "web", 8080, &[plain.clone(), hinted(far[1], zones(&["east"])), hinted(far[2], here)]).await;
    become_these(&gate, &[(far[2], 8080)]).await;
    slice(&test, "web", 8080, &[plain, hinted(far[1], zones(&["west"])), hinted(far[2], zones(&["west", "south"]))])
        .await;
    become_these(&gate, &far.map(|address| (address, 8080))).await;
}
