//! How does a response go down an HTTP/1 connection: our own, a relayed one, a switch of protocols?

use super::After;
use super::splice::Rest;
use crate::http1::{BodyKind, BodySource, BodyWriter, Conn, Deadline, Limited, RelayError, compose, poll_relay};
use crate::message::{FieldId, Io, Version, hop};
use crate::proxy::error::ProxyError;
use crate::proxy::pipeline;
use crate::proxy::push::push_body;
use crate::proxy::remote::Remote;
use crate::proxy::request::{Downstream, Request};
use crate::proxy::respond::{self, Answer};
use crate::proxy::worker::Connection;
use crate::snapshot::ListenerSnapshot;
use crate::telemetry::connections::Spoken;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Sends an answer of our own.
pub(super) async fn own(
    conn: &mut Conn<Io>,
    connection: &Connection,
    listener: &ListenerSnapshot,
    request: &mut Request,
    deadline: &mut Deadline,
    mut answer: Answer,
    keep: bool,
) -> After {
    request.ctx.status = answer.head.status.as_u16();
    // An unread body would be taken for the next request.
    let keep = keep && conn.reader.is_done();
    conn.expects_continue = false;
    pipeline::finish_own(listener, &mut answer.head, &connection.worker.date());
    let status = answer.head.status;
    let sends = respond::sends_body(&request.head.method, status);
    let out = conn.out();
    compose::response(out, &answer.head, BodyKind::None);
    if !matches!(status.as_u16(), 204 | 304) {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(answer.body.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    end_head(out, request.head.version, keep);
    if sends {
        out.extend_from_slice(&answer.body);
        request.ctx.bytes_out = answer.body.len() as u64;
    }
    deadline.set(Instant::now() + listener.spec.timeouts.idle);
    let sent = poll_fn(|cx| match conn.poll_flush(cx) {
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
        Poll::Pending => deadline.poll(cx).map(|()| false),
    });
    match (sent.await, keep) {
        (false, _) => After::Gone,
        (true, true) => After::KeepAlive,
        (true, false) => After::Close,
    }
}

fn end_head(out: &mut Vec<u8>, version: Version, keep: bool) {
    match (version, keep) {
        (_, false) => out.extend_from_slice(b"connection: close\r\n"),
        (Version::Http10, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (_, true) => {}
    }
    compose::end(out);
}

/// Sends the response on: both bodies move at once, until the response's end.
pub(super) async fn relay(
    conn: &mut Conn<Io>,
    connection: &Connection,
    listener: &ListenerSnapshot,
    request: &mut Request,
    mut remote: Remote,
    deadline: &mut Deadline,
    keep: bool,
) -> After {
    // HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
    let kind = match (remote.body, request.head.version) {
        (BodyKind::Chunked | BodyKind::UntilClose, Version::Http10) => BodyKind::UntilClose,
        (BodyKind::UntilClose, _) => BodyKind::Chunked,
        (kind, _) => kind,
    };
    // A body that is still coming may never end: the client is told that the connection will not be used again.
    let keep = keep && kind != BodyKind::UntilClose && remote.sent && !connection.is_ending();
    conn.expects_continue = false;
    conn.writer = BodyWriter::new(kind);
    let version = request.head.version;
    request.ctx.status = request.response.status.as_u16();
    let out = conn.out();
    compose::response(out, &request.response, kind);
    // HTTP/2 needs no length for an empty body, HTTP/1 does.
    if kind == BodyKind::Length(0) && !request.response.fields.has(FieldId::ContentLength) {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    end_head(out, version, keep);
    let idle = request.route.as_ref().map_or(listener.spec.timeouts.idle, |route| route.spec.idle_timeout);
    let result = both_bodies(conn, request, &mut remote, deadline, idle).await;
    match result {
        Ok(()) => {
            let whole = remote.sent && conn.reader.is_done();
            remote.release(&connection.worker);
            if keep && whole { After::KeepAlive } else { After::Close }
        }
        Err(error) => {
            request.failed(&error);
            match error {
                ProxyError::Gone => After::Gone,
                // Its length or its chunks say that the rest is missing: what is there need not go with it.
                ProxyError::Cut | ProxyError::Timeout if conn.writer != BodyWriter::UntilClose => After::Cut,
                _ => After::Abort,
            }
        }
    }
}

async fn both_bodies(
    conn: &mut Conn<Io>,
    request: &mut Request,
    remote: &mut Remote,
    deadline: &mut Deadline,
    idle: Duration,
) -> Result<(), ProxyError> {
    let (mut seen, mut rest) = ((u64::MAX, u64::MAX), Rest::default());
    poll_fn(|cx| {
        push_body(cx, remote, request, conn)?;
        let mut waits = false;
        match poll_response(cx, remote, conn, (&mut rest, &mut waits), &mut request.ctx.bytes_out) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(RelayError::Source(_))) => return Poll::Ready(Err(ProxyError::Cut)),
            Poll::Ready(Err(RelayError::Sink(_))) => return Poll::Ready(Err(ProxyError::Gone)),
            Poll::Pending => {}
        }
        if remote.sent && Downstream::poll_gone(conn, cx).is_ready() {
            return Poll::Ready(Err(ProxyError::Gone));
        }
        let moved = (request.ctx.bytes_in, request.ctx.bytes_out);
        if moved != seen {
            seen = moved;
            deadline.set(request.limit(idle));
        }
        // What came and did not leave waits for the client.
        let late = if waits && conn.is_flushed() { ProxyError::Timeout } else { ProxyError::Stalled };
        deadline.poll(cx).map(|()| Err(late))
    })
    .await
}

/// Relays the response's body, the rest of a large one past this process where that can be. `waits`: for the upstream.
fn poll_response(
    cx: &mut Context<'_>,
    remote: &mut Remote,
    conn: &mut Conn<Io>,
    (rest, waits): (&mut Rest, &mut bool),
    moved: &mut u64,
) -> Poll<Result<(), RelayError>> {
    loop {
        if !rest.is_on() {
            let but_bulk = rest.is_open(conn);
            let mut source = Limited { source: &mut *remote, left: u64::MAX, waits: false, but_bulk };
            let relayed = poll_relay(cx, &mut source, conn, moved, hop::strip_response_trailers);
            *waits = source.waits;
            if relayed.is_ready() || !(but_bulk && remote.is_bulk() && conn.is_flushed()) {
                return relayed;
            }
        }
        let passed = rest.poll(cx, remote, conn, moved);
        *waits = !rest.is_on();
        ready!(passed)?;
    }
}

/// Passes 101 on and joins both streams.
pub(super) async fn switch(
    conn: &mut Conn<Io>,
    connection: &Connection,
    listener: &ListenerSnapshot,
    request: &mut Request,
    remote: Remote,
    deadline: &mut Deadline,
) -> After {
    let response = &mut request.response;
    request.ctx.status = response.status.as_u16();
    let protocol = response.fields.get(FieldId::Upgrade).unwrap_or_default().to_vec();
    let options = hop::connection_options(&response.fields);
    hop::strip(&mut response.fields, options);
    response.fields.remove(FieldId::ContentLength);
    pipeline::respond_with(listener, request);
    let out = conn.out();
    compose::response(out, &request.response, BodyKind::Tunnel);
    out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
    out.extend_from_slice(&protocol);
    out.extend_from_slice(b"\r\n");
    compose::end(out);
    let idle = request.route.as_ref().map_or(listener.spec.timeouts.idle, |route| route.spec.idle_timeout);
    connection.metrics.upgrades.add(1);
    connection.shown.speaks(Spoken::Tunnel);
    let moved = remote.tunnel(conn, idle, deadline).await;
    connection.metrics.upgrades.sub(1);
    (request.ctx.bytes_in, request.ctx.bytes_out) = (moved.up, moved.down);
    After::Cut
}
