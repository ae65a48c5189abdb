//! How does a change come to serve?
//!
//! ```text
//! slots -> merge -> equal to the last? stop -> only endpoints? set_members
//!                                           -> compile (on another thread) -> swap -> set_members -> report
//! memberships -> set_members                   (no merge, no compile, no swap, no report)
//! ```
//!
//! A cluster that follows memberships has its endpoints before it serves, and keeps them whatever the model says of its
//! endpoints, until memberships no longer speak for it. What they say about any other cluster is kept, and changes nothing.
//!
//! Nothing is published before every required slot was filled. A snapshot that was replaced is dropped here, on the control
//! thread, once no worker reads it any more: freeing a hundred thousand routes must not delay a request.

use super::compile::{compile, same_but_endpoints};
use super::members::Members;
use super::metrics::Metrics;
use super::{Shared, Snapshot};
use crate::lifecycle::apart;
use crate::model::{ClusterSpec, EndpointList, Model, Problem, Severity, Wanted};
use crate::source::memberships::Change as Said;
use crate::source::merge::Merger;
use crate::source::{Delivery, Memberships, Report, Slot, Timings};
use crate::telemetry::metrics::Registry;
use crate::upstream::Cluster;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How often replaced snapshots are looked at, while there are any.
const REAP: Duration = Duration::from_secs(1);

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
        self.publish_apart().await;
        loop {
            match self.changed().await {
                Change::Wish => self.publish_apart().await,
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
        let compiled = self.work(&wish).map(Work::run);
        self.finish(wish, compiled);
        true
    }

    /// The same, compiling on another thread: health checks, signals and whatever else this thread does go on. One compile at a
    /// time; what is wished meanwhile is taken together by the next.
    async fn publish_apart(&mut self) {
        let Some(wish) = self.wish() else { return };
        let compiled = match self.work(&wish) {
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

    /// What is to be compiled for it, if anything.
    fn work(&self, wish: &Wish) -> Option<Work> {
        let same = |last: &Model| *last == wish.model || only_endpoints_differ(last, &wish.model);
        let (model, previous) = (wish.model.clone(), self.shared.full());
        let (registry, compile) = (self.registry.clone(), self.compile);
        (!self.last.as_ref().is_some_and(same)).then_some(Work { model, previous, registry, compile })
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

    /// Problems from everywhere, sorted; the very list that was told last where nothing is new, so that thousands are not copied
    /// with every change.
    fn together<'a>(&self, all: impl Iterator<Item = &'a [Problem]>) -> Arc<[Problem]> {
        let mut all: Vec<&Problem> = all.flatten().collect();
        all.sort();
        all.dedup();
        let told = Arc::clone(&self.report.borrow().problems);
        if told.iter().eq(all.iter().copied()) { told } else { all.into_iter().cloned().collect() }
    }

    fn tell(&mut self, problems: &Arc<[Problem]>, published: Option<Timings>) {
        let generation = self.shared.load().generation;
        let told = Arc::clone(&self.report.borrow().problems);
        if !Arc::ptr_eq(&told, problems) {
            for problem in problems.iter().filter(|p| told.binary_search(p).is_err()) {
                match problem.severity {
                    Severity::Error => tracing::error!(generation, "{problem}"),
                    Severity::Warning => tracing::warn!(generation, "{problem}"),
                }
            }
            self.metrics.problems(problems);
        }
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
        self.report.send_modify(|report| {
            report.generation = generation;
            report.problems = Arc::clone(problems);
            report.delivered.clone_from(&self.delivered);
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

    /// Waits for a change, in a slot before all else: its publish takes memberships along.
    async fn changed(&mut self) -> Change {
        loop {
            let (slots, members) = (&mut self.slots, &self.members);
            let change = async {
                tokio::select! {
                    biased;
                    any = any_changed(slots) => if any { Change::Wish } else { Change::Over },
                    () = members.changed() => Change::Members,
                }
            };
            if self.retired.is_empty() {
                return change.await;
            }
            if let Ok(change) = timeout(REAP, change).await {
                return change;
            }
            self.reap();
        }
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

type Compile = fn(&Model, &Snapshot, &Registry) -> (Snapshot, Vec<Problem>);

/// What is compiled from what.
struct Work {
    model: Model,
    previous: Arc<Snapshot>,
    registry: Registry,
    compile: Compile,
}

/// What came of it.
struct Compiled {
    snapshot: Snapshot,
    problems: Vec<Problem>,
    took: Duration,
}

impl Work {
    fn run(self) -> Compiled {
        let started = Instant::now();
        let (snapshot, problems) = (self.compile)(&self.model, &self.previous, &self.registry);
        Compiled { snapshot, problems, took: started.elapsed() }
    }
}

/// What the publisher has to follow.
enum Change {
    /// A source delivered.
    Wish,
    /// Memberships were said.
    Members,
    /// No source is left.
    Over,
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

fn only_endpoints_differ(a: &Model, b: &Model) -> bool {
    let (a, b) = (&a.wanted, &b.wanted);
    let alike = |(x, y): (Option<&Arc<ClusterSpec>>, Option<&Arc<ClusterSpec>>)| {
        x.zip(y).is_some_and(|(x, y)| x.origin == y.origin && same_but_endpoints(x, y))
    };
    a.routes == b.routes
        && a.clusters.diff(&b.clusters).into_iter().all(alike)
        && a.listeners == b.listeners
        && a.tls == b.tls
        && a.certificates == b.certificates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, EndpointSpec, Fragment, Origin, WeightedCluster};
    use crate::route::testing::spec;
    use crate::source::slot;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};

    fn cluster(name: &str, ports: &[u16]) -> ClusterSpec {
        let endpoint = |port: &u16| EndpointSpec::new(([127, 0, 0, 1], *port).into(), 1);
        let spec = ClusterSpec::new(name, Origin::of("f"), ports.iter().map(endpoint).collect());
        ClusterSpec { followed: true, ..spec }
    }

    fn fragment(ports: &[u16], route_to: &str) -> Fragment {
        let mut route = spec("r", &[], "/");
        route.action = Action::Forward(vec![WeightedCluster { cluster: route_to.into(), weight: 1 }]);
        Fragment { clusters: vec![cluster("c", ports).into()], routes: vec![route.into()], ..Fragment::default() }
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
        assert_eq!(
            report.borrow().delivered["s"],
            2,
            "the delivery that changed nothing is told as taken all the same"
        );
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
        let ports: Vec<u16> = before.cluster("c").unwrap().members().iter().map(|e| e.address().port()).collect();
        assert_eq!(ports, [2, 3]);
    }

    #[test]
    fn a_new_cluster_is_handed_over_before_it_serves_and_only_once() {
        let (feeds, publisher, _report, shared) = publisher(&[true]);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (sink, at_call) = (Rc::clone(&seen), shared.clone());
        let mut publisher = publisher.on_cluster(move |c| {
            sink.borrow_mut().push((c.spec().name.to_string(), at_call.load().cluster(&c.spec().name).is_some()));
        });
        feeds[0].deliver(fragment(&[1], "c"), vec![]);
        publisher.publish();
        let mut more = fragment(&[2], "d");
        more.clusters.push(cluster("d", &[9]).into());
        feeds[0].deliver(more, vec![]);
        publisher.publish();
        assert_eq!(*seen.borrow(), [("c".to_owned(), false), ("d".to_owned(), false)]);
        let ports: Vec<u16> =
            shared.load().cluster("c").unwrap().members().iter().map(|e| e.address().port()).collect();
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

    fn endpoints(ports: &[u16]) -> Vec<EndpointSpec> {
        cluster("", ports).endpoints
    }

    fn ports(shared: &Shared, name: &str) -> Vec<u16> {
        shared.load().cluster(name).unwrap().members().iter().map(|e| e.address().port()).collect()
    }

    #[test]
    fn members_are_there_before_their_cluster_serves_whichever_was_said_first() {
        let (feeds, publisher, _report, _shared) = publisher(&[true]);
        let said = Memberships::default();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&seen);
        let mut publisher = publisher.memberships(said.clone()).on_cluster(move |c| {
            let ports: Vec<u16> = c.members().iter().map(|e| e.address().port()).collect();
            sink.borrow_mut().push((c.spec().name.to_string(), ports));
        });
        said.set("c", endpoints(&[7]));
        publisher.follow_members();
        feeds[0].deliver(fragment(&[], "c"), vec![]);
        said.set("d", endpoints(&[8, 9]));
        publisher.publish();
        let mut more = fragment(&[], "d");
        more.clusters.push(cluster("d", &[]).into());
        feeds[0].deliver(more, vec![]);
        publisher.publish();
        assert_eq!(*seen.borrow(), [("c".to_owned(), vec![7]), ("d".to_owned(), vec![8, 9])]);
    }

    #[test]
    fn members_that_come_with_new_settings_never_serve_by_the_old_ones() {
        let (feeds, publisher, _report, shared) = publisher(&[true]);
        let said = Memberships::default();
        let before = Rc::new(RefCell::new(Vec::new()));
        let (sink, at_call) = (Rc::clone(&before), shared.clone());
        let mut publisher = publisher.memberships(said.clone()).on_cluster(move |_| {
            let old = at_call.load().cluster("c").map(|old| old.members().len());
            sink.borrow_mut().push(old);
        });
        said.set("c", endpoints(&[]));
        feeds[0].deliver(fragment(&[], "c"), vec![]);
        publisher.publish();
        let mut new = fragment(&[], "c");
        let settings = ClusterSpec { protocol: crate::model::UpstreamProtocol::Http2, ..cluster("c", &[]) };
        new.clusters = vec![settings.into()];
        said.set("c", endpoints(&[7]));
        feeds[0].deliver(new, vec![]);
        publisher.publish();
        assert_eq!(*before.borrow(), [None, Some(0)], "the closed cluster stayed closed until it was replaced");
        assert_eq!(ports(&shared, "c"), [7]);
    }

    #[test]
    fn a_change_of_members_swaps_compiles_and_reports_nothing() {
        let (feeds, publisher, report, shared) = publisher(&[true]);
        let said = Memberships::default();
        let mut publisher = publisher.memberships(said.clone());
        feeds[0].deliver(fragment(&[], "c"), vec![]);
        publisher.publish();
        let (before, mut report) = (shared.full(), report);
        report.mark_unchanged();
        said.set("c", endpoints(&[7, 8]));
        publisher.follow_members();
        assert_eq!(ports(&shared, "c"), [7, 8]);
        assert!(Arc::ptr_eq(&before, &shared.full()) && !report.has_changed().unwrap());
        assert_eq!(publisher.metrics.members.get(), 1);
        said.set("c", endpoints(&[7, 8]));
        publisher.follow_members();
        assert_eq!(publisher.metrics.members.get(), 1, "the same once more is no change");
    }

    #[test]
    fn no_publish_wipes_members_that_the_model_does_not_know() {
        let (feeds, publisher, _report, shared) = publisher(&[true]);
        let said = Memberships::default();
        let mut publisher = publisher.memberships(said.clone());
        said.set("c", endpoints(&[7]));
        feeds[0].deliver(fragment(&[], "c"), vec![]);
        publisher.publish();
        assert_eq!(ports(&shared, "c"), [7]);
        feeds[0].deliver(fragment(&[1], "c"), vec![]);
        publisher.publish();
        assert_eq!(ports(&shared, "c"), [7], "only endpoints differ");
        let mut other = fragment(&[1], "c");
        Arc::make_mut(&mut other.clusters[0]).max_idle = 1;
        let (old, feed) = (Arc::clone(shared.load().cluster("c").unwrap()), &feeds[0]);
        feed.deliver(other, vec![]);
        publisher.publish();
        assert!(!Arc::ptr_eq(&old, shared.load().cluster("c").unwrap()));
        assert_eq!(ports(&shared, "c"), [7], "a cluster that is made anew");
    }

    #[test]
    fn where_memberships_fall_silent_the_model_speaks_again() {
        let (feeds, publisher, _report, shared) = publisher(&[true]);
        let said = Memberships::default();
        let mut publisher = publisher.memberships(said.clone());
        said.set("c", endpoints(&[7]));
        feeds[0].deliver(fragment(&[1, 2], "c"), vec![]);
        publisher.publish();
        assert_eq!(ports(&shared, "c"), [7]);
        said.remove("c");
        publisher.follow_members();
        assert_eq!(ports(&shared, "c"), [1, 2]);
        said.set("c", endpoints(&[]));
        publisher.follow_members();
        assert!(ports(&shared, "c").is_empty(), "an empty word is a word");
    }

    #[test]
    fn a_cluster_that_follows_no_memberships_keeps_the_endpoints_of_the_model() {
        let (feeds, publisher, _report, shared) = publisher(&[true]);
        let said = Memberships::default();
        let mut publisher = publisher.memberships(said.clone());
        said.set("c", endpoints(&[]));
        let mut of_a_file = fragment(&[1], "c");
        of_a_file.clusters = vec![ClusterSpec { followed: false, ..cluster("c", &[1]) }.into()];
        feeds[0].deliver(of_a_file, Vec::new());
        publisher.publish();
        assert_eq!(ports(&shared, "c"), [1]);
        said.set("c", endpoints(&[7]));
        publisher.follow_members();
        assert_eq!(ports(&shared, "c"), [1]);
    }

    #[test]
    fn a_cluster_that_goes_and_comes_back_has_the_members_of_its_last_word() {
        let (feeds, publisher, _report, shared) = publisher(&[true]);
        let said = Memberships::default();
        let mut publisher = publisher.memberships(said.clone());
        said.set("c", endpoints(&[7]));
        feeds[0].deliver(fragment(&[], "c"), vec![]);
        publisher.publish();
        feeds[0].deliver(Fragment::default(), vec![]);
        publisher.publish();
        said.set("c", endpoints(&[8]));
        publisher.follow_members();
        feeds[0].deliver(fragment(&[], "c"), vec![]);
        publisher.publish();
        assert_eq!(ports(&shared, "c"), [8]);
    }

    /// Where the control thread says that it goes on.
    static GOES_ON: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
    static COMPILES: AtomicUsize = AtomicUsize::new(0);

    /// Takes as long as the control thread needs to do something else.
    fn patient(model: &Model, previous: &Snapshot, registry: &Registry) -> (Snapshot, Vec<Problem>) {
        COMPILES.fetch_add(1, Ordering::SeqCst);
        let goes_on = GOES_ON.lock().unwrap().as_ref().unwrap().recv_timeout(Duration::from_secs(20));
        goes_on.expect("the control thread does not wait for a compile");
        compile(model, previous, registry)
    }

    async fn until(holds: impl Fn() -> bool) {
        while !holds() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_control_thread_goes_on_while_one_configuration_is_compiled_at_a_time() {
        let (feeds, mut publisher, report, shared) = publisher(&[true]);
        let said = Memberships::default();
        let (go_on, goes_on) = mpsc::channel();
        *GOES_ON.lock().unwrap() = Some(goes_on);
        publisher.compile = patient;
        let publisher = publisher.memberships(said.clone());
        let others = async {
            feeds[0].deliver(fragment(&[], "c"), vec![]);
            until(|| COMPILES.load(Ordering::SeqCst) == 1).await;
            // Of what is wished meanwhile the newest counts, and members that are said meanwhile come with it.
            feeds[0].deliver(fragment(&[], "d"), vec![]);
            said.set("c", endpoints(&[7]));
            let mut newest = fragment(&[], "c");
            newest.clusters.push(cluster("d", &[9]).into());
            feeds[0].deliver(newest, vec![]);
            assert_eq!((COMPILES.load(Ordering::SeqCst), report.borrow().generation), (1, 0));
            go_on.send(()).unwrap();
            until(|| COMPILES.load(Ordering::SeqCst) == 2).await;
            assert_eq!((report.borrow().generation, ports(&shared, "c").len()), (1, 0));
            go_on.send(()).unwrap();
            until(|| report.borrow().generation == 2).await;
            assert_eq!((ports(&shared, "c"), ports(&shared, "d")), (vec![7], vec![9]));
            drop(feeds);
        };
        tokio::join!(publisher.run(), others);
        assert_eq!(COMPILES.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_task_follows_both_roads_in_any_order() {
        for first in [true, false] {
            let (feeds, publisher, _report, shared) = publisher(&[true]);
            let said = Memberships::default();
            let publisher = publisher.memberships(said.clone());
            let task = async { publisher.run().await };
            let source = async {
                for round in 1..50_u16 {
                    let wish = || assert!(feeds[0].deliver(fragment(&[round], "c"), vec![]) > 0);
                    let word = || said.set("c", endpoints(&[1000 + round]));
                    if first {
                        (word(), wish())
                    } else {
                        (wish(), word())
                    };
                    // The first round is compiled, on another thread.
                    until(|| shared.load().cluster("c").is_some()).await;
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    assert_eq!(ports(&shared, "c"), [1000 + round]);
                    word();
                    said.set("c", endpoints(&[2000 + round]));
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    assert_eq!(ports(&shared, "c"), [2000 + round]);
                }
                drop(feeds);
            };
            tokio::join!(task, source);
        }
    }

    #[tokio::test]
    async fn the_task_ends_with_its_sources_and_publishes_what_they_left() {
        let (feeds, publisher, report, _shared) = publisher(&[true]);
        let task = async { publisher.run().await };
        let source = async {
            tokio::task::yield_now().await;
            feeds.into_iter().for_each(|feed| assert_eq!(feed.deliver(fragment(&[1], "c"), vec![]), 1));
        };
        tokio::join!(task, source);
        assert_eq!(report.borrow().generation, 1);
    }
}
