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

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidegate::config::Config;
use tidegate::config::decode::NoFiles;
use tidegate::model::{ClusterSpec, EndpointSpec, Fragment, Origin};
use tidegate::snapshot::{Publisher, Shared};
use tidegate::source::{Memberships, grammar, slot};
use tidegate::telemetry::Registry;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
/// Bytes that are in use.
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps this function's own contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; the pointer came from `alloc` here, hence from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How many of each.
const COUNT: usize = 2_000;
/// What a route may cost, with a host, a path, one cluster and no filters.
const ROUTE: usize = 2_400;
/// What a cluster may cost whose endpoints come by memberships, without any.
const CLUSTER: usize = 1_650;
/// What an endpoint may cost.
const ENDPOINT: usize = 850;

#[test]
fn a_route_a_cluster_and_an_endpoint_cost_no_more_than_their_gates_say() {
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
        said.set(&cluster(n), vec![EndpointSpec::new(([10, 0, 0, 1], 80).into(), 1)]);
    }
    let endpoints = publish(fragment(COUNT, COUNT));
    let listener = shared.listener("http").unwrap();
    assert_eq!((shared.load().clusters.len(), listener.table.routes().len()), (COUNT, COUNT));
    let mut dear = Vec::new();
    for (what, before, after, most) in [
        ("cluster", empty, clusters, CLUSTER),
        ("route", clusters, routes, ROUTE),
        ("endpoint", routes, endpoints, ENDPOINT),
    ] {
        let each = (after - before) / COUNT;
        eprintln!("{what}: {each} bytes, at most {most}");
        if each > most {
            dear.push(what);
        }
    }
    assert!(dear.is_empty(), "dearer than their gates say: {dear:?}");
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
