//! How is a body read, whatever carries it?

use super::buffer::Buffer;
use super::chunked::{ChunkError, Decoder, Step};
use super::framing::BodyKind;
use crate::message::Fields;
use bytes::Bytes;
use std::io;
use std::task::{Context, Poll};
use thiserror::Error;

/// Why a body could not be read to its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The chunked coding was broken.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The connection ended before the body did. Never shown to the other side as a clean end.
    #[error("the connection ended inside a body")]
    Truncated,
    /// The connection failed.
    #[error("reading a body failed")]
    Io(#[from] io::Error),
    /// The HTTP/2 stream failed.
    #[error("the HTTP/2 stream failed")]
    Http2(#[source] h2::Error),
    /// Larger than a policy allows; answered by 413 where no response has begun.
    #[error("the body is larger than allowed")]
    TooLarge,
}

/// A body as pieces of bytes: the body of an HTTP/1 connection, or of an HTTP/2 stream.
pub trait BodySource {
    /// `Some(n)`: the first `n` bytes of [`Self::data`] can be used. `None`: the body has ended.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>>;
    /// The bytes at hand; at least as many as `poll_data` said.
    fn data(&self) -> &[u8];
    /// The first `n` bytes were used.
    fn consume(&mut self, n: usize);
    /// The first `n` bytes to keep, with a copy only where they are borrowed.
    fn take(&mut self, n: usize) -> Bytes {
        let piece = Bytes::copy_from_slice(self.data().get(..n).unwrap_or_default());
        self.consume(n);
        piece
    }
    /// The trailers, after the end; `None` where there were none.
    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError>;
}

/// A body that may have so many bytes and no more: beyond them nothing is handed on, so that nobody takes it for whole.
#[derive(Debug)]
pub struct Limited<'a, B> {
    /// Where it comes from.
    pub source: &'a mut B,
    /// Bytes that may still come.
    pub left: u64,
    /// Whether the last look found nothing, and not the end either.
    pub waits: bool,
}

impl<B: BodySource> BodySource for Limited<'_, B> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        let polled = self.source.poll_data(cx);
        self.waits = polled.is_pending();
        match polled {
            Poll::Ready(Ok(Some(n))) if n as u64 > self.left => Poll::Ready(Err(BodyError::TooLarge)),
            other => other,
        }
    }

    fn data(&self) -> &[u8] {
        self.source.data()
    }

    fn consume(&mut self, n: usize) {
        self.left = self.left.saturating_sub(n as u64);
        self.source.consume(n);
    }

    fn take(&mut self, n: usize) -> Bytes {
        self.left = self.left.saturating_sub(n as u64);
        self.source.take(n)
    }

    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError> {
        self.source.take_trailers()
    }
}

/// What is at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Data(usize),
    More,
    End,
}

/// Where a body that is being read stands.
#[derive(Debug, Default)]
pub struct BodyReader {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Done,
    Length(u64),
    Chunked(Decoder),
    /// Until the connection ends; `true` for a tunnel.
    UntilClose,
}

impl BodyReader {
    /// A reader for a body that ends like this.
    pub fn new(kind: BodyKind) -> Self {
        let state = match kind {
            BodyKind::None | BodyKind::Length(0) => State::Done,
            BodyKind::Length(n) => State::Length(n),
            BodyKind::Chunked => State::Chunked(Decoder::default()),
            BodyKind::UntilClose | BodyKind::Tunnel => State::UntilClose,
        };
        Self { state }
    }

    /// Whether the body was read to its end.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Drops framing at the front of the input and says what is there then.
    pub(crate) fn front(&mut self, input: &mut Buffer) -> Result<Front, BodyError> {
        let have = input.len();
        Ok(match &mut self.state {
            State::Done => Front::End,
            _ if have == 0 => Front::More,
            State::Length(left) => Front::Data(usize::try_from(*left).map_or(have, |left| left.min(have))),
            State::UntilClose => Front::Data(have),
            State::Chunked(decoder) => match decoder.step(input.bytes())? {
                Step::Data { skip, len } => {
                    input.consume(skip);
                    Front::Data(len)
                }
                Step::More { skip } => {
                    input.consume(skip);
                    Front::More
                }
                Step::End { skip } => {
                    input.consume(skip);
                    Front::End
                }
            },
        })
    }

    /// `n` bytes of data were used.
    pub(crate) fn took(&mut self, n: usize) {
        match &mut self.state {
            State::Length(left) => {
                *left = left.saturating_sub(n as u64);
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::Chunked(decoder) => decoder.took(n),
            State::Done | State::UntilClose => {}
        }
    }

    /// The connection ended: a clean end only where the body ends with it.
    pub(crate) fn ended(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_) | State::Chunked(_) => Err(BodyError::Truncated),
        }
    }

    /// Ends the reading of a chunked body and hands out its trailers.
    pub(crate) fn finish(&mut self) -> Result<Option<Fields>, BodyError> {
        let trailers = match &mut self.state {
            State::Chunked(decoder) => decoder.take_trailers()?,
            _ => None,
        };
        self.state = State::Done;
        Ok(trailers)
    }
}
