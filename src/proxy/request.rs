//! What is the state of one request while it is served, and what is told about it in the end?

use super::error::ProxyError;
use super::pace::Pace;
use super::worker::{Connection, Worker};
use crate::http1::BodySource;
use crate::message::{FieldId, RequestContext, RequestHead, ResponseHead, Scheme, Version};
use crate::route::Route;
use crate::snapshot::ListenerSnapshot;
use crate::telemetry::access_log::Record;
use crate::upstream::Cluster;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The client's side of a request while it is forwarded: its body, and what can be told to it before the response.
pub trait Downstream: BodySource {
    /// Ready when the client is gone for certain (not when it has only closed its direction).
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;
    /// Sends an informational response on at once, where the client's protocol version takes one.
    fn inform(&mut self, cx: &mut Context<'_>, head: &ResponseHead, version: Version);
}

/// One request, from its head to its record. Lent by the worker, so that its memory serves many requests.
#[derive(Debug)]
pub struct Request {
    /// The request's head; after the decision, as the upstream shall see it.
    pub head: RequestHead,
    /// The response's head.
    pub response: ResponseHead,
    /// What is known about it.
    pub ctx: RequestContext,
    /// The route that was chosen.
    pub route: Option<Arc<Route>>,
    /// The cluster that was chosen.
    pub cluster: Option<Arc<Cluster>>,
    /// Protocol that an upgrade asks for (`websocket`); empty: none.
    pub upgrade: Vec<u8>,
    /// Largest body that policies allow.
    pub body_limit: Option<u64>,
    /// Whole time limit.
    pub until: Option<Instant>,
    /// When the attempt in hand began to be sent.
    pub asked: Instant,
    /// When the request was done with.
    pub ended: Instant,
    /// When the attempt in hand must have the head of its answer.
    pub head_until: Option<Instant>,
    /// How slowly the body may come.
    pub pace: Pace,
    /// The connection's TLS policy is no longer the one of its name.
    pub stale: bool,
    /// Whether its HTTP/1 connection may take another one.
    pub keep: bool,
    /// Whether its client said that nothing follows it.
    pub last: bool,
    host: String,
    user_agent: Vec<u8>,
    referer: Vec<u8>,
}

impl Default for Request {
    fn default() -> Self {
        let now = Instant::now();
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            head: RequestHead::default(),
            response: ResponseHead::default(),
            ctx: RequestContext::new(now, nowhere, nowhere, Scheme::Http, None),
            route: None,
            cluster: None,
            upgrade: Vec::new(),
            body_limit: None,
            until: None,
            asked: now,
            ended: now,
            head_until: None,
            pace: Pace::default(),
            stale: false,
            keep: false,
            last: false,
            host: String::new(),
            user_agent: Vec::new(),
            referer: Vec::new(),
        }
    }
}

impl Request {
    /// Forgets the request and keeps the memory.
    pub fn clear(&mut self) {
        self.head.clear();
        self.response.clear();
        self.route = None;
        self.cluster = None;
        self.upgrade.clear();
        self.body_limit = None;
        self.until = None;
        self.head_until = None;
        self.pace = Pace::default();
        self.stale = false;
        self.keep = false;
        self.last = false;
        self.host.clear();
        self.user_agent.clear();
        self.referer.clear();
        self.ctx.tls = None;
    }

    /// The head is complete: the context begins.
    pub fn begin(&mut self, connection: &Connection, started: Instant) {
        let (peer, local) = (connection.peer, connection.local);
        self.ctx = RequestContext::new(started, peer, local, connection.scheme, connection.tls.clone());
        self.head.scheme = connection.scheme;
        self.stale = connection.is_stale();
    }

    /// When something must have moved: after `idle`, or earlier where the request or its attempt may not take so long.
    pub fn limit(&self, idle: Duration) -> Instant {
        self.limit_from(Instant::now(), idle)
    }

    /// The same, for who has just looked at the clock.
    pub fn limit_from(&self, now: Instant, idle: Duration) -> Instant {
        let at = now + idle;
        let nearer = |at: Instant, limit: Option<Instant>| limit.map_or(at, |limit| limit.min(at));
        nearer(nearer(nearer(at, self.until), self.head_until), self.pace.until(self.ctx.bytes_in))
    }

    /// Keeps what the record says of the request before filters and forwarding change it.
    pub fn remember(&mut self) {
        let Self { head, host, user_agent, referer, .. } = self;
        host.push_str(&head.host);
        user_agent.extend_from_slice(head.fields.get(FieldId::UserAgent).unwrap_or_default());
        referer.extend_from_slice(head.fields.get(FieldId::Referer).unwrap_or_default());
    }

    /// A failure, for the record.
    pub fn failed(&mut self, error: &ProxyError) {
        let row = error.row();
        self.ctx.reason = Some(row.reason);
        if self.ctx.status == 0 {
            self.ctx.status = row.status;
        }
    }

    /// The request has ended: counts it and writes its record.
    pub fn finish(&mut self, worker: &Worker, listener: &ListenerSnapshot) {
        self.ended = Instant::now();
        let duration = self.ended - self.ctx.started;
        if let Some(route) = &self.route {
            route.metrics.finished(&self.ctx, duration);
        }
        if let Some(reason) = self.ctx.reason {
            worker.count_own(&listener.spec.name, reason);
        }
        if let Some(audit) = &self.ctx.audited_by_listener {
            worker.count_audited(&listener.spec.name, audit.filter);
        }
        if worker.access_log.is_on() {
            self.record(worker, listener, duration);
        }
    }

    fn record(&self, worker: &Worker, listener: &ListenerSnapshot, duration: Duration) {
        let target = self.head.raw_target.as_slice();
        let mark = memchr::memchr(b'?', target);
        let (path, query) = mark.and_then(|at| target.split_at_checked(at)).unwrap_or((target, b""));
        worker.access_log.record(&Record {
            time: u64::try_from(worker.since_epoch(self.ctx.started).as_micros()).unwrap_or(u64::MAX),
            context: &self.ctx,
            method: self.head.method.as_str(),
            host: &self.host,
            path,
            query: query.get(1..),
            version: self.head.version,
            route: self.route.as_ref().map_or("", |route| &route.spec.name),
            cluster: self.cluster.as_ref().map_or("", |cluster| &cluster.spec().name),
            listener: &listener.spec.name,
            request_id: self.head.fields.get(FieldId::XRequestId).unwrap_or_default(),
            user_agent: &self.user_agent,
            referer: &self.referer,
            duration,
        });
    }
}
