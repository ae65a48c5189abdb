//! Which pages are there, and where do they say what they are?

use super::query::Query;
use super::reply::{self, Reply};
use super::{Desk, api, console, control, probes};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use std::net::SocketAddr;

/// One page.
pub(super) struct Page {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// For the index; empty: not listed.
    pub(super) about: &'static str,
    pub(super) needs: Needs,
    pub(super) answer: Answer,
}

/// What must be configured for a page to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Api,
    Drain,
}

pub(super) enum Answer {
    Read(fn(&Desk, &Query) -> Reply),
    Change(fn(&Desk, &Bytes, SocketAddr) -> Reply),
}

const fn read(path: &'static str, about: &'static str, needs: Needs, answer: fn(&Desk, &Query) -> Reply) -> Page {
    Page { method: Method::GET, path, about, needs, answer: Answer::Read(answer) }
}

const fn change(
    method: Method,
    path: &'static str,
    about: &'static str,
    needs: Needs,
    answer: fn(&Desk, &Bytes, SocketAddr) -> Reply,
) -> Page {
    Page { method, path, about, needs, answer: Answer::Change(answer) }
}

/// All of them.
pub(super) static PAGES: &[Page] = &[
    read("/", "this list", Needs::Nothing, index),
    read("/healthz", "200 while the process lives", Needs::Nothing, probes::healthz),
    read("/readyz", "200 when ready for traffic, otherwise 503 and what is waited for", Needs::Nothing, probes::readyz),
    read("/metrics", "Prometheus metrics", Needs::Nothing, probes::metrics),
    read("/console", "a page for people", Needs::Api, console::page),
    read("/console/style.css", "", Needs::Api, console::style),
    read("/console/script.js", "", Needs::Api, console::script),
    read("/api/v1", "this list, as JSON", Needs::Api, api_index),
    read("/api/v1/config", "generation, time and problems of the configuration that serves", Needs::Api, api::config),
    read("/api/v1/listeners", "what is bound, and what holds for all that comes in there", Needs::Api, api::listeners),
    read("/api/v1/routes", "what is matched, and what is done with it", Needs::Api, api::routes),
    read("/api/v1/precedence", "routes by host in the order in which they are tried", Needs::Api, api::precedence),
    read("/api/v1/clusters", "upstream services with their endpoints", Needs::Api, api::clusters),
    read("/api/v1/endpoints", "addresses of clusters and their health; ?cluster=NAME", Needs::Api, api::endpoints),
    read("/api/v1/certificates", "certificates that serve, and until when", Needs::Api, api::certificates),
    read("/api/v1/problems", "what could not be honoured, and where it was said", Needs::Api, api::problems),
    read("/api/v1/connections", "open connections, at most 1000", Needs::Api, api::connections),
    read("/api/v1/explain", "what would become of a request: ?method=GET&url=URL&header=...", Needs::Api, api::explain),
    read("/api/v1/log-level", "level of the log", Needs::Api, control::log_level),
    change(Method::PUT, "/api/v1/log-level", "another level, from loopback", Needs::Api, control::set_log_level),
    change(Method::POST, "/api/v1/drain", "drain and end, from loopback", Needs::Drain, control::drain),
];

fn index(desk: &Desk, _: &Query) -> Reply {
    let line = |page: &Page| format!("{:<5}{:<24}{}\n", page.method, page.path, page.about);
    let lines: String = desk.pages().filter(|page| !page.about.is_empty()).map(line).collect();
    reply::text(StatusCode::OK, format!("tidegate {}\n\n{lines}", env!("CARGO_PKG_VERSION")))
}

#[derive(Serialize)]
struct Index {
    version: &'static str,
    pages: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    method: &'static str,
    path: &'static str,
    about: &'static str,
}

fn api_index(desk: &Desk, _: &Query) -> Reply {
    let listed = desk.pages().filter(|page| !page.about.is_empty() && page.path.starts_with("/api/"));
    let line = |page: &'static Page| Line { method: page.method.as_str(), path: page.path, about: page.about };
    reply::json(&Index { version: env!("CARGO_PKG_VERSION"), pages: listed.map(line).collect() })
}
