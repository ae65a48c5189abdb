//! Which of a cluster's endpoints is picked?
//!
//! First among those that are well (not failing their checks, not ejected) and have a place; then among those that are well and
//! will make the request wait. Where no endpoint at all is well, the verdicts are doubted instead (panic mode): ejected ones are
//! picked, and if all fail their checks, any. Where the well ones were all tried, the others are not: they would
//! only fail more slowly.

use super::cluster::PickError;
use super::endpoint::{EJECTED, Endpoint, EndpointId, FAILING, PROBING};
use super::{hash, random};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The endpoints of a cluster at one time, ordered by address.
#[derive(Debug, Default)]
pub struct Members {
    all: Box<[Arc<Endpoint>]>,
    /// Those with a weight above 0.
    open: Box<[Arc<Endpoint>]>,
    /// Weights of `open`; empty: all the same.
    weights: Box<[u32]>,
    /// For each of `open`, the sum of its weight and all before; empty: all the same.
    sums: Box<[u64]>,
    /// Order of turns, places in `open`; empty: as they stand.
    turns: Box<[u32]>,
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
    /// `round_robin`: prepare turns.
    pub(crate) fn new(mut all: Vec<Arc<Endpoint>>, round_robin: bool) -> Self {
        all.sort_by_key(|e| e.address);
        let open: Box<[_]> = all.iter().filter(|e| e.weight() > 0).cloned().collect();
        let mut members = Self { all: all.into(), open, ..Self::default() };
        let weights: Box<[u32]> = members.open.iter().map(|e| e.weight()).collect();
        if weights.windows(2).all(|pair| pair.first() == pair.last()) {
            return members;
        }
        let mut sum = 0u64;
        members.sums = weights
            .iter()
            .map(|&w| {
                sum += u64::from(w);
                sum
            })
            .collect();
        if round_robin {
            members.turns = turns(&weights);
        }
        members.weights = weights;
        members
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
            Way::Least => self.least(fit),
            Way::Turn(turns) => self.in_turn(turns, fit),
            Way::Random => self.open.get(self.draw(None, fit)?),
            Way::Key(key) => self.by_key(key, fit),
        }
    }

    /// Of two that are drawn by weight, the one with fewer requests for its weight. Weight counts in the draw, so that
    /// shares are right even where nobody has anything to do, and in the comparison, so that they stay right under load.
    fn least(&self, fit: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let first_at = self.draw(None, &fit)?;
        let first = self.open.get(first_at)?;
        let Some(second_at) = self.draw(Some(first_at), &fit) else { return Some(first) };
        let second = self.open.get(second_at)?;
        let load_of_first = u64::from(first.pending()) * u64::from(self.weight(second_at));
        let load_of_second = u64::from(second.pending()) * u64::from(self.weight(first_at));
        Some(if load_of_second < load_of_first { second } else { first })
    }

    fn weight(&self, at: usize) -> u32 {
        self.weights.get(at).copied().unwrap_or(1)
    }

    /// A place in `open`, by weight, other than `except`. A few draws find one where most are fit; else all are looked at.
    fn draw(&self, except: Option<usize>, fit: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let others = self.open.len().saturating_sub(usize::from(except.is_some()));
        if others == 0 {
            return None;
        }
        let is_fit = |at: usize| Some(at) != except && self.open.get(at).is_some_and(|e| fit(e));
        for _ in 0..if others == 1 { 1 } else { 4 } {
            let at = self.draw_any(except);
            if is_fit(at) {
                return Some(at);
            }
        }
        let (mut sum, mut found) = (0, None);
        for at in (0..self.open.len()).filter(|&at| is_fit(at)) {
            let weight = u64::from(self.weight(at));
            sum += weight;
            if random::below(sum) < weight {
                found = Some(at);
            }
        }
        found
    }

    fn draw_any(&self, except: Option<usize>) -> usize {
        if let Some(&total) = self.sums.last() {
            let point = random::below(total);
            return self.sums.partition_point(|&sum| sum <= point);
        }
        let size = self.open.len() - usize::from(except.is_some());
        let at = usize::try_from(random::below(size as u64)).unwrap_or(0);
        if except.is_some_and(|except| at >= except) { at + 1 } else { at }
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

    /// Weighted rendezvous: the endpoint where the key draws highest. When one leaves, only its keys go elsewhere; it needs no
    /// table, and looks at each endpoint, which costs about a nanosecond each.
    fn by_key(&self, key: u64, fit: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let fit = self.open.iter().enumerate().filter(|(_, e)| fit(e));
        let drawn = fit.map(|(at, e)| (hash::draw(key, e.seed), at, e));
        if self.weights.is_empty() {
            return drawn.max_by_key(|(draw, ..)| *draw).map(|(.., e)| e);
        }
        let scored = drawn.map(|(draw, at, e)| (hash::score(draw, self.weight(at)), e));
        scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, e)| e)
    }
}

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
