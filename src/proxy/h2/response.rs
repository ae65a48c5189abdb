//! What body does hyper send downstream: a whole one of ours, or one that is relayed as hyper asks for it?

use super::body::IncomingBody;
use super::connection::Guard;
use super::convert;
use crate::http1::BodySource;
use crate::message::hop;
use crate::proxy::error::ProxyError;
use crate::proxy::push::push_body;
use crate::proxy::remote::Remote;
use crate::proxy::request::Request;
use crate::proxy::worker::Connection;
use crate::snapshot::ListenerSnapshot;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A response body for hyper.
pub(crate) enum ResponseBody {
    /// Nothing, or nothing any more.
    Empty,
    /// All of it.
    Full(Bytes),
    /// Relayed from the upstream.
    Relay(Box<Relay>),
}

/// A request whose response is being relayed. Dropped at its end, or early when the client resets the stream: either way it
/// is counted and recorded then.
pub(crate) struct Relay {
    pub(super) open: Open,
    pub(super) remote: Option<Remote>,
    pub(super) source: IncomingBody,
    /// Cuts the stream when neither body moved for `idle`, whether hyper asks for more or not.
    pub(super) guard: Rc<Guard>,
    pub(super) idle: Duration,
    pub(super) ended: bool,
}

/// A request that has begun; ends it when dropped.
pub(crate) struct Open {
    pub(super) connection: Rc<Connection>,
    pub(super) listener: Arc<ListenerSnapshot>,
    request: Option<Box<Request>>,
}

impl Open {
    pub(super) fn new(connection: &Rc<Connection>, listener: Arc<ListenerSnapshot>, request: Box<Request>) -> Self {
        connection.metrics.in_flight.add(1);
        connection.metrics.http2.add(1);
        connection.shown.request();
        Self { connection: Rc::clone(connection), listener, request: Some(request) }
    }

    /// The request; there until this is dropped.
    pub(super) fn request(&mut self) -> &mut Request {
        self.request.get_or_insert_with(Box::default)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let worker = &self.connection.worker;
        self.connection.metrics.in_flight.sub(1);
        if let Some(mut request) = self.request.take() {
            if request.ctx.status == 0 {
                // The client reset the stream before there was an answer.
                request.failed(&ProxyError::Gone);
            }
            request.finish(worker, &self.listener);
            worker.give_back(request);
        }
    }
}

impl Relay {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Some(remote) = &mut self.remote else { return Poll::Ready(None) };
        let request = self.open.request();
        let before = request.ctx.bytes_in;
        if let Err(error) = push_body(cx, remote, request, &mut self.source) {
            return Poll::Ready(Some(Err(error)));
        }
        match remote.poll_data(cx) {
            Poll::Ready(Ok(Some(n))) => {
                let piece = remote.take(n);
                request.ctx.bytes_out += piece.len() as u64;
                self.guard.set(request.limit(self.idle));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(self.end()),
            Poll::Ready(Err(_)) => Poll::Ready(Some(Err(ProxyError::Cut))),
            Poll::Pending => {
                if request.ctx.bytes_in != before {
                    self.guard.set(request.limit(self.idle));
                }
                self.guard.poll(cx).map(|()| Some(Err(ProxyError::Timeout)))
            }
        }
    }

    fn end(&mut self) -> Option<Result<Frame<Bytes>, ProxyError>> {
        self.ended = true;
        let mut remote = self.remote.take()?;
        let trailers = remote.take_trailers();
        remote.release(&self.open.connection.worker);
        match trailers {
            Err(_) => Some(Err(ProxyError::Cut)),
            Ok(None) => None,
            Ok(Some(mut fields)) => {
                hop::strip_response_trailers(&mut fields);
                (!fields.is_empty()).then(|| Ok(Frame::trailers(convert::to_map(&fields))))
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let request = self.open.request();
        if !self.ended && request.ctx.reason.is_none() {
            request.failed(if self.guard.was_late() { &ProxyError::Stalled } else { &ProxyError::Gone });
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Relay(relay) => {
                let polled = relay.poll(cx);
                if let Poll::Ready(Some(Err(error))) = &polled {
                    relay.open.request().failed(error);
                }
                if relay.ended && !matches!(&polled, Poll::Ready(Some(Err(_)))) {
                    *this = Self::Empty;
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Relay(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(_) => SizeHint::default(),
        }
    }
}
