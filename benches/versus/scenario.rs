//! Which situations are measured, and what is the work in each?

use crate::load::Ask;
use crate::peer::Work;

/// Hosts of the full work.
pub const MANY: usize = 10_000;
/// Numbers of routes that the scenario of routes compares.
pub const ROUTES: [usize; 3] = [1, MANY, 100_000];

/// A situation.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// For the reader of the table.
    pub what: &'static str,
    /// What the proxies are configured for.
    pub work: Work,
    /// What is measured.
    pub measure: Measure,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// CPU time of a request, by our generator.
    Requests {
        /// What is asked.
        ask: Ask,
        /// Connections at a time.
        connections: usize,
        /// Many requests on a connection, or one.
        reuse: bool,
    },
    /// Requests that are answered in a second of one whole CPU.
    Core {
        /// Connections at a time.
        connections: usize,
    },
    /// What a second worker brings, and costs.
    Workers {
        /// Connections at a time.
        connections: usize,
    },
    /// CPU time of a request over HTTP/2, by h2load.
    Streams {
        /// Connections.
        connections: usize,
        /// Streams on each.
        streams: usize,
    },
    /// CPU time of a request for the last of many routes, relative to the only one.
    Routes,
    /// Memory that a connection holds while nothing happens on it.
    Idle {
        /// Connections.
        connections: usize,
    },
    /// Memory after the first answer.
    Start,
}

const FULL: Work = Work { hosts: MANY, full: true, tls: false, bulk: false, workers: 1 };
const BARE: Work = Work { hosts: 1, full: false, tls: false, bulk: false, workers: 1 };

const fn requests(ask: Ask, connections: usize, reuse: bool) -> Measure {
    Measure::Requests { ask, connections, reuse }
}

/// All situations, in the order in which they run.
pub const ALL: [Scenario; 15] = [
    Scenario {
        name: "h1-small",
        what: "HTTP/1.1 keep-alive, 32 connections, 64-byte body; 10 000 hosts, forwarded headers, access log, metrics.",
        work: FULL,
        measure: requests(Ask::Small, 32, true),
    },
    Scenario {
        name: "h1-bare",
        what: "HTTP/1.1 keep-alive, 32 connections, 64-byte body; one route, no log, no added headers.",
        work: BARE,
        measure: requests(Ask::Small, 32, true),
    },
    Scenario {
        name: "full-core",
        what: "As h1-small with 64 connections, as fast as it goes: requests a second of one whole core.",
        work: FULL,
        measure: Measure::Core { connections: 64 },
    },
    Scenario {
        name: "two-workers",
        what: "As h1-small with 128 connections, for one and for two workers; the ratio is to one of the same proxy.",
        work: FULL,
        measure: Measure::Workers { connections: 128 },
    },
    Scenario {
        name: "body-1m",
        what: "HTTP/1.1 keep-alive, 8 connections, 1 MiB response; peers tuned for large bodies.",
        work: Work { bulk: true, ..FULL },
        measure: requests(Ask::Large, 8, true),
    },
    Scenario {
        name: "upload-1m-chunked",
        what: "HTTP/1.1 keep-alive, 8 connections, 1 MiB request in chunks of 16 KiB; peers tuned for large bodies.",
        work: Work { bulk: true, ..FULL },
        measure: requests(Ask::Upload, 8, true),
    },
    Scenario {
        name: "connection-per-request",
        what: "HTTP/1.1, `Connection: close`, 16 connections at a time, 64-byte body; the full work.",
        work: FULL,
        measure: requests(Ask::Small, 16, false),
    },
    Scenario {
        name: "tls-keepalive",
        what: "HTTP/1.1 over TLS 1.3, keep-alive, 32 connections, 64-byte body; the full work.",
        work: Work { tls: true, ..FULL },
        measure: requests(Ask::Small, 32, true),
    },
    Scenario {
        name: "tls-handshake",
        what: "A full TLS 1.3 handshake (ECDSA P-256, no resumption) and one request each, 16 at a time; the full work.",
        work: Work { tls: true, ..FULL },
        measure: requests(Ask::Small, 16, false),
    },
    Scenario {
        name: "h2",
        what: "HTTP/2 over TLS 1.3, 8 connections of 32 streams, 64-byte body, HTTP/1.1 upstream; the full work.",
        work: Work { tls: true, ..FULL },
        measure: Measure::Streams { connections: 8, streams: 32 },
    },
    Scenario {
        name: "routes",
        what: "As h1-small, for the last of 1, 10 000 and 100 000 hosts; the ratio is to the only one of the same proxy.",
        work: FULL,
        measure: Measure::Routes,
    },
    Scenario {
        name: "idle-memory",
        what: "4000 keep-alive connections in cleartext, idle after one request each: growth of resident memory.",
        work: FULL,
        measure: Measure::Idle { connections: 4000 },
    },
    Scenario {
        name: "idle-memory-tls",
        what: "1000 keep-alive connections over TLS 1.3, idle after one request each: growth of resident memory.",
        work: Work { tls: true, ..FULL },
        measure: Measure::Idle { connections: 1000 },
    },
    Scenario {
        name: "rss-start",
        what: "Resident memory after the first answer; one route, one worker.",
        work: BARE,
        measure: Measure::Start,
    },
    Scenario {
        name: "rss-10k-routes",
        what: "Resident memory after the first answer; 10 000 hosts, access log, one worker.",
        work: FULL,
        measure: Measure::Start,
    },
];
