//! How is written what concerns the process as a whole: workers, limits, admin, telemetry, drain?

use super::kind::{Mapped, Scalar, Section, Shapes};
use super::values;
use super::{Access, AccessFormat, AccessLog, Admin, Drain, Log, LogFormat, Metrics, ProcessLimits, Telemetry};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The admin port is for this machine alone until someone says otherwise: it tells everything about the configuration.
pub const ADMIN_ADDRESS: &str = "127.0.0.1:9901";
/// Connections of the process over all listeners: at about 10 KiB each, a gigabyte.
pub const CONNECTIONS: u32 = 100_000;
/// File descriptors kept from listeners, so that the admin port, files and health checks work when clients take all others.
pub const ADMIN_RESERVE: u32 = 64;
/// Time series of the metrics: at about 200 bytes each, 20 MiB in the worst case.
pub const MAX_SERIES: u32 = 100_000;
/// Pause between "not ready" and the end of accepting: none, because without a load balancer in front nobody looks.
pub const DRAIN_DELAY: Duration = Duration::ZERO;
/// Longest wait for requests in flight: as long as Kubernetes waits before it kills.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// More workers than this is a mistake of units.
pub const MAX_WORKERS: u32 = 1024;
/// What is logged unless someone says otherwise.
pub const LOG_LEVEL: &str = "info";

/// `auto` or a number: `None` is one worker for each core.
pub(super) fn workers() -> Scalar<Option<u32>> {
    let number = values::number("a number of workers", 1_u32, MAX_WORKERS);
    Scalar {
        expects: "a number of workers, or auto".into(),
        parse: Box::new(move |t| if t == "auto" { Ok(None) } else { (number.parse)(t).map(Some) }),
        schema: Box::new(
            || serde_json::json!({ "anyOf": [{ "enum": ["auto"] }, { "type": "integer", "minimum": 1, "maximum": MAX_WORKERS }] }),
        ),
        show: Box::new(|workers| workers.map_or_else(|| "auto".into(), Into::into)),
    }
}

pub(super) fn limits() -> Section<ProcessLimits> {
    Section {
        name: "limits",
        doc: "What the process takes at the most, over all listeners.",
        fields: |f| {
            let number = || values::number("a number", 1_u32, 10_000_000);
            let doc = "Connections at a time over all listeners; held below the file-descriptor limit.";
            let connections = f.or("connections", doc, number(), CONNECTIONS);
            let doc = "File descriptors kept for the admin port, files and health checks.";
            let admin_reserve = f.or("admin_reserve", doc, number(), ADMIN_RESERVE);
            Some(ProcessLimits { connections, admin_reserve })
        },
    }
}

pub(super) fn admin() -> Section<Admin> {
    Section {
        name: "admin",
        doc: "The admin port: /healthz, /readyz, /metrics, /api/v1.",
        fields: |f| {
            let doc = "Address and port, or `off`. It has no password: keep it on this machine or a trusted network.";
            let address = f.or("address", doc, admin_address(), Admin::default().address);
            let doc = "Path of a Unix socket with the same pages: this process alone answers there, also while the port is another's.";
            let socket = f.optional("socket", doc, values::text("a path")).map(PathBuf::from);
            let api = f.or("api", "Whether /api/v1 is there (listeners, routes, problems, ...).", values::flag(), true);
            Some(Admin { address, socket, api })
        },
    }
}

fn admin_address() -> Scalar<Option<SocketAddr>> {
    let address = values::listen_address();
    Scalar {
        expects: "an address such as 127.0.0.1:9901, or off".into(),
        parse: Box::new(move |t| if t == "off" { Ok(None) } else { Ok((address.parse)(t)?.first().copied()) }),
        schema: address.schema,
        show: Box::new(|address| address.map_or_else(|| "off".into(), |a| a.to_string().into())),
    }
}

pub(super) fn telemetry() -> Section<Telemetry> {
    Section {
        name: "telemetry",
        doc: "What the proxy tells about its work.",
        fields: |f| {
            let log = f.or_default("log", "The log of the proxy itself, on standard error.", log());
            let doc = "One record for each request: `json`, `combined`, `off`, or { format, path }.";
            let formats = Mapped(access_format(), |format| AccessLog { format, to: Access::Stdout });
            let access_log = f.or_default("access_log", doc, Shapes::new().text(formats).map(access_log()));
            let metrics = f.or_default("metrics", "Metrics for Prometheus on the admin port.", metrics());
            Some(Telemetry { log, access_log, metrics })
        },
    }
}

fn log() -> Section<Log> {
    Section {
        name: "log",
        doc: "The log of the proxy itself, on standard error.",
        fields: |f| {
            let doc =
                "error, warn, info, debug or trace, also for parts: info,tidegate::tls=debug. Changeable at run time.";
            let level = f.or("level", doc, values::name("a level such as info"), LOG_LEVEL.into());
            let formats = values::choice("a log format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
            let format = f.or("format", "Lines for people, or JSON objects.", formats, LogFormat::Text);
            Some(Log { level, format })
        },
    }
}

fn access_format() -> Scalar<AccessFormat> {
    let words = &[("json", AccessFormat::Json), ("combined", AccessFormat::Combined), ("off", AccessFormat::Off)];
    values::choice("an access log format", words)
}

fn access_log() -> Section<AccessLog> {
    Section {
        name: "access_log",
        doc: "One record for each request.",
        fields: |f| {
            let format = f.or("format", "How records are written.", access_format(), AccessLog::default().format);
            let doc = "A file to append to (opened again on SIGHUP), or `stdout`.";
            let path = f.or("path", doc, values::text("a file, or stdout"), "stdout".into());
            let to = if path == "stdout" { Access::Stdout } else { Access::File(PathBuf::from(path)) };
            Some(AccessLog { format, to })
        },
    }
}

fn metrics() -> Section<Metrics> {
    Section {
        name: "metrics",
        doc: "Metrics for Prometheus on the admin port.",
        fields: |f| {
            let doc = "Time series at the most; what is beyond is counted together as \"other\".";
            let number = values::number("a number", 100_u32, 10_000_000);
            let max_series = f.or("max_series", doc, number, MAX_SERIES);
            Some(Metrics { max_series })
        },
    }
}

pub(super) fn drain() -> Section<Drain> {
    Section {
        name: "drain",
        doc: "How the proxy ends: not ready, wait, stop accepting, let requests finish.",
        fields: |f| {
            let doc = "Pause between \"not ready\" and the end of accepting, for load balancers that look at /readyz.";
            let delay = f.or("delay", doc, values::duration(), DRAIN_DELAY);
            let doc = "Longest wait for requests in flight; what is left then is cut.";
            let deadline = f.or("deadline", doc, values::duration(), DRAIN_DEADLINE);
            Some(Drain { delay, deadline })
        },
    }
}
