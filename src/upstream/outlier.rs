//! When is an endpoint put aside for what real traffic met, and when does it come back?
//!
//! Failures in a row eject it, never more than half of the members at once, so that a fault of the whole service (or of the
//! network in front of it) does not leave one endpoint with all the traffic; a cluster of one never ejects. When its time is
//! over, one request probes it: a success brings it back, a failure puts it aside for twice as long, at most ten times the first
//! time. A probe that never reports (a client that left) is followed by another one after the first ejection time.

use super::endpoint::{EJECTED, Endpoint, FAILING, LEFT, PROBING};
use super::meters::Meters;
use crate::model::OutlierSpec;
use crate::telemetry::families;
use crate::telemetry::metrics::Counter;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Longest ejection, in first ejections.
const LONGEST: u32 = 10;

/// What the endpoints of a cluster share. Changes of standing (rare) take its lock; requests read atomics only.
#[derive(Debug)]
pub(crate) struct Ward {
    pub(crate) meters: Meters,

    origin: Instant,
    /// Milliseconds since `origin` at which a probe is due; `u64::MAX`: nobody is ejected.
    next_probe: AtomicU64,
    census: Mutex<Census>,
}

#[derive(Debug, Default)]
struct Census {
    members: usize,
    ejected: usize,
    ejections: Option<Counter>,
}

impl Ward {
    pub(crate) fn new(meters: Meters) -> Self {
        let (origin, next_probe) = (Instant::now(), AtomicU64::new(u64::MAX));
        Self { meters, origin, next_probe, census: Mutex::default() }
    }

    fn spec(&self) -> Option<&OutlierSpec> {
        self.meters.spec().outlier.as_ref()
    }

    /// How many requests each endpoint may have in flight; 0: any number.
    pub(crate) fn places(&self) -> usize {
        self.meters.spec().max_in_flight as usize
    }

    /// Milliseconds since this cluster was made.
    pub(crate) fn now(&self) -> u64 {
        millis(self.origin.elapsed())
    }

    fn census(&self) -> MutexGuard<'_, Census> {
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A failure, the `failures`th in a row.
    pub(crate) fn failed(&self, endpoint: &Endpoint, failures: u32) {
        let Some(spec) = self.spec() else { return };
        if endpoint.has(EJECTED) {
            if endpoint.has(PROBING) {
                self.eject_again(endpoint, spec);
            }
        } else if failures >= spec.failures.max(1) {
            self.eject(endpoint, spec);
        }
    }

    fn eject(&self, endpoint: &Endpoint, spec: &OutlierSpec) {
        let mut census = self.census();
        if endpoint.has(EJECTED | LEFT) || endpoint.weight() == 0 || census.ejected >= census.members / 2 {
            return;
        }
        census.ejected += 1;
        census.ejections.get_or_insert_with(|| self.meters.rare(&families::EJECTIONS, None)).add(1);
        endpoint.past().ejections.store(1, Relaxed);
        self.aside(endpoint, millis(spec.ejection));
        let before = endpoint.standing();
        endpoint.set(EJECTED);
        self.meters.moved(before, endpoint.standing());
        tracing::warn!(endpoint = %endpoint.address(), cluster = self.meters.cluster(), "endpoint ejected");
    }

    fn eject_again(&self, endpoint: &Endpoint, spec: &OutlierSpec) {
        let _census = self.census();
        if !endpoint.has(PROBING) {
            return;
        }
        endpoint.clear(PROBING);
        let times = endpoint.past().ejections.fetch_add(1, Relaxed).min(LONGEST);
        let factor = 1u64.checked_shl(times).unwrap_or(u64::MAX).min(u64::from(LONGEST));
        self.aside(endpoint, millis(spec.ejection).saturating_mul(factor));
    }

    fn aside(&self, endpoint: &Endpoint, time: u64) {
        let until = self.now().saturating_add(time);
        endpoint.past().ejected_until.store(until, Relaxed);
        self.next_probe.fetch_min(until, Relaxed);
    }

    /// A probe succeeded, or no requests are to go there any more.
    pub(crate) fn reinstate(&self, endpoint: &Endpoint) {
        if self.release(&mut self.census(), endpoint) {
            tracing::info!(endpoint = %endpoint.address(), cluster = self.meters.cluster(), "endpoint back");
        }
    }

    fn release(&self, census: &mut Census, endpoint: &Endpoint) -> bool {
        if !endpoint.has(EJECTED) {
            return false;
        }
        let before = endpoint.standing();
        endpoint.forget_failures();
        endpoint.clear(EJECTED | PROBING);
        self.meters.moved(before, endpoint.standing());
        census.ejected = census.ejected.saturating_sub(1);
        if census.ejected == 0 {
            self.next_probe.store(u64::MAX, Relaxed);
        }
        true
    }

    /// Whether some ejected endpoint is due for a probe: one load as long as nobody is ejected.
    pub(crate) fn is_probe_due(&self) -> bool {
        let due = self.next_probe.load(Relaxed);
        due != u64::MAX && self.now() >= due
    }

    /// An endpoint for which the calling request is the probe.
    pub(crate) fn probe<'a>(
        &self,
        members: &'a [Arc<Endpoint>],
        wanted: impl Fn(&Endpoint) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        let _census = self.census();
        let now = self.now();
        let is_due = |e: &Endpoint| e.has(EJECTED) && !e.has(FAILING) && e.ejected_until() <= now;
        let found = members.iter().find(|e| is_due(e) && wanted(e));
        if let Some(endpoint) = found {
            self.let_through(endpoint, now);
        }
        let ejected = members.iter().filter(|e| e.has(EJECTED) && !e.has(FAILING));
        let next = ejected.map(|e| e.ejected_until()).min();
        // Those that also fail their checks do not matter until these say otherwise, but are looked after now and then.
        let later = now.saturating_add(self.first_time());
        self.next_probe.store(next.unwrap_or(later), Relaxed);
        found
    }

    /// Lets the calling request probe this endpoint, if it is due.
    pub(crate) fn try_probe(&self, endpoint: &Endpoint) -> bool {
        let _census = self.census();
        let now = self.now();
        let due = endpoint.has(EJECTED) && !endpoint.has(FAILING) && endpoint.ejected_until() <= now;
        if due {
            self.let_through(endpoint, now);
        }
        due
    }

    fn let_through(&self, endpoint: &Endpoint, now: u64) {
        endpoint.past().ejected_until.store(now.saturating_add(self.first_time()), Relaxed);
        endpoint.set(PROBING);
    }

    fn first_time(&self) -> u64 {
        self.spec().map_or(0, |s| millis(s.ejection)).max(1)
    }

    /// A verdict of active checks; says whether it changed anything.
    pub(crate) fn judge(&self, endpoint: &Endpoint, healthy: bool) -> bool {
        let _census = self.census();
        if endpoint.is_healthy() == healthy || endpoint.has_left() {
            return false;
        }
        let before = endpoint.standing();
        if healthy {
            endpoint.clear(FAILING)
        } else {
            endpoint.set(FAILING)
        };
        self.meters.moved(before, endpoint.standing());
        true
    }

    /// The members changed: some left, and so many stay. Whoever is ejected beyond half of them comes back.
    pub(crate) fn resize<'a>(&self, left: impl Iterator<Item = &'a Arc<Endpoint>>, members: &[Arc<Endpoint>]) {
        let mut census = self.census();
        for endpoint in left {
            self.release(&mut census, endpoint);
            let before = endpoint.standing();
            endpoint.set(LEFT);
            self.meters.moved(before, None);
        }
        census.members = members.len();
        for endpoint in members {
            if census.ejected <= census.members / 2 {
                break;
            }
            self.release(&mut census, endpoint);
        }
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BalancePolicy, ClusterSpec, HashKey};
    use crate::upstream::testing::{cluster, endpoints, members, spec};
    use crate::upstream::{Cluster, Outcome};
    use std::time::Duration;
    use tokio::time::advance;

    fn fail(endpoint: &Endpoint, times: u32) {
        (0..times).for_each(|_| endpoint.report(Outcome::ConnectFailed));
    }

    /// Whether one of many picks is this endpoint, and how many.
    fn picked(cluster: &Cluster, endpoint: &Endpoint) -> usize {
        (0..100).filter(|_| cluster.pick(&[], None).unwrap().id == endpoint.id).count()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let cluster = cluster(&spec(&[1, 1]));
        let one = &members(&cluster)[0];
        fail(one, 4);
        one.report(Outcome::Status(404));
        fail(one, 4);
        assert!(!one.is_ejected());
        fail(one, 1);
        assert!(one.is_ejected());
        assert_eq!(picked(&cluster, one), 0);
    }

    #[test]
    fn what_counts_as_a_failure() {
        let failures = [502, 503, 504].map(Outcome::Status);
        let more = [Outcome::ConnectFailed, Outcome::TlsFailed, Outcome::Reset, Outcome::Timeout, Outcome::Malformed];
        assert!(failures.iter().chain(&more).all(|o| o.is_failure()));
        assert!(![200, 404, 500, 501, 505].iter().any(|&s| Outcome::Status(s).is_failure()));
        assert!(!Outcome::Success.is_failure());
    }

    #[tokio::test(start_paused = true)]
    async fn never_more_than_half_of_the_endpoints_are_ejected() {
        for (size, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (7, 3)] {
            let cluster = cluster(&spec(&vec![1; size]));
            let all = members(&cluster);
            all.iter().for_each(|e| fail(e, 50));
            assert_eq!(all.iter().filter(|e| e.is_ejected()).count(), most, "of {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_probes_and_its_success_brings_the_endpoint_back() {
        let cluster = cluster(&spec(&[1, 1, 1]));
        let one = &members(&cluster)[0];
        fail(one, 5);
        advance(Duration::from_millis(9_999)).await;
        assert_eq!(picked(&cluster, one), 0);
        advance(Duration::from_millis(1)).await;
        assert_eq!(picked(&cluster, one), 1);
        one.report(Outcome::Success);
        assert!(!one.is_ejected());
        assert!(picked(&cluster, one) > 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_of_before_the_ejection_does_not_bring_it_back() {
        let cluster = cluster(&spec(&[1, 1]));
        let one = &members(&cluster)[0];
        fail(one, 5);
        one.report(Outcome::Success);
        assert!(one.is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn each_failed_probe_doubles_the_time_up_to_ten_times() {
        let cluster = cluster(&spec(&[1, 1]));
        let one = &members(&cluster)[0];
        fail(one, 5);
        for seconds in [10, 20, 40, 80, 100, 100] {
            advance(Duration::from_millis(seconds * 1000 - 1)).await;
            assert_eq!(picked(&cluster, one), 0, "before {seconds} s");
            advance(Duration::from_millis(1)).await;
            assert_eq!(picked(&cluster, one), 1, "after {seconds} s");
            fail(one, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_never_reports_is_followed_by_another() {
        let cluster = cluster(&spec(&[1, 1]));
        let one = &members(&cluster)[0];
        fail(one, 5);
        for _ in 0..3 {
            advance(Duration::from_secs(10)).await;
            assert_eq!(picked(&cluster, one), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_hashing_a_probe_is_one_of_the_endpoints_own_keys() {
        let balance = BalancePolicy::Hash(HashKey::Source);
        let cluster = cluster(&ClusterSpec { balance, ..spec(&[1, 1]) });
        let all = members(&cluster);
        let key_of = |e: &Endpoint| (0..).find(|&k| cluster.members().owner(k).unwrap().id == e.id).unwrap();
        let (own, other) = (key_of(&all[0]), key_of(&all[1]));
        fail(&all[0], 5);
        assert_eq!(cluster.pick(&[], Some(own)).unwrap().id, all[1].id);
        advance(Duration::from_secs(10)).await;
        assert_eq!(cluster.pick(&[], Some(other)).unwrap().id, all[1].id);
        assert_eq!(cluster.pick(&[], Some(own)).unwrap().id, all[0].id);
        assert_eq!(cluster.pick(&[], Some(own)).unwrap().id, all[1].id, "one probe at a time");
        all[0].report(Outcome::Success);
        assert_eq!(cluster.pick(&[], Some(own)).unwrap().id, all[0].id);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_cluster_shrinks_no_more_than_half_stay_ejected() {
        let cluster = cluster(&spec(&[1, 1, 1, 1]));
        let all = members(&cluster);
        fail(&all[0], 5);
        fail(&all[1], 5);
        cluster.set_members(&endpoints(&[1, 1]));
        assert_eq!(all.iter().filter(|e| e.is_ejected()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejected_endpoint_that_leaves_makes_room_for_another() {
        let cluster = cluster(&spec(&[1, 1, 1]));
        let all = members(&cluster);
        fail(&all[2], 5);
        cluster.set_members(&endpoints(&[1, 1]));
        fail(&all[0], 5);
        assert!(all[0].is_ejected());
        fail(&all[2], 50);
        assert!(!all[2].is_ejected(), "who left is nobody's concern");
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejected_endpoint_that_loses_its_weight_makes_room_for_another() {
        let cluster = cluster(&spec(&[1, 1, 1]));
        let all = members(&cluster);
        fail(&all[0], 5);
        cluster.set_members(&endpoints(&[0, 1, 1]));
        fail(&all[1], 5);
        assert!(!all[0].is_ejected() && all[1].is_ejected());
    }

    #[test]
    fn without_passive_ejection_nobody_is_ejected() {
        let cluster = cluster(&ClusterSpec { outlier: None, ..spec(&[1, 1]) });
        let all = members(&cluster);
        all.iter().for_each(|e| fail(e, 100));
        assert!(!all.iter().any(|e| e.is_ejected()));
        assert_eq!(cluster.describe().endpoints[0].failures, 100);
    }
}
