//! Is the process alive, is it ready, and what does it count?

use super::query::Query;
use super::reply::{self, Reply};
use super::{Desk, Handles};
use crate::snapshot::Snapshot;
use crate::telemetry::{CONTENT_TYPE, Gauge, families};
use http::StatusCode;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Alive as long as this thread answers. Never depends on readiness: a proxy that waits for its configuration must not be killed.
pub(super) fn healthz(_: &Desk, _: &Query) -> Reply {
    reply::text(StatusCode::OK, "ok\n")
}

/// `ready`, or 503 with one line for each thing that is waited for.
pub(super) fn readyz(desk: &Desk, _: &Query) -> Reply {
    let reasons = desk.handles.readiness.reasons();
    if reasons.is_empty() {
        return reply::text(StatusCode::OK, "ready\n");
    }
    reply::text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
}

/// The scrape. What others publish as state rather than count is looked at here.
pub(super) fn metrics(desk: &Desk, _: &Query) -> Reply {
    desk.state.refresh(&desk.handles);
    reply::bytes(StatusCode::OK, CONTENT_TYPE, desk.handles.registry.render())
}

/// Gauges that are set at each scrape.
#[derive(Debug)]
pub(super) struct State {
    ready: Gauge,
    expiry: Mutex<Expiry>,
}

/// Gauges of certificates, made anew for each generation.
#[derive(Debug, Default)]
struct Expiry {
    generation: u64,
    _held: Vec<Gauge>,
}

impl State {
    pub(super) fn new(handles: &Handles) -> Self {
        Self { ready: handles.registry.gauge(&families::READY, &[]), expiry: Mutex::default() }
    }

    fn refresh(&self, handles: &Handles) {
        self.ready.set(handles.readiness.is_ready().into());
        let snapshot = handles.shared.full();
        let mut expiry = self.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        if expiry.generation != snapshot.generation {
            let gauge = |(name, expires): (String, i64)| {
                let gauge = handles.registry.gauge(&families::CERTIFICATE_EXPIRY, &[("certificate", &name)]);
                gauge.set(expires);
                gauge
            };
            let _held = first_expiry(&snapshot).into_iter().map(gauge).collect();
            *expiry = Expiry { generation: snapshot.generation, _held };
        }
    }
}

/// When each certificate name expires: of several certificates (ECDSA beside RSA) the first.
fn first_expiry(snapshot: &Snapshot) -> BTreeMap<String, i64> {
    let mut first = BTreeMap::new();
    for view in snapshot.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| tls.describe()) {
        let expires = first.entry(view.name).or_insert(view.expires);
        *expires = view.expires.min(*expires);
    }
    first
}
