//! How is written how the health of a cluster's endpoints is found out?

use super::path::canonical;
use crate::config::decode::Kind;
use crate::config::kind::{Scalar, Section, Shapes};
use crate::config::values;
use crate::model::{HealthCheck, HealthCheckSpec, OutlierSpec, ValueError};
use std::time::Duration;

/// Often enough to notice a dead endpoint before many people do.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// A service that needs longer for its health is not healthy.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Successes in a row until an endpoint is healthy again: one may be luck.
pub const HEALTHY: u32 = 2;
/// Failures in a row until it is not: one may be a restart of something between.
pub const UNHEALTHY: u32 = 3;

/// `/path`, `tcp`, or the long form.
pub(super) fn health_check() -> impl Kind<Out = HealthCheckSpec> {
    let short = Scalar {
        expects: "a path to GET, or tcp".into(),
        parse: Box::new(|text| {
            let check = if text == "tcp" { HealthCheck::Tcp } else { http(request_path(text)?, None, None) };
            Ok(usual(check))
        }),
        schema: Box::new(|| serde_json::json!({ "type": "string", "pattern": "^(/|tcp$)" })),
        show: Box::new(|_| serde_json::Value::Null),
    };
    Shapes::new().text(short).map(long())
}

fn long() -> Section<HealthCheckSpec> {
    Section {
        name: "health_check",
        doc: "Active checks of every endpoint: http, grpc or tcp.",
        fields: |f| {
            let path =
                Scalar { expects: "a path such as /healthz".into(), parse: Box::new(request_path), ..values::text("") };
            let path = f.optional("http", "GET of this path must answer 200-399, or `status`.", path);
            let doc = "grpc.health.v1.Health/Check of this service must answer SERVING; \"\" is the whole server.";
            let grpc = f.optional("grpc", doc, values::text("the name of a gRPC service"));
            let doc = "true: a connection can be made, no more.";
            let tcp = f.optional("tcp", doc, values::flag()).filter(|on| *on);
            let host = f.optional(
                "host",
                "Host header of an http check. Default: the cluster's name.",
                values::plain_host(true),
            );
            let status = values::number("a status", 100_u16, 599);
            let status = f.optional("status", "The one status of an http check that is healthy.", status);
            let interval =
                f.or("interval", "Pause between two checks, with 10 % jitter.", values::positive_duration(), INTERVAL);
            let timeout = f.or("timeout", "Limit for one check.", values::positive_duration(), TIMEOUT);
            let count = || values::number("a number", 1_u32, 1000);
            let healthy = f.or("healthy", "Successes in a row until an endpoint is healthy again.", count(), HEALTHY);
            let unhealthy = f.or("unhealthy", "Failures in a row until it is not.", count(), UNHEALTHY);
            let kinds = ["http", "grpc", "tcp"].into_iter().filter(|key| f.has(key)).count();
            if kinds != 1 {
                f.error("", "there must be exactly one of http, grpc and tcp", "such as { http: /healthz }");
            }
            if !f.has("http") && (f.has("host") || f.has("status")) {
                f.error("", "host and status belong to an http check", "leave them out, or write http: /path");
            }
            let check = match (path, grpc, tcp) {
                (Some(path), ..) => http(path, host, status),
                (None, Some(service), _) => HealthCheck::Grpc { service },
                (None, None, _) => HealthCheck::Tcp,
            };
            Some(HealthCheckSpec { check, interval, timeout, healthy, unhealthy })
        },
    }
}

fn usual(check: HealthCheck) -> HealthCheckSpec {
    HealthCheckSpec { check, interval: INTERVAL, timeout: TIMEOUT, healthy: HEALTHY, unhealthy: UNHEALTHY }
}

fn http(path: String, host: Option<String>, status: Option<u16>) -> HealthCheck {
    HealthCheck::Http { path, host, status }
}

/// A path with perhaps a query.
fn request_path(text: &str) -> Result<String, ValueError> {
    let hint = "write a path such as /healthz, or tcp";
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let path = canonical(path).map_err(|error| ValueError { hint: hint.into(), ..error })?;
    match query {
        Some(query) if query.bytes().any(|b| !b.is_ascii_graphic()) => {
            Err(ValueError::new(format!("{text:?} has a query with odd characters"), "escape them with %"))
        }
        Some(query) => Ok(format!("{path}?{query}")),
        None => Ok(path),
    }
}

/// `off`, or `{ failures, ejection }`.
pub(super) fn outlier() -> impl Kind<Out = Option<OutlierSpec>> {
    let off = values::choice("a choice", &[("off", None), ("on", Some(()))]);
    let on = crate::config::kind::Mapped(off, |on| on.map(|()| OutlierSpec::default()));
    let long = Section {
        name: "outlier",
        doc: "Endpoints that fail real requests are put aside for a while; never more than half of them.",
        fields: |f| {
            let usual = OutlierSpec::default();
            let number = values::number("a number", 1_u32, 1000);
            let doc = "Failures in a row (no connection, reset, timeout, 502-504) until an endpoint is put aside.";
            let failures = f.or("failures", doc, number, usual.failures);
            let doc = "First time aside; doubled each time, up to 10 times.";
            let ejection = f.or("ejection", doc, values::positive_duration(), usual.ejection);
            Some(Some(OutlierSpec { failures, ejection }))
        },
    };
    Shapes::new().text(on).map(long)
}
