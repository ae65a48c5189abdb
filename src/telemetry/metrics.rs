//! What is counted, by whom, and how does a scrape see it?
//!
//! Handles are resolved when configuration is compiled, or when something is counted for the first time, and kept where things
//! are counted. Registration takes a mutex, and so does a scrape for a moment; counting takes none and touches only the
//! counting worker's own cache lines.

use super::families::{self, Family, Kind};
use super::process;
use super::render::{Text, seconds};
use super::series::{Cells, Store};
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use super::series::set_worker;

/// Finite buckets of every histogram: 100 us, doubled up to 52.4288 s.
pub const BUCKETS: usize = 20;
/// Cells of a histogram: the finite buckets, the infinite one, and the sum in nanoseconds.
const HISTOGRAM_CELLS: u8 = 22;
const _: () = assert!(HISTOGRAM_CELLS as usize == BUCKETS + 2);
/// Label value of the series that takes what is beyond the cap.
const OTHER: &str = "other";

/// All series of the process. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    folded: Counter,
    series: Gauge,
    _build: Gauge,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    families: BTreeMap<&'static str, Entry>,
    series: usize,
    max_series: usize,
    /// Registrations since [`Inner::forget_unused`].
    since: usize,
}

/// One series. Of thousands of clusters each has some: its values stand together with what it counts.
#[derive(Debug)]
struct Series {
    /// Label values in the order of the family's labels, each with [`END`] behind it.
    values: Box<[u8]>,
    cells: Cells,
}

/// No byte of a text.
const END: u8 = 0xff;

/// A series in the order of its label values.
#[derive(Debug)]
struct Held(Arc<Series>);

#[derive(Debug)]
struct Entry {
    family: &'static Family,
    series: BTreeSet<Held>,
}

impl Registry {
    /// A registry for so many workers. Beyond `max_series` lines of a scrape (a histogram is 23 of them), new series of a
    /// family with labels share one whose label values are `other`.
    pub fn new(workers: usize, max_series: usize) -> Self {
        let mut inner =
            Inner { store: Store::new(workers), families: BTreeMap::new(), series: 0, max_series, since: 0 };
        let folded = Counter(inner.series(&families::METRICS_FOLDED, &[]).0);
        let series = Gauge(inner.series(&families::METRICS_SERIES, &[]).0);
        let build = Gauge(inner.series(&families::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).0);
        build.set(1);
        Self(Arc::new(Shared { inner: Mutex::new(inner), folded, series, _build: build }))
    }

    /// The counter of these label values, new or as it is. Labels that the family does not have are ignored, those that are
    /// missing are empty.
    pub fn counter(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(family.kind, Kind::Counter, "{}", family.name);
        Counter(self.resolve(family, labels))
    }

    /// The gauge of these label values.
    pub fn gauge(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(family.kind, Kind::Gauge, "{}", family.name);
        Gauge(self.resolve(family, labels))
    }

    /// The histogram of these label values.
    pub fn histogram(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert_eq!(family.kind, Kind::Histogram, "{}", family.name);
        Histogram(self.resolve(family, labels))
    }

    fn resolve(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Arc<Series> {
        let (series, folded) = self.lock().series(family, labels);
        if folded {
            self.0.folded.add(1);
        }
        series
    }

    /// The scrape: every series that still has a handle, and the process itself, in the text format.
    pub fn render(&self) -> String {
        let mut text = Text::default();
        for (family, series) in self.held() {
            text.family(family);
            for series in &series {
                write_series(&mut text, family, series);
            }
        }
        process::write(&mut text);
        text.finish()
    }

    /// What there is to write. It is written without the lock, which a worker may want for a series that it counts for the first
    /// time.
    fn held(&self) -> Vec<(&'static Family, Vec<Arc<Series>>)> {
        let mut inner = self.lock();
        inner.forget_unused();
        self.0.series.set(i64::try_from(inner.series).unwrap_or(i64::MAX));
        let all = |entry: &Entry| entry.series.iter().map(|held| Arc::clone(&held.0)).collect();
        inner.families.values().map(|entry| (entry.family, all(entry))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A series, and whether it is the overflow.
    fn series(&mut self, family: &'static Family, labels: &[(&'static str, &str)]) -> (Arc<Series>, bool) {
        let value = |name: &str| labels.iter().find(|l| l.0 == name).map_or("", |l| l.1);
        let values = joined(family, value);
        if let Some(known) = self.known(family, &values) {
            return (known, false);
        }
        self.since += 1;
        // Not each time: with a hundred thousand routes beyond the cap, each would walk over all series.
        if self.series + lines(family) > self.max_series && self.since > self.series / 8 {
            self.forget_unused();
        }
        if family.labels.is_empty() || self.series + lines(family) <= self.max_series {
            return (self.insert(family, &values), false);
        }
        let other = joined(family, |_| OTHER);
        let series = self.known(family, &other).unwrap_or_else(|| self.insert(family, &other));
        (series, true)
    }

    fn known(&self, family: &Family, values: &[u8]) -> Option<Arc<Series>> {
        self.families.get(family.name)?.series.get(values).map(|held| Arc::clone(&held.0))
    }

    fn insert(&mut self, family: &'static Family, values: &[u8]) -> Arc<Series> {
        let cells = self.store.take(if family.kind == Kind::Histogram { HISTOGRAM_CELLS } else { 1 });
        let series = Arc::new(Series { values: values.into(), cells });
        self.series += lines(family);
        let entry = self.families.entry(family.name).or_insert_with(|| Entry { family, series: BTreeSet::new() });
        entry.series.insert(Held(Arc::clone(&series)));
        series
    }

    /// Removes the series whose last handle is gone. It happens here rather than when a handle is dropped, because that may be
    /// on a worker in the middle of a request; and a series that is wanted again before the next scrape goes on as it was.
    fn forget_unused(&mut self) {
        self.since = 0;
        for entry in self.families.values_mut() {
            for held in entry.series.extract_if(.., |held| Arc::strong_count(&held.0) == 1) {
                self.series -= lines(entry.family);
                if let Some(series) = Arc::into_inner(held.0) {
                    self.store.give_back(series.cells);
                }
            }
        }
        self.families.retain(|_, entry| !entry.series.is_empty());
    }
}

/// The values of a family's labels as [`Series`] holds them.
fn joined<'a>(family: &Family, value: impl Fn(&str) -> &'a str) -> SmallVec<[u8; 128]> {
    let mut values = SmallVec::new();
    for label in family.labels {
        values.extend_from_slice(value(label).as_bytes());
        values.push(END);
    }
    values
}

impl Series {
    fn values(&self) -> impl Iterator<Item = &str> + Clone {
        let whole = self.values.strip_suffix(&[END]);
        let each = whole.into_iter().flat_map(|values| values.split(|byte| *byte == END));
        each.map(|value| std::str::from_utf8(value).unwrap_or_default())
    }
}

impl Borrow<[u8]> for Held {
    fn borrow(&self) -> &[u8] {
        &self.0.values
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.values.cmp(&other.0.values)
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.0.values == other.0.values
    }
}

impl Eq for Held {}

/// Lines that one series has in a scrape.
fn lines(family: &Family) -> usize {
    if family.kind == Kind::Histogram { BUCKETS + 3 } else { 1 }
}

fn write_series(text: &mut Text, family: &Family, series: &Series) {
    let (values, cells) = (series.values(), &series.cells);
    match family.kind {
        Kind::Counter => text.sample(family, "", values, None, cells.sum(0)),
        Kind::Gauge => text.sample(family, "", values, None, cells.sum(0).cast_signed()),
        Kind::Histogram => {
            let mut count: u64 = 0;
            for bucket in 0..BUCKETS {
                count += cells.sum(bucket);
                text.sample(family, "_bucket", values.clone(), Some(&seconds(bound(bucket))), count);
            }
            count += cells.sum(BUCKETS);
            text.sample(family, "_bucket", values.clone(), Some("+Inf"), count);
            text.sample(family, "_sum", values.clone(), None, seconds(cells.sum(BUCKETS + 1)));
            text.sample(family, "_count", values, None, count);
        }
    }
}

/// Upper bound of a finite bucket in nanoseconds.
fn bound(bucket: usize) -> u64 {
    FIRST_BOUND << bucket
}

const FIRST_BOUND: u64 = 100_000;

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter(Arc<Series>);

impl Counter {
    /// Counts `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.cells.add(0, n);
    }

    /// What all workers counted.
    pub fn get(&self) -> u64 {
        self.0.cells.sum(0)
    }
}

/// A number that grows and shrinks. Use either `set` from one place, or `add` and `sub` from any.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<Series>);

impl Gauge {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.cells.add(0, n.cast_unsigned());
    }

    /// Takes `n` away; the thread that takes away need not be the one that added.
    #[inline]
    pub fn sub(&self, n: i64) {
        self.0.cells.add(0, n.wrapping_neg().cast_unsigned());
    }

    /// Makes it `n`.
    pub fn set(&self, n: i64) {
        self.0.cells.set(0, n.cast_unsigned());
    }

    /// The sum over all workers.
    pub fn get(&self) -> i64 {
        self.0.cells.sum(0).cast_signed()
    }
}

/// Durations in fixed exponential buckets.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Series>);

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.cells.add(bucket(nanos), 1);
        self.0.cells.add(BUCKETS + 1, nanos);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        (0..=BUCKETS).map(|bucket| self.0.cells.sum(bucket)).sum()
    }
}

/// The first bucket whose bound is not below `nanos`: bounds double, so it is a count of bits.
#[inline]
fn bucket(nanos: u64) -> usize {
    let doubled = nanos.saturating_sub(1) / FIRST_BOUND;
    ((u64::BITS - doubled.leading_zeros()) as usize).min(BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::render::tests::parse;

    fn value(registry: &Registry, sample: &str) -> Option<f64> {
        parse(&registry.render()).get(sample).copied()
    }

    #[test]
    fn workers_and_other_threads_are_summed_on_scrape() {
        let registry = Registry::new(2, 100);
        let counter = registry.counter(&families::CONNECTIONS, &[("listener", "http")]);
        std::thread::scope(|scope| {
            for worker in [0, 1, 2, 99, usize::MAX] {
                let counter = counter.clone();
                scope.spawn(move || {
                    set_worker(worker);
                    (0..1000).for_each(|_| counter.add(1));
                });
            }
        });
        assert_eq!(counter.get(), 5000);
        assert_eq!(value(&registry, r#"tidegate_connections_total{listener="http"}"#), Some(5000.0));
    }

    #[test]
    fn a_gauge_may_be_lowered_on_another_thread_than_it_was_raised() {
        let registry = Registry::new(1, 100);
        let gauge = registry.gauge(&families::REQUESTS_IN_FLIGHT, &[("listener", "a")]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                set_worker(0);
                gauge.add(3);
            });
        });
        gauge.sub(5);
        assert_eq!(gauge.get(), -2);
        assert_eq!(value(&registry, r#"tidegate_requests_in_flight{listener="a"}"#), Some(-2.0));
        gauge.set(7);
        assert_eq!(gauge.get(), 7);
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        assert_eq!(bucket(0), 0);
        for at in 0..BUCKETS {
            assert_eq!((bucket(bound(at)), bucket(bound(at) + 1)), (at, at + 1));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS);
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_its_count() {
        let registry = Registry::new(1, 100);
        let histogram = registry.histogram(&families::REQUEST_DURATION, &[("route", "r")]);
        for millis in [0, 1, 3, 90_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let samples = parse(&registry.render());
        let get =
            |name: &str, le: &str| samples[&format!("tidegate_request_duration_seconds{name}{{route=\"r\"{le}}}")];
        assert_eq!(get("_bucket", ",le=\"0.0001\""), 1.0);
        assert_eq!(get("_bucket", ",le=\"0.0016\""), 2.0);
        assert_eq!(get("_bucket", ",le=\"52.4288\""), 3.0);
        assert_eq!(get("_bucket", ",le=\"+Inf\""), 4.0);
        assert_eq!((get("_sum", ""), get("_count", "")), (90.004, 4.0));
        assert_eq!(histogram.count(), 4);
    }

    #[test]
    fn a_series_without_handles_leaves_the_scrape() {
        let registry = Registry::new(1, 100);
        let counter = registry.counter(&families::CONNECTIONS, &[("listener", "a")]);
        let clone = counter.clone();
        drop(counter);
        assert!(registry.render().contains("tidegate_connections_total{"));
        drop(clone);
        assert!(!registry.render().contains("tidegate_connections_total"));
    }

    #[test]
    fn a_series_that_is_resolved_again_goes_on_counting() {
        let registry = Registry::new(1, 100);
        registry.counter(&families::CONNECTIONS, &[("listener", "a")]).add(3);
        let again = registry.counter(&families::CONNECTIONS, &[("listener", "a")]);
        assert_eq!(again.get(), 3);
    }

    #[test]
    fn series_beyond_the_cap_share_one_and_are_counted() {
        let registry = Registry::new(1, 10);
        let name = |n: usize| format!("route-{n}");
        let held: Vec<_> =
            (0..50).map(|n| registry.counter(&families::REQUEST_BODY_BYTES, &[("route", &name(n))])).collect();
        held.iter().for_each(|counter| counter.add(1));
        let samples = parse(&registry.render());
        let lines = samples.keys().filter(|k| k.starts_with("tidegate_request_body_bytes_total")).count();
        assert_eq!(lines, 8, "three of ten are the registry's own, and one more is the overflow");
        assert_eq!(samples[r#"tidegate_request_body_bytes_total{route="other"}"#], 43.0);
        assert_eq!(samples["tidegate_metrics_series_folded_total"], 43.0);
    }

    #[test]
    fn dropped_series_make_room_under_the_cap() {
        let registry = Registry::new(1, 5);
        for n in 0..20 {
            registry.counter(&families::CONNECTIONS, &[("listener", &n.to_string())]).add(1);
        }
        assert_eq!(value(&registry, "tidegate_metrics_series_folded_total"), Some(0.0));
    }

    #[test]
    fn series_beyond_the_cap_do_not_each_walk_over_all_others() {
        let registry = Registry::new(1, 1000);
        let counter = |n: usize| registry.counter(&families::CONNECTIONS, &[("listener", &n.to_string())]);
        let _held: Vec<_> = (0..1060).map(counter).collect();
        assert!(registry.lock().since > 50, "one walk when the cap was met, none since");
    }

    #[test]
    fn values_of_labels_do_not_run_into_each_other() {
        let registry = Registry::new(1, 100);
        let count =
            |route: &str, class: &str| registry.counter(&families::REQUESTS, &[("route", route), ("class", class)]);
        let held = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("a\0b", "c"), ("a", "\0bc"), ("ä", "")]
            .map(|(route, class)| count(route, class));
        held.iter().enumerate().for_each(|(n, counter)| counter.add(n as u64 + 1));
        for (n, sample) in [
            r#"{route="a",class="bc"}"#,
            r#"{route="ab",class="c"}"#,
            r#"{route="",class="abc"}"#,
            r#"{route="abc",class=""}"#,
        ]
        .iter()
        .enumerate()
        {
            assert_eq!(value(&registry, &format!("tidegate_requests_total{sample}")), Some(n as f64 + 1.0));
        }
        assert_eq!(value(&registry, "tidegate_requests_total{route=\"ä\",class=\"\"}"), Some(7.0));
        assert_eq!(held.map(|counter| counter.get()), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_family_without_labels_is_never_folded() {
        let registry = Registry::new(1, 0);
        let gauge = registry.gauge(&families::CONFIG_GENERATION, &[]);
        gauge.set(9);
        assert_eq!(value(&registry, "tidegate_config_generation"), Some(9.0));
    }
}
