//! What serves, and when, whatever sources and memberships say in which order?

use super::*;
use crate::model::{Action, EndpointSpec, Fragment, Origin, WeightedCluster};
use crate::route::testing::spec;
use crate::source::slot;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread::{self, ThreadId};

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
    assert_eq!(report.borrow().delivered["s"], 2, "the delivery that changed nothing is told as taken all the same");
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
    let ports: Vec<u16> = shared.load().cluster("c").unwrap().members().iter().map(|e| e.address().port()).collect();
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

/// A publisher of one source, which follows what is said of members.
fn following() -> (Vec<crate::source::Feed>, Memberships, Publisher, Shared) {
    let (feeds, publisher, _report, shared) = publisher(&[true]);
    let said = Memberships::default();
    (feeds, said.clone(), publisher.memberships(said), shared)
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
    let (feeds, said, mut publisher, shared) = following();
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
    let (feeds, said, mut publisher, shared) = following();
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
    let (feeds, said, mut publisher, shared) = following();
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
    let (feeds, said, mut publisher, shared) = following();
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
        let mut large = fragment(&[], "c");
        large.clusters.extend((0..1000).map(|n| Arc::new(cluster(&format!("e{n}"), &[]))));
        feeds[0].deliver(large, vec![]);
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

/// The threads that compiled.
static COMPILED_BY: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

fn observed(model: &Model, previous: &Snapshot, registry: &Registry) -> (Snapshot, Vec<Problem>) {
    COMPILED_BY.lock().unwrap().push(thread::current().id());
    compile(model, previous, registry)
}

#[tokio::test]
async fn the_control_thread_compiles_what_is_small_itself_and_nothing_else() {
    let (feeds, mut publisher, report, _shared) = publisher(&[true]);
    publisher.compile = observed;
    let with_route = |path: &str| {
        let mut fragment = fragment(&[], "c");
        fragment.routes.push(spec("s", &["s.test"], path).into());
        fragment
    };
    let source = async {
        for (generation, path) in (1..).zip(["/", "/other", "~^/[a-z]+$", "/"]) {
            feeds[0].deliver(with_route(path), vec![]);
            until(|| report.borrow().generation == generation).await;
        }
        drop(feeds);
    };
    tokio::join!(publisher.run(), source);
    let here = |by: &ThreadId| *by == thread::current().id();
    let by: Vec<bool> = COMPILED_BY.lock().unwrap().iter().map(here).collect();
    assert_eq!(by, [true, true, false, true], "an expression may take long");
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
