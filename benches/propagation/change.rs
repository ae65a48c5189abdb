//! How long from a change to the first answer that shows it?

use super::{Effort, cells, watcher};
use crate::harness::gate::Gate;
use crate::harness::test::Test;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use std::time::{Duration, Instant};

/// Between two changes, so that each is alone.
const PAUSE: Duration = Duration::from_millis(40);
/// Changes a second of the churn.
const CHURN: u64 = 100;

/// A route that answers by itself, edited in its ConfigMap; then the same under churn; then endpoints.
pub async fn measure(test: &Test, effort: Effort) {
    let config_maps: Api<ConfigMap> = test.api();
    edit(&config_maps, "probe", 0).await.unwrap();
    let gate = test.gate("node-a").start().await;
    println!("\n### change\n\n{}", header());
    routes("a route in a ConfigMap", test, &gate, effort).await;
    let churn = tokio::task::spawn_local(churn(test.api()));
    routes("the same, 100 other changes a second", test, &gate, effort).await;
    churn.abort();
    drop(gate);
    endpoints(test, effort).await;
}

/// What the columns are. The last two are of the whole time from the call to the answer, and of the thread that all of a change but the
/// answer is done by: they say how much of it may be the machine's.
pub fn header() -> String {
    let columns = ["the watch alone", "first answer", "beyond the watch", "the control thread without a CPU"];
    let pairs = columns.map(|column| format!("{column}, ms p50 | p99 |"));
    format!("| change | {}\n|---|{}", pairs.join(" "), "---|".repeat(8))
}

/// Both watch at the same time, so that a change is compared with itself.
pub async fn routes(what: &str, test: &Test, gate: &Gate, effort: Effort) {
    let config_maps: Api<ConfigMap> = test.api();
    let watched = watcher::watch(config(test).await, &test.namespace);
    let asked = watcher::ask(gate.http(), "probe.test", |body| body.trim().to_owned());
    let (mut bare, mut served, mut beyond, mut without) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 1..=effort.changes {
        tokio::time::sleep(PAUSE).await;
        let number = number + usize::from(what.contains("other")) * 1_000_000;
        let (waited, start) = (gate.waited(), Instant::now());
        edit(&config_maps, "probe", number).await.unwrap();
        let text = number.to_string();
        let event = watched.time_of(&text).expect("the watch sees the change");
        let answer = asked.time_of(&text).unwrap_or_else(|| panic!("{text} was never served\n{}", gate.log()));
        bare.push(event.saturating_duration_since(start));
        served.push(answer.saturating_duration_since(start));
        beyond.push(answer.saturating_duration_since(event));
        without.push(gate.waited() - waited);
    }
    let cells = [&mut bare, &mut served, &mut beyond, &mut without].map(|times| cells(times));
    println!("| {what} | {} |", cells.join(" | "));
}

/// A Service whose only endpoint changes between two.
async fn endpoints(test: &Test, effort: Effort) {
    let node = test.cluster.node("node-b");
    let pods = [node.pod(11), node.pod(12)];
    test.endpoints("moving", &[(pods[0], "node-b")]).await;
    let document = format!("moving.test/: {}/moving\n", test.namespace);
    test.apply(routes_config_map("moving", &document)).await;
    let gate = test.gate("node-a").start().await;
    let asked = watcher::ask(gate.http(), "moving.test", |body| {
        let said: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        said["address"].as_str().unwrap_or_default().to_owned()
    });
    let slices: Api<EndpointSlice> = test.api();
    let (mut served, mut without) = (Vec::new(), Vec::new());
    for number in 1..=effort.changes {
        tokio::time::sleep(PAUSE).await;
        let pod = pods[number % 2].to_string();
        let patch =
            json!({ "endpoints": [{ "addresses": [pod], "nodeName": "node-b", "conditions": { "ready": true } }] });
        let (waited, start) = (gate.waited(), Instant::now());
        slices.patch("moving-ipv4", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        let answer = asked.time_of(&pod).unwrap_or_else(|| panic!("{pod} never answered\n{}", gate.log()));
        served.push(answer.saturating_duration_since(start));
        without.push(gate.waited() - waited);
    }
    println!("| the only endpoint of a Service | | | {} | | | {} |", cells(&mut served), cells(&mut without));
}

/// Other routes change all the time.
async fn churn(config_maps: Api<ConfigMap>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(1000 / CHURN));
    for number in 0.. {
        ticks.tick().await;
        let config_maps = config_maps.clone();
        let change = async move { edit(&config_maps, &format!("other-{}", number % 10), number).await };
        tokio::task::spawn_local(async move {
            if let Err(why) = change.await {
                eprintln!("one of the other changes was refused: {why}");
            }
        });
    }
}

/// The ConfigMap of a route that answers with this number.
async fn edit(config_maps: &Api<ConfigMap>, name: &str, number: usize) -> kube::Result<()> {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "labels": { "tidegate.io/routes": "" }, "annotations": { "change": mark(name, number) } },
        "data": { "routes.yaml": format!("{name}.test/: {{ respond: {{ body: \"{number}\" }} }}\n") },
    });
    let force = PatchParams::apply("bench").force();
    config_maps.patch(name, &force, &Patch::Apply(&object)).await.map(drop)
}

/// Only the probe's changes are looked for.
fn mark(name: &str, number: usize) -> String {
    if name == "probe" { number.to_string() } else { String::from("other") }
}

pub fn routes_config_map(name: &str, document: &str) -> String {
    let text = serde_json::to_string(document).unwrap();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name}, labels: {{ tidegate.io/routes: \"\" }} }}\ndata: {{ routes.yaml: {text} }}\n"
    )
}

async fn config(test: &Test) -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(test.cluster.control_plane.admin_kubeconfig()).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}
