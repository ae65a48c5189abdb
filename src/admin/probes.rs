//! Is the process alive, is it ready, and what does it count?

use super::Desk;
use super::query::Query;
use super::reply::{self, Reply};
use crate::telemetry::CONTENT_TYPE;
use http::StatusCode;

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

/// The scrape.
pub(super) fn metrics(desk: &Desk, _: &Query) -> Reply {
    reply::bytes(StatusCode::OK, CONTENT_TYPE, desk.handles.registry.render())
}
