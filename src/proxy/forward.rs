//! How does a request get an answer from its cluster: attempts, endpoints, connections?

use super::error::ProxyError;
use super::pace::Pace;
use super::push::watched;
use super::remote::{Remote, Wire};
use super::request::{Downstream, Request};
use super::retry::{self, Attempt};
use super::worker::Connection;
use super::{h1, h2};
use crate::http1::{BodyKind, Conn, Deadline};
use crate::message::random;
use crate::model::UpstreamProtocol;
use crate::route::Route;
use crate::upstream::{
    AdmitError, Cluster, ConnectError, Endpoint, EndpointId, Outcome, Permit, PickError, UpstreamStream, connect,
};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Endpoints that may refuse a connection within one attempt.
const MAX_REFUSED: u32 = 8;

/// A limit that is none.
const FAR: Duration = Duration::from_secs(86_400);

/// What all attempts of one request share.
struct Attempts<'a> {
    connection: &'a Connection,
    route: Arc<Route>,
    cluster: Arc<Cluster>,
    hash: Option<u64>,
    tried: SmallVec<[EndpointId; 4]>,
    made: u32,
    /// Connections refused in this attempt.
    refused: u32,
    /// A kept connection was stale, or took no stream any more: this attempt takes a new one, and there is no other like it.
    fresh: bool,
    body: BodyKind,
}

/// Sends the request to its cluster and waits for the head of the answer, which is then in `request.response`.
pub async fn forward<D: Downstream>(
    connection: &Connection,
    request: &mut Request,
    down: &mut D,
    body: BodyKind,
    deadline: &mut Deadline,
) -> Result<Remote, ProxyError> {
    let (Some(route), Some(cluster)) = (request.route.clone(), request.cluster.clone()) else {
        return Err(ProxyError::RouteBroken);
    };
    cluster.budget().on_request();
    let hash = cluster.hash(&request.head, &request.ctx);
    let mut attempts =
        Attempts { connection, route, cluster, hash, tried: SmallVec::new(), made: 0, refused: 0, fresh: false, body };
    loop {
        attempts.made += 1;
        let result = attempts.attempt(request, down, deadline).await;
        // The pause is no part of an attempt: a limit that has just passed would end it.
        request.head_until = None;
        let Some(result) = attempts.judge(result, request) else {
            attempts.pause(request, down, deadline).await?;
            continue;
        };
        request.pace = Pace::default();
        return result;
    }
}

impl Attempts<'_> {
    /// `None`: try again.
    fn judge(&mut self, result: Result<Remote, ProxyError>, request: &Request) -> Option<Result<Remote, ProxyError>> {
        let begun = request.ctx.bytes_in > 0;
        let attempt = Attempt { method: &request.head.method, made: self.made, body_begun: begun };
        if matches!(result, Err(ProxyError::Stale)) && retry::after_stale(attempt) {
            // Not a failure of the endpoint, so neither an attempt nor a reason to leave it out.
            self.fresh = true;
            self.made -= 1;
            self.tried.pop();
            return None;
        }
        if matches!(result, Err(ProxyError::Unprocessed)) && !begun && !self.fresh {
            self.fresh = true;
            self.made -= 1;
            return None;
        }
        let again = match &result {
            Ok(_) => retry::after_status(request.response.status, &self.route.spec.retry, attempt),
            Err(error) => retry::after_error(error, &self.route.spec.retry, attempt),
        };
        let in_time = request.until.is_none_or(|until| Instant::now() < until);
        if again && in_time && self.cluster.budget().try_retry() { None } else { Some(result) }
    }

    async fn pause<D: Downstream>(
        &self,
        request: &Request,
        down: &mut D,
        deadline: &mut Deadline,
    ) -> Result<(), ProxyError> {
        let pause = retry::pause(&self.route.spec.retry, self.made, random::below);
        if pause.is_zero() {
            return Ok(());
        }
        deadline.set(request.limit(FAR));
        watched(tokio::time::sleep(pause), down, deadline, ProxyError::Timeout).await
    }

    async fn attempt<D: Downstream>(
        &mut self,
        request: &mut Request,
        down: &mut D,
        deadline: &mut Deadline,
    ) -> Result<Remote, ProxyError> {
        let mut last: Option<ProxyError> = None;
        self.refused = 0;
        request.head_until = self.route.spec.try_timeout.map(|limit| Instant::now() + limit);
        loop {
            let (endpoint, permit) = match (self.place(request, down, deadline).await, last.take()) {
                // Endpoints were tried and none is left: what the last one said is the error.
                (Err(ProxyError::NoEndpoints), Some(error)) => return Err(error),
                (other, _) => other?,
            };
            request.ctx.attempts = request.ctx.attempts.saturating_add(1);
            request.ctx.endpoint = Some(endpoint.address());
            self.tried.push(endpoint.id);
            request.asked = Instant::now();
            deadline.set(request.limit_from(request.asked, self.route.spec.idle_timeout));
            match self.line_to(&endpoint, down, deadline).await? {
                Ok(line) => {
                    if !matches!(line, Line::Http1(_, true)) {
                        request.asked = Instant::now();
                    }
                    return self.send(line, (endpoint, permit), request, down, deadline).await;
                }
                // Nothing was sent, and little time lost: the next endpoint is asked at once, for any method.
                Err(error) if self.refused < MAX_REFUSED && !matches!(error, ConnectError::Timeout(_)) => {
                    self.refused += 1;
                    last = Some(connect_failed(&endpoint, error));
                }
                Err(error) => return Err(connect_failed(&endpoint, error)),
            }
        }
    }

    async fn place<D: Downstream>(
        &mut self,
        request: &Request,
        down: &mut D,
        deadline: &mut Deadline,
    ) -> Result<(Arc<Endpoint>, Permit), ProxyError> {
        let endpoint = match self.cluster.pick(&self.tried, self.hash) {
            Ok(endpoint) => endpoint,
            // A second attempt may go where the first went, if there is nobody else; a refused connection may not.
            Err(PickError::AllTried) if self.refused == 0 => {
                self.tried.clear();
                self.cluster.pick(&[], self.hash).map_err(|_| ProxyError::NoEndpoints)?
            }
            Err(PickError::NoEndpoints | PickError::AllTried) => return Err(ProxyError::NoEndpoints),
        };
        if let Some(permit) = self.cluster.try_admit(&endpoint) {
            return Ok((endpoint, permit));
        }
        deadline.set(request.limit(FAR));
        // Boxed, as all that is rare: what it holds would be held by every connection.
        let queue = Box::pin(self.cluster.admit(&endpoint));
        let admitted = watched(queue, down, deadline, ProxyError::QueueTimeout).await?;
        let permit = admitted.map_err(|error| match error {
            AdmitError::QueueFull => ProxyError::QueueFull,
            AdmitError::Timeout => ProxyError::QueueTimeout,
        })?;
        Ok((endpoint, permit))
    }

    /// A way to send one request to the endpoint: a kept connection, a stream, or a new connection.
    async fn line_to<D: Downstream>(
        &self,
        endpoint: &Arc<Endpoint>,
        down: &mut D,
        deadline: &mut Deadline,
    ) -> Result<Result<Line, ConnectError>, ProxyError> {
        let made = if self.cluster.spec().protocol == UpstreamProtocol::Http2 {
            let open = Box::pin(h2::stream_to(self.connection, &self.cluster, endpoint));
            let opened = watched(open, down, deadline, ProxyError::Timeout).await;
            opened.map(|made| made.map(Line::Http2))
        } else {
            if let Some(conn) = self.kept(endpoint) {
                return Ok(Ok(Line::Http1(conn, true)));
            }
            let ends = (self.connection.peer, self.connection.local);
            let open = Box::pin(connect(&self.cluster, endpoint, ends));
            let opened = watched(open, down, deadline, ProxyError::Timeout).await;
            opened.map(|made| made.map(|stream| Line::Http1(Box::new(Conn::new(stream)), false)))
        };
        if matches!(made, Err(ProxyError::Timeout)) {
            endpoint.report(Outcome::Timeout);
        }
        made
    }

    fn kept(&self, endpoint: &Endpoint) -> Option<Box<Conn<UpstreamStream>>> {
        if self.fresh {
            return None;
        }
        let pool = &self.connection.worker.pool;
        while let Some(mut conn) = pool.checkout(endpoint.id) {
            if conn.is_idle() {
                return Some(conn);
            }
        }
        None
    }

    async fn send<D: Downstream>(
        &self,
        line: Line,
        (endpoint, permit): (Arc<Endpoint>, Permit),
        request: &mut Request,
        down: &mut D,
        deadline: &mut Deadline,
    ) -> Result<Remote, ProxyError> {
        let cluster = Arc::clone(&self.cluster);
        match line {
            Line::Http1(conn, reused) => {
                let remote = Remote::new(Wire::H1(conn), reused, endpoint, cluster, permit);
                h1::send(remote, request, down, self.body, deadline).await
            }
            Line::Http2(stream) => {
                Box::pin(h2::send(stream, (endpoint, cluster, permit), request, down, self.body, deadline)).await
            }
        }
    }
}

/// Where a request is sent on; for HTTP/1 with whether the connection served one before.
enum Line {
    Http1(Box<Conn<UpstreamStream>>, bool),
    Http2(h2::Stream),
}

/// Reports a failed connect and says what it means.
fn connect_failed(endpoint: &Endpoint, error: ConnectError) -> ProxyError {
    if let Some(outcome) = error.outcome() {
        endpoint.report(outcome);
    }
    match error {
        ConnectError::Timeout(_) => ProxyError::ConnectTimeout(error),
        _ => ProxyError::Connect(error),
    }
}
