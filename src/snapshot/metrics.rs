//! What is counted and measured of publishes?

use super::Snapshot;
use crate::model::{Problem, Severity};
use crate::telemetry::families;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Handles.
pub(super) struct Metrics {
    generation: Gauge,
    published_at: Gauge,
    published: Counter,
    unchanged: Counter,
    duration: Histogram,
    pub(super) members: Counter,
    members_duration: Histogram,
    pub(super) errors: Gauge,
    warnings: Gauge,
    listeners: Gauge,
    routes: Gauge,
    clusters: Gauge,
    certificates: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let publishes = |result| registry.counter(&families::CONFIG_PUBLISHES, &[("result", result)]);
        let problems = |severity| registry.gauge(&families::CONFIG_PROBLEMS, &[("severity", severity)]);
        let objects = |kind| registry.gauge(&families::CONFIG_OBJECTS, &[("kind", kind)]);
        Self {
            generation: registry.gauge(&families::CONFIG_GENERATION, &[]),
            published_at: registry.gauge(&families::CONFIG_PUBLISHED, &[]),
            published: publishes("published"),
            unchanged: publishes("unchanged"),
            duration: registry.histogram(&families::CONFIG_PUBLISH_DURATION, &[]),
            members: registry.counter(&families::MEMBERSHIP_CHANGES, &[]),
            members_duration: registry.histogram(&families::MEMBERSHIP_DURATION, &[]),
            errors: problems("error"),
            warnings: problems("warning"),
            listeners: objects("listener"),
            routes: objects("route"),
            clusters: objects("cluster"),
            certificates: objects("certificate"),
        }
    }

    pub(super) fn publishes(&self, published: bool) {
        if published { self.published.add(1) } else { self.unchanged.add(1) }
    }

    pub(super) fn published(&self, generation: u64, took: Duration) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.published_at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.duration.observe(took);
    }

    pub(super) fn members(&self, clusters: usize, took: Duration) {
        self.members.add(clusters as u64);
        self.members_duration.observe(took);
    }

    pub(super) fn problems(&self, problems: &[Problem]) {
        let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
        self.errors.set(count(errors));
        self.warnings.set(count(problems.len() - errors));
    }

    pub(super) fn objects(&self, snapshot: &Snapshot) {
        self.listeners.set(count(snapshot.listeners.len()));
        self.routes.set(count(snapshot.routes.len()));
        self.clusters.set(count(snapshot.clusters.len()));
        self.certificates.set(count(snapshot.tls.certificates.len()));
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
