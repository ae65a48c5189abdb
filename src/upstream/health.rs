//! Which endpoints fail their active checks?
//!
//! One task for each cluster, which runs one for each endpoint. An endpoint is taken for healthy until so many checks in a row
//! failed: a proxy that has just started must not refuse everything until its first checks are through, and passive ejection
//! is there from the first request.

use super::check::{self, CheckError};
use super::cluster::Cluster;
use super::endpoint::{Endpoint, EndpointId};
use super::random;
use crate::model::HealthCheckSpec;
use crate::telemetry::families;
use crate::telemetry::metrics::Counter;
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};

/// Checks all members of a cluster as they change, until the cluster is dropped; at once done where it has no checks. To be
/// run on the control thread.
pub async fn run(cluster: Weak<Cluster>) {
    let Some(mut changes) = cluster.upgrade().filter(|c| c.spec().health_check.is_some()).map(|c| c.changes()) else {
        return;
    };
    let mut tasks = JoinSet::new();
    let mut watched = HashMap::new();
    loop {
        match cluster.upgrade() {
            Some(strong) => follow(&strong, &mut tasks, &mut watched),
            None => return,
        }
        while tasks.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Watches new members, and no longer those that left.
fn follow(cluster: &Arc<Cluster>, tasks: &mut JoinSet<()>, watched: &mut HashMap<EndpointId, AbortHandle>) {
    let Some(spec) = &cluster.spec().health_check else { return };
    let members = cluster.members();
    let stays: HashMap<EndpointId, &Arc<Endpoint>> = members.iter().map(|e| (e.id, e)).collect();
    watched.retain(|id, task| {
        let stay = stays.contains_key(id);
        if !stay {
            task.abort();
        }
        stay
    });
    for (id, endpoint) in stays {
        watched.entry(id).or_insert_with(|| {
            let watch = Watch::new(cluster, endpoint, spec.clone());
            tasks.spawn(watch.run())
        });
    }
}

/// The checks of one endpoint.
struct Watch {
    cluster: Weak<Cluster>,
    endpoint: Arc<Endpoint>,
    spec: HealthCheckSpec,
    /// Answers in a row that speak against the verdict as it is.
    against: u32,
    successes: Counter,
    failures: Counter,
}

impl Watch {
    fn new(cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>, spec: HealthCheckSpec) -> Self {
        let counter = |result| cluster.ward.meters.rare(&families::HEALTH_CHECKS, Some(("result", result)));
        Self {
            cluster: Arc::downgrade(cluster),
            endpoint: Arc::clone(endpoint),
            spec,
            against: 0,
            successes: counter("success"),
            failures: counter("failure"),
        }
    }

    async fn run(mut self) {
        // The first soon, but not all endpoints of all clusters at the same time.
        tokio::time::sleep(share(self.spec.interval, 0, 10)).await;
        while let Some(cluster) = self.cluster.upgrade() {
            let asked = tokio::time::timeout(self.spec.timeout, check::ask(&cluster, &self.endpoint, &self.spec.check));
            let answer = asked.await;
            self.hear(&cluster, answer);
            drop(cluster);
            tokio::time::sleep(share(self.spec.interval, 90, 110)).await;
        }
    }

    fn hear(&mut self, cluster: &Cluster, answer: Result<Result<(), CheckError>, tokio::time::error::Elapsed>) {
        let healthy = matches!(answer, Ok(Ok(())));
        let (counter, threshold) = match healthy {
            true => (&self.successes, self.spec.healthy),
            false => (&self.failures, self.spec.unhealthy),
        };
        counter.add(1);
        if healthy == self.endpoint.is_healthy() {
            self.against = 0;
            return;
        }
        self.against += 1;
        if self.against < threshold || !cluster.ward.judge(&self.endpoint, healthy) {
            return;
        }
        self.against = 0;
        let (endpoint, cluster_name) = (self.endpoint.address, &*cluster.spec().name);
        if healthy {
            if !cluster.spec().slow_start.is_zero() {
                self.endpoint.warm_up();
            }
            tracing::info!(%endpoint, cluster = cluster_name, "endpoint healthy");
        } else {
            tracing::warn!(%endpoint, cluster = cluster_name, reason = reason(&answer), "endpoint unhealthy");
        }
    }
}

/// A random share of a time, in percent.
fn share(time: Duration, from: u32, to: u32) -> Duration {
    let percent = from + u32::try_from(random::below(u64::from(to - from) + 1)).unwrap_or(0);
    time.saturating_mul(percent) / 100
}

/// The error and all its sources in one line.
fn reason(answer: &Result<Result<(), CheckError>, tokio::time::error::Elapsed>) -> String {
    let error = match answer {
        Ok(Ok(())) => return String::new(),
        Ok(Err(error)) => error,
        Err(_) => return "no answer in time".into(),
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
