//! What is counted for a route?

use crate::model::{Policy, RouteSpec};
use crate::telemetry::families::{self, CLASSES, class_index};
use crate::telemetry::metrics::{Counter, Histogram, Registry};

/// Handles of one route, resolved when it was compiled. The label is the route's name.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    /// Body bytes received from clients.
    pub request_bytes: Counter,
    /// Body bytes sent to clients.
    pub response_bytes: Counter,
    /// From the first byte of a request to the last of its response.
    pub duration: Histogram,
    requests: [Counter; 6],
    filters: Box<[FilterMetrics]>,
}

#[derive(Clone, Debug)]
struct FilterMetrics {
    filter: &'static str,
    refused: Counter,
    audited: Option<Counter>,
}

impl RouteMetrics {
    pub(super) fn new(spec: &RouteSpec, registry: &Registry) -> Self {
        let route = [("route", spec.name.as_str())];
        let requests =
            CLASSES.map(|class| registry.counter(&families::REQUESTS, &[("route", &spec.name), ("class", class)]));
        let mut filters: Vec<FilterMetrics> = Vec::new();
        for (filter, audits) in spec.policies.iter().filter_map(refusing) {
            let labels = [("route", spec.name.as_str()), ("filter", filter)];
            if !filters.iter().any(|f| f.filter == filter) {
                let refused = registry.counter(&families::FILTER_REFUSALS, &labels);
                filters.push(FilterMetrics { filter, refused, audited: None });
            }
            if audits && let Some(metrics) = filters.iter_mut().find(|f| f.filter == filter) {
                metrics.audited = Some(registry.counter(&families::FILTER_AUDITED, &labels));
            }
        }
        Self {
            request_bytes: registry.counter(&families::REQUEST_BODY_BYTES, &route),
            response_bytes: registry.counter(&families::RESPONSE_BODY_BYTES, &route),
            duration: registry.histogram(&families::REQUEST_DURATION, &route),
            requests,
            filters: filters.into(),
        }
    }

    /// Counts a request that ended with this status; 0 where no response was begun.
    pub fn ended(&self, status: u16) {
        if let Some(counter) = self.requests.get(class_index(status)) {
            counter.add(1);
        }
    }

    /// Counts a refusal by a filter of the route, named by [`crate::filter::Refusal::reason`].
    pub fn refused(&self, filter: &str) {
        if let Some(metrics) = self.filters.iter().find(|f| f.filter == filter) {
            metrics.refused.add(1);
        }
    }

    /// Counts what a filter in audit mode let pass, named by `RequestContext::audited`.
    pub fn audited(&self, filter: &str) {
        if let Some(counter) = self.filters.iter().find(|f| f.filter == filter).and_then(|f| f.audited.as_ref()) {
            counter.add(1);
        }
    }
}

/// The filter's token, and whether it only audits, for policies that can refuse.
fn refusing(policy: &Policy) -> Option<(&'static str, bool)> {
    match policy {
        Policy::Access(_) => Some(("access", false)),
        Policy::HeaderCheck(check) => Some(("header_check", check.audit)),
        Policy::BodyLimit(_) => Some(("body_limit", false)),
        Policy::Rewrite(_) => Some(("rewrite", false)),
        Policy::RequestHeaders(_) | Policy::ResponseHeaders(_) => None,
    }
}
