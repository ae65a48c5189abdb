//! How does a request get an answer from its cluster: attempts, endpoints, connections?

use super::error::ProxyError;
use super::h2;
use super::remote::{Remote, Wire};
use super::request::{Downstream, Request};
use super::retry::{self, Attempt};
use super::worker::Connection;
use crate::http1::{BodyError, BodyKind, BodyWriter, Conn, Deadline, HeadLimits, Limited, ReadHeadError, RelayError};
use crate::http1::{compose, framing};
use crate::message::{FieldId, Version, hop};
use crate::model::UpstreamProtocol;
use crate::route::Route;
use crate::upstream::{
    AdmitError, Cluster, ConnectError, Endpoint, EndpointId, Outcome, Permit, PickError, UpstreamStream, connect,
};
use http::StatusCode;
use smallvec::SmallVec;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// What an upstream's head may hold.
const RESPONSE_LIMITS: HeadLimits = HeadLimits { bytes: 128 * 1024, target: 0, fields: 250 };

/// Endpoints that may refuse a connection within one attempt.
const MAX_REFUSED: u32 = 8;

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
    /// A kept connection was stale: this attempt takes a new one.
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
        let Some(result) = attempts.judge(result, request) else {
            attempts.pause(request).await;
            continue;
        };
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
        let again = match &result {
            Ok(_) => retry::after_status(request.response.status, &self.route.spec.retry, attempt),
            Err(error) => retry::after_error(error, &self.route.spec.retry, attempt),
        };
        let in_time = request.until.is_none_or(|until| Instant::now() < until);
        if again && in_time && self.cluster.budget().try_retry() { None } else { Some(result) }
    }

    /// Doubled from the third attempt on; the second goes out at once, to another endpoint.
    async fn pause(&self, request: &Request) {
        let Some(doublings) = self.made.checked_sub(2) else { return };
        let pause = self.route.spec.retry.backoff.saturating_mul(1 << doublings.min(6));
        let left = request.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        tokio::time::sleep(pause.min(left).min(Duration::from_secs(5))).await;
    }

    async fn attempt<D: Downstream>(
        &mut self,
        request: &mut Request,
        down: &mut D,
        deadline: &mut Deadline,
    ) -> Result<Remote, ProxyError> {
        let mut last: Option<ProxyError> = None;
        self.refused = 0;
        loop {
            let (endpoint, permit) = match (self.place().await, last.take()) {
                // Endpoints were tried and none is left: what the last one said is the error.
                (Err(ProxyError::NoEndpoints), Some(error)) => return Err(error),
                (other, _) => other?,
            };
            request.ctx.attempts = request.ctx.attempts.saturating_add(1);
            request.ctx.endpoint = Some(endpoint.address);
            self.tried.push(endpoint.id);
            deadline.set(self.limit(request));
            if self.cluster.spec().protocol == UpstreamProtocol::Http2 {
                return Box::pin(h2::send(self.connection, &self.cluster, (endpoint, permit), request, down, deadline))
                    .await;
            }
            match self.connection_to(&endpoint).await {
                Ok((conn, reused)) => {
                    let remote = self.remote(conn, reused, endpoint, permit);
                    return send(remote, request, down, self.body, deadline).await;
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

    async fn place(&mut self) -> Result<(Arc<Endpoint>, Permit), ProxyError> {
        let endpoint = match self.cluster.pick(&self.tried, self.hash) {
            Ok(endpoint) => endpoint,
            // A second attempt may go where the first went, if there is nobody else; a refused connection may not.
            Err(PickError::AllTried) if self.refused == 0 => {
                self.tried.clear();
                self.cluster.pick(&[], self.hash).map_err(|_| ProxyError::NoEndpoints)?
            }
            Err(PickError::NoEndpoints | PickError::AllTried) => return Err(ProxyError::NoEndpoints),
        };
        let permit = match self.cluster.try_admit(&endpoint) {
            Some(permit) => permit,
            None => self.cluster.admit(&endpoint).await.map_err(|error| match error {
                AdmitError::QueueFull => ProxyError::QueueFull,
                AdmitError::Timeout => ProxyError::QueueTimeout,
            })?,
        };
        Ok((endpoint, permit))
    }

    /// When this attempt must have its answer's head.
    fn limit(&self, request: &Request) -> Instant {
        let spec = &self.route.spec;
        let at = Instant::now() + spec.try_timeout.unwrap_or(spec.idle_timeout);
        request.until.map_or(at, |until| until.min(at))
    }

    async fn connection_to(&self, endpoint: &Arc<Endpoint>) -> Result<(Conn<UpstreamStream>, bool), ConnectError> {
        let pool = &self.connection.worker.pool;
        while let Some(mut conn) = if self.fresh { None } else { pool.checkout(endpoint.id) } {
            if poll_fn(|cx| Poll::Ready(conn.is_idle(cx))).await {
                return Ok((conn, true));
            }
        }
        let ends = (self.connection.peer, self.connection.local);
        let stream = connect(&self.cluster, endpoint, ends).await?;
        Ok((Conn::new(stream), false))
    }

    fn remote(&self, conn: Conn<UpstreamStream>, reused: bool, endpoint: Arc<Endpoint>, permit: Permit) -> Remote {
        let (cluster, wire) = (Arc::clone(&self.cluster), Wire::H1(conn));
        Remote {
            wire,
            sent: false,
            refused: false,
            keep: false,
            reused,
            body: BodyKind::None,
            endpoint,
            cluster,
            permit,
        }
    }
}

/// Reports a failed connect and says what it means.
pub(super) fn connect_failed(endpoint: &Endpoint, error: ConnectError) -> ProxyError {
    if let Some(outcome) = error.outcome() {
        endpoint.report(outcome);
    }
    match error {
        ConnectError::Timeout(_) => ProxyError::ConnectTimeout(error),
        _ => ProxyError::Connect(error),
    }
}

/// Sends over HTTP/1 and waits for the head of the answer.
async fn send<D: Downstream>(
    mut remote: Remote,
    request: &mut Request,
    down: &mut D,
    body: BodyKind,
    deadline: &mut Deadline,
) -> Result<Remote, ProxyError> {
    if let Wire::H1(conn) = &mut remote.wire {
        write_head(conn, request, body);
    }
    let sent_at = Instant::now();
    let outcome = answer_head(&mut remote, request, down, deadline).await;
    let report = match &outcome {
        Ok(()) => Outcome::Status(request.response.status.as_u16()),
        Err(ProxyError::Reset) => Outcome::Reset,
        Err(ProxyError::Timeout) => Outcome::Timeout,
        Err(ProxyError::Malformed | ProxyError::Upgrade) => Outcome::Malformed,
        Err(_) => return outcome.map(|()| remote),
    };
    remote.endpoint.report(report);
    outcome?;
    let now = Instant::now();
    remote.endpoint.answered(now - sent_at);
    request.ctx.upstream_head = Some(now - request.ctx.started);
    receive(&mut remote, request)?;
    Ok(remote)
}

fn write_head(conn: &mut Conn<UpstreamStream>, request: &Request, body: BodyKind) {
    let head = &request.head;
    conn.writer = BodyWriter::new(body);
    let out = conn.out();
    compose::request(out, head, &head.method, body);
    if !request.upgrade.is_empty() {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
        out.extend_from_slice(&request.upgrade);
        out.extend_from_slice(b"\r\n");
    } else if head.fields.has(FieldId::Te) {
        out.extend_from_slice(b"connection: te\r\n");
    }
    compose::end(out);
}

/// Waits for the head of the final answer (or of 101), sending the body meanwhile.
async fn answer_head<D: Downstream>(
    remote: &mut Remote,
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
) -> Result<(), ProxyError> {
    loop {
        poll_fn(|cx| poll_head(cx, remote, request, down, deadline)).await?;
        let status = request.response.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return if upgrade_fits(request) { Ok(()) } else { Err(ProxyError::Upgrade) };
        }
        if !status.is_informational() {
            return Ok(());
        }
        // 100 answers an expectation that ended here; others are for the client (RFC 9110 section 15.2).
        if status != StatusCode::CONTINUE {
            let options = hop::connection_options(&request.response.fields);
            hop::strip(&mut request.response.fields, options);
            down.inform(&request.response, request.head.version);
        }
    }
}

/// Whether a 101 was asked for, and is for the protocol that was asked for (CVE-2026-2833).
fn upgrade_fits(request: &Request) -> bool {
    let got = request.response.fields.get(FieldId::Upgrade).unwrap_or_default();
    !got.is_empty() && hop::tokens(&request.upgrade).any(|asked| asked.eq_ignore_ascii_case(got))
}

fn poll_head<D: Downstream>(
    cx: &mut Context<'_>,
    remote: &mut Remote,
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
) -> Poll<Result<(), ProxyError>> {
    let before = request.ctx.bytes_in;
    push_body(cx, remote, request, down)?;
    if request.ctx.bytes_in != before
        && let Some(route) = &request.route
    {
        let at = Instant::now() + route.spec.idle_timeout;
        deadline.set(request.until.map_or(at, |until| until.min(at)));
    }
    let (reused, sent) = (remote.reused, remote.sent);
    let Wire::H1(conn) = &mut remote.wire else { return Poll::Ready(Err(ProxyError::Malformed)) };
    match conn.poll_response(cx, &RESPONSE_LIMITS, &mut request.response) {
        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
        Poll::Ready(Err(ReadHeadError::Head(_))) => return Poll::Ready(Err(ProxyError::Malformed)),
        Poll::Ready(Err(ReadHeadError::Closed | ReadHeadError::Io(_))) => {
            let stale = reused && conn.input().is_empty();
            return Poll::Ready(Err(if stale { ProxyError::Stale } else { ProxyError::Reset }));
        }
        Poll::Pending => {}
    }
    if sent && down.poll_gone(cx).is_ready() {
        return Poll::Ready(Err(ProxyError::Gone));
    }
    if deadline.poll(cx).is_ready() {
        let client_stalled = !sent && conn.is_flushed();
        return Poll::Ready(Err(if client_stalled { ProxyError::BodyTimeout } else { ProxyError::Timeout }));
    }
    Poll::Pending
}

/// Moves the request's body on, if there is more. A failure of the upstream alone is not one yet: its answer may be there.
pub(super) fn push_body<D: Downstream>(
    cx: &mut Context<'_>,
    remote: &mut Remote,
    request: &mut Request,
    down: &mut D,
) -> Result<(), ProxyError> {
    if remote.sent {
        return Ok(());
    }
    let left = request.body_limit.map_or(u64::MAX, |limit| limit.saturating_sub(request.ctx.bytes_in));
    match remote.poll_push(cx, &mut Limited { source: down, left }, &mut request.ctx.bytes_in) {
        Poll::Ready(Ok(())) => remote.sent = true,
        Poll::Ready(Err(RelayError::Source(error))) => return Err(body_failed(error)),
        Poll::Ready(Err(RelayError::Sink(_))) => (remote.sent, remote.refused) = (true, true),
        Poll::Pending => {}
    }
    Ok(())
}

fn body_failed(error: BodyError) -> ProxyError {
    match error {
        BodyError::Io(_) | BodyError::Http2(_) | BodyError::Truncated => ProxyError::Gone,
        BodyError::TooLarge => ProxyError::BodyTooLarge,
        BodyError::Chunk(_) => ProxyError::BodyBroken(error),
    }
}

/// Reads the framing of the answer and makes its head ours.
fn receive(remote: &mut Remote, request: &mut Request) -> Result<(), ProxyError> {
    let response = &mut request.response;
    let options = hop::connection_options(&response.fields);
    let method = &request.head.method;
    let body = framing::of_response(&response.fields, response.version, response.status, method)
        .map_err(|_| ProxyError::Malformed)?;
    remote.keep = match response.version {
        Version::Http10 => options.keep_alive && !options.close,
        _ => !options.close,
    };
    remote.body = body;
    if let Wire::H1(conn) = &mut remote.wire {
        conn.reader = crate::http1::BodyReader::new(body);
    }
    if body != BodyKind::Tunnel {
        hop::strip(&mut response.fields, options);
    }
    if response.status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6: some upstreams send `Content-Length: 0` all the same.
        response.fields.remove(FieldId::ContentLength);
    }
    Ok(())
}
