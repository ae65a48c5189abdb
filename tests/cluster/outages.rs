//! What becomes of the gates when something of the cluster goes away?

use crate::harness::gate::Gate;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{AGES, LONG, SOON, eventually, holds};
use crate::{alone, beside};

pub const CASES: &[Case] = &[
    beside!(two_gates_give_the_same_answers),
    beside!(a_namespace_that_is_deleted_takes_its_endpoints_along),
    beside!(a_token_that_is_renewed_is_used),
    beside!(a_gate_by_kubeconfig_serves_as_one_in_a_pod),
    beside!(a_gate_without_permission_is_not_ready_until_it_has_it),
    alone!(without_the_api_server_a_gate_serves_on_and_then_catches_up),
    alone!(a_gate_that_starts_without_the_api_server_is_not_ready_until_it_is_back),
];

async fn route(test: &Test, path: &str) {
    let text = format!("hosts: [shop.test]\nroutes: [{{ path: {path}, to: {} }}]\n", test.to("web"));
    test.routes("shop", &text).await;
}

async fn two_gates_give_the_same_answers(test: Test) {
    test.deploy("web", 2).await;
    let web = test.to("web");
    // The same host and path in two ConfigMaps: the older one wins everywhere.
    let text = |answer: &str| format!("hosts: [shop.test]\nroutes: [{{ path: /, {answer} }}]\n");
    test.routes("z-first", &text("respond: { status: 418 }")).await;
    // Times of creation are whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    test.routes("a-second", &text(&format!("to: {web}"))).await;
    let one = test.gate("node-a").start().await;
    let two = test.gate("node-c").start().await;
    for path in ["/", "/a", "/b/c", "/%2e%2e/d"] {
        let (first, second) = (one.get("shop.test", path).await.unwrap(), two.get("shop.test", path).await.unwrap());
        assert_eq!((first.status, second.status), (418, 418), "{path}");
    }
    assert_eq!(listed(&one).await, listed(&two).await);
    test.kubectl(&["delete", "configmap", "z-first"]).await;
    one.answers("shop.test", "/", 200).await;
    two.answers("shop.test", "/", 200).await;
}

/// The routes of a gate, in the order in which they are tried.
async fn listed(gate: &Gate) -> String {
    gate.admin("/api/v1/precedence?format=text").await.unwrap().expect(200).unwrap().text()
}

async fn a_namespace_that_is_deleted_takes_its_endpoints_along(test: Test) {
    let shop = Test::named("shop", &format!("{}-shop", test.namespace), test.cluster.clone()).await.unwrap();
    test.remove_at_end(format!("namespace/{}", shop.namespace));
    shop.deploy("web", 1).await;
    let text = format!("hosts: [shop.test]\nroutes: [{{ path: /, to: {} }}]\n", shop.to("web"));
    test.routes("shop", &text).await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    shop.remove_namespace().await;
    gate.answers("shop.test", "/", 503).await;
    let shop = Test::named("shop", &shop.namespace, test.cluster.clone()).await.unwrap();
    shop.deploy("web", 1).await;
    gate.answers("shop.test", "/", 200).await;
}

async fn a_token_that_is_renewed_is_used(test: Test) {
    test.deploy("web", 1).await;
    route(&test, "/").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    // The old one is refused from now on, because its account is another one by the same name.
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: tidegate }\n";
    test.kubectl(&["delete", "serviceaccount", "tidegate"]).await;
    test.apply(account).await;
    gate.renew_token(&test.token(3600).await);
    route(&test, "/new").await;
    // Clients of the API read a token's file about once a minute.
    eventually(std::time::Duration::from_secs(100), || async { gate.get("shop.test", "/new").await?.expect(200) })
        .await;
}

async fn a_gate_by_kubeconfig_serves_as_one_in_a_pod(test: Test) {
    test.deploy("web", 1).await;
    route(&test, "/").await;
    let gate = test.gate("node-a").by_kubeconfig().start().await;
    gate.answers("shop.test", "/", 200).await;
}

async fn a_gate_without_permission_is_not_ready_until_it_has_it(test: Test) {
    test.deploy("web", 1).await;
    route(&test, "/").await;
    let setup = test.gate("node-a");
    let gate =
        setup.spawn_after(async || drop(test.kubectl(&["delete", "clusterrolebinding", &test.namespace]).await)).await;
    eventually(LONG, || async { holds(gate.log().contains("forbidden"), || gate.log()) }).await;
    assert_eq!(gate.admin("/readyz").await.unwrap().status, 503);
    test.permit_gates().await;
    gate.ready().await;
    gate.answers("shop.test", "/", 200).await;
}

async fn without_the_api_server_a_gate_serves_on_and_then_catches_up(test: Test) {
    test.deploy("web", 2).await;
    route(&test, "/").await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    let traffic = gate.traffic("shop.test", "/");
    traffic.more(50).await;
    test.cluster.control_plane.kill_api_server();
    traffic.more(500).await;
    assert_eq!(gate.admin("/readyz").await.unwrap().status, 200, "it serves, so it is ready");
    test.cluster.control_plane.restart_api_server().unwrap();
    let text = format!(
        "hosts: [shop.test]\nroutes: [{{ path: /, to: {0} }}, {{ path: /new, to: {0} }}]\n---\nhosts: [more.test]\nroutes: [{{ path: /, to: {0} }}]\n",
        test.to("web")
    );
    test.routes("shop", &text).await;
    eventually(LONG, || async { gate.get("more.test", "/").await?.expect(200) }).await;
    test.kubectl(&["scale", "deployment/web", "--replicas=4"]).await;
    let pods = test.ready_pods("web", 4).await;
    let near: Vec<_> = pods.iter().filter(|pod| pod.node == "node-a").map(|pod| pod.address).collect();
    eventually(AGES, || async {
        let said = test.asked(&gate, 20).await?;
        holds(near.iter().all(|pod| said.contains(pod)), || format!("{said:?} of {near:?}"))
    })
    .await;
    traffic.stop().await.assert_none_failed();
}

async fn a_gate_that_starts_without_the_api_server_is_not_ready_until_it_is_back(test: Test) {
    test.deploy("web", 1).await;
    route(&test, "/").await;
    let control_plane = &test.cluster.control_plane;
    let gate = test.gate("node-a").spawn_after(async || control_plane.kill_api_server()).await;
    eventually(SOON, || async { gate.admin("/readyz").await?.expect(503) }).await;
    assert_ne!(gate.get("shop.test", "/").await.map(|answer| answer.status), Ok(404), "it does not know yet");
    control_plane.restart_api_server().unwrap();
    gate.ready().await;
    gate.answers("shop.test", "/", 200).await;
}
