//! How does a request's body move on while its answer is awaited or relayed, and whose fault is it when nothing moves?

use super::error::ProxyError;
use super::remote::Remote;
use super::request::{Downstream, Request};
use crate::http1::{BodyError, Deadline, Limited, RelayError};
use crate::message::{FieldId, hop};
use http::StatusCode;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

/// Informational responses before a final one. They wait for the client in memory, so that without end they would fill it.
pub(super) const MAX_INFORMATIONAL: u32 = 32;

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
    let mut source = Limited { source: down, left, waits: false, but_bulk: false };
    let pushed = remote.poll_push(cx, &mut source, &mut request.ctx.bytes_in);
    remote.starved = source.waits;
    match pushed {
        Poll::Ready(Ok(())) => remote.sent = true,
        Poll::Ready(Err(RelayError::Source(error))) => return Err(body_failed(error)),
        Poll::Ready(Err(RelayError::Sink(_))) => (remote.sent, remote.refused) = (true, true),
        Poll::Pending => {}
    }
    Ok(())
}

/// What the failure of a client's body means.
fn body_failed(error: BodyError) -> ProxyError {
    match error {
        BodyError::Io(_) | BodyError::Http2(_) | BodyError::Truncated => ProxyError::Gone,
        BodyError::TooLarge => ProxyError::BodyTooLarge,
        BodyError::Chunk(_) => ProxyError::BodyBroken(error),
    }
}

/// Waits for the head of an answer while the body goes out: `answer` looks for it. The limit moves with the body, never beyond
/// what the request and its attempt may take.
pub(super) async fn await_head<D: Downstream, T>(
    remote: &mut Remote,
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
    mut answer: impl FnMut(&mut Context<'_>, &mut Remote, &mut Request) -> Poll<Result<T, ProxyError>>,
) -> Result<T, ProxyError> {
    poll_fn(|cx| {
        let before = request.ctx.bytes_in;
        push_body(cx, remote, request, down)?;
        let waits = request.pace.waits(remote.starved && !remote.sent);
        if (waits || request.ctx.bytes_in != before)
            && let Some(route) = &request.route
        {
            deadline.set(request.limit(route.spec.idle_timeout));
        }
        if let Poll::Ready(result) = answer(cx, remote, request) {
            return Poll::Ready(result);
        }
        if remote.sent && down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(ProxyError::Gone));
        }
        deadline.poll(cx).map(|()| Err(late(remote)))
    })
    .await
}

/// Passes an informational response on. 100 answers an expectation that ended here; others are for the client (RFC 9110
/// section 15.2).
pub(super) async fn inform<D: Downstream>(down: &mut D, request: &mut Request) {
    let response = &mut request.response;
    if response.status != StatusCode::CONTINUE {
        let options = hop::connection_options(&response.fields);
        hop::strip(&mut response.fields, options);
        // RFC 9110 section 8.6: there is no body whose length it could be.
        response.fields.remove(FieldId::ContentLength);
        let version = request.head.version;
        poll_fn(|cx| {
            down.inform(cx, &request.response, version);
            Poll::Ready(())
        })
        .await;
    }
}

/// Who did not move when the limit passed: a client whose body does not come, or the upstream.
fn late(remote: &Remote) -> ProxyError {
    if !remote.sent && remote.starved && remote.is_flushed() { ProxyError::BodyTimeout } else { ProxyError::Timeout }
}

/// Waits for `work` as long as the client is there and the limit has not passed; then the error is `late`.
pub(super) async fn watched<D: Downstream, T>(
    work: impl Future<Output = T>,
    down: &mut D,
    deadline: &mut Deadline,
    late: ProxyError,
) -> Result<T, ProxyError> {
    let (mut work, mut late) = (pin!(work), Some(late));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(ProxyError::Gone));
        }
        deadline.poll(cx).map(|()| Err(late.take().unwrap_or(ProxyError::Timeout)))
    })
    .await
}
