//! Does an edit of a ConfigMap serve, and only what is right of it?

use crate::beside;
use crate::harness::http::Response;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{SOON, eventually, holds};
use std::net::IpAddr;

pub const CASES: &[Case] = &[
    beside!(an_edit_of_a_config_map_is_served),
    beside!(a_text_that_is_half_right_serves_its_right_half),
    beside!(a_text_that_is_no_yaml_leaves_what_served_before),
    beside!(a_config_map_of_one_megabyte_is_served),
    beside!(a_config_map_without_the_label_or_in_another_namespace_is_not_looked_at),
    beside!(a_service_that_comes_later_takes_its_route_from_503_to_200),
    beside!(a_service_without_endpoints_is_503_and_not_404),
    beside!(a_port_that_a_service_lacks_is_503_and_a_problem),
    beside!(routes_that_are_deleted_and_made_again_serve_again),
    beside!(a_service_that_is_deleted_and_made_again_serves_again),
];

/// A document with these routes for `shop.test`: paths and clusters.
fn shop(routes: &[(&str, &str)]) -> String {
    let lines: Vec<_> = routes.iter().map(|(path, to)| format!("  - {{ path: {path}, to: {to} }}\n")).collect();
    format!("hosts: [shop.test]\nroutes:\n{}", lines.concat())
}

async fn an_edit_of_a_config_map_is_served(test: Test) {
    let pods = test.deploy("web", 2).await;
    test.routes("shop", &shop(&[("/", &test.to("web"))])).await;
    let gate = test.gate("node-a").start().await;
    let echo = gate.answers("shop.test", "/a", 200).await.echo().unwrap();
    assert!(pods.iter().any(|pod| pod.address == echo.address), "{echo:?} is no pod of {pods:?}");
    test.routes("shop", &shop(&[("/b", &test.to("web"))])).await;
    gate.answers("shop.test", "/a", 404).await;
    gate.answers("shop.test", "/b", 200).await;
}

async fn a_text_that_is_half_right_serves_its_right_half(test: Test) {
    test.deploy("web", 1).await;
    let web = test.to("web");
    test.routes("shop", &shop(&[("/one", &web), ("/two", &web)])).await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/one", 200).await;
    let half = format!("{}  - {{ path: /three, to: {web}, timeout: soon }}\n", shop(&[("/new", &web)]));
    test.routes("shop", &half).await;
    gate.answers("shop.test", "/new", 200).await;
    gate.answers("shop.test", "/three", 404).await;
    let problem = test.problem_of(&gate, "ConfigMap").await;
    assert!(problem.contains("timeout") && problem.contains("shop.yaml"), "{problem}");
}

async fn a_text_that_is_no_yaml_leaves_what_served_before(test: Test) {
    test.deploy("web", 1).await;
    test.routes("shop", &shop(&[("/", &test.to("web"))])).await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    test.routes("shop", "hosts: [shop.test\nroutes: {").await;
    test.problem_of(&gate, "ConfigMap").await;
    assert_eq!(gate.get("shop.test", "/").await.unwrap().status, 200);
    // The other texts of the same map are not touched by it.
    test.routes("more", &shop(&[("/more", &test.to("web"))])).await;
    gate.answers("shop.test", "/more", 200).await;
}

async fn a_config_map_of_one_megabyte_is_served(test: Test) {
    test.deploy("web", 1).await;
    let web = test.to("web");
    let path = |n: usize| format!("/products/of/the/shop/{n}/details");
    // As many as fit into the mebibyte that the API server takes.
    let count = 1_040_000 / (path(10_000).len() + web.len() + 20);
    let paths: Vec<String> = (0..count).map(path).collect();
    let routes: Vec<_> = paths.iter().map(|path| (path.as_str(), web.as_str())).collect();
    let text = shop(&routes);
    assert!((900_000..1_040_000).contains(&text.len()), "{}", text.len());
    test.routes("shop", &text).await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", &path(count - 1), 200).await;
    gate.answers("shop.test", &path(count), 404).await;
}

async fn a_config_map_without_the_label_or_in_another_namespace_is_not_looked_at(test: Test) {
    test.deploy("web", 1).await;
    let text = shop(&[("/", &test.to("web"))]);
    test.routes("shop", &text).await;
    let other = test.another_namespace("other").await;
    let elsewhere = text.replace("shop.test", "elsewhere.test").replace('\n', "\\n");
    test.apply(format!(
        "{{ apiVersion: v1, kind: ConfigMap, metadata: {{ name: shop, namespace: {other}, labels: {{ tidegate.io/routes: x }} }}, \
           data: {{ a: \"{elsewhere}\" }} }}\n---\n\
         {{ apiVersion: v1, kind: ConfigMap, metadata: {{ name: plain }}, data: {{ a: \"{elsewhere}\" }} }}"
    ))
    .await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    assert_eq!(gate.get("elsewhere.test", "/").await.unwrap().status, 404);
}

async fn a_service_that_comes_later_takes_its_route_from_503_to_200(test: Test) {
    test.routes("shop", &shop(&[("/", &test.to("web"))])).await;
    let gate = test.gate("node-a").start().await;
    assert_unavailable(&gate.answers("shop.test", "/", 503).await);
    let problem = test.problem_of(&gate, "ConfigMap").await;
    assert!(problem.contains(&test.to("web")), "{problem}");
    test.deploy("web", 1).await;
    gate.answers("shop.test", "/", 200).await;
    eventually(SOON, || async {
        let problems = gate.api("problems").await.to_string();
        holds(!problems.contains(&test.to("web")), || format!("still a problem: {problems}"))
    })
    .await;
}

async fn a_service_without_endpoints_is_503_and_not_404(test: Test) {
    test.deploy("web", 1).await;
    test.routes("shop", &shop(&[("/", &test.to("web"))])).await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    test.kubectl(&["scale", "deployment/web", "--replicas=0"]).await;
    assert_unavailable(&gate.answers("shop.test", "/", 503).await);
    test.kubectl(&["scale", "deployment/web", "--replicas=1"]).await;
    gate.answers("shop.test", "/", 200).await;
}

async fn a_port_that_a_service_lacks_is_503_and_a_problem(test: Test) {
    test.deploy("web", 1).await;
    let wrong = format!("{}:metrics", test.to("web"));
    test.routes("shop", &shop(&[("/named", &wrong), ("/right", &format!("{}:80", test.to("web")))])).await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/right", 200).await;
    assert_unavailable(&gate.answers("shop.test", "/named", 503).await);
    let problem = test.problem_of(&gate, "ConfigMap").await;
    assert!(problem.contains("metrics"), "{problem}");
}

async fn routes_that_are_deleted_and_made_again_serve_again(test: Test) {
    test.deploy("web", 1).await;
    let text = shop(&[("/", &test.to("web"))]);
    test.routes("shop", &text).await;
    let gate = test.gate("node-a").start().await;
    gate.answers("shop.test", "/", 200).await;
    test.kubectl(&["delete", "configmap", "shop"]).await;
    gate.answers("shop.test", "/", 404).await;
    test.routes("shop", &text).await;
    gate.answers("shop.test", "/", 200).await;
    // At once, so that both may come in one batch.
    test.kubectl(&["delete", "configmap", "shop"]).await;
    test.routes("shop", &shop(&[("/again", &test.to("web"))])).await;
    gate.answers("shop.test", "/again", 200).await;
    gate.answers("shop.test", "/", 404).await;
}

async fn a_service_that_is_deleted_and_made_again_serves_again(test: Test) {
    let node = test.cluster.node("node-b");
    test.endpoints("web", &[(node.pod(11), "node-b")]).await;
    test.routes("shop", &shop(&[("/", &test.to("web"))])).await;
    let gate = test.gate("node-a").start().await;
    let from = |address: IpAddr| {
        let gate = &gate;
        eventually(SOON, move || async move {
            let said = gate.get("shop.test", "/").await?.expect(200)?.echo()?.address;
            holds(said == address, || format!("{said}, not {address}"))
        })
    };
    from(node.pod(11)).await;
    test.kubectl(&["delete", "service/web", "endpointslice/web-ipv4", "endpointslice/web-ipv6"]).await;
    gate.answers("shop.test", "/", 503).await;
    test.endpoints("web", &[(node.pod(12), "node-b")]).await;
    from(node.pod(12)).await;
}

fn assert_unavailable(response: &Response) {
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some(), "{response:?}");
}
