//! How is one request of an HTTP/2 client served?

use super::convert;
use super::inbound::Inbound;
use super::response::{own, relay, switch};
use crate::http1::{BodyKind, Deadline, HeadError};
use crate::message::{FieldId, RequestHead, hop};
use crate::model::{Limits, UpstreamProtocol};
use crate::proxy::error::ProxyError;
use crate::proxy::forward::forward;
use crate::proxy::pipeline::{self, Decision};
use crate::proxy::request::Request;
use crate::proxy::respond;
use crate::proxy::websocket;
use crate::proxy::worker::Connection;
use crate::snapshot::ListenerSnapshot;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request as HttpRequest;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a stream begins with.
pub(super) type Stream = (HttpRequest<RecvStream>, SendResponse<Bytes>);

/// One request, from its head to its record. Cannot fail: what goes wrong is answered, or resets the stream.
pub(super) async fn serve(connection: &Rc<Connection>, (message, respond): Stream, deadline: &mut Deadline) {
    let mut open = Open::new(connection);
    let (parts, body) = message.into_parts();
    let mut down = Inbound::new(body, respond);
    convert::request_head(&parts, &mut open.request().head);
    drop(parts);
    deadline.set(Instant::now() + open.listener.spec.timeouts.idle);
    if let Err(error) = exchange(&mut open, &mut down, deadline).await {
        fail(&mut open, &mut down, error, deadline).await;
    }
    open.ended = true;
}

async fn fail(open: &mut Open, down: &mut Inbound, error: ProxyError, deadline: &mut Deadline) {
    open.request().failed(&error);
    match error {
        // A stream that is dropped before its end is reset.
        ProxyError::Gone | ProxyError::Stalled => {}
        _ if down.has_begun() => down.abort(),
        error => {
            let answer = respond::error(&error, &open.request().head);
            own(open, down, answer, deadline).await;
        }
    }
}

async fn exchange(open: &mut Open, down: &mut Inbound, deadline: &mut Deadline) -> Result<(), ProxyError> {
    let Open { connection, listener, request, .. } = &mut *open;
    let request = lent(request);
    check_limits(&request.head, &listener.spec.limits)?;
    let kind = convert::body_kind(&request.head, down.is_ended())?;
    let options = hop::connection_options(&request.head.fields);
    down.expects_continue = request.head.fields.has(FieldId::Expect);
    match pipeline::decide(listener, options, request)? {
        Decision::Respond(answer) => own(open, down, answer, deadline).await,
        Decision::Forward => {
            down.is_tunnel = !request.upgrade.is_empty();
            let kind = if down.is_tunnel { prepare_websocket(request) } else { kind };
            let remote = forward(connection, request, down, kind, deadline).await?;
            let joined = remote.body == BodyKind::Tunnel;
            // To a client any success of a CONNECT opens the tunnel (RFC 8441 section 5), and there is none behind this one.
            if down.is_tunnel && !joined && request.response.status.is_success() {
                return Err(ProxyError::Upgrade);
            }
            pipeline::respond_with(listener, request);
            if joined {
                return Box::pin(switch(open, down, remote, deadline)).await;
            }
            relay(open, down, remote, deadline).await?;
        }
    }
    Ok(())
}

/// The limits that the library does not know; it holds the size of the whole head.
fn check_limits(head: &RequestHead, limits: &Limits) -> Result<(), ProxyError> {
    if head.raw_target.len() > limits.target_bytes as usize {
        return Err(HeadError::TargetTooLong.into());
    }
    if head.fields.len() > limits.headers as usize {
        return Err(HeadError::TooMany.into());
    }
    Ok(())
}

/// RFC 8441 section 5: HTTP/2 needs neither key nor accept; HTTP/1.1 does. What follows is the tunnel's, not a body.
fn prepare_websocket(request: &mut Request) -> BodyKind {
    let http1 = request.cluster.as_ref().is_some_and(|cluster| cluster.spec().protocol != UpstreamProtocol::Http2);
    if http1 {
        request.head.fields.set(FieldId::SecWebSocketKey, &websocket::key());
    }
    BodyKind::None
}

/// A request that has begun; counted and recorded when dropped, whatever became of it.
pub(super) struct Open {
    pub(super) connection: Rc<Connection>,
    pub(super) listener: Arc<ListenerSnapshot>,
    /// There until this is dropped.
    pub(super) request: Option<Box<Request>>,
    ended: bool,
}

impl Open {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.metrics.in_flight.add(1);
        connection.metrics.http2.add(1);
        connection.shown.request();
        let listener = connection.listener();
        let mut request = connection.worker.lend();
        request.begin(connection, Instant::now());
        Self { connection: Rc::clone(connection), listener, request: Some(request), ended: false }
    }

    fn request(&mut self) -> &mut Request {
        lent(&mut self.request)
    }

    /// Longest silence in either body.
    pub(super) fn idle_limit(&self) -> Duration {
        let general = self.listener.spec.timeouts.idle;
        self.request
            .as_ref()
            .and_then(|request| request.route.as_ref())
            .map_or(general, |route| route.spec.idle_timeout)
    }
}

/// The request of one that has begun.
pub(super) fn lent(request: &mut Option<Box<Request>>) -> &mut Request {
    request.get_or_insert_with(Box::default)
}

impl Drop for Open {
    fn drop(&mut self) {
        let worker = &self.connection.worker;
        self.connection.metrics.in_flight.sub(1);
        let Some(mut request) = self.request.take() else { return };
        if !self.ended && request.ctx.reason.is_none() {
            // The connection ended before it did.
            request.failed(&ProxyError::Gone);
        }
        request.finish(worker, &self.listener);
        worker.give_back(request);
    }
}
