//! How do bodies cross between hyper's frames and our pieces of bytes?

use super::convert;
use crate::http1::{BodyError, BodySource, RelayError};
use crate::message::{Fields, hop};
use crate::message::{ResponseHead, Version};
use crate::proxy::request::Downstream;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// A body that hyper received: a request's downstream, a response's upstream. Flow control follows what is taken.
#[derive(Debug)]
pub struct IncomingBody {
    body: Incoming,
    data: Bytes,
    trailers: Option<Fields>,
    ended: bool,
}

impl IncomingBody {
    /// A body at its start.
    pub fn new(body: Incoming) -> Self {
        let ended = body.is_end_stream();
        Self { body, data: Bytes::new(), trailers: None, ended }
    }

    /// Whether there is nothing to read.
    pub fn is_ended(&self) -> bool {
        self.ended && self.data.is_empty()
    }

    /// The first `n` bytes without a copy.
    pub fn take(&mut self, n: usize) -> Bytes {
        self.data.split_to(n.min(self.data.len()))
    }
}

impl BodySource for IncomingBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        loop {
            if !self.data.is_empty() {
                return Poll::Ready(Ok(Some(self.data.len())));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Err(BodyError::Http2(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.data = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok().map(|map| convert::to_fields(&map));
                        self.ended = true;
                    }
                },
            }
        }
    }

    fn data(&self) -> &[u8] {
        &self.data
    }

    fn consume(&mut self, n: usize) {
        self.data.advance(n.min(self.data.len()));
    }

    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError> {
        Ok(self.trailers.take())
    }
}

impl Downstream for IncomingBody {
    /// A reset stream drops the future that serves it: there is nothing to watch.
    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }

    /// hyper sends no informational responses.
    fn inform(&mut self, _cx: &mut Context<'_>, _head: &ResponseHead, _version: Version) {}
}

/// One frame on its way from the exchange to hyper. Both ends live on one thread.
#[derive(Debug, Default)]
struct Slot {
    frame: Option<Frame<Bytes>>,
    ended: bool,
    aborted: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The end that the exchange pushes a request's body into. Dropped before the end, it resets the stream.
#[derive(Debug)]
pub struct SlotSender(Rc<RefCell<Slot>>);

/// The end that hyper reads: the request's body towards an HTTP/2 upstream.
#[derive(Debug)]
pub struct SlotBody(Rc<RefCell<Slot>>);

/// The exchange gave the request up.
#[derive(Debug, thiserror::Error)]
#[error("the request was given up")]
pub struct Aborted;

/// A sender and its body; `ended`: there is nothing to send, but maybe these trailers.
pub(super) fn slot(ended: bool, last: Option<Fields>) -> (SlotSender, SlotBody) {
    let slot = Rc::new(RefCell::new(Slot { ended, frame: last.and_then(trailers), ..Slot::default() }));
    (SlotSender(Rc::clone(&slot)), SlotBody(slot))
}

impl SlotSender {
    /// Moves pieces from the client to hyper until the end, one at a time.
    pub fn poll_push<B: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut B,
        moved: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            let mut slot = self.0.borrow_mut();
            if slot.ended {
                return Poll::Ready(Ok(()));
            }
            if slot.frame.is_some() {
                slot.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            match ready!(down.poll_data(cx)).map_err(RelayError::Source)? {
                Some(n) => {
                    slot.frame = Some(Frame::data(Bytes::copy_from_slice(down.data().get(..n).unwrap_or_default())));
                    down.consume(n);
                    *moved += n as u64;
                }
                None => {
                    slot.frame = down.take_trailers().map_err(RelayError::Source)?.and_then(trailers);
                    slot.ended = true;
                }
            }
            if let Some(reader) = slot.reader.take() {
                reader.wake();
            }
        }
    }
}

fn trailers(mut fields: Fields) -> Option<Frame<Bytes>> {
    hop::strip_request_trailers(&mut fields);
    (!fields.is_empty()).then(|| Frame::trailers(convert::to_map(&fields)))
}

impl Drop for SlotSender {
    fn drop(&mut self) {
        let mut slot = self.0.borrow_mut();
        slot.aborted = !slot.ended;
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }
}

impl Body for SlotBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let mut slot = self.0.borrow_mut();
        if let Some(frame) = slot.frame.take() {
            if let Some(writer) = slot.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if slot.aborted {
            return Poll::Ready(Some(Err(Aborted)));
        }
        if slot.ended {
            return Poll::Ready(None);
        }
        slot.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let slot = self.0.borrow();
        slot.ended && slot.frame.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
