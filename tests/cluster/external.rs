//! Is an ExternalName followed only where that is allowed, and never to a node?

use crate::beside;
use crate::harness::dns::Names;
use crate::harness::network;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{SOON, eventually, holds};
use k8s_openapi::jiff::Timestamp;
use std::net::IpAddr;

pub const CASES: &[Case] = &[
    beside!(an_external_name_is_not_followed_unless_the_install_configuration_says_so),
    beside!(an_external_name_is_resolved_and_leads_there),
    beside!(an_external_name_never_leads_to_a_node),
];

/// A Service of this type; its port 8080 is what the pods of the tests listen on.
async fn service(test: &Test, name: &str, host: &str) {
    test.apply(format!(
        "{{ apiVersion: v1, kind: Service, metadata: {{ name: {name} }}, spec: {{ type: ExternalName, externalName: \"{host}\", ports: [{{ port: 8080 }}] }} }}"
    ))
    .await;
}

/// A path for each of these Services of `shop.test`.
async fn publish(test: &Test, services: &[&str]) {
    let line = |service: &&str| format!("shop.test/{service}: {}\n", test.to(service));
    test.routes("shop", &services.iter().map(line).collect::<String>()).await;
}

async fn an_external_name_is_not_followed_unless_the_install_configuration_says_so(test: Test) {
    let names = Names::start(&test);
    names.say("db.example.com", &[test.cluster.node("node-b").pod(51)]);
    service(&test, "db", "db.example.com").await;
    publish(&test, &["db"]).await;
    let gate = test.gate("node-a").resolver(names.address()).start().await;
    gate.answers("shop.test", "/db", 503).await;
    let problem = test.problem_of(&gate, "is an ExternalName, which is not followed").await;
    assert!(problem.contains("sources.kubernetes.external_names"), "{problem}");
    assert!(!names.was_asked("db.example.com"), "nobody is even asked for its addresses");
}

async fn an_external_name_is_resolved_and_leads_there(test: Test) {
    let node = test.cluster.node("node-b");
    let names = Names::start(&test);
    names.say("db.example.com", &[node.pod(52)]);
    names.say("six.example.com", &[node.pod6(52)]);
    service(&test, "db", "db.example.com").await;
    service(&test, "six", "six.example.com").await;
    service(&test, "nowhere", "nowhere.example.com").await;
    publish(&test, &["db", "six", "nowhere"]).await;
    let gate = test.gate("node-a").resolver(names.address()).kubernetes("external_names: true").start().await;
    let echo = gate.answers("shop.test", "/db", 200).await.echo().unwrap();
    assert_eq!((echo.address, echo.port, echo.host.as_str()), (node.pod(52), 8080, "shop.test"));
    let echo = gate.answers("shop.test", "/six", 200).await.echo().unwrap();
    assert_eq!(echo.address, node.pod6(52));
    gate.answers("shop.test", "/nowhere", 503).await;
    let problem = test.problem_of(&gate, "ExternalName nowhere.example.com").await;
    assert!(problem.contains("Service/"), "{problem}");
    // Another name in the same Service is another place.
    names.say("next.example.com", &[node.pod(53)]);
    let next = r#"{"spec": {"externalName": "next.example.com"}}"#;
    test.kubectl(&["patch", "service", "db", "-p", next]).await;
    eventually(SOON, || async {
        let address = gate.get("shop.test", "/db").await?.expect(200)?.echo()?.address;
        holds(address == node.pod(53), || format!("still {address}"))
    })
    .await;
}

async fn an_external_name_never_leads_to_a_node(test: Test) {
    let (pod, gate) = (test.cluster.node("node-b").pod(54), test.cluster.node("node-b").pod(55));
    let names = Names::start(&test);
    // Something answers there, but it is known to be the address of another gate.
    test.lease_of_a_gate_at("node-z", gate, &format!("{:.6}", Timestamp::now())).await;
    let own = network::settle(&test.cluster.nodes).unwrap();
    let near: [(&str, IpAddr); 7] = [
        ("loop", [127, 0, 0, 1].into()),
        ("loop6", std::net::Ipv6Addr::LOCALHOST.into()),
        ("metadata", [169, 254, 169, 254].into()),
        ("zero", [0, 0, 0, 0].into()),
        ("own", own.v4.into()),
        ("own6", own.v6.into()),
        ("other", gate),
    ];
    for (name, address) in near {
        let host = format!("{name}.example.com");
        names.say(&host, &[address]);
        service(&test, name, &host).await;
    }
    names.say("both.example.com", &[[127, 0, 0, 1].into(), pod]);
    service(&test, "both", "both.example.com").await;
    service(&test, "localhost", "localhost").await;
    // Not a host name, but it is what the API server takes.
    service(&test, "number", "127.0.0.1").await;
    let all = near.iter().map(|(name, _)| *name).chain(["both", "localhost", "number"]).collect::<Vec<_>>();
    publish(&test, &all).await;
    let gate = test.gate("node-a").at(&own).resolver(names.address()).kubernetes("external_names: true");
    let gate = gate.start().await;
    assert_eq!(gate.answers("shop.test", "/both", 200).await.echo().unwrap().address, pod);
    for name in near.map(|(name, _)| name).iter().chain(&["localhost", "number"]) {
        gate.answers("shop.test", &format!("/{name}"), 503).await;
    }
    for (name, _) in near {
        let problem = test.problem_of(&gate, &format!("ExternalName {name}.example.com")).await;
        assert!(problem.contains("a node's own"), "{problem}");
    }
    for host in ["localhost", "127.0.0.1"] {
        // As JSON.
        let problem = test.problem_of(&gate, &format!("is the ExternalName \\\"{host}\\\"")).await;
        assert!(problem.contains("must not lead to the node itself"), "{problem}");
    }
    for _ in 0..12 {
        assert_eq!(gate.get("shop.test", "/both").await.unwrap().echo().unwrap().address, pod);
    }
}
