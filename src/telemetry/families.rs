//! Which metrics are there, what do they mean, and which labels do they carry?
//!
//! Every name in one table. Handles are resolved from these when configuration is compiled and kept on listeners, routes,
//! clusters and endpoints; nothing looks one up for a request. Labels come from configuration alone (names of listeners, routes,
//! clusters) or from fixed sets (status class, reason token), never from what a client sent.

/// How the values of a family are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Grows and shrinks.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl Kind {
    /// As in a `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric: a name and what is measured under it.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Name in the scrape.
    pub name: &'static str,
    /// One sentence for the reader of the scrape.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Label names, in the order they are written.
    pub labels: &'static [&'static str],
}

/// Writes the constants and the list of all of them from one table, so that neither can miss an entry of the other.
macro_rules! families {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub static $id: Family =
            Family { name: $name, help: $help, kind: Kind::$kind, labels: &[$($label),*] };)*
        /// Every family, in the order of the table.
        pub static ALL: &[&Family] = &[$(&$id),*];
    };
}

families! {
    // Downstream: requests. `class` is 1xx to 5xx, or `none` where no response was begun.
    REQUESTS: Counter "tidegate_requests_total" ["route", "class"] "Requests that ended, by route and class of status.";
    REQUEST_DURATION: Histogram "tidegate_request_duration_seconds" ["route"]
        "From the first byte of a request to the last byte of its response.";
    REQUEST_BODY_BYTES: Counter "tidegate_request_body_bytes_total" ["route"] "Body bytes received from clients.";
    RESPONSE_BODY_BYTES: Counter "tidegate_response_body_bytes_total" ["route"] "Body bytes sent to clients.";
    REQUESTS_IN_FLIGHT: Gauge "tidegate_requests_in_flight" ["listener"] "Requests that have begun and not ended.";
    LISTENER_REQUESTS: Counter "tidegate_listener_requests_total" ["listener", "protocol"]
        "Requests by listener and protocol version, those without a route included.";
    OWN_RESPONSES: Counter "tidegate_own_responses_total" ["listener", "reason"]
        "Responses made by the proxy itself and responses it cut, by reason token.";
    FILTER_REFUSALS: Counter "tidegate_filter_refusals_total" ["route", "filter"] "Requests that a filter refused.";
    FILTER_AUDITED: Counter "tidegate_filter_audited_total" ["route", "filter"]
        "Requests that a filter of their route in audit mode would have refused.";
    LISTENER_FILTER_AUDITED: Counter "tidegate_listener_filter_audited_total" ["listener", "filter"]
        "Requests that a filter of the listener in audit mode would have refused.";
    UPGRADES_OPEN: Gauge "tidegate_upgrades_open" ["listener"] "Upgraded connections and tunnels (WebSocket) that are open.";

    // Downstream: connections.
    CONNECTIONS: Counter "tidegate_connections_total" ["listener"] "Connections accepted.";
    CONNECTIONS_OPEN: Gauge "tidegate_connections_open" ["listener"] "Connections that are open.";
    CONNECTIONS_RESTING: Gauge "tidegate_connections_resting" ["listener"]
        "Connections of those open that wait for a request so long that they hold little more than their socket.";
    CONNECTIONS_REFUSED: Counter "tidegate_connections_refused_total" ["listener", "reason"]
        "Connections closed before a request, by reason: limit, source_limit, proxy_header, draining.";
    ACCEPT_ERRORS: Counter "tidegate_accept_errors_total" ["listener"]
        "Failures of accept itself, such as no free file descriptor.";
    TLS_HANDSHAKES: Counter "tidegate_tls_handshakes_total" ["listener", "version"] "TLS handshakes that succeeded.";
    TLS_RESUMED: Counter "tidegate_tls_resumed_total" ["listener"] "TLS handshakes that resumed an earlier session.";
    TLS_FAILURES: Counter "tidegate_tls_handshake_failures_total" ["listener", "reason"] "TLS handshakes that failed.";
    TLS_HANDSHAKE_DURATION: Histogram "tidegate_tls_handshake_duration_seconds" ["listener"]
        "From accept to the end of the TLS handshake.";
    CERTIFICATE_EXPIRY: Gauge "tidegate_certificate_not_after_timestamp_seconds" ["certificate"]
        "When a certificate expires, in seconds since the epoch.";

    // Upstream.
    UPSTREAM_REQUESTS: Counter "tidegate_upstream_requests_total" ["cluster", "class"] "Attempts that were answered.";
    UPSTREAM_FAILURES: Counter "tidegate_upstream_failures_total" ["cluster", "reason"]
        "Attempts that were not answered: connect, tls, reset, timeout, protocol, no_endpoints.";
    UPSTREAM_HEAD_DURATION: Histogram "tidegate_upstream_head_duration_seconds" ["cluster"]
        "From sending an attempt to the head of its response.";
    UPSTREAM_CONNECTS: Counter "tidegate_upstream_connects_total" ["cluster"] "Connections made to endpoints.";
    UPSTREAM_CONNECT_DURATION: Histogram "tidegate_upstream_connect_duration_seconds" ["cluster"]
        "Time to make a connection, TLS included.";
    UPSTREAM_REUSED: Counter "tidegate_upstream_connections_reused_total" ["cluster"]
        "Attempts that went out on a pooled connection.";
    UPSTREAM_CONNECTIONS_OPEN: Gauge "tidegate_upstream_connections_open" ["cluster"]
        "Connections to endpoints that are open, idle ones included.";
    UPSTREAM_IN_FLIGHT: Gauge "tidegate_upstream_in_flight" ["cluster"] "Attempts in flight.";
    UPSTREAM_QUEUED: Gauge "tidegate_upstream_queued" ["cluster"] "Requests that wait for a place at an endpoint.";
    UPSTREAM_QUEUE_REFUSALS: Counter "tidegate_upstream_queue_refusals_total" ["cluster", "reason"]
        "Requests that got no place: full (queue) or timeout.";
    UPSTREAM_RETRIES: Counter "tidegate_upstream_retries_total" ["cluster"] "Attempts beyond the first.";
    UPSTREAM_RETRIES_DENIED: Counter "tidegate_upstream_retries_denied_total" ["cluster"]
        "Retries that the retry budget did not allow.";
    ENDPOINTS: Gauge "tidegate_endpoints" ["cluster", "state"] "Endpoints by state: healthy, unhealthy, ejected.";
    EJECTIONS: Counter "tidegate_endpoint_ejections_total" ["cluster"] "Endpoints put aside for what real traffic met.";
    HEALTH_CHECKS: Counter "tidegate_health_checks_total" ["cluster", "result"] "Active checks: success or failure.";

    // Configuration.
    CONFIG_GENERATION: Gauge "tidegate_config_generation" [] "Generation of the configuration that serves.";
    CONFIG_PUBLISHED: Gauge "tidegate_config_published_timestamp_seconds" []
        "When the configuration that serves was published, in seconds since the epoch.";
    CONFIG_PUBLISHES: Counter "tidegate_config_publishes_total" ["result"]
        "Changes seen: published, or unchanged after merging.";
    CONFIG_PUBLISH_DURATION: Histogram "tidegate_config_publish_duration_seconds" []
        "Time to merge, compile and swap a change.";
    MEMBERSHIP_CHANGES: Counter "tidegate_membership_changes_total" []
        "Clusters whose endpoints changed without a publish, each change counted.";
    MEMBERSHIP_DURATION: Histogram "tidegate_membership_change_duration_seconds" []
        "Time to hand such endpoints to their clusters, for all that changed together.";
    CONFIG_PROBLEMS: Gauge "tidegate_config_problems" ["severity"]
        "Parts of the configuration that were not honoured (error) or deserve a look (warning).";
    CONFIG_OBJECTS: Gauge "tidegate_config_objects" ["kind"]
        "What the configuration that serves holds: listeners, routes, clusters, certificates.";

    // Kubernetes.
    KUBERNETES_OBJECTS: Gauge "tidegate_kubernetes_objects" ["kind"] "Objects that are kept of each kind.";
    KUBERNETES_ENDPOINTS: Gauge "tidegate_kubernetes_endpoints" [] "Endpoints in all EndpointSlices that are kept.";
    KUBERNETES_WATCH_RESTARTS: Counter "tidegate_kubernetes_watch_restarts_total" ["kind"]
        "Watches that failed and were begun again, or whose list had to be read anew.";
    KUBERNETES_LAST_ANSWER: Gauge "tidegate_kubernetes_last_answer_timestamp_seconds" []
        "When the API server last answered anything, in seconds since the epoch.";
    KUBERNETES_TRANSLATE_DURATION: Histogram "tidegate_kubernetes_translate_duration_seconds" []
        "Time to make routes, clusters and certificates of the objects.";
    // What is written back to Kubernetes. `kind` is lease, ingress, event, configmap.
    KUBERNETES_LEADER: Gauge "tidegate_kubernetes_leader" [] "1 while this gate is the one that writes for all of them.";
    KUBERNETES_WRITES: Counter "tidegate_kubernetes_writes_total" ["kind"] "Objects written to the API server.";
    KUBERNETES_WRITE_FAILURES: Counter "tidegate_kubernetes_write_failures_total" ["kind"]
        "Writes that the API server refused or did not answer, conflicts with a newer version left out.";

    // The process itself.
    READY: Gauge "tidegate_ready" [] "1 when ready for traffic.";
    DRAINING: Gauge "tidegate_draining" [] "1 while draining.";
    WORKERS: Gauge "tidegate_workers" [] "Data-plane threads.";
    ACCESS_LOG_RECORDS: Counter "tidegate_access_log_records_total" [] "Access log records written.";
    ACCESS_LOG_DROPPED: Counter "tidegate_access_log_dropped_total" []
        "Access log records lost because the writer could not keep up or could not write.";
    ACCESS_LOG_ERRORS: Counter "tidegate_access_log_write_errors_total" [] "Writes of the access log that failed.";
    ADMIN_REQUESTS: Counter "tidegate_admin_requests_total" ["class"] "Requests to the admin port.";
    METRICS_SERIES: Gauge "tidegate_metrics_series" [] "Series held by the registry, against its cap.";
    METRICS_FOLDED: Counter "tidegate_metrics_series_folded_total" []
        "Registrations beyond the cap on series, counted under the label value \"other\" instead.";
    BUILD_INFO: Gauge "tidegate_build_info" ["version"] "1, with the version as a label.";

    // Names that every Prometheus client library uses, read from /proc at each scrape.
    PROCESS_CPU: Counter "process_cpu_seconds_total" [] "User and system CPU time spent.";
    PROCESS_RSS: Gauge "process_resident_memory_bytes" [] "Resident memory.";
    PROCESS_FDS: Gauge "process_open_fds" [] "Open file descriptors.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" [] "Limit of open file descriptors.";
    PROCESS_THREADS: Gauge "process_threads" [] "Threads.";
    PROCESS_START: Gauge "process_start_time_seconds" [] "When the process started, in seconds since the epoch.";
}

/// Status classes in the order of [`class_index`].
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Place of a status in [`CLASSES`]; 0 for what is no status.
pub fn class_index(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_name_is_unique_and_follows_the_naming_rules() {
        let mut seen = HashSet::new();
        for family in ALL {
            let name = family.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            assert_eq!(family.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(family.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(family.help.ends_with('.'), "{name}");
            assert!(!family.labels.contains(&"le"), "{name}");
        }
    }

    #[test]
    fn a_status_finds_its_class() {
        for (status, class) in [(0, "none"), (99, "none"), (101, "1xx"), (200, "2xx"), (599, "5xx"), (600, "none")] {
            assert_eq!(CLASSES[class_index(status)], class);
        }
    }
}
