//! What does a large cluster cost: memory, time to the first snapshot, time of a change?

use super::change::{self, routes_config_map};
use super::{Effort, FULL};
use crate::harness::gate::Gate;
use crate::harness::test::Test;
use futures_util::StreamExt;
use kube::api::{Api, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Routes in one ConfigMap: a ConfigMap holds 1 MiB.
const TOGETHER: usize = 500;
/// Endpoints in a slice, as the endpoint controller makes them.
const SLICE: usize = 100;
/// The changes of a large cluster that are timed.
const CHANGES: usize = 100;

/// Many routes in ConfigMaps, all to one Service.
pub async fn routes(test: &Test, effort: Effort) {
    let before = idle(test).await;
    test.endpoints("web", &[(test.cluster.node("node-b").pod(21), "node-b")]).await;
    for first in (0..effort.objects).step_by(TOGETHER) {
        let mut document = String::new();
        for number in first..(first + TOGETHER).min(effort.objects) {
            let _ = writeln!(document, "h{number}.example.com/: {}/web", test.namespace);
        }
        test.apply(routes_config_map(&format!("many-{first}"), &document)).await;
    }
    let what = format!("{} routes in {} ConfigMaps", effort.objects, effort.objects.div_ceil(TOGETHER));
    tell(&what, test, before, "h0.example.com", effort).await;
}

/// Many Ingresses, each with a Service of its own.
pub async fn ingresses(test: &Test, effort: Effort) {
    let before = idle(test).await;
    let class = test.namespace.clone();
    test.remove_at_end(format!("ingressclass/{class}"));
    test.apply(format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{ name: {class} }}\nspec: {{ controller: tidegate.io/{class} }}"
    ))
    .await;
    let name = |number: usize| format!("s{number}");
    let service =
        |number| json!({ "metadata": { "name": name(number) }, "spec": { "ports": [{ "name": "http", "port": 80 }] } });
    create::<k8s_openapi::api::core::v1::Service>(test, effort.objects, service).await;
    test.endpoints("s0", &[(test.cluster.node("node-b").pod(22), "node-b")]).await;
    let ingress = |number| {
        let backend = json!({ "service": { "name": name(number), "port": { "number": 80 } } });
        let paths = json!([{ "path": "/", "pathType": "Prefix", "backend": backend }]);
        json!({
            "metadata": { "name": name(number) },
            "spec": { "ingressClassName": class, "rules": [{ "host": format!("h{number}.example.com"), "http": { "paths": paths } }] },
        })
    };
    create::<k8s_openapi::api::networking::v1::Ingress>(test, effort.objects, ingress).await;
    let what = format!("{0} Ingresses with {0} Services", effort.objects);
    tell(&what, test, before, "h0.example.com", effort).await;
}

/// Many endpoints, of Services that no route has.
pub async fn endpoints(test: &Test, effort: Effort) {
    let before = idle(test).await;
    slices(test, effort).await;
    let what = format!("{} endpoints in {} slices, not routed", effort.slices * SLICE, effort.slices);
    tell(&what, test, before, "h0.example.com", effort).await;
}

/// The same endpoints, each slice's of a Service with a route.
pub async fn routed(test: &Test, effort: Effort) {
    let before = idle(test).await;
    slices(test, effort).await;
    let service = |number| json!({ "metadata": { "name": format!("s{number}") }, "spec": { "ports": [{ "name": "http", "port": 80 }] } });
    create::<k8s_openapi::api::core::v1::Service>(test, effort.slices, service).await;
    for first in (0..effort.slices).step_by(TOGETHER) {
        let mut document = String::new();
        for number in first..(first + TOGETHER).min(effort.slices) {
            let _ = writeln!(document, "s{number}.example.com/: {}/s{number}", test.namespace);
        }
        test.apply(routes_config_map(&format!("many-{first}"), &document)).await;
    }
    let what = format!("{} endpoints of {} Services with a route each", effort.slices * SLICE, effort.slices);
    tell(&what, test, before, "h0.example.com", effort).await;
}

async fn slices(test: &Test, effort: Effort) {
    test.endpoints("web", &[(test.cluster.node("node-b").pod(23), "node-b")]).await;
    test.apply(routes_config_map("web", &format!("h0.example.com/: {}/web\n", test.namespace))).await;
    let slice = |number: usize| {
        let endpoint = |n: usize| {
            let address = format!("10.{}.{}.{}", 100 + number / 256, number % 256, n + 1);
            json!({ "addresses": [address], "nodeName": format!("node-{}", n % 50), "zone": "east", "conditions": { "ready": true, "serving": true, "terminating": false } })
        };
        json!({
            "metadata": { "name": format!("slice-{number}"), "labels": { "kubernetes.io/service-name": format!("s{number}") } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": (0..SLICE).map(endpoint).collect::<Vec<_>>(),
        })
    };
    create::<k8s_openapi::api::discovery::v1::EndpointSlice>(test, effort.slices, slice).await;
}

/// Resident memory of a gate in a cluster without routes, in KiB.
async fn idle(test: &Test) -> u64 {
    let gate = test.gate("node-a").start().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    gate.resident()
}

async fn tell(what: &str, test: &Test, before: u64, host: &str, effort: Effort) {
    let start = Instant::now();
    let gate: Gate = test.gate("node-a").start().await;
    let ready = start.elapsed();
    gate.answers(host, "/", 200).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = gate.resident();
    println!(
        "\n### {what}\n\nready {:.2} s after its start (with what starting a process in a namespace of its own takes)",
        ready.as_secs_f64()
    );
    println!(
        "resident memory: {} KiB without, {first} KiB with: {:.1} MB more\n",
        before,
        (first as f64 - before as f64) / 1024.0
    );
    println!("{}", change::header());
    test.apply(routes_config_map("probe", "probe.test/: { respond: { body: \"0\" } }\n")).await;
    let changes = if effort.changes == FULL.changes { CHANGES } else { effort.changes };
    change::routes("a route in a ConfigMap", test, &gate, Effort { changes, ..effort }).await;
    // Tells what is the gate's own of the times above, and what the machine's: nothing else of a change takes that thread as long.
    println!("\nlongest merge, compile and swap of a change: {:.1} ms", longest(&gate.log(), changes));
    println!("\nresident memory after these changes: {:.1} MB more", (gate.resident() as f64 - before as f64) / 1024.0);
}

/// The longest of the last publishes, in milliseconds.
fn longest(log: &str, last: usize) -> f64 {
    let took = log.lines().rev().filter_map(|line| line.split_once("took_us"));
    let number = |text: &str| {
        text.trim_start_matches(['"', ':', '=', ' ']).split(|c: char| !c.is_ascii_digit()).next()?.parse::<f64>().ok()
    };
    took.filter_map(|(_, rest)| number(rest)).take(last).fold(0.0, f64::max) / 1e3
}

async fn create<K>(test: &Test, count: usize, object: impl Fn(usize) -> Value)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = test.api();
    let (api, object) = (&api, &object);
    let made = futures_util::stream::iter(0..count).for_each_concurrent(16, |number| async move {
        let object: K = serde_json::from_value(object(number)).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    });
    made.await;
}
