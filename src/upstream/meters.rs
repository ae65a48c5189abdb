//! What does a cluster count?
//!
//! Series are resolved when something is first counted: of ten thousand clusters most never meet a queue or an ejection, and a
//! series that is never counted costs neither memory nor a line of the scrape.

use super::endpoint::Outcome;
use crate::model::ClusterSpec;
use crate::telemetry::families::{self, Family};
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};
use once_cell::race::OnceBox;
use std::sync::{Arc, OnceLock};

/// Labels of a series, before the name of the cluster.
type Extra = Option<(&'static str, &'static str)>;

#[derive(Debug)]
pub(crate) struct Meters {
    registry: Registry,
    spec: Arc<ClusterSpec>,
    /// Of its own, because most of thousands of clusters never count a request, and the handles are a third of a kilobyte.
    requests: OnceBox<Requests>,
    states: [OnceLock<Gauge>; 3],
}

/// What requests count.
#[derive(Debug, Default)]
struct Requests {
    classes: [OnceLock<Counter>; 5],
    failures: [OnceLock<Counter>; 5],
    connects: OnceLock<(Counter, Histogram)>,
    head: OnceLock<Histogram>,
    reused: OnceLock<Counter>,
    open: OnceLock<Gauge>,
    in_flight: OnceLock<Gauge>,
    queued: OnceLock<Gauge>,
    retries: OnceLock<Counter>,
}

/// Where an endpoint stands, as the scrape tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Healthy,
    Unhealthy,
    Ejected,
}

impl Meters {
    pub(crate) fn new(registry: &Registry, spec: &Arc<ClusterSpec>) -> Self {
        let (requests, states) = Default::default();
        Self { registry: registry.clone(), spec: Arc::clone(spec), requests, states }
    }

    fn requests(&self) -> &Requests {
        self.requests.get().unwrap_or_else(|| self.requests.get_or_init(Box::default))
    }

    /// What the cluster was made of.
    pub(crate) fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// Name of the cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.spec.name
    }

    fn counter(&self, family: &'static Family, extra: Extra) -> Counter {
        self.labels(extra, |labels| self.registry.counter(family, labels))
    }

    fn gauge(&self, family: &'static Family, extra: Extra) -> Gauge {
        self.labels(extra, |labels| self.registry.gauge(family, labels))
    }

    fn labels<T>(&self, extra: Extra, resolve: impl FnOnce(&[(&'static str, &str)]) -> T) -> T {
        let cluster = ("cluster", self.cluster());
        match extra {
            Some(extra) => resolve(&[cluster, extra]),
            None => resolve(&[cluster]),
        }
    }

    /// One attempt's end.
    pub(crate) fn attempt(&self, outcome: Outcome) {
        let requests = self.requests();
        let (cells, index, family, extra) = match outcome {
            Outcome::Success => (&requests.classes, 1, &families::UPSTREAM_REQUESTS, ("class", "2xx")),
            Outcome::Status(status) => {
                let (index, class) = class(status);
                (&requests.classes, index, &families::UPSTREAM_REQUESTS, ("class", class))
            }
            Outcome::ConnectFailed => (&requests.failures, 0, &families::UPSTREAM_FAILURES, ("reason", "connect")),
            Outcome::TlsFailed => (&requests.failures, 1, &families::UPSTREAM_FAILURES, ("reason", "tls")),
            Outcome::Reset => (&requests.failures, 2, &families::UPSTREAM_FAILURES, ("reason", "reset")),
            Outcome::Timeout => (&requests.failures, 3, &families::UPSTREAM_FAILURES, ("reason", "timeout")),
            Outcome::Malformed => (&requests.failures, 4, &families::UPSTREAM_FAILURES, ("reason", "protocol")),
        };
        if let Some(cell) = cells.get(index) {
            cell.get_or_init(|| self.counter(family, Some(extra))).add(1);
        }
    }

    /// A connection was made in this time.
    pub(crate) fn connected(&self, took: std::time::Duration) {
        let (connects, duration) = self.requests().connects.get_or_init(|| {
            let duration = self.labels(None, |l| self.registry.histogram(&families::UPSTREAM_CONNECT_DURATION, l));
            (self.counter(&families::UPSTREAM_CONNECTS, None), duration)
        });
        connects.add(1);
        duration.observe(took);
    }

    /// The head of a response came this long after its attempt was sent.
    pub(crate) fn head(&self, after: std::time::Duration) {
        let resolve = || self.labels(None, |l| self.registry.histogram(&families::UPSTREAM_HEAD_DURATION, l));
        self.requests().head.get_or_init(resolve).observe(after);
    }

    pub(crate) fn reused(&self) {
        self.requests().reused.get_or_init(|| self.counter(&families::UPSTREAM_REUSED, None)).add(1);
    }

    pub(crate) fn open(&self) -> &Gauge {
        self.requests().open.get_or_init(|| self.gauge(&families::UPSTREAM_CONNECTIONS_OPEN, None))
    }

    pub(crate) fn in_flight(&self) -> &Gauge {
        self.requests().in_flight.get_or_init(|| self.gauge(&families::UPSTREAM_IN_FLIGHT, None))
    }

    pub(crate) fn queued(&self) -> &Gauge {
        self.requests().queued.get_or_init(|| self.gauge(&families::UPSTREAM_QUEUED, None))
    }

    pub(crate) fn retried(&self) {
        self.requests().retries.get_or_init(|| self.counter(&families::UPSTREAM_RETRIES, None)).add(1);
    }

    /// A series that the caller keeps, for what is rare.
    pub(crate) fn rare(&self, family: &'static Family, extra: Extra) -> Counter {
        self.counter(family, extra)
    }

    /// An endpoint went from one standing to another (`None`: not a member).
    pub(crate) fn moved(&self, from: Option<Standing>, to: Option<Standing>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.standing(from, -1);
        }
        if let Some(to) = to {
            self.standing(to, 1);
        }
    }

    /// So many endpoints are members now that were not, and so many no longer that were, all of them in good health.
    pub(crate) fn joined(&self, joined: usize, left: usize) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        if joined != left {
            self.standing(Standing::Healthy, count(joined) - count(left));
        }
    }

    fn standing(&self, standing: Standing, by: i64) {
        let (index, name) = match standing {
            Standing::Healthy => (0, "healthy"),
            Standing::Unhealthy => (1, "unhealthy"),
            Standing::Ejected => (2, "ejected"),
        };
        if let Some(cell) = self.states.get(index) {
            cell.get_or_init(|| self.gauge(&families::ENDPOINTS, Some(("state", name)))).add(by);
        }
    }
}

fn class(status: u16) -> (usize, &'static str) {
    match status {
        0..200 => (0, "1xx"),
        200..300 => (1, "2xx"),
        300..400 => (2, "3xx"),
        400..500 => (3, "4xx"),
        _ => (4, "5xx"),
    }
}
