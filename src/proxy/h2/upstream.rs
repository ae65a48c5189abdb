//! How is a request sent over HTTP/2 to an upstream?

use super::body::{IncomingBody, SlotBody, slot};
use super::{LocalExecutor, convert};
use crate::http1::{BodyKind, Deadline, framing};
use crate::message::{FieldId, hop};
use crate::proxy::error::ProxyError;
use crate::proxy::push::{await_head, body_failed};
use crate::proxy::remote::{H2Wire, Remote, Wire};
use crate::proxy::request::{Downstream, Request};
use crate::proxy::worker::Connection;
use crate::upstream::{Cluster, ConnectError, Endpoint, Keep, Lease, Outcome, Permit, Shared, connect};
use http::StatusCode;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Streams that one connection carries at once before another is opened.
const STREAMS: u32 = 100;

/// An upstream that answers no ping for so long is gone.
const PING: Duration = Duration::from_secs(20);

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

    /// The connection takes no more requests.
    fn retire(&self) {
        if let Self::Shared(lease) = self {
            lease.retire();
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
        self.0.sweep(Instant::now(), |sender| !sender.is_closed());
    }
}

/// Sends the request and waits for the head of the answer.
pub async fn send<D: Downstream>(
    mut stream: Stream,
    (endpoint, cluster, permit): (Arc<Endpoint>, Arc<Cluster>, Permit),
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
) -> Result<Remote, ProxyError> {
    let empty = matches!(poll_fn(|cx| Poll::Ready(down.poll_data(cx))).await, Poll::Ready(Ok(None)));
    let trailers = if empty { down.take_trailers().map_err(body_failed)? } else { None };
    let (slot, body) = slot(empty, trailers);
    let message =
        convert::to_request(&request.head, cluster.spec().tls.is_some(), body).ok_or(ProxyError::Malformed)?;
    let mut answer = pin!(stream.sender().send_request(message));
    let wire = Wire::H2(Box::new(H2Wire { slot, body: None, stream }));
    let mut remote = Remote::new(wire, false, endpoint, cluster, permit);
    (remote.sent, remote.keep) = (empty, true);
    let sent_at = Instant::now();
    let look = |cx: &mut Context<'_>, remote: &mut Remote, _: &mut Request| {
        answer.as_mut().poll(cx).map_err(|error| failed(&error, remote))
    };
    let outcome = await_head(&mut remote, request, down, deadline, look).await;
    let (parts, incoming) = match outcome {
        Ok(response) => response.into_parts(),
        Err(error) => {
            report(&remote.endpoint, &error);
            return Err(error);
        }
    };
    remote.endpoint.report(Outcome::Status(parts.status.as_u16()));
    let now = Instant::now();
    remote.endpoint.answered(now - sent_at);
    request.ctx.upstream_head = Some(now - request.ctx.started);
    convert::response_head(&parts, &mut request.response);
    receive(&mut remote, request, incoming)?;
    Ok(remote)
}

fn report(endpoint: &Endpoint, error: &ProxyError) {
    match error {
        ProxyError::Reset => endpoint.report(Outcome::Reset),
        ProxyError::Timeout => endpoint.report(Outcome::Timeout),
        ProxyError::Malformed => endpoint.report(Outcome::Malformed),
        _ => {}
    }
}

/// A place on a connection to the endpoint, made where there is none.
pub async fn stream_to(
    connection: &Connection,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
) -> Result<Stream, ConnectError> {
    let ends = (connection.peer, connection.local);
    let open = async || handshake(cluster, endpoint, ends).await;
    if !cluster.may_reuse_connections() {
        return open().await.map(Stream::Own);
    }
    let senders = &connection.worker.senders.0;
    let spec = cluster.spec();
    let keep = Keep { max_idle: spec.max_idle, idle_timeout: spec.idle_timeout };
    senders.obtain(endpoint, keep, |sender| !sender.is_closed(), open).await.map(Stream::Shared)
}

/// Reads the framing of the answer and makes its head ours.
fn receive(remote: &mut Remote, request: &mut Request, incoming: Incoming) -> Result<(), ProxyError> {
    let response = &mut request.response;
    // RFC 9113 section 8.2.2: a message with connection-specific fields is malformed, and this one decides where it ends.
    if response.fields.has(FieldId::TransferEncoding) {
        return Err(ProxyError::Malformed);
    }
    let kind = framing::of_response(&response.fields, response.version, response.status, &request.head.method)
        .map_err(|_| ProxyError::Malformed)?;
    let body = IncomingBody::new(incoming);
    remote.body = match kind {
        BodyKind::Tunnel => return Err(ProxyError::Malformed),
        BodyKind::UntilClose if body.is_ended() => BodyKind::Length(0),
        BodyKind::UntilClose => BodyKind::Chunked,
        kind => kind,
    };
    let options = hop::connection_options(&response.fields);
    hop::strip(&mut response.fields, options);
    response.fields.keep_first(FieldId::ContentLength);
    if response.status == StatusCode::NO_CONTENT {
        response.fields.remove(FieldId::ContentLength);
    }
    if let Wire::H2(wire) = &mut remote.wire {
        wire.body = Some(body);
    }
    Ok(())
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

/// What the failure of a stream means. One that the upstream refused before it looked at it (RFC 9113 section 8.7) may go out
/// again; a connection that takes no streams any more gets none.
fn failed(error: &hyper::Error, remote: &mut Remote) -> ProxyError {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    let leaves = error.is_canceled() || cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote());
    if leaves && let Wire::H2(wire) = &remote.wire {
        wire.stream.retire();
    }
    let refused = cause.is_some_and(|cause| cause.is_remote() && cause.reason() == Some(h2::Reason::REFUSED_STREAM));
    match error {
        _ if leaves || refused => ProxyError::Unprocessed,
        error if error.is_parse() || error.is_user() => ProxyError::Malformed,
        _ => ProxyError::Reset,
    }
}
