//! Does a real API server take what `deploy/` says, and does a rollout bring the new gate of a node up beside the old one?

use crate::beside;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub const CASES: &[Case] = &[
    beside!(every_object_of_every_overlay_and_of_the_chart_is_taken),
    beside!(a_rollout_has_two_gates_on_a_node_and_never_none),
];

const OVERLAYS: [&str; 5] = [
    "base",
    "overlays/dual-stack",
    "overlays/single-namespace",
    "overlays/cluster-secrets",
    "overlays/without-file-capability",
];

const VALUES: [&str; 5] =
    ["createNamespace=true", "dualStack=true", "namespaces={default}", "clusterSecrets=true", "fileCapability=false"];

/// What pod security says of a pod that keeps to `restricted` but for the network of the host.
const HOST_NETWORK: &str =
    "Warning: would violate PodSecurity \"restricted:latest\": host namespaces (hostNetwork=true)";

async fn every_object_of_every_overlay_and_of_the_chart_is_taken(test: Test) {
    let namespace = test.another_namespace("gate").await;
    let warn = "pod-security.kubernetes.io/warn=restricted";
    test.kubectl(&["label", "namespace", &namespace, warn]).await;
    for overlay in OVERLAYS {
        let rendered = render(&test, overlay).replace("namespace: tidegate", &format!("namespace: {namespace}"));
        let rootless = !overlay.ends_with("without-file-capability");
        taken(&test, overlay, &rendered, rootless);
    }
    for value in VALUES {
        let mut helm = Command::new(test.cluster.control_plane.program("helm"));
        helm.args(["template", "tidegate", "--namespace", &namespace, "--set", value])
            .arg(deploy().join("helm/tidegate"));
        helm.env("HELM_DATA_HOME", "/nonexistent").env("HELM_CONFIG_HOME", "/nonexistent");
        taken(&test, value, &text(helm.output().unwrap()), value != "fileCapability=false");
    }
}

/// The API server would take all of it, and has nothing to say against the pod but its network.
fn taken(test: &Test, what: &str, manifests: &str, rootless: bool) {
    let file = test.cluster.folder.join(format!("{}.yaml", test.namespace));
    std::fs::write(&file, manifests).unwrap();
    let mut kubectl = test.cluster.kubectl();
    kubectl.args(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f"]);
    let output = kubectl.arg(&file).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {said}");
    let warnings: BTreeSet<&str> = said.lines().filter(|line| line.contains("PodSecurity")).collect();
    if rootless {
        assert_eq!(warnings, BTreeSet::from([HOST_NETWORK]), "{what}: {said}");
    }
    let objects = manifests.lines().filter(|line| line.starts_with("kind: ")).count();
    assert_eq!(text(output).lines().count(), objects, "{what}");
}

/// The nodes of the tests have a kubelet that starts nothing, but a scheduler and a controller that are real: a DaemonSet with host
/// ports would wait forever here.
async fn a_rollout_has_two_gates_on_a_node_and_never_none(test: Test) {
    let rendered = render(&test, "base").replace("namespace: tidegate", &format!("namespace: {}", test.namespace));
    let own = |line: &str| ["kind: DaemonSet", "kind: ServiceAccount", "kind: ConfigMap"].contains(&line);
    let own: Vec<&str> = rendered.split("\n---\n").filter(|one| one.lines().any(own)).collect();
    assert_eq!(own.len(), 4);
    test.apply(own.join("\n---\n").replace("minReadySeconds: 5", "minReadySeconds: 1")).await;
    let nodes = test.cluster.nodes.len();
    let every = |gates: &BTreeMap<String, usize>| gates.len() == nodes && gates.values().all(|ready| *ready > 0);
    let status = ["rollout", "status", "daemonset/tidegate", "--timeout=120s"];
    test.kubectl(&status).await;
    assert!(every(&ready_gates(&test).await));
    test.kubectl(&["rollout", "restart", "daemonset/tidegate"]).await;
    let mut most = 0;
    let rolled = test.kubectl(&status);
    let mut rolled = std::pin::pin!(rolled);
    // On a busy machine the controller (1.37) can miss that a new pod is available, and looks again only when something changes:
    // seen with all pods ready for two minutes.
    let mut nudge = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        tokio::select! {
            _ = &mut rolled => break,
            now = nudge.tick() => {
                let mark = format!("test.tidegate.io/nudged={}", now.elapsed().as_nanos());
                test.kubectl(&["annotate", "daemonset/tidegate", &mark, "--overwrite"]).await;
            }
            gates = ready_gates(&test) => {
                assert!(every(&gates), "a node without a gate: {gates:?}");
                most = most.max(gates.values().copied().max().unwrap_or_default());
            }
        }
    }
    assert_eq!(most, 2, "the new one is ready beside the old one");
}

/// Ready gates by node.
async fn ready_gates(test: &Test) -> BTreeMap<String, usize> {
    let api: Api<Pod> = test.api();
    let pods = api.list(&ListParams::default().labels("app.kubernetes.io/name=tidegate")).await.unwrap();
    let mut gates = BTreeMap::new();
    for pod in pods {
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            *gates.entry(pod.spec.and_then(|spec| spec.node_name).unwrap_or_default()).or_default() += 1;
        }
    }
    gates
}

/// What kustomize makes of a folder of `deploy/kustomize`.
pub fn render(test: &Test, overlay: &str) -> String {
    let mut kubectl = test.cluster.kubectl();
    text(kubectl.arg("kustomize").arg(deploy().join("kustomize").join(overlay)).output().unwrap())
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
