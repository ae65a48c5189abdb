//! Is the cluster of the tests a real one, and does it vanish without a trace?

use crate::harness::objects::application;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{LONG, SOON, eventually, holds, http, sandbox};
use crate::{alone, beside};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

pub const CASES: &[Case] = &[
    beside!(pods_of_a_deployment_answer_as_themselves_from_every_node),
    beside!(a_roll_moves_every_endpoint),
    beside!(a_pod_on_its_way_out_is_an_endpoint_that_terminates),
    beside!(a_pod_that_is_killed_is_reset_and_not_reachable_until_it_is_revived),
    beside!(an_endpoint_slice_made_by_hand_leads_to_addresses_that_answer),
    beside!(who_has_no_permission_is_refused_and_the_audit_log_knows),
    beside!(a_gate_has_the_ports_of_its_node_for_itself),
    alone!(the_api_server_comes_back_with_all_it_knew),
    alone!(a_suite_that_is_killed_leaves_no_process_behind),
];

async fn pods_of_a_deployment_answer_as_themselves_from_every_node(test: Test) {
    let pods = test.deploy("web", 4).await;
    assert_eq!(pods.iter().map(|p| p.address).collect::<BTreeSet<_>>().len(), 4, "{pods:?}");
    for pod in &pods {
        assert!(test.cluster.node(&pod.node).has(pod.address), "{pod:?}");
        for node in &test.cluster.nodes {
            let stream = node.place.connect(SocketAddr::new(pod.address, 8080)).unwrap();
            let response = http::send_over(stream, http::get("shop.test", "/a?b=c")).await.unwrap();
            let echo = response.echo().unwrap();
            assert_eq!((echo.address, echo.host.as_str(), echo.path.as_str()), (pod.address, "shop.test", "/a?b=c"));
        }
    }
}

async fn a_roll_moves_every_endpoint(test: Test) {
    let before: BTreeSet<IpAddr> = test.deploy("web", 3).await.iter().map(|pod| pod.address).collect();
    endpoints_become(&test, &before).await;
    test.kubectl(&["rollout", "restart", "deployment/web"]).await;
    test.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).await;
    let after: BTreeSet<IpAddr> = test.ready_pods("web", 3).await.iter().map(|pod| pod.address).collect();
    assert_ne!(before, after);
    endpoints_become(&test, &after).await;
}

async fn a_pod_on_its_way_out_is_an_endpoint_that_terminates(test: Test) {
    test.apply(application("web", 1).replace("terminate-after: 1s", "terminate-after: 20s")).await;
    let pod = test.ready_pods("web", 1).await.remove(0);
    test.kubectl(&["delete", "pod", &pod.name, "--wait=false"]).await;
    eventually(SOON, || async {
        let all = slices(&test).await;
        let old = all
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten())
            .find(|e| e.addresses == [pod.address.to_string()]);
        let conditions = old.and_then(|endpoint| endpoint.conditions.clone()).ok_or("no such endpoint")?;
        let said = (conditions.ready, conditions.serving, conditions.terminating);
        holds(said == (Some(false), Some(true), Some(true)), || format!("{conditions:?}"))
    })
    .await;
}

async fn a_pod_that_is_killed_is_reset_and_not_reachable_until_it_is_revived(test: Test) {
    let pod = test.deploy("web", 1).await.remove(0);
    let address = SocketAddr::new(pod.address, 8080);
    let mut connection = http::Connection::open(address).await.unwrap();
    assert_eq!(connection.send(http::get("a.test", "/")).await.unwrap().status, 200);
    test.cluster.echoes.kill(pod.address).unwrap();
    eventually(SOON, || async { holds(connection.closed(), || "the old connection lives".into()) }).await;
    let refused = http::send(address, http::get("a.test", "/")).await.unwrap_err();
    assert!(refused.contains("unreachable") || refused.contains("No route to host"), "{refused}");
    test.cluster.echoes.revive(pod.address).unwrap();
    assert_eq!(http::send(address, http::get("a.test", "/")).await.unwrap().status, 200);
}

async fn an_endpoint_slice_made_by_hand_leads_to_addresses_that_answer(test: Test) {
    let node = test.cluster.node("node-b");
    for address in [node.pod(7), node.pod6(7)] {
        let response = http::send(SocketAddr::new(address, 8081), http::get("a.test", "/status/418")).await.unwrap();
        assert_eq!((response.status, response.echo().unwrap().address), (418, address));
    }
    test.endpoints("web", &[(node.pod(7), "node-b")]).await;
    endpoints_become(&test, &[node.pod(7)].into()).await;
}

async fn who_has_no_permission_is_refused_and_the_audit_log_knows(test: Test) {
    test.kubectl(&["create", "serviceaccount", "guest"]).await;
    let token = test.kubectl(&["create", "token", "guest"]).await;
    let guest = test.cluster.client_with(&test.namespace, token.trim()).await.unwrap();
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(guest, &test.namespace);
    let refused = secrets.list(&ListParams::default()).await.unwrap_err().to_string();
    assert!(refused.contains("forbidden"), "{refused}");
    let user = format!("system:serviceaccount:{}:guest", test.namespace);
    eventually(SOON, || async {
        let records = test.cluster.audit(&user);
        let said: Vec<_> = records.iter().map(|r| (r.verb.as_str(), r.resource.as_str(), r.code)).collect();
        holds(said == [("list", "secrets", 403)], || format!("{records:?}"))
    })
    .await;
}

async fn a_gate_has_the_ports_of_its_node_for_itself(test: Test) {
    let pod = test.cluster.node("node-c").pod(9);
    let routes = |path: &str| {
        let text = format!(
            "hosts: [shop.test]\nroutes: [{{ path: {path}, to: web }}]\n---\nclusters: {{ web: {{ endpoints: [\"{pod}:8080\"] }} }}\n"
        );
        let file = test.cluster.folder.join(format!("{}{}.yaml", test.namespace, path.replace('/', "-")));
        std::fs::write(&file, text).unwrap();
        format!("{{ routes: {} }}", file.display())
    };
    let one = test.gate("node-a").section("sources", &routes("/one")).start().await;
    let two = test.gate("node-a").section("sources", &routes("/two")).start().await;
    for (gate, path, other) in [(&one, "/one", "/two"), (&two, "/two", "/one")] {
        assert_eq!(gate.answers("shop.test", path, 200).await.echo().unwrap().address, pod);
        assert_eq!(gate.get("shop.test", other).await.unwrap().status, 404);
    }
    let traffic = one.traffic("shop.test", "/one");
    traffic.more(100).await;
    let tally = traffic.stop().await;
    tally.assert_none_failed();
    assert_eq!(tally.by.keys().copied().collect::<Vec<_>>(), [pod]);
    assert!(two.stop().await.success(), "{}", two.log());
}

async fn the_api_server_comes_back_with_all_it_knew(test: Test) {
    let before = test.deploy("web", 2).await;
    test.cluster.control_plane.kill_api_server();
    assert!(test.try_kubectl(&["get", "pods", "--request-timeout=2s"], "").await.is_err());
    test.cluster.control_plane.restart_api_server().unwrap();
    let mut after = test.ready_pods("web", 2).await;
    after.sort_by_key(|pod| before.iter().position(|old| old == pod));
    assert_eq!(after, before);
    test.kubectl(&["scale", "deployment/web", "--replicas=3"]).await;
    test.ready_pods("web", 3).await;
}

async fn a_suite_that_is_killed_leaves_no_process_behind(_test: Test) {
    let before = processes();
    let mut command = sandbox::command("idle");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "started");
    let started: Vec<u32> = processes().difference(&before).copied().collect();
    assert!(started.len() > 5, "a control plane of its own: {started:?}");
    // SIGKILL: nobody of it can do anything about it.
    child.kill().unwrap();
    child.wait().unwrap();
    eventually(LONG, || async {
        let left: Vec<_> = started.iter().filter(|pid| !sandbox::ended(**pid)).collect();
        holds(left.is_empty(), || format!("still there: {left:?}"))
    })
    .await;
}

/// Every process that this one can see.
pub fn processes() -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| !sandbox::ended(*pid)).collect()
}

async fn slices(test: &Test) -> Vec<EndpointSlice> {
    test.api::<EndpointSlice>().list(&ListParams::default()).await.unwrap().items
}

async fn endpoints_become(test: &Test, wanted: &BTreeSet<IpAddr>) {
    eventually(SOON, || async {
        let now = ready_endpoints(test).await;
        holds(now == *wanted, || format!("{now:?}, not {wanted:?}"))
    })
    .await;
}

async fn ready_endpoints(test: &Test) -> BTreeSet<IpAddr> {
    let all = slices(test).await;
    let endpoints = all.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
    ready.flat_map(|e| &e.addresses).map(|a| a.parse().unwrap()).collect()
}
