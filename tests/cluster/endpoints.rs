//! Does traffic follow the pods, and does no client notice?

use crate::beside;
use crate::harness::objects::application;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{LONG, SOON, eventually, holds};
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
