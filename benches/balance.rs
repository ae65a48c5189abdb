//! What does picking an endpoint cost, and all that a request does with a cluster beside moving bytes?
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench that fails should fail where it stands")]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tidegate::model::{BalancePolicy, ClusterSpec, EndpointSpec, HashKey, Origin};
use tidegate::telemetry::metrics::{Registry, set_worker};
use tidegate::upstream::{Cluster, Outcome, Pool};

/// So many endpoints; `weights` says whether they differ.
fn cluster(balance: BalancePolicy, size: u32, weights: bool) -> Arc<Cluster> {
    let endpoint = |n: u32| {
        let address = SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + n), 80));
        EndpointSpec::new(address, if weights { 1 + n % 5 } else { 1 })
    };
    let spec = ClusterSpec::new("bench", Origin::default(), (0..size).map(endpoint).collect());
    Cluster::new(&ClusterSpec { balance, ..spec }, None, &Registry::new(1, 1000))
}

fn pick(criterion: &mut Criterion) {
    let policies = [
        ("least_request", BalancePolicy::LeastRequest),
        ("round_robin", BalancePolicy::RoundRobin),
        ("random", BalancePolicy::Random),
        ("hash", BalancePolicy::Hash(HashKey::Source)),
    ];
    for (name, balance) in policies {
        let mut group = criterion.benchmark_group(format!("pick/{name}"));
        for size in [1, 3, 100, 10_000] {
            for weights in [false, true] {
                let cluster = cluster(balance.clone(), size, weights);
                let id = BenchmarkId::new(if weights { "weighted" } else { "even" }, size);
                let mut key = 0u64;
                group.bench_function(id, |b| {
                    b.iter(|| {
                        key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                        let hash = matches!(cluster.spec().balance, BalancePolicy::Hash(_)).then_some(key);
                        black_box(cluster.pick(&[], hash).unwrap().id)
                    });
                });
            }
        }
        group.finish();
    }
}

/// The first request of a cluster, which makes its endpoints: as many as may wait for one.
fn first(criterion: &mut Criterion) {
    criterion.bench_function("first/4096", |b| {
        let made = || cluster(BalancePolicy::LeastRequest, 4096, false);
        b.iter_batched(
            made,
            |cluster| {
                black_box(cluster.pick(&[], None).unwrap().id);
                cluster
            },
            BatchSize::SmallInput,
        );
    });
}

/// Everything of a request that goes out on a pooled connection and is answered.
fn request(criterion: &mut Criterion) {
    set_worker(0);
    for (name, max_in_flight) in [("request/without_limit", 0), ("request/with_limit", 100)] {
        let spec = cluster(BalancePolicy::LeastRequest, 3, false).spec().clone();
        let cluster = Cluster::new(&ClusterSpec { max_in_flight, ..spec }, None, &Registry::new(1, 1000));
        let pool = Pool::new();
        for endpoint in cluster.members().iter() {
            pool.checkin(endpoint, 0u64, 128, cluster.spec().idle_timeout);
        }
        criterion.bench_function(name, |b| {
            b.iter(|| {
                cluster.budget().on_request();
                let endpoint = cluster.pick(&[], None).unwrap();
                let permit = cluster.try_admit(&endpoint).unwrap();
                let connection = pool.checkout(endpoint.id).unwrap();
                endpoint.report(Outcome::Status(200));
                pool.checkin(&endpoint, connection, 128, cluster.spec().idle_timeout);
                drop(permit);
            });
        });
    }
}

criterion_group!(benches, pick, first, request);
criterion_main!(benches);
