//! How is a request sent over HTTP/2 to an upstream?

use super::body::{IncomingBody, SlotBody, slot};
use super::{LocalExecutor, convert};
use crate::http1::{BodyKind, Deadline};
use crate::message::hop;
use crate::proxy::error::ProxyError;
use crate::proxy::forward::{connect_failed, push_body};
use crate::proxy::remote::{H2Wire, Remote, Wire};
use crate::proxy::request::{Downstream, Request};
use crate::proxy::worker::Connection;
use crate::upstream::{Cluster, ConnectError, Endpoint, Lease, Outcome, Permit, Shared, connect};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// Streams that one connection carries at once before another is opened.
const STREAMS: u32 = 100;

/// An upstream that answers no ping for so long is gone.
const PING: Duration = Duration::from_secs(20);

/// Idle connections are closed after this.
const IDLE: Duration = Duration::from_secs(60);

/// A place on a connection.
pub enum Stream {
    /// On one that other requests use, too.
    Shared(Lease<SendRequest<SlotBody>>),
    /// On one of its own: it began with a PROXY header, which speaks for one client.
    Own(SendRequest<SlotBody>),
}

impl Stream {
    fn sender(&mut self) -> &mut SendRequest<SlotBody> {
        match self {
            Self::Shared(lease) => lease.handle(),
            Self::Own(sender) => sender,
        }
    }
}

/// The HTTP/2 connections of one worker.
pub struct Senders(Shared<SendRequest<SlotBody>>);

impl Default for Senders {
    fn default() -> Self {
        Self(Shared::new(STREAMS))
    }
}

impl Senders {
    /// Forgets connections that died or were idle too long.
    pub fn sweep(&self) {
        self.0.sweep(Instant::now(), IDLE, |sender| !sender.is_closed());
    }
}

/// Sends the request and waits for the head of the answer.
pub async fn send<D: Downstream>(
    connection: &Connection,
    cluster: &Arc<Cluster>,
    (endpoint, permit): (Arc<Endpoint>, Permit),
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
) -> Result<Remote, ProxyError> {
    let mut stream = stream_to(connection, cluster, &endpoint).await?;
    let empty = matches!(poll_fn(|cx| Poll::Ready(down.poll_data(cx))).await, Poll::Ready(Ok(None)));
    let (slot, body) = slot(empty);
    let message =
        convert::to_request(&request.head, cluster.spec().tls.is_some(), body).ok_or(ProxyError::Malformed)?;
    let answer = stream.sender().send_request(message);
    let wire = Wire::H2(Box::new(H2Wire { slot, body: None, stream }));
    let cluster = Arc::clone(cluster);
    let mut remote = Remote {
        wire,
        sent: empty,
        refused: false,
        keep: true,
        reused: false,
        body: BodyKind::Chunked,
        endpoint,
        cluster,
        permit,
    };
    let sent_at = Instant::now();
    let outcome = wait(answer, &mut remote, request, down, deadline).await.inspect_err(|error| match error {
        ProxyError::Reset => remote.endpoint.report(Outcome::Reset),
        ProxyError::Timeout => remote.endpoint.report(Outcome::Timeout),
        _ => {}
    })?;
    let (parts, incoming) = outcome.into_parts();
    remote.endpoint.report(Outcome::Status(parts.status.as_u16()));
    let now = Instant::now();
    remote.endpoint.answered(now - sent_at);
    request.ctx.upstream_head = Some(now - request.ctx.started);
    convert::response_head(&parts, &mut request.response);
    receive(&mut remote, request, incoming);
    Ok(remote)
}

/// A place on a connection to the endpoint, made where there is none.
async fn stream_to(
    connection: &Connection,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
) -> Result<Stream, ProxyError> {
    let ends = (connection.peer, connection.local);
    let open = async || handshake(cluster, endpoint, ends).await;
    let senders = &connection.worker.senders.0;
    let obtained = if cluster.may_reuse_connections() {
        senders.obtain(endpoint, |sender| !sender.is_closed(), open).await.map(Stream::Shared)
    } else {
        open().await.map(Stream::Own)
    };
    obtained.map_err(|error| connect_failed(endpoint, error))
}

/// Waits for the head of the answer, sending the body meanwhile.
async fn wait<D: Downstream>(
    answer: impl Future<Output = hyper::Result<http::Response<Incoming>>>,
    remote: &mut Remote,
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
) -> Result<http::Response<Incoming>, ProxyError> {
    let mut answer = pin!(answer);
    poll_fn(|cx| {
        push_body(cx, remote, request, down)?;
        if let Poll::Ready(result) = answer.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(|error| failed(&error)));
        }
        if remote.sent && down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(ProxyError::Gone));
        }
        deadline.poll(cx).map(|()| Err(ProxyError::Timeout))
    })
    .await
}

fn receive(remote: &mut Remote, request: &mut Request, incoming: Incoming) {
    let fields = &mut request.response.fields;
    hop::strip(fields, hop::connection_options(fields));
    let length = fields.get(crate::message::FieldId::ContentLength).and_then(crate::http1::framing::decimal);
    let body = IncomingBody::new(incoming);
    let bodyless = request.head.method == http::Method::HEAD || matches!(request.response.status.as_u16(), 204 | 304);
    remote.body = match length {
        _ if bodyless => BodyKind::None,
        Some(n) => BodyKind::Length(n),
        None if body.is_ended() => BodyKind::Length(0),
        None => BodyKind::Chunked,
    };
    if let Wire::H2(wire) = &mut remote.wire {
        wire.body = Some(body);
    }
}

async fn handshake(
    cluster: &Cluster,
    endpoint: &Endpoint,
    ends: (std::net::SocketAddr, std::net::SocketAddr),
) -> Result<SendRequest<SlotBody>, ConnectError> {
    let stream = connect(cluster, endpoint, ends).await?;
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_header_list_size(32 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ConnectError::Io(io::Error::other(error)))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
        }
    });
    Ok(sender)
}

/// A stream that the upstream refused before it looked at it (REFUSED_STREAM, GOAWAY) counts as reset all the same: whether
/// it may go out again is the method's question.
fn failed(error: &hyper::Error) -> ProxyError {
    if error.is_parse() || error.is_user() { ProxyError::Malformed } else { ProxyError::Reset }
}
