//! What do a route and a cluster cost in memory, when there are thousands?
//!
//! Bytes that are asked of the allocator and not given back, counted over the whole road of a change: what the source keeps
//! delivered, the model, the snapshot and its table. What an allocator adds on top (some percent) is not in it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]
#![allow(unsafe_code, reason = "an allocator is an unsafe trait; this one counts and passes on")]

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tidegate::config::Config;
use tidegate::config::decode::NoFiles;
use tidegate::config::kubernetes::Settings;
use tidegate::kubernetes::objects::{Ingress, IngressClass, Key, Objects, Service};
use tidegate::kubernetes::translate::{Memory, Translation, translate};
use tidegate::model::{ClusterSpec, EndpointSpec, Fragment, Origin};
use tidegate::snapshot::{Publisher, Shared};
use tidegate::source::{Memberships, grammar, slot};
use tidegate::telemetry::Registry;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
/// Bytes that are in use.
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// The most that were in use at one time, since this was last set back.
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let before = BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(before + layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps this function's own contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; the pointer came from `alloc` here, hence from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Tests are counted one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// How many of each.
const COUNT: usize = 2_000;
/// What a route may cost, with a host, a path, one cluster and no filters.
const ROUTE: usize = 1_250;
/// What a cluster may cost whose endpoints come by memberships, without any.
const CLUSTER: usize = 775;
/// What the only endpoint of a cluster may cost, what the cluster keeps of its members included.
const ENDPOINT: usize = 285;
/// What an endpoint may cost that is one of many of its cluster, which never had a request.
const ENDPOINT_OF_MANY: usize = 8;
/// The same where its cluster had a request, but not itself.
const ENDPOINT_MADE: usize = 88;
/// What an endpoint may cost at most where all of a gate's are said at once, a hundred for each cluster, as when it starts: a peak, because
/// an allocator does not give it back.
const ENDPOINT_AT_THE_START: usize = 8;
/// What an Ingress may cost with its Service, all that is kept of both, of their route and of their cluster.
const INGRESS: usize = 3_545;

#[test]
fn a_route_a_cluster_and_an_endpoint_cost_no_more_than_their_gates_say() {
    let _alone = ALONE.lock();
    let shared = Shared::default();
    let (feed, slot) = slot("cluster", true);
    let said = Memberships::default();
    let (publisher, _report) = Publisher::new(shared.clone(), vec![slot], Registry::new(4, 100_000));
    let mut publisher = publisher.memberships(said.clone());
    let mut publish = |fragment: Fragment| {
        feed.deliver(fragment, Vec::new());
        assert!(publisher.publish());
        BYTES.load(Ordering::Relaxed)
    };
    let empty = publish(fragment(0, 0));
    let clusters = publish(fragment(COUNT, 0));
    let routes = publish(fragment(COUNT, COUNT));
    for n in 0..COUNT {
        said.set(cluster(n), vec![EndpointSpec::new(([10, 0, 0, 1], 80).into(), 1)]);
    }
    let endpoints = publish(fragment(COUNT, COUNT));
    let many = |n: usize| EndpointSpec::new(([10, 1, u8::try_from(n / 200).unwrap(), (n % 200) as u8], 80).into(), 1);
    said.set(cluster(0), (0..=COUNT).map(many).collect::<Vec<_>>());
    let large = publish(fragment(COUNT, COUNT));
    shared.load().cluster(&cluster(0)).unwrap().pick(&[], None).unwrap();
    let made = BYTES.load(Ordering::Relaxed);
    let listener = shared.listener("http").unwrap();
    assert_eq!((shared.load().clusters.len(), listener.table.routes().len()), (COUNT, COUNT));
    let mut dear = Vec::new();
    for (what, before, after, most) in [
        ("cluster", empty, clusters, CLUSTER),
        ("route", clusters, routes, ROUTE),
        ("endpoint", routes, endpoints, ENDPOINT),
        ("endpoint of many", endpoints, large, ENDPOINT_OF_MANY),
        ("endpoint of many in use", endpoints, made, ENDPOINT_MADE),
    ] {
        dear.extend(is_dear(what, after - before, most));
    }
    assert!(dear.is_empty(), "dearer than their gates say: {dear:?}");
}

#[test]
fn endpoints_that_are_said_all_at_once_cost_no_more_than_their_gate_says() {
    const CLUSTERS: usize = 1_000;
    const EACH: usize = 100;
    let _alone = ALONE.lock();
    let (feed, slot) = slot("cluster", true);
    let said = Memberships::default();
    let (publisher, _report) = Publisher::new(Shared::default(), vec![slot], Registry::new(4, 100_000));
    let mut publisher = publisher.memberships(said.clone());
    let endpoint = |n: usize, m: usize| {
        let address = [10, u8::try_from(n / 250).unwrap(), (n % 250) as u8, u8::try_from(m).unwrap()];
        EndpointSpec::new((address, 80).into(), 1)
    };
    let mut bytes = |each: usize| {
        feed.deliver(fragment(0, 0), Vec::new());
        assert!(publisher.publish());
        let fragment = fragment(CLUSTERS, 0);
        let before = BYTES.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        for n in 0..CLUSTERS {
            said.set(cluster(n), (0..each).map(|m| endpoint(n, m)).collect::<Vec<_>>());
        }
        feed.deliver(fragment, Vec::new());
        assert!(publisher.publish());
        (BYTES.load(Ordering::Relaxed) - before, PEAK.load(Ordering::Relaxed) - before)
    };
    let (without, without_peak) = bytes(0);
    let (with, peak) = bytes(EACH);
    let each = |with: usize, without: usize| (with - without) / (CLUSTERS * EACH);
    eprintln!("an endpoint at rest: {} bytes", each(with, without));
    let peak = each(peak, without_peak);
    eprintln!("an endpoint at the peak: {peak} bytes, at most {ENDPOINT_AT_THE_START}");
    assert!(peak <= ENDPOINT_AT_THE_START);
}

#[test]
fn an_ingress_with_its_service_costs_no_more_than_its_gate_says() {
    let _alone = ALONE.lock();
    let (shared, said, settings) = (Shared::default(), Memberships::default(), Settings::default());
    let ((install, first), (feed, second)) = (slot("install", true), slot("cluster", true));
    install.deliver(fragment(0, 0), Vec::new());
    let (publisher, _report) = Publisher::new(shared.clone(), vec![first, second], Registry::new(4, 100_000));
    let mut publisher = publisher.memberships(said.clone());
    let (mut objects, mut memory) = (Objects::default(), Memory::default());
    let class = IngressClass { controller: "tidegate.io/ingress".into(), ..IngressClass::default() };
    objects.classes.insert(Key::new("", "tidegate"), Arc::new(class));
    // Those who write back keep the last translation.
    let mut kept = Translation::default();
    let mut publish = |objects: &Objects, kept: &mut Translation| {
        *kept = translate(objects, &settings, "tidegate", &mut memory);
        feed.deliver(std::mem::take(&mut kept.fragment), Arc::clone(&kept.problems));
        for bound in kept.bindings.iter() {
            said.set(Arc::clone(&bound.cluster), vec![EndpointSpec::new(([10, 0, 0, 1], 80).into(), 1)]);
        }
        assert!(publisher.publish());
        BYTES.load(Ordering::Relaxed)
    };
    let empty = publish(&objects, &mut kept);
    for number in 0..COUNT {
        let (service, ingress) = objects_of(number);
        objects.services.insert(service.meta.key.clone(), service);
        objects.ingresses.insert(ingress.meta.key.clone(), ingress);
    }
    let full = publish(&objects, &mut kept);
    assert_eq!((shared.load().routes.len(), kept.ingresses.len(), kept.problems.len()), (COUNT, COUNT, 0));
    assert_eq!(is_dear("Ingress", full - empty, INGRESS), None);
}

fn is_dear(what: &'static str, all: usize, most: usize) -> Option<&'static str> {
    let each = all / COUNT;
    eprintln!("{what}: {each} bytes, at most {most}");
    (each > most).then_some(what)
}

/// A Service with a port, and an Ingress that leads a host to it, as a watch delivers them.
fn objects_of(number: usize) -> (Arc<Service>, Arc<Ingress>) {
    let meta = json!({ "namespace": "shop", "name": format!("web-{number:04}"), "resourceVersion": format!("{number}"),
        "uid": format!("0f3d2c1b-0000-4000-8000-{number:012}"), "creationTimestamp": "2026-01-01T00:00:00Z" });
    let ports = json!([{ "name": "http", "port": 80, "targetPort": 8080 }]);
    let backend = json!({ "service": { "name": format!("web-{number:04}"), "port": { "name": "http" } } });
    let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
    let rule = json!({ "host": format!("shop-{number:04}.example.com"), "http": { "paths": [path] } });
    let service = json!({ "metadata": meta, "spec": { "ports": ports } });
    let ingress = json!({ "metadata": meta, "spec": { "ingressClassName": "tidegate", "rules": [rule] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } });
    let service: core::Service = serde_json::from_value(service).unwrap();
    let ingress: networking::Ingress = serde_json::from_value(ingress).unwrap();
    (Arc::new(service.into()), Arc::new(ingress.into()))
}

fn cluster(n: usize) -> String {
    format!("shop-{n:04}/web:http")
}

fn followed(name: String, place: String) -> ClusterSpec {
    ClusterSpec { followed: true, ..ClusterSpec::new(name, Origin::of(place), Vec::new()) }
}

fn fragment(clusters: usize, routes: usize) -> Fragment {
    let listeners = "listeners: { http: { address: 127.0.0.1:0 } }";
    let lines: String = (0..routes).map(|n| format!("shop-{n:04}.example.com/api/: {}\n", cluster(n))).collect();
    let mut fragment = grammar::parse("ConfigMap/tidegate/routes/shop.yaml", &lines, &NoFiles).fragment;
    fragment.listeners = Config::parse("gate.yaml", listeners, Path::new("")).unwrap().listeners;
    fragment.clusters =
        (0..clusters).map(|n| followed(cluster(n), format!("Service/shop-{n:04}/web")).into()).collect();
    assert_eq!(fragment.routes.len(), routes);
    fragment
}
