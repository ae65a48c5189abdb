//! Is there one gate that writes for all, and soon another one when it goes?

use crate::beside;
use crate::harness::gate::Gate;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{AGES, LONG, SOON, eventually, holds};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use std::collections::BTreeSet;

pub const CASES: &[Case] = &[
    beside!(another_gate_leads_when_the_leader_is_killed),
    beside!(another_gate_leads_at_once_when_the_leader_ends),
    beside!(a_gate_that_may_not_write_serves_all_the_same),
    beside!(a_gate_that_is_told_to_writes_nothing),
    beside!(the_lease_of_a_gate_that_is_gone_for_good_is_deleted_and_no_other),
];

async fn another_gate_leads_when_the_leader_is_killed(test: Test) {
    let (leader, follower) = two_gates(&test).await;
    leader.kill();
    eventually(LONG, || async { holds(leads(&follower).await, || "the follower does not lead".into()) }).await;
    assert_eq!(lease(&test).await.spec.unwrap().lease_transitions, Some(1));
}

async fn another_gate_leads_at_once_when_the_leader_ends(test: Test) {
    let (leader, follower) = two_gates(&test).await;
    assert!(leader.stop().await.success(), "{}", leader.log());
    // Far less than the fifteen seconds for which the Lease would hold.
    eventually(SOON, || async { holds(leads(&follower).await, || "the follower does not lead".into()) }).await;
}

async fn a_gate_that_may_not_write_serves_all_the_same(test: Test) {
    test.deploy("web", 1).await;
    test.apply(routes("routes", "routes: [{ path: /, to: NAMESPACE/web }]", &test)).await;
    let gate = test.gate("node-a").start().await;
    test.kubectl(&["patch", "role", "tidegate", "--type=json", "-p", NO_LEASES]).await;
    eventually(LONG, || async {
        let refused = gate.metric("tidegate_kubernetes_write_failures_total", &["lease"]).await;
        holds(refused > 0.0, || "no write was refused".into())
    })
    .await;
    gate.answers("shop.test", "/", 200).await;
    assert_eq!(gate.log().matches("no permission").count(), 1, "told once: {}", gate.log());
}

async fn a_gate_that_is_told_to_writes_nothing(test: Test) {
    test.deploy("web", 1).await;
    test.apply(routes("routes", "routes: [{ path: /, to: NAMESPACE/web }, { path: /x, too: y }]", &test)).await;
    let gate = test.gate("node-a").kubernetes("status: false").start().await;
    gate.answers("shop.test", "/", 200).await;
    assert!(gate.stop().await.success(), "{}", gate.log());
    let asked = test.cluster.audit(&test.gate_user());
    let other: Vec<_> = asked.iter().filter(|r| !["list", "watch"].contains(&r.verb.as_str())).collect();
    assert!(!asked.is_empty() && other.is_empty(), "{other:?}");
}

async fn the_lease_of_a_gate_that_is_gone_for_good_is_deleted_and_no_other(test: Test) {
    test.lease_of_a_gate("gone", "2026-01-01T00:00:00.000000Z").await;
    test.lease_of_a_gate("just-now", &format!("{:.6}", Timestamp::now())).await;
    // Somebody else's, as old.
    test.apply(
        "{ apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: { name: other }, spec: { renewTime: \"2026-01-01T00:00:00.000000Z\" } }",
    )
    .await;
    let gate = test.gate("node-a").start().await;
    eventually(LONG, || async { holds(leads(&gate).await, || "the only gate does not lead".into()) }).await;
    eventually(AGES, || async {
        let there: BTreeSet<String> = leases(&test).await;
        holds(!there.contains("tidegate-gate-gone"), || format!("{there:?}"))
    })
    .await;
    let left = ["other", "tidegate-gate-just-now", "tidegate-gate-node-a", "tidegate-leader"].map(str::to_owned);
    assert_eq!(leases(&test).await, left.into());
    assert_eq!(gate.metric("tidegate_kubernetes_write_failures_total", &["lease"]).await, 0.0, "{}", gate.log());
}

async fn leases(test: &Test) -> BTreeSet<String> {
    let all = test.api::<Lease>().list(&ListParams::default()).await.unwrap();
    all.items.into_iter().filter_map(|lease| lease.metadata.name).collect()
}

/// The verbs on leases in the Role of the gates, taken away but for reading.
const NO_LEASES: &str = r#"[{"op": "replace", "path": "/rules/2/verbs", "value": ["get", "list"]}]"#;

/// A gate that leads and one that follows.
pub async fn two_gates(test: &Test) -> (Gate, Gate) {
    let one = test.gate("node-a").start().await;
    let two = test.gate("node-b").start().await;
    let one_leads = eventually(LONG, || async {
        match (leads(&one).await, leads(&two).await) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            both => Err(format!("who leads? {both:?}")),
        }
    })
    .await;
    if one_leads { (one, two) } else { (two, one) }
}

/// A routes ConfigMap with the key `shop.yaml`, for the host `shop.test`; `NAMESPACE` is the test's.
pub fn routes(name: &str, text: &str, test: &Test) -> String {
    let text = format!("hosts: [shop.test]\n{}\n", text.replace("NAMESPACE", &test.namespace)).replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name}, labels: {{ tidegate.io/routes: \"\" }} }}\n\
         data:\n  shop.yaml: |\n    {}\n",
        text.trim_end()
    )
}

pub async fn leads(gate: &Gate) -> bool {
    gate.metric("tidegate_kubernetes_leader", &[]).await > 0.0
}

async fn lease(test: &Test) -> Lease {
    test.api::<Lease>().get("tidegate-leader").await.unwrap()
}
