//! How does a change come to serve?
//!
//! ```text
//! slots -> merge -> equal to the last? stop -> only endpoints? set_members
//!                                           -> compile -> swap -> set_members -> report
//! ```
//!
//! Nothing is published before every required slot was filled. A snapshot that was replaced is dropped here, on the control
//! thread, once no worker reads it any more: freeing a hundred thousand routes must not delay a request.

use super::compile::{compile, same_but_endpoints};
use super::{Shared, Snapshot};
use crate::model::{ClusterSpec, Fragment, Model, Problem, Severity};
use crate::source::{Report, Slot, Timings, merge};
use crate::telemetry::families;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};
use crate::upstream::Cluster;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How often replaced snapshots are looked at, while there are any.
const REAP: Duration = Duration::from_secs(1);

type OnCluster = Box<dyn FnMut(&Arc<Cluster>)>;

/// The task that publishes, on the control thread.
pub struct Publisher {
    shared: Shared,
    slots: Vec<Slot>,
    registry: Registry,
    report: watch::Sender<Report>,
    /// Called with each cluster that is new, before it serves: its health checks are started there.
    on_cluster: OnCluster,
    last: Option<Model>,
    /// Problems of the last compile, which hold until the next.
    compiled: Vec<Problem>,
    known: BTreeSet<Problem>,
    retired: Vec<Arc<Snapshot>>,
    metrics: Metrics,
}

impl Publisher {
    /// A publisher of what is in these slots, and the watch that it reports to.
    pub fn new(shared: Shared, slots: Vec<Slot>, registry: Registry) -> (Self, watch::Receiver<Report>) {
        let (report, reports) = watch::channel(Report::default());
        let publisher = Self {
            shared,
            slots,
            metrics: Metrics::new(&registry),
            registry,
            report,
            on_cluster: Box::new(|_| {}),
            last: None,
            compiled: Vec::new(),
            known: BTreeSet::new(),
            retired: Vec::new(),
        };
        (publisher, reports)
    }

    /// Has each new cluster handed over before it serves.
    #[must_use]
    pub fn on_cluster(mut self, call: impl FnMut(&Arc<Cluster>) + 'static) -> Self {
        self.on_cluster = Box::new(call);
        self
    }

    /// Publishes each change until every source has ended, which they do with the process.
    pub async fn run(mut self) {
        loop {
            self.publish();
            if !self.changed().await {
                return;
            }
        }
    }

    /// Publishes what is in the slots, unless a required one was never filled; says whether it was not.
    pub fn publish(&mut self) -> bool {
        let deliveries: Vec<_> = self.slots.iter_mut().map(|slot| (slot.is_required(), slot.take())).collect();
        if deliveries.iter().any(|(required, delivery)| *required && delivery.is_none()) {
            return false;
        }
        let deliveries: Vec<_> = deliveries.into_iter().filter_map(|(_, delivery)| delivery).collect();
        let started = Instant::now();
        let fragments: Vec<Arc<Fragment>> = deliveries.iter().map(|d| Arc::clone(&d.fragment)).collect();
        let (model, mut problems) = merge(&fragments);
        problems.extend(deliveries.iter().flat_map(|d| d.problems.iter().cloned()));
        let mut timings = Timings { merge: started.elapsed(), ..Timings::default() };
        let changed = self.last.as_ref() != Some(&model);
        if changed {
            self.apply(&model, &mut timings);
            self.last = Some(model);
        }
        problems.extend(self.compiled.iter().cloned());
        problems.sort();
        problems.dedup();
        self.tell(problems, changed.then_some(timings));
        true
    }

    fn apply(&mut self, model: &Model, timings: &mut Timings) {
        if self.last.as_ref().is_some_and(|last| only_endpoints_differ(last, model)) {
            let started = Instant::now();
            set_members(&self.shared.load(), &model.wanted.clusters);
            timings.swap = started.elapsed();
            return;
        }
        let started = Instant::now();
        let previous = self.shared.full();
        let (snapshot, problems) = compile(model, &previous, &self.registry);
        self.compiled = problems;
        timings.compile = started.elapsed();
        let started = Instant::now();
        for (name, held) in &snapshot.clusters {
            if previous.cluster(name).is_none_or(|old| !Arc::ptr_eq(old, &held.cluster)) {
                (self.on_cluster)(&held.cluster);
            }
        }
        drop(previous);
        self.metrics.objects(&snapshot);
        self.retired.push(self.shared.swap(snapshot));
        set_members(&self.shared.load(), &model.wanted.clusters);
        timings.swap = started.elapsed();
        self.reap();
    }

    fn tell(&mut self, problems: Vec<Problem>, published: Option<Timings>) {
        let generation = self.shared.load().generation;
        for problem in problems.iter().filter(|p| !self.known.contains(*p)) {
            match problem.severity {
                Severity::Error => tracing::error!(generation, "{problem}"),
                Severity::Warning => tracing::warn!(generation, "{problem}"),
            }
        }
        self.metrics.problems(&problems);
        self.metrics.publishes(published.is_some());
        if let Some(timings) = published {
            let took = timings.merge + timings.compile + timings.swap;
            self.metrics.published(generation, took);
            tracing::info!(
                generation,
                problems = problems.len(),
                took_us = took.as_micros(),
                "configuration published"
            );
        }
        self.known = problems.iter().cloned().collect();
        self.report.send_modify(|report| {
            report.generation = generation;
            report.problems = problems.into();
            if let Some(timings) = published {
                report.timings = timings;
                report.published_at = Some(SystemTime::now());
            }
        });
    }

    /// Drops replaced snapshots that nobody reads any more.
    fn reap(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Waits for a change in any slot; false when no source is left.
    async fn changed(&mut self) -> bool {
        loop {
            if self.retired.is_empty() {
                return any_changed(&mut self.slots).await;
            }
            if let Ok(changed) = timeout(REAP, any_changed(&mut self.slots)).await {
                return changed;
            }
            self.reap();
        }
    }
}

async fn any_changed(slots: &mut [Slot]) -> bool {
    let mut waiting: Vec<_> = slots.iter_mut().map(|slot| Some(Box::pin(slot.changed()))).collect();
    let any = poll_fn(|cx| {
        for place in &mut waiting {
            match place.as_mut().map(|changed| changed.as_mut().poll(cx)) {
                Some(Poll::Ready(true)) => return Poll::Ready(true),
                Some(Poll::Ready(false)) => *place = None,
                Some(Poll::Pending) | None => {}
            }
        }
        if waiting.iter().all(Option::is_none) { Poll::Ready(false) } else { Poll::Pending }
    });
    pin!(any).await
}

/// Endpoints of every cluster, as the model has them now. New clusters have theirs already.
fn set_members(snapshot: &Snapshot, clusters: &[ClusterSpec]) {
    for spec in clusters {
        if let Some(cluster) = snapshot.cluster(&spec.name) {
            cluster.set_members(&spec.endpoints);
        }
    }
}

fn only_endpoints_differ(a: &Model, b: &Model) -> bool {
    let (a, b) = (&a.wanted, &b.wanted);
    let alike = |(x, y): (&ClusterSpec, &ClusterSpec)| x.origin == y.origin && same_but_endpoints(x, y);
    a.clusters.len() == b.clusters.len()
        && a.clusters.iter().zip(&b.clusters).all(alike)
        && a.routes == b.routes
        && a.listeners == b.listeners
        && a.tls == b.tls
        && a.certificates == b.certificates
}

struct Metrics {
    generation: Gauge,
    published_at: Gauge,
    published: Counter,
    unchanged: Counter,
    duration: Histogram,
    errors: Gauge,
    warnings: Gauge,
    listeners: Gauge,
    routes: Gauge,
    clusters: Gauge,
    certificates: Gauge,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let publishes = |result| registry.counter(&families::CONFIG_PUBLISHES, &[("result", result)]);
        let problems = |severity| registry.gauge(&families::CONFIG_PROBLEMS, &[("severity", severity)]);
        let objects = |kind| registry.gauge(&families::CONFIG_OBJECTS, &[("kind", kind)]);
        Self {
            generation: registry.gauge(&families::CONFIG_GENERATION, &[]),
            published_at: registry.gauge(&families::CONFIG_PUBLISHED, &[]),
            published: publishes("published"),
            unchanged: publishes("unchanged"),
            duration: registry.histogram(&families::CONFIG_PUBLISH_DURATION, &[]),
            errors: problems("error"),
            warnings: problems("warning"),
            listeners: objects("listener"),
            routes: objects("route"),
            clusters: objects("cluster"),
            certificates: objects("certificate"),
        }
    }

    fn publishes(&self, published: bool) {
        if published { self.published.add(1) } else { self.unchanged.add(1) }
    }

    fn published(&self, generation: u64, took: Duration) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.published_at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.duration.observe(took);
    }

    fn problems(&self, problems: &[Problem]) {
        let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
        self.errors.set(count(errors));
        self.warnings.set(count(problems.len() - errors));
    }

    fn objects(&self, snapshot: &Snapshot) {
        self.listeners.set(count(snapshot.listeners.len()));
        self.routes.set(count(snapshot.routes.len()));
        self.clusters.set(count(snapshot.clusters.len()));
        self.certificates.set(count(snapshot.tls.certificates.len()));
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, EndpointSpec, Origin, WeightedCluster};
    use crate::route::testing::spec;
    use crate::source::slot;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn cluster(name: &str, ports: &[u16]) -> ClusterSpec {
        let endpoint = |port: &u16| EndpointSpec { address: ([127, 0, 0, 1], *port).into(), weight: 1 };
        ClusterSpec::new(name, Origin::of("f"), ports.iter().map(endpoint).collect())
    }

    fn fragment(ports: &[u16], route_to: &str) -> Fragment {
        let mut route = spec("r", &[], "/");
        route.action = Action::Forward(vec![WeightedCluster { cluster: route_to.into(), weight: 1 }]);
        Fragment { clusters: vec![cluster("c", ports)], routes: vec![route], ..Fragment::default() }
    }

    fn publisher(required: &[bool]) -> (Vec<crate::source::Feed>, Publisher, watch::Receiver<Report>, Shared) {
        let shared = Shared::default();
        let (feeds, slots) = required.iter().map(|r| slot("s", *r)).unzip();
        let (publisher, report) = Publisher::new(shared.clone(), slots, Registry::new(1, 1000));
        (feeds, publisher, report, shared)
    }

    #[test]
    fn nothing_is_published_before_every_required_slot_is_filled() {
        let (feeds, mut publisher, report, shared) = publisher(&[true, true, false]);
        feeds[0].deliver(fragment(&[1], "c"), vec![]);
        assert!(!publisher.publish());
        assert_eq!(shared.load().generation, 0);
        feeds[1].deliver(Fragment::default(), vec![]);
        assert!(publisher.publish());
        assert_eq!((shared.load().generation, report.borrow().generation), (1, 1));
    }

    #[test]
    fn an_equal_model_is_not_published_again_but_its_problems_are_told() {
        let (feeds, mut publisher, report, shared) = publisher(&[true]);
        feeds[0].deliver(fragment(&[1], "c"), vec![]);
        publisher.publish();
        feeds[0].deliver(fragment(&[1], "c"), vec![Problem::error(Origin::of("f"), "unreadable", "")]);
        publisher.publish();
        assert_eq!(shared.load().generation, 1);
        assert_eq!(report.borrow().problems.len(), 1);
    }

    #[test]
    fn other_endpoints_alone_swap_nothing() {
        let (feeds, mut publisher, _report, shared) = publisher(&[true]);
        feeds[0].deliver(fragment(&[1], "c"), vec![]);
        publisher.publish();
        let before = shared.full();
        feeds[0].deliver(fragment(&[2, 3], "c"), vec![]);
        publisher.publish();
        assert!(Arc::ptr_eq(&before, &shared.full()));
        let ports: Vec<u16> = before.cluster("c").unwrap().members().iter().map(|e| e.address.port()).collect();
        assert_eq!(ports, [2, 3]);
    }

    #[test]
    fn a_new_cluster_is_handed_over_before_it_serves_and_only_once() {
        let (feeds, publisher, _report, shared) = publisher(&[true]);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (sink, at_call) = (Rc::clone(&seen), shared.clone());
        let mut publisher = publisher.on_cluster(move |c| {
            sink.borrow_mut().push((c.spec().name.clone(), at_call.load().cluster(&c.spec().name).is_some()));
        });
        feeds[0].deliver(fragment(&[1], "c"), vec![]);
        publisher.publish();
        let mut more = fragment(&[2], "d");
        more.clusters.push(cluster("d", &[9]));
        feeds[0].deliver(more, vec![]);
        publisher.publish();
        assert_eq!(*seen.borrow(), [("c".to_owned(), false), ("d".to_owned(), false)]);
        let ports: Vec<u16> = shared.load().cluster("c").unwrap().members().iter().map(|e| e.address.port()).collect();
        assert_eq!(ports, [2], "members follow a compile too");
    }

    #[test]
    fn a_replaced_snapshot_is_kept_until_nobody_reads_it() {
        let (feeds, mut publisher, _report, shared) = publisher(&[true]);
        feeds[0].deliver(fragment(&[1], "c"), vec![]);
        publisher.publish();
        let reader = shared.full();
        feeds[0].deliver(fragment(&[1], "none"), vec![]);
        publisher.publish();
        assert_eq!(publisher.retired.len(), 1);
        drop(reader);
        publisher.reap();
        assert!(publisher.retired.is_empty());
    }

    #[test]
    fn problems_are_counted_and_go_away_when_they_are_solved() {
        let (feeds, mut publisher, report, _shared) = publisher(&[true]);
        feeds[0].deliver(fragment(&[1], "none"), vec![]);
        publisher.publish();
        assert!(report.borrow().problems.iter().any(|p| p.what.contains("no cluster \"none\"")));
        assert_eq!(publisher.metrics.errors.get(), 1);
        feeds[0].deliver(fragment(&[1], "c"), vec![]);
        publisher.publish();
        assert!(report.borrow().problems.is_empty());
        assert_eq!(publisher.metrics.errors.get(), 0);
    }

    #[tokio::test]
    async fn the_task_ends_with_its_sources_and_publishes_what_they_left() {
        let (feeds, publisher, report, _shared) = publisher(&[true]);
        let task = async { publisher.run().await };
        let source = async {
            tokio::task::yield_now().await;
            feeds.into_iter().for_each(|feed| feed.deliver(fragment(&[1], "c"), vec![]));
        };
        tokio::join!(task, source);
        assert_eq!(report.borrow().generation, 1);
    }
}
