//! What is counted for a listener?

use super::handshake::Failure;
use super::limits::Refused;
use crate::telemetry::{Counter, Gauge, Histogram, Registry, families};

/// Handles of one listener, resolved when it is bound.
#[derive(Debug)]
pub(super) struct ListenerMetrics {
    pub(super) accepted: Counter,
    pub(super) open: Gauge,
    pub(super) resting: Gauge,
    pub(super) accept_errors: Counter,
    pub(super) proxy_header: Counter,
    pub(super) draining: Counter,
    pub(super) resumed: Counter,
    pub(super) handshake: Histogram,
    limit: Counter,
    source_limit: Counter,
    tls12: Counter,
    tls13: Counter,
    failures: [Counter; Failure::REASONS.len()],
}

impl ListenerMetrics {
    pub(super) fn new(registry: &Registry, listener: &str) -> Self {
        let refused =
            |reason| registry.counter(&families::CONNECTIONS_REFUSED, &[("listener", listener), ("reason", reason)]);
        let version =
            |version| registry.counter(&families::TLS_HANDSHAKES, &[("listener", listener), ("version", version)]);
        let only = [("listener", listener)];
        Self {
            accepted: registry.counter(&families::CONNECTIONS, &only),
            open: registry.gauge(&families::CONNECTIONS_OPEN, &only),
            resting: registry.gauge(&families::CONNECTIONS_RESTING, &only),
            accept_errors: registry.counter(&families::ACCEPT_ERRORS, &only),
            proxy_header: refused("proxy_header"),
            draining: refused("draining"),
            limit: refused("limit"),
            source_limit: refused("source_limit"),
            resumed: registry.counter(&families::TLS_RESUMED, &only),
            handshake: registry.histogram(&families::TLS_HANDSHAKE_DURATION, &only),
            tls12: version("TLSv1.2"),
            tls13: version("TLSv1.3"),
            failures: Failure::REASONS
                .map(|reason| registry.counter(&families::TLS_FAILURES, &[("listener", listener), ("reason", reason)])),
        }
    }

    pub(super) fn refused(&self, why: Refused) {
        match why {
            Refused::Limit => self.limit.add(1),
            Refused::Source => self.source_limit.add(1),
        }
    }

    /// `version` as in [`crate::message::TlsInfo::version`].
    pub(super) fn shaken(&self, version: &str) {
        if version == "TLSv1.2" { self.tls12.add(1) } else { self.tls13.add(1) }
    }

    pub(super) fn failed(&self, why: &Failure) {
        let reason = why.reason();
        for (name, counter) in Failure::REASONS.iter().zip(&self.failures) {
            if *name == reason {
                counter.add(1);
            }
        }
    }
}
