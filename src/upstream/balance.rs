//! Which of a cluster's endpoints is picked?
//!
//! First among those that are well (not failing their checks, not ejected) and have a place; then among those that are well and
//! will make the request wait. Where no endpoint at all is well, the verdicts are doubted instead (panic mode): ejected ones are
//! picked, and if all fail their checks, any. Where the well ones were all tried, the others are not: they would
//! only fail more slowly.
//!
//! Where endpoints differ in nearness, least request looks among the nearest that are fit, and goes further when the one found
//! there is busy compared with one drawn from all. Load spills over as it grows, one request at a time: there is no
//! share of near endpoints below which everything changes. The other policies do not look at nearness: turns and chance are asked
//! for where shares must be exact, and a key has the same endpoint on every node.

use super::cluster::PickError;
use super::endpoint::{EJECTED, Endpoint, EndpointId, FAILING, PROBING};
use super::{hash, random};
use crate::model::{BalancePolicy, Nearness};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The endpoints of a cluster at one time, ordered by address.
#[derive(Debug, Default)]
pub struct Members {
    all: Arc<[Arc<Endpoint>]>,
    /// Those with a weight above 0: nearly always the same list.
    open: Arc<[Arc<Endpoint>]>,
    /// Numbers of `open` for consistent hashing, side by side: the same in every process. Empty where nothing is hashed.
    seeds: Box<[u64]>,
    /// Weights of `open`; empty: all the same.
    weights: Box<[u32]>,
    /// Everyone in `open`, to draw from.
    everyone: Pool,
    /// The nearest of `open`, then the next nearest, but not the furthest; `None`: all are equally near, or nobody looks.
    near: Option<Box<[Pool]>>,
    /// Order of turns, places in `open`; empty: as they stand.
    turns: Box<[u32]>,
}

/// Some of `open` to draw from by weight.
#[derive(Debug, Default)]
struct Pool {
    /// Places in `open`, ascending; `None`: all of them.
    places: Option<Box<[usize]>>,
    /// How many there are.
    size: usize,
    /// For each, the sum of its weight and all before; empty: all the same.
    sums: Box<[u64]>,
}

/// How to pick.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'a> {
    Least,
    Turn(&'a Turns),
    Random,
    Key(u64),
}

impl Members {
    /// What `policy` needs is prepared.
    pub(crate) fn new(mut all: Vec<Arc<Endpoint>>, policy: &BalancePolicy) -> Self {
        all.sort_by_key(|e| e.address());
        let all: Arc<[Arc<Endpoint>]> = all.into();
        let open = match all.iter().all(|e| e.weight() > 0) {
            true => Arc::clone(&all),
            false => all.iter().filter(|e| e.weight() > 0).cloned().collect(),
        };
        let seed = |e: &Arc<Endpoint>| hash::endpoint(e.address());
        let seeds = match policy {
            BalancePolicy::Hash(_) => open.iter().map(seed).collect(),
            _ => Box::default(),
        };
        let mut members = Self { all, open, seeds, ..Self::default() };
        let weights: Box<[u32]> = members.open.iter().map(|e| e.weight()).collect();
        if weights.windows(2).any(|pair| pair.first() != pair.last()) {
            if *policy == BalancePolicy::RoundRobin {
                members.turns = turns(&weights);
            }
            members.weights = weights;
        }
        members.everyone = members.pool(None);
        if !matches!(policy, BalancePolicy::RoundRobin | BalancePolicy::Random) {
            members.near = members.classes();
        }
        members
    }

    fn pool(&self, places: Option<Box<[usize]>>) -> Pool {
        let size = places.as_ref().map_or(self.open.len(), |places| places.len());
        if self.weights.is_empty() {
            return Pool { places, size, sums: Box::default() };
        }
        let mut sum = 0u64;
        let mut add = |at: usize| {
            sum += u64::from(self.weight(at));
            sum
        };
        let sums = match &places {
            Some(places) => places.iter().map(|&at| add(at)).collect(),
            None => (0..size).map(add).collect(),
        };
        Pool { places, size, sums }
    }

    fn classes(&self) -> Option<Box<[Pool]>> {
        let mut classes: BTreeMap<Nearness, Vec<usize>> = BTreeMap::new();
        for (at, endpoint) in self.open.iter().enumerate() {
            classes.entry(endpoint.near()).or_default().push(at);
        }
        // Whoever finds nobody nearer looks among all.
        classes.pop_last();
        let pools: Box<[Pool]> = classes.into_values().map(|places| self.pool(Some(places.into()))).collect();
        (!pools.is_empty()).then_some(pools)
    }

    /// Every endpoint, ordered by address.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.all.iter()
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those that may take requests.
    pub(crate) fn open(&self) -> &[Arc<Endpoint>] {
        &self.open
    }

    /// Where a key belongs while everyone is well.
    pub(crate) fn owner(&self, key: u64) -> Option<&Arc<Endpoint>> {
        self.by_key(key, |_| true)
    }

    pub(crate) fn pick(
        &self,
        way: Way<'_>,
        tried: &[EndpointId],
        slow_start: Duration,
    ) -> Result<&Arc<Endpoint>, PickError> {
        let new = |e: &Endpoint| !tried.contains(&e.id);
        let found = match way {
            // A key keeps its endpoint even if it has to wait there or the endpoint is new.
            Way::Key(key) => self.by_key(key, |e| e.is_available() && new(e)),
            _ => self.find(way, |e| e.is_available() && new(e) && e.has_place() && e.is_warm(slow_start)),
        };
        found.map_or_else(|| self.pick_otherwise(way, new), Ok)
    }

    #[cold]
    fn pick_otherwise(&self, way: Way<'_>, new: impl Fn(&Endpoint) -> bool) -> Result<&Arc<Endpoint>, PickError> {
        if self.open.is_empty() {
            return Err(PickError::NoEndpoints);
        }
        if self.open.iter().any(|e| e.is_available()) {
            return self.find(way, |e| e.is_available() && new(e)).ok_or(PickError::AllTried);
        }
        let found = self.find(way, |e| !e.has(FAILING) && new(e)).or_else(|| self.find(way, &new));
        let found = found.ok_or(PickError::AllTried)?;
        if found.has(EJECTED) {
            // Everything is doubted, so a success is believed.
            found.set(PROBING);
        }
        Ok(found)
    }

    fn find(&self, way: Way<'_>, fit: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        match way {
            Way::Least => match &self.near {
                None => self.open.get(self.least(&self.everyone, &fit)?),
                Some(near) => self.open.get(self.nearest(near, &fit)?),
            },
            Way::Turn(turns) => self.in_turn(turns, fit),
            Way::Random => self.open.get(self.draw(&self.everyone, None, &fit)?),
            Way::Key(key) => self.by_key(key, fit),
        }
    }

    /// One of the nearest, unless it is busy: then the one it was compared with.
    fn nearest(&self, near: &[Pool], fit: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let Some(first) = near.iter().find_map(|pool| self.least(pool, fit)) else {
            return self.least(&self.everyone, fit);
        };
        match self.draw(&self.everyone, Some(first), fit) {
            Some(other) if self.is_busy(first, other) => Some(other),
            _ => Some(first),
        }
    }

    /// Whether a near endpoint has so much to do, compared with another, that the longer way is the shorter one.
    fn is_busy(&self, near: usize, other: usize) -> bool {
        let (Some(one), Some(two)) = (self.open.get(near), self.open.get(other)) else { return false };
        let (a, b) = (u128::from(one.pending()), u128::from(two.pending()));
        if self.weights.is_empty() {
            return a > b * SPILL_FACTOR + SPILL_START;
        }
        // Requests as they would be at an endpoint of average weight.
        let total = self.everyone.sums.last().copied().unwrap_or(1);
        let average = u128::from(total) / (self.everyone.size.max(1) as u128);
        let (of_near, of_other) = (u128::from(self.weight(near)), u128::from(self.weight(other)));
        a * average * of_other > b * average * of_near * SPILL_FACTOR + of_near * of_other * SPILL_START
    }

    /// Of two that are drawn by weight, the one with fewer requests for its weight. Weight counts in the draw, so that
    /// shares are right even where nobody has anything to do, and in the comparison, so that they stay right under load.
    fn least(&self, pool: &Pool, fit: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let first_at = self.draw(pool, None, fit)?;
        let first = self.open.get(first_at)?;
        let Some(second_at) = self.draw(pool, Some(first_at), fit) else { return Some(first_at) };
        let second = self.open.get(second_at)?;
        let load_of_first = u64::from(first.pending()) * u64::from(self.weight(second_at));
        let load_of_second = u64::from(second.pending()) * u64::from(self.weight(first_at));
        Some(if load_of_second < load_of_first { second_at } else { first_at })
    }

    fn weight(&self, at: usize) -> u32 {
        self.weights.get(at).copied().unwrap_or(1)
    }

    /// A place in `open`, by weight, other than `except`, which is one of the pool. A few draws find one where most are fit;
    /// else all are looked at.
    fn draw(&self, pool: &Pool, except: Option<usize>, fit: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let others = pool.size.saturating_sub(usize::from(except.is_some()));
        if others == 0 {
            return None;
        }
        let except = except.and_then(|at| pool.index(at));
        let is_fit = |index: usize| {
            Some(index) != except && pool.place(index).and_then(|at| self.open.get(at)).is_some_and(|e| fit(e))
        };
        for _ in 0..if others == 1 { 1 } else { 4 } {
            let index = pool.draw(except);
            if is_fit(index) {
                return pool.place(index);
            }
        }
        let (mut sum, mut found) = (0, None);
        for index in (0..pool.size).filter(|&index| is_fit(index)) {
            let weight = pool.place(index).map_or(0, |at| u64::from(self.weight(at)));
            sum += weight;
            if random::below(sum) < weight {
                found = Some(index);
            }
        }
        found.and_then(|index| pool.place(index))
    }

    /// Whoever is next. One that is skipped uses up its turn, so that its neighbour does not get a double share.
    fn in_turn(&self, turns: &Turns, fit: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let length = if self.turns.is_empty() { self.open.len() } else { self.turns.len() };
        for _ in 0..length {
            let turn = turns.next(length);
            let at = if self.turns.is_empty() { turn } else { *self.turns.get(turn)? as usize };
            if let Some(endpoint) = self.open.get(at).filter(|e| fit(e)) {
                return Some(endpoint);
            }
        }
        // Other requests on this thread's counter may have taken the turns of the only fit ones.
        self.open.iter().find(|e| fit(e))
    }

    /// Weighted rendezvous: the endpoint where the key draws highest. When one leaves, only its keys go elsewhere, and it needs
    /// no table. It looks at each endpoint, but only at its number, unless the first choice is not fit.
    fn by_key(&self, key: u64, fit: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let first = self.highest(key, |_| true).and_then(|at| self.open.get(at))?;
        if fit(first) {
            return Some(first);
        }
        let next = self.highest(key, |at| self.open.get(at).is_some_and(|e| fit(e)))?;
        self.open.get(next)
    }

    fn highest(&self, key: u64, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let fit = self.seeds.iter().enumerate().filter(|(at, _)| fit(*at));
        let drawn = fit.map(|(at, &seed)| (hash::draw(key, seed), at));
        if self.weights.is_empty() {
            return drawn.max().map(|(_, at)| at);
        }
        let mut best: Option<(f64, u64, usize)> = None;
        for (draw, at) in drawn {
            // The score grows with draw and weight: who is higher in neither cannot win, and needs no logarithm.
            if best.is_some_and(|(_, highest, owner)| draw <= highest && self.weight(at) <= self.weight(owner)) {
                continue;
            }
            let score = hash::score(draw, self.weight(at));
            if best.is_none_or(|(highest, ..)| score > highest) {
                best = Some((score, draw, at));
            }
        }
        best.map(|(.., at)| at)
    }
}

impl Pool {
    /// The place in `open` of what is in the pool at this index.
    fn place(&self, index: usize) -> Option<usize> {
        self.places.as_ref().map_or(Some(index), |places| places.get(index).copied())
    }

    fn index(&self, place: usize) -> Option<usize> {
        self.places.as_ref().map_or(Some(place), |places| places.binary_search(&place).ok())
    }

    /// Any index, by weight; where all weigh the same, another than `except`.
    fn draw(&self, except: Option<usize>) -> usize {
        if let Some(&total) = self.sums.last() {
            let point = random::below(total);
            return self.sums.partition_point(|&sum| sum <= point);
        }
        let size = self.size - usize::from(except.is_some());
        let index = usize::try_from(random::below(size as u64)).unwrap_or(0);
        if except.is_some_and(|except| index >= except) { index + 1 } else { index }
    }
}

/// A near endpoint is busy with more than twice the requests of another: with the same speed, its next answer takes twice as
/// long, while the way to another zone costs a millisecond or less. At 1 it would be plain least request, and nearness a tie
/// breaker.
const SPILL_FACTOR: u128 = 2;
/// And with more than four beyond that: of so few in flight, some are about to end, and their number says more about chance
/// than about load. Without it a quiet cluster would send every second request abroad because of a single one in flight.
const SPILL_START: u128 = 4;

/// Longest order of turns; finer weights are rounded.
const LONGEST: u64 = 16_384;

/// An order in which each endpoint comes as often as its weight says, spread evenly (earliest deadline first).
#[expect(clippy::cast_possible_truncation, reason = "places of a list of members fit 32 bits")]
fn turns(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let total: u64 = weights.iter().map(|&w| u64::from(w / divisor)).sum();
    let scale = total.div_ceil(LONGEST).max(1);
    let mut order = Vec::new();
    for (at, &weight) in weights.iter().enumerate() {
        let times = (u64::from(weight / divisor) / scale).max(1);
        // The deadline of turn k of n is (2k + 1) / 2n of the round.
        order.extend((0..times).map(|k| (((2 * k + 1) << 32) / (2 * times), at as u32)));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, at)| at).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Lanes of [`Turns`].
const LANES: usize = 8;

/// Whose turn it is, apart for each worker, so that workers neither contend nor go in step. Beyond eight threads some
/// share a lane, which costs time only.
#[derive(Debug, Default)]
pub(crate) struct Turns([Lane; LANES]);

#[derive(Debug)]
#[repr(align(128))]
struct Lane(AtomicUsize);

impl Default for Lane {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::try_from(random::next() >> 32).unwrap_or(0)))
    }
}

thread_local! {
    static LANE: Cell<usize> = Cell::new(NEXT_LANE.fetch_add(1, Relaxed));
}

static NEXT_LANE: AtomicUsize = AtomicUsize::new(0);

impl Turns {
    fn next(&self, length: usize) -> usize {
        let turn = self.0.get(LANE.get() % LANES).map_or(0, |lane| lane.0.fetch_add(1, Relaxed));
        turn.checked_rem(length).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClusterSpec, EndpointSpec, HashKey};
    use crate::upstream::testing::{address, cluster, endpoints, members, spec};
    use crate::upstream::{Cluster, Outcome};
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::SocketAddr;

    fn with(balance: BalancePolicy, weights: &[u32]) -> Arc<Cluster> {
        cluster(&ClusterSpec { balance, ..spec(weights) })
    }

    fn every_policy() -> [BalancePolicy; 4] {
        let hash = BalancePolicy::Hash(HashKey::Source);
        [BalancePolicy::LeastRequest, BalancePolicy::RoundRobin, BalancePolicy::Random, hash]
    }

    /// How often each address is picked in so many picks.
    fn picks(cluster: &Cluster, tried: &[EndpointId], times: u64) -> HashMap<SocketAddr, u64> {
        let mut counts = HashMap::new();
        for n in 0..times {
            let hash = matches!(cluster.spec().balance, BalancePolicy::Hash(_)).then(|| random::mix(n));
            *counts.entry(cluster.pick(tried, hash).unwrap().address()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn a_dead_endpoint_is_skipped_by_every_policy() {
        for balance in every_policy() {
            let cluster = with(balance, &[1, 2, 3]);
            cluster.ward.judge(&members(&cluster)[1], false);
            let counts = picks(&cluster, &[], 500);
            assert_eq!((counts.len(), counts.get(&address(1))), (2, None), "{:?}", cluster.spec().balance);
        }
    }

    #[test]
    fn a_tried_endpoint_is_not_picked_again() {
        for balance in every_policy() {
            let cluster = with(balance, &[1, 1, 1]);
            let ids: Vec<_> = members(&cluster).iter().map(|e| e.id).collect();
            assert_eq!(picks(&cluster, &ids[..2], 50), HashMap::from([(address(2), 50)]));
            assert_eq!(cluster.pick(&ids, Some(1)).unwrap_err(), PickError::AllTried);
            assert_eq!(cluster.pick(&ids, None).unwrap_err(), PickError::AllTried);
        }
    }

    #[test]
    fn an_endpoint_without_weight_takes_no_requests() {
        for balance in every_policy() {
            let draining = with(balance.clone(), &[0, 1, 0]);
            assert_eq!(picks(&draining, &[], 50), HashMap::from([(address(1), 50)]));
            assert_eq!(with(balance.clone(), &[0]).pick(&[], None).unwrap_err(), PickError::NoEndpoints);
            assert_eq!(with(balance, &[]).pick(&[], Some(1)).unwrap_err(), PickError::NoEndpoints);
        }
    }

    #[test]
    fn a_failing_endpoint_is_not_retried_on_while_another_is_well() {
        let cluster = with(BalancePolicy::LeastRequest, &[1, 1]);
        let all = members(&cluster);
        cluster.ward.judge(&all[0], false);
        assert_eq!(cluster.pick(&[all[1].id], None).unwrap_err(), PickError::AllTried);
    }

    #[test]
    fn where_every_endpoint_fails_its_checks_all_are_picked() {
        for balance in every_policy() {
            let cluster = with(balance, &[1, 1, 1]);
            members(&cluster).iter().for_each(|e| assert!(cluster.ward.judge(e, false)));
            assert_eq!(picks(&cluster, &[], 500).len(), 3);
        }
    }

    #[test]
    fn where_nobody_is_well_those_that_pass_their_checks_come_first() {
        let cluster = with(BalancePolicy::LeastRequest, &[1, 1]);
        let all = members(&cluster);
        (0..5).for_each(|_| all[0].report(Outcome::Reset));
        cluster.ward.judge(&all[1], false);
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(0), 50)]));
        all[0].report(Outcome::Success);
        assert!(!all[0].is_ejected(), "in panic a success is believed");
    }

    #[test]
    fn of_two_the_one_with_fewer_requests_is_picked() {
        let cluster = with(BalancePolicy::LeastRequest, &[1, 1]);
        let _busy = cluster.try_admit(&members(&cluster)[0]).unwrap();
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(1), 50)]));
    }

    #[test]
    fn requests_in_flight_count_for_the_weight() {
        let cluster = with(BalancePolicy::LeastRequest, &[1, 3]);
        let all = members(&cluster);
        let busy: Vec<_> = [0, 1, 1].iter().map(|&at: &usize| cluster.try_admit(&all[at]).unwrap()).collect();
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(1), 50)]), "2 of 3 are less than 1 of 1");
        drop(busy);
    }

    #[test]
    fn least_request_keeps_everyone_equally_busy() {
        let cluster = with(BalancePolicy::LeastRequest, &[1; 10]);
        let permits: Vec<_> =
            (0..1000).map(|_| cluster.try_admit(&cluster.pick(&[], None).unwrap()).unwrap()).collect();
        let busy: Vec<_> = members(&cluster).iter().map(|e| e.in_flight()).collect();
        assert!(busy.iter().all(|n| (90..=110).contains(n)), "{busy:?}");
        drop(permits);
        assert!(members(&cluster).iter().all(|e| e.in_flight() == 0));
    }

    #[test]
    fn shares_are_as_weights_say() {
        for balance in every_policy() {
            let cluster = with(balance, &[1, 2, 5]);
            let counts = picks(&cluster, &[], 16_000);
            for (at, share) in [(0, 2_000), (1, 4_000), (2, 10_000)] {
                let count = counts[&address(at)];
                assert!(count.abs_diff(share) < 400, "{:?}: {at} got {count}", cluster.spec().balance);
            }
        }
    }

    #[test]
    fn turns_go_round() {
        let cluster = with(BalancePolicy::RoundRobin, &[1, 1, 1]);
        let order: Vec<_> = (0..6).map(|_| cluster.pick(&[], None).unwrap().address()).collect();
        assert_eq!(order[..3], order[3..]);
        assert_ne!(order[0], order[1]);
        assert_ne!(order[1], order[2]);
    }

    #[test]
    fn the_neighbour_of_a_dead_endpoint_does_not_take_its_turns() {
        let cluster = with(BalancePolicy::RoundRobin, &[1, 1, 1, 1]);
        cluster.ward.judge(&members(&cluster)[1], false);
        assert_eq!(picks(&cluster, &[], 300).into_values().collect::<Vec<_>>(), [100, 100, 100]);
    }

    #[test]
    fn weighted_turns_are_spread_evenly() {
        assert_eq!(*turns(&[1, 1, 2]), [2, 0, 1, 2]);
        assert_eq!(*turns(&[500, 1000]), [1, 0, 1]);
        assert!(turns(&[u32::MAX, 1, u32::MAX - 1]).len() <= 16_400);
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_of_a_new_endpoint_grows_from_a_tenth_to_all_of_it() {
        for balance in [BalancePolicy::Random, BalancePolicy::RoundRobin, BalancePolicy::LeastRequest] {
            let slow_start = Duration::from_secs(10);
            let cluster = cluster(&ClusterSpec { balance, slow_start, ..spec(&[1, 1]) });
            assert!(picks(&cluster, &[], 100).len() == 2, "those of the start are not slowed");
            cluster.set_members(&endpoints(&[1, 1, 1]));
            let share = || picks(&cluster, &[], 6_000).get(&address(2)).copied().unwrap_or(0);
            let first = share();
            assert!((150..500).contains(&first), "{first} of 2000");
            tokio::time::advance(slow_start / 2).await;
            let half = share();
            assert!((1_000..1_700).contains(&half), "{half} of 2000");
            tokio::time::advance(slow_start).await;
            let all = share();
            assert!((1_800..2_200).contains(&all), "{all} of 2000");
        }
    }

    #[test]
    fn an_endpoint_without_a_free_place_is_picked_only_where_all_are_full() {
        let cluster = cluster(&ClusterSpec { balance: BalancePolicy::Random, max_in_flight: 1, ..spec(&[1, 1]) });
        let all = members(&cluster);
        let _one = cluster.try_admit(&all[0]).unwrap();
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(1), 50)]));
        let _two = cluster.try_admit(&all[1]).unwrap();
        assert_eq!(picks(&cluster, &[], 50).len(), 2);
    }

    fn placed(balance: BalancePolicy, near: &[Nearness]) -> Arc<Cluster> {
        let weights = vec![1; near.len()];
        let placed = endpoints(&weights).into_iter().zip(near).map(|(e, near)| EndpointSpec { near: *near, ..e });
        cluster(&ClusterSpec { balance, endpoints: placed.collect(), ..spec(&[]) })
    }

    const NEAR_AND_FAR: [Nearness; 5] =
        [Nearness::Anywhere, Nearness::Node, Nearness::Zone, Nearness::Anywhere, Nearness::Zone];

    #[test]
    fn the_nearest_that_is_well_is_picked_and_then_the_next_nearest() {
        let cluster = placed(BalancePolicy::LeastRequest, &NEAR_AND_FAR);
        let all = members(&cluster);
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(1), 50)]));
        assert_eq!(picks(&cluster, &[all[1].id], 400).len(), 2, "a retry stays in the zone");
        cluster.ward.judge(&all[1], false);
        let zone = picks(&cluster, &[], 400);
        assert!(zone.len() == 2 && zone[&address(2)].abs_diff(200) < 80 && zone.contains_key(&address(4)), "{zone:?}");
        (0..5).for_each(|_| all[2].report(Outcome::Reset));
        cluster.ward.judge(&all[4], false);
        let far = picks(&cluster, &[], 400);
        assert!(far.len() == 2 && far.contains_key(&address(0)) && far.contains_key(&address(3)), "{far:?}");
    }

    #[test]
    fn load_spills_over_as_it_grows_and_never_all_at_once() {
        // By chance alone one in 27 runs went beyond these bounds, by one or two.
        random::begin_at(1);
        let mut near = vec![Nearness::Anywhere; 10];
        near[3] = Nearness::Node;
        let cluster = placed(BalancePolicy::LeastRequest, &near);
        let mut permits = Vec::new();
        let mut last = 0;
        for _ in 0..200 {
            permits.push(cluster.try_admit(&cluster.pick(&[], None).unwrap()).unwrap());
            let busy: Vec<_> = members(&cluster).iter().map(|e| e.in_flight()).collect();
            let far = busy.iter().enumerate().filter(|(at, _)| *at != 3).map(|(_, n)| *n);
            let (most, least) = (far.clone().max().unwrap(), far.min().unwrap());
            assert!(busy[3] <= 2 * most + 5 && busy[3] >= last && most - least <= 10, "{busy:?}");
            last = busy[3];
        }
        assert!((26..=45).contains(&last), "with 9 others at n and this one at 2n + 4, n is 18: {last}");
        assert_eq!(members(&cluster)[3].in_flight(), last);
        drop(permits);
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(3), 50)]), "idle again, near again");
    }

    #[test]
    fn the_other_policies_do_not_look_at_nearness() {
        for balance in [BalancePolicy::Random, BalancePolicy::RoundRobin] {
            let cluster = placed(balance, &NEAR_AND_FAR);
            let counts = picks(&cluster, &[], 5_000);
            assert!(counts.len() == 5 && counts.values().all(|n| n.abs_diff(1_000) < 200), "{counts:?}");
        }
        let hash = || BalancePolicy::Hash(HashKey::Source);
        let (here, there) = (placed(hash(), &NEAR_AND_FAR), placed(hash(), &[Nearness::Anywhere; 5]));
        assert_eq!(owners(&here), owners(&there));
        let without_key = here.pick(&[], None).unwrap().address();
        assert_eq!(without_key, address(1), "a request without the key goes by least request");
    }

    #[test]
    fn who_moves_nearer_is_picked_without_being_another_endpoint() {
        let cluster = placed(BalancePolicy::LeastRequest, &[Nearness::Anywhere; 3]);
        let before = members(&cluster);
        assert!(cluster.members().near.is_none(), "nobody is nearer: it costs nothing");
        let mut specs = endpoints(&[1, 1, 1]);
        specs[2].near = Nearness::Zone;
        cluster.set_members(&specs);
        assert!(Arc::ptr_eq(&before[2], &members(&cluster)[2]));
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(2), 50)]));
    }

    #[test]
    fn a_near_endpoint_without_weight_or_place_is_passed_over() {
        let mut specs = endpoints(&[0, 1, 1]);
        (specs[0].near, specs[1].near) = (Nearness::Node, Nearness::Zone);
        let cluster = cluster(&ClusterSpec { endpoints: specs, max_in_flight: 1, ..spec(&[]) });
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(1), 50)]));
        let _full = cluster.try_admit(&members(&cluster)[1]).unwrap();
        assert_eq!(picks(&cluster, &[], 50), HashMap::from([(address(2), 50)]));
    }

    /// Where each of many keys goes.
    fn owners(cluster: &Cluster) -> Vec<SocketAddr> {
        (0..500).map(|n| cluster.pick(&[], Some(random::mix(n))).unwrap().address()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn when_an_endpoint_leaves_only_its_keys_go_elsewhere(
            weights in proptest::collection::vec(1u32..5, 2..12),
            leaves in any::<proptest::sample::Index>(),
        ) {
            let leaves = leaves.index(weights.len());
            let cluster = with(BalancePolicy::Hash(HashKey::Source), &weights);
            let before = owners(&cluster);
            let mut rest = endpoints(&weights);
            rest.remove(leaves);
            cluster.set_members(&rest);
            for (old, new) in before.iter().zip(owners(&cluster)) {
                prop_assert_ne!(new, address(leaves));
                prop_assert!(*old == new || *old == address(leaves), "{} went to {}", old, new);
            }
        }

        #[test]
        fn a_key_has_the_same_endpoint_for_any_order_of_definition(
            weights in proptest::collection::vec(1u32..5, 1..8),
            order in any::<u64>(),
        ) {
            let mut shuffled: Vec<EndpointSpec> = endpoints(&weights);
            shuffled.sort_by_key(|e| random::mix(order ^ u64::from(e.address.ip().is_ipv4()) ^ hash::endpoint(e.address)));
            let one = with(BalancePolicy::Hash(HashKey::Source), &weights);
            let other = cluster(&ClusterSpec { endpoints: shuffled, ..one.spec().clone() });
            prop_assert_eq!(owners(&one), owners(&other));
        }

        #[test]
        fn nearness_goes_before_load_until_the_near_ones_are_busy(
            endpoints in proptest::collection::vec((0u32..3, 0u32..4, 0u32..14, any::<bool>()), 1..9),
        ) {
            let near = |n: u32| [Nearness::Node, Nearness::Zone, Nearness::Anywhere][n as usize];
            let one = |(at, e): (usize, &(u32, u32, u32, bool))| EndpointSpec { address: address(at), weight: e.1, near: near(e.0) };
            let specs: Vec<_> = endpoints.iter().enumerate().map(one).collect();
            let cluster = cluster(&ClusterSpec { endpoints: specs.clone(), ..spec(&[]) });
            let all = members(&cluster);
            for (member, e) in all.iter().zip(&endpoints) {
                (0..e.2).for_each(|_| member.enter());
                cluster.ward.judge(member, e.3);
            }
            let fit: Vec<usize> = (0..specs.len()).filter(|&at| specs[at].weight > 0 && endpoints[at].3).collect();
            if fit.is_empty() {
                return Ok(());
            }
            let open: Vec<u32> = specs.iter().map(|s| s.weight).filter(|w| *w > 0).collect();
            let same = open.iter().all(|w| *w == open[0]);
            let average = if same { f64::from(open[0]) } else { f64::from(open.iter().sum::<u32>() / u32::try_from(open.len()).unwrap()) };
            let load = |at: usize| f64::from(endpoints[at].2) * average / f64::from(specs[at].weight);
            let nearest = fit.iter().map(|&at| specs[at].near).min().unwrap();
            let nearby: Vec<usize> = fit.iter().copied().filter(|&at| specs[at].near == nearest).collect();
            let alike = open.len() == all.iter().filter(|e| e.weight() > 0 && e.near() == nearest).count();
            let mut spilled = false;
            for _ in 0..300 {
                let picked = cluster.pick(&[], None).unwrap().address();
                let at = specs.iter().position(|s| s.address == picked).unwrap();
                prop_assert!(fit.contains(&at));
                if nearby.contains(&at) {
                    let more = |other: &&usize| **other != at && load(**other) + 1e-9 >= load(at);
                    prop_assert!(nearby.len() == 1 || nearby.iter().any(|other| more(&other)), "the busiest of the near: {}", at);
                } else {
                    spilled = true;
                    let busy = |n: &usize| load(*n) > 2.0 * load(at) + 4.0 - 1e-9;
                    prop_assert!(!alike && nearby.iter().any(busy), "nobody near was busy, but {} was picked", at);
                }
            }
            let others = || fit.iter().filter(|at| !nearby.contains(at));
            let all_busy = nearby.iter().all(|&n| others().all(|&o| load(n) > 2.0 * load(o) + 4.0 + 1e-9));
            prop_assert!(spilled || others().count() == 0 || !all_busy, "all near ones are busy, and none was spared");
        }

        #[test]
        fn whoever_is_picked_may_be_picked(
            endpoints in proptest::collection::vec((0u32..4, any::<bool>(), any::<bool>()), 0..10),
            policy in 0usize..4,
        ) {
            let weights: Vec<u32> = endpoints.iter().map(|e| e.0).collect();
            let cluster = with(every_policy()[policy].clone(), &weights);
            let all = members(&cluster);
            for (member, (_, healthy, _)) in all.iter().zip(&endpoints) {
                cluster.ward.judge(member, *healthy);
            }
            let tried: Vec<_> = all.iter().zip(&endpoints).filter(|(_, e)| e.2).map(|(m, _)| m.id).collect();
            let open = || all.iter().filter(|e| e.weight() > 0);
            let calm = open().any(|e| e.is_healthy());
            match cluster.pick(&tried, Some(7)) {
                Ok(e) => prop_assert!(e.weight() > 0 && !tried.contains(&e.id) && (e.is_healthy() || !calm)),
                Err(PickError::NoEndpoints) => prop_assert_eq!(open().count(), 0),
                Err(PickError::AllTried) => {
                    prop_assert!(open().all(|e| tried.contains(&e.id) || (calm && !e.is_healthy())));
                }
            }
        }
    }
}
