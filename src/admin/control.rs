//! What can be changed while it runs?

use super::Desk;
use super::query::Query;
use super::reply::{self, Reply};
use crate::telemetry::Level;
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    level: String,
}

/// `{"level":"info"}`
pub(super) fn log_level(desk: &Desk, _: &Query) -> Reply {
    reply::json(&LogLevel { level: desk.handles.log.level().as_str().to_owned() })
}

/// Takes `debug`, `info,tidegate::upstream=debug` or `{"level":"debug"}`; answers like [`log_level`].
pub(super) fn set_log_level(desk: &Desk, body: &Bytes, peer: SocketAddr) -> Reply {
    let text = String::from_utf8_lossy(body);
    let text = match serde_json::from_str::<LogLevel>(&text) {
        Ok(asked) => asked.level,
        Err(_) => text.trim().to_owned(),
    };
    let level = match text.parse::<Level>() {
        Ok(level) => level,
        Err(error) => return reply::wrong(StatusCode::BAD_REQUEST, &error.what, &error.hint),
    };
    if let Err(error) = desk.handles.log.set_level(level) {
        return reply::wrong(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string(), "");
    }
    tracing::warn!(%peer, level = ?text, "log level changed");
    log_level(desk, &Query::default())
}

/// Asks for the drain that SIGTERM asks for.
pub(super) fn drain(desk: &Desk, _: &Bytes, peer: SocketAddr) -> Reply {
    if let Some(drain) = &desk.handles.drain {
        tracing::warn!(%peer, "drain asked for");
        // A full channel means that it was asked for already.
        let _ = drain.try_send(());
    }
    reply::text(StatusCode::ACCEPTED, "draining\n")
}
