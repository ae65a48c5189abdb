//! How does a response go down an HTTP/2 stream: our own, a relayed one, a switch of protocols?

use super::downstream::{Open, lent};
use super::inbound::Inbound;
use super::pump::{Failed, Pump};
use crate::http1::{BodyKind, Conn, Deadline};
use crate::message::{FieldId, hop};
use crate::proxy::error::ProxyError;
use crate::proxy::pipeline;
use crate::proxy::push::push_body;
use crate::proxy::remote::Remote;
use crate::proxy::request::{Downstream, Request};
use crate::proxy::respond::{self, Answer};
use crate::proxy::worker::ListenerMetrics;
use http::StatusCode;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Sends an answer of our own. Who does not take it in time is reset.
pub(super) async fn own(open: &mut Open, down: &mut Inbound, answer: Answer, deadline: &mut Deadline) {
    let Open { connection, listener, request, .. } = open;
    let request = lent(request);
    let Answer { mut head, body } = answer;
    request.ctx.status = head.status.as_u16();
    let sends = respond::sends_body(&request.head.method, head.status);
    pipeline::finish_own(listener, &mut head, &connection.worker.date());
    if !matches!(head.status.as_u16(), 204 | 304) {
        head.fields.set(FieldId::ContentLength, itoa::Buffer::new().format(body.len()).as_bytes());
    }
    let nothing = !sends || body.is_empty();
    if down.begin(&head, nothing).is_err() || nothing {
        return;
    }
    request.ctx.bytes_out = body.len() as u64;
    deadline.set(Instant::now() + listener.spec.timeouts.idle);
    let (mut pump, mut moved) = (Pump::whole(body), 0);
    poll_fn(|cx| {
        let Ok(out) = down.out() else { return Poll::Ready(()) };
        if pump.poll_whole(cx, out, &mut moved).is_ready() || down.poll_gone(cx).is_ready() {
            return Poll::Ready(());
        }
        deadline.poll(cx)
    })
    .await;
}

/// Sends the response on: both bodies move at once, until the response's end.
pub(super) async fn relay(
    open: &mut Open,
    down: &mut Inbound,
    mut remote: Remote,
    deadline: &mut Deadline,
) -> Result<(), ProxyError> {
    let idle = open.idle_limit();
    let Open { connection, request, .. } = open;
    let request = lent(request);
    request.ctx.status = request.response.status.as_u16();
    // RFC 9110 section 6.6.1.
    if !request.response.fields.has(FieldId::Date) {
        request.response.fields.push_known(FieldId::Date, &connection.worker.date());
    }
    let nothing = matches!(remote.body, BodyKind::None | BodyKind::Length(0));
    down.begin(&request.response, nothing)?;
    if !nothing {
        deadline.set(request.limit(idle));
        let mut pump = Pump::default();
        let relayed = poll_fn(|cx| both_bodies(cx, &mut pump, request, down, &mut remote, (idle, deadline))).await;
        if matches!(relayed, Err(ProxyError::Cut | ProxyError::Timeout)) {
            let_write().await;
        }
        relayed?;
    }
    remote.release(&connection.worker);
    Ok(())
}

/// Gives way to the connection once, which writes what its windows and its socket have room for: a reset would take it from the client.
async fn let_write() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn both_bodies(
    cx: &mut Context<'_>,
    pump: &mut Pump,
    request: &mut Request,
    down: &mut Inbound,
    remote: &mut Remote,
    (idle, deadline): (Duration, &mut Deadline),
) -> Poll<Result<(), ProxyError>> {
    let before = (request.ctx.bytes_in, request.ctx.bytes_out);
    push_body(cx, remote, request, down)?;
    let out = down.out()?;
    match pump.poll(cx, remote, out, &mut request.ctx.bytes_out, hop::strip_response_trailers) {
        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
        Poll::Ready(Err(Failed::Source(_))) => return Poll::Ready(Err(ProxyError::Cut)),
        Poll::Ready(Err(Failed::Sink)) => return Poll::Ready(Err(ProxyError::Gone)),
        Poll::Pending => {}
    }
    if down.poll_gone(cx).is_ready() {
        return Poll::Ready(Err(ProxyError::Gone));
    }
    if (request.ctx.bytes_in, request.ctx.bytes_out) != before {
        deadline.set(request.limit(idle));
    }
    // What came and did not leave waits for the client.
    let late = if pump.is_held_up() { ProxyError::Stalled } else { ProxyError::Timeout };
    deadline.poll(cx).map(|()| Err(late))
}

/// 101 of the upstream is 200 for an extended CONNECT; then both streams are joined.
pub(super) async fn switch(
    open: &mut Open,
    down: &mut Inbound,
    remote: Remote,
    deadline: &mut Deadline,
) -> Result<(), ProxyError> {
    let idle = open.idle_limit();
    let Open { connection, request, .. } = open;
    let request = lent(request);
    let response = &mut request.response;
    response.status = StatusCode::OK;
    request.ctx.status = 200;
    let options = hop::connection_options(&response.fields);
    hop::strip(&mut response.fields, options);
    response.fields.remove(FieldId::SecWebSocketAccept);
    response.fields.remove(FieldId::ContentLength);
    down.begin(response, false)?;
    let _counted = Upgraded::count(&connection.metrics);
    let moved = remote.tunnel(&mut Conn::new(down.tunnel()?), idle, deadline).await;
    (request.ctx.bytes_in, request.ctx.bytes_out) = (moved.up, moved.down);
    Ok(())
}

/// A tunnel that is open, for as long as it is held: its connection may end first.
struct Upgraded<'a>(&'a ListenerMetrics);

impl<'a> Upgraded<'a> {
    fn count(metrics: &'a ListenerMetrics) -> Self {
        metrics.upgrades.add(1);
        Self(metrics)
    }
}

impl Drop for Upgraded<'_> {
    fn drop(&mut self) {
        self.0.upgrades.sub(1);
    }
}
