//! How does a change come to serve?
//!
//! ```text
//! slots -> merge -> equal to the last? stop -> only endpoints? set_members
//!                                           -> compile (on another thread, if it takes long) -> swap -> set_members -> report
//! memberships -> set_members                   (no merge, no compile, no swap, no report)
//! ```
//!
//! A cluster that follows memberships has its endpoints before it serves, and keeps them whatever the model says of its
//! endpoints, until memberships no longer speak for it. What they say about any other cluster is kept, and changes nothing.
//!
//! Nothing is published before every required slot was filled. A snapshot that was replaced is dropped here, on the control
//! thread, once no worker reads it any more: freeing a hundred thousand routes must not delay a request.

mod changes;
mod tell;
mod work;

use super::compile::compile;
use super::members::Members;
use super::metrics::Metrics;
use super::{Shared, Snapshot};
use crate::lifecycle::apart;
use crate::model::{ClusterSpec, EndpointList, Model, Problem, Wanted};
use crate::source::memberships::Change as Said;
use crate::source::merge::Merger;
use crate::source::{Delivery, Memberships, Report, Slot, Timings};
use crate::telemetry::metrics::Registry;
use crate::upstream::Cluster;
use changes::Change;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use work::{Compile, Compiled, Work};

type OnCluster = Box<dyn FnMut(&Arc<Cluster>)>;

/// The task that publishes, on the control thread.
pub struct Publisher {
    shared: Shared,
    slots: Vec<Slot>,
    members: Members,
    registry: Registry,
    report: watch::Sender<Report>,
    /// Called with each cluster that is new, before it serves: its health checks are started there.
    on_cluster: OnCluster,
    merger: Merger,
    last: Option<Model>,
    /// Problems of the last compile, which hold until the next.
    compiled: Vec<Problem>,
    /// Which delivery of each source was taken last.
    delivered: BTreeMap<Arc<str>, u64>,
    retired: Vec<Arc<Snapshot>>,
    metrics: Metrics,
    compile: Compile,
}

impl Publisher {
    /// A publisher of what is in these slots, and the watch that it reports to.
    pub fn new(shared: Shared, slots: Vec<Slot>, registry: Registry) -> (Self, watch::Receiver<Report>) {
        let (report, reports) = watch::channel(Report::default());
        let publisher = Self {
            shared,
            slots,
            members: Members::default(),
            metrics: Metrics::new(&registry),
            registry,
            report,
            on_cluster: Box::new(|_| {}),
            merger: Merger::default(),
            last: None,
            compiled: Vec::new(),
            delivered: BTreeMap::new(),
            retired: Vec::new(),
            compile,
        };
        (publisher, reports)
    }

    /// Has each new cluster handed over before it serves.
    #[must_use]
    pub fn on_cluster(mut self, call: impl FnMut(&Arc<Cluster>) + 'static) -> Self {
        self.on_cluster = Box::new(call);
        self
    }

    /// Has clusters take their endpoints from here, where it speaks for them.
    #[must_use]
    pub fn memberships(mut self, memberships: Memberships) -> Self {
        self.members = Members::of(memberships);
        self
    }

    /// Publishes each change until every source has ended, which they do with the process.
    pub async fn run(mut self) {
        self.publish_beside().await;
        loop {
            match self.changed().await {
                Change::Wish => self.publish_beside().await,
                Change::Members => self.follow_members(),
                Change::Over => return,
            }
        }
    }

    /// Hands endpoints that memberships said to the clusters that serve.
    pub fn follow_members(&mut self) {
        let changes = self.members.take();
        self.hand_on(&changes);
    }

    fn hand_on(&self, changes: &BTreeMap<Arc<str>, Said>) {
        let started = Instant::now();
        if changes.is_empty() {
            return;
        }
        let snapshot = self.shared.load();
        for (name, endpoints) in changes {
            // One that does not serve yet gets its endpoints when it is compiled.
            if let (Some(cluster), Some(spec)) = (snapshot.cluster(name), self.of_model(name))
                && spec.followed
            {
                match endpoints {
                    Some(endpoints) => cluster.follow(endpoints),
                    None => cluster.set_members(&spec.endpoints),
                }
            }
        }
        self.metrics.members(changes.len(), started.elapsed());
    }

    /// What the last model has of a cluster.
    fn of_model(&self, cluster: &str) -> Option<&ClusterSpec> {
        self.last.as_ref()?.wanted.clusters.get(cluster).map(|spec| &**spec)
    }

    /// What memberships say of the endpoints of a cluster, where it follows them.
    fn said(&self, spec: &ClusterSpec) -> Option<&EndpointList> {
        self.members.get(&spec.name).filter(|_| spec.followed)
    }

    /// Publishes what is in the slots, unless a required one was never filled; says whether it was not.
    pub fn publish(&mut self) -> bool {
        let Some(wish) = self.wish() else { return false };
        let compiled = self.work(&wish.model).map(Work::run);
        self.finish(wish, compiled);
        true
    }

    /// The same, compiling on another thread what takes long: health checks, signals and whatever else this thread does go on. One
    /// compile at a time; what is wished meanwhile is taken together by the next.
    async fn publish_beside(&mut self) {
        let Some(wish) = self.wish() else { return };
        let compiled = match self.work(&wish.model) {
            Some(work) if work.is_small() => Some(work.run()),
            Some(work) => Some(apart(move || work.run()).await),
            None => None,
        };
        self.finish(wish, compiled);
    }

    /// What the slots hold now; `None` where a required one was never filled.
    fn wish(&mut self) -> Option<Wish> {
        // Taken first, because a source says who belongs to a cluster before it delivers the cluster.
        let members = self.members.take();
        let deliveries: Vec<_> = self.slots.iter_mut().map(|slot| (slot.is_required(), slot.take())).collect();
        if deliveries.iter().any(|(required, delivery)| *required && delivery.is_none()) {
            self.hand_on(&members);
            return None;
        }
        let numbered =
            |(slot, (_, d)): (&Slot, &(bool, Option<Delivery>))| Some((slot.name().into(), d.as_ref()?.number));
        self.delivered = self.slots.iter().zip(&deliveries).filter_map(numbered).collect();
        let deliveries: Vec<_> = deliveries.into_iter().filter_map(|(_, delivery)| delivery).collect();
        let started = Instant::now();
        let fragments: Vec<Arc<Wanted>> = deliveries.iter().map(|d| Arc::clone(&d.fragment)).collect();
        let (model, lost) = self.merger.merge(&fragments);
        Some(Wish { members, deliveries, model, lost, merge: started.elapsed() })
    }

    fn finish(&mut self, wish: Wish, compiled: Option<Compiled>) {
        let Wish { members, deliveries, model, lost, merge } = wish;
        let mut timings = Timings { merge, ..Timings::default() };
        let changed = self.last.as_ref() != Some(&model);
        if changed {
            self.apply(&model, compiled, &mut timings);
            self.last = Some(model);
        }
        // After the swap: a cluster that was closed until its TLS was said would take requests in cleartext until then.
        self.hand_on(&members);
        let problems = self.together(deliveries.iter().map(|d| &*d.problems).chain([&*lost, &*self.compiled]));
        self.tell(&problems, changed.then_some(timings));
    }

    /// Has the model serve. Nothing is compiled where only endpoints differ.
    fn apply(&mut self, model: &Model, compiled: Option<Compiled>, timings: &mut Timings) {
        let started = Instant::now();
        if let Some(Compiled { snapshot, problems, took }) = compiled {
            self.compiled = problems;
            timings.compile = took;
            let previous = self.shared.full();
            for held in previous.clusters.diff(&snapshot.clusters).into_iter().filter_map(|(_, new)| new) {
                if let Some(endpoints) = self.said(held.cluster.spec()) {
                    held.cluster.follow(endpoints);
                }
                (self.on_cluster)(&held.cluster);
            }
            drop(previous);
            self.metrics.objects(&snapshot);
            self.retired.push(self.shared.swap(snapshot));
            self.reap();
        }
        self.set_members(model);
        timings.swap = started.elapsed();
    }

    /// Endpoints of clusters that the model speaks for and has changed, as it has them now. The others have theirs already.
    fn set_members(&self, model: &Model) {
        let snapshot = self.shared.load();
        let none = Model::default();
        let changed = self.last.as_ref().unwrap_or(&none).wanted.clusters.diff(&model.wanted.clusters);
        let changed = changed.into_iter().filter_map(|(_, new)| new);
        for spec in changed.filter(|spec| !(spec.followed && self.members.have(&spec.name))) {
            if let Some(cluster) = snapshot.cluster(&spec.name) {
                cluster.set_members(&spec.endpoints);
            }
        }
    }

    /// Drops replaced snapshots that nobody reads any more.
    fn reap(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

/// What was in the slots at one time.
struct Wish {
    members: BTreeMap<Arc<str>, Said>,
    deliveries: Vec<Delivery>,
    model: Model,
    lost: Vec<Problem>,
    merge: Duration,
}

#[cfg(test)]
mod tests;
