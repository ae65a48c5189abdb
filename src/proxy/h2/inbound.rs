//! What is the client's side of a request over HTTP/2: its body, its resets, and the way back to it?

use super::body::RecvBody;
use super::convert;
use super::duplex::Duplex;
use crate::http1::{BodyError, BodySource, check_trailers};
use crate::message::{Fields, ResponseHead, Version};
use crate::proxy::error::ProxyError;
use crate::proxy::request::Downstream;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use std::io;
use std::task::{Context, Poll, Waker};

/// A stream of a client.
pub(super) struct Inbound {
    body: RecvBody,
    respond: SendResponse<Bytes>,
    /// There once the head of the response was sent.
    out: Option<SendStream<Bytes>>,
    /// What follows the head is a tunnel's, not a body.
    pub(super) is_tunnel: bool,
    /// The client waits to be told that its body is wanted.
    pub(super) expects_continue: bool,
}

impl Inbound {
    pub(super) fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        let body = RecvBody::new(body);
        Self { body, respond, out: None, is_tunnel: false, expects_continue: false }
    }

    /// Whether the request has no body.
    pub(super) fn is_ended(&self) -> bool {
        self.body.is_ended()
    }

    /// Whether the head of the response was sent.
    pub(super) fn has_begun(&self) -> bool {
        self.out.is_some()
    }

    /// Sends the head; with `end` there is no more.
    pub(super) fn begin(&mut self, head: &ResponseHead, end: bool) -> Result<&mut SendStream<Bytes>, ProxyError> {
        let sent = self.respond.send_response(convert::to_response(head), end);
        Ok(self.out.insert(sent.map_err(|_| ProxyError::Gone)?))
    }

    /// Where the body of the response goes, and what of the request's still comes.
    pub(super) fn out(&mut self) -> Result<&mut SendStream<Bytes>, ProxyError> {
        self.out.as_mut().ok_or(ProxyError::Gone)
    }

    /// The stream as a connection, once its head was sent.
    pub(super) fn tunnel(&mut self) -> Result<Duplex<'_>, ProxyError> {
        let to = self.out.as_mut().ok_or(ProxyError::Gone)?;
        Ok(Duplex { from: &mut self.body, to })
    }

    /// The client must see that the response is not whole.
    pub(super) fn abort(&mut self) {
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<h2::Error> {
        let polled = match &mut self.out {
            Some(out) => out.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        polled.map(|reset| reset.map_or_else(|error| error, h2::Error::from))
    }

    fn say(&mut self, response: Response<()>) {
        // A stream that the client has reset takes nothing; who waits next is woken by it again.
        let mut cx = Context::from_waker(Waker::noop());
        if self.out.is_none() && self.poll_reset(&mut cx).is_pending() {
            let _ = self.respond.send_informational(response);
        }
    }
}

impl BodySource for Inbound {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        if self.is_tunnel || self.body.is_ended() {
            return Poll::Ready(Ok(None));
        }
        // What came before a reset is of no use to anybody.
        if let Poll::Ready(error) = self.poll_reset(cx) {
            return Poll::Ready(Err(BodyError::Http2(error)));
        }
        let polled = self.body.poll_data(cx);
        if polled.is_pending() && std::mem::take(&mut self.expects_continue) {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::CONTINUE;
            self.say(response);
            return self.poll_data(cx);
        }
        polled
    }

    fn data(&self) -> &[u8] {
        self.body.data()
    }

    fn consume(&mut self, n: usize) {
        self.body.consume(n);
    }

    fn take(&mut self, n: usize) -> Bytes {
        self.body.take(n)
    }

    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError> {
        let trailers = self.body.take_trailers()?;
        trailers.iter().try_for_each(check_trailers)?;
        Ok(trailers)
    }
}

impl Downstream for Inbound {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.poll_reset(cx).map(io::Error::other)
    }

    fn inform(&mut self, _cx: &mut Context<'_>, head: &ResponseHead, _version: Version) {
        self.say(convert::to_response(head));
    }
}
