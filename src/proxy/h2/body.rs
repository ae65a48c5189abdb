//! How are the bodies of HTTP/2 streams read and written, with flow control?

use super::convert;
use crate::http1::{BodyError, BodySource};
use crate::message::Fields;
use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use std::task::{Context, Poll, ready};

/// What is claimed of the windows for one piece: a frame of the size that everybody takes. More would be kept from other streams.
const CLAIM: usize = 16 * 1024;

/// A body that is received: a request's downstream, a response's upstream. Flow control follows what is taken.
#[derive(Debug)]
pub(in crate::proxy) struct RecvBody {
    stream: RecvStream,
    data: Bytes,
    trailers: Option<Fields>,
    ended: bool,
}

impl RecvBody {
    /// A body at its start.
    pub(super) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self { stream, data: Bytes::new(), trailers: None, ended }
    }

    /// Whether there is nothing to read.
    pub(super) fn is_ended(&self) -> bool {
        self.ended && self.data.is_empty()
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(BodyError::Http2)?;
        self.trailers = trailers.map(|map| convert::to_fields(&map));
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

impl BodySource for RecvBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        loop {
            if !self.data.is_empty() {
                return Poll::Ready(Ok(Some(self.data.len())));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match ready!(self.stream.poll_data(cx)) {
                None => ready!(self.poll_trailers(cx))?,
                Some(Err(error)) => return Poll::Ready(Err(BodyError::Http2(error))),
                Some(Ok(data)) => {
                    // Never more than was received, so that it cannot fail.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.ended = self.stream.is_end_stream();
                    self.data = data;
                }
            }
        }
    }

    fn data(&self) -> &[u8] {
        &self.data
    }

    fn consume(&mut self, n: usize) {
        self.data.advance(n.min(self.data.len()));
    }

    fn take(&mut self, n: usize) -> Bytes {
        self.data.split_to(n.min(self.data.len()))
    }

    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError> {
        Ok(self.trailers.take())
    }
}

/// The stream takes nothing any more.
#[derive(Debug, thiserror::Error)]
#[error("the stream takes nothing any more")]
pub(super) struct Closed;

/// How much of `n` bytes the other side takes now; something, when it is ready.
pub(super) fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>, n: usize) -> Poll<Result<usize, Closed>> {
    let claim = n.min(CLAIM);
    stream.reserve_capacity(claim);
    loop {
        let room = stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room.min(n)));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(Err(Closed)),
        }
    }
}
