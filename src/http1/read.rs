//! How is a body read, whatever carries it?

use super::buffer::Buffer;
use super::chunked::{ChunkError, Decoder, Step};
use super::framing::BodyKind;
use crate::message::Fields;
use bytes::Bytes;
use smallvec::SmallVec;
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

/// Bytes of a body that stand apart, because framing is between them, and leave in one write.
pub type Pieces<'a> = SmallVec<[&'a [u8]; PIECES]>;

/// More than a block of the largest class has in chunks of 16 KiB, which is what most programs write.
pub(crate) const PIECES: usize = 20;

/// A body as pieces of bytes: the body of an HTTP/1 connection, or of an HTTP/2 stream.
pub trait BodySource {
    /// `Some(n)`: the first `n` bytes of [`Self::data`] can be used. `None`: the body has ended.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>>;
    /// The bytes at hand; at least as many as `poll_data` said.
    fn data(&self) -> &[u8];
    /// Whether nothing is at hand and the rest, a large one, can be taken from the socket.
    fn is_bulk(&self) -> bool {
        false
    }
    /// The first `n` bytes of the data, and what is known to come after them.
    fn pieces<'a>(&'a self, n: usize, pieces: &mut Pieces<'a>) {
        pieces.extend(self.data().get(..n));
    }
    /// The first `n` bytes of the data or the pieces were used.
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
    /// Whether to stop where the rest can be had as [`BodySource::is_bulk`] says.
    pub but_bulk: bool,
}

impl<B: BodySource> BodySource for Limited<'_, B> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        if self.but_bulk && self.source.is_bulk() {
            return Poll::Pending;
        }
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

    fn pieces<'a>(&'a self, n: usize, pieces: &mut Pieces<'a>) {
        self.source.pieces(n, pieces);
        let mut left = self.left;
        pieces.retain(|piece| {
            let fits = piece.len() as u64 <= left;
            left = if fits { left - piece.len() as u64 } else { 0 };
            fits
        });
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

    /// Bytes of a body of known length that were not read.
    pub fn left(&self) -> Option<u64> {
        if let State::Length(left) = self.state { Some(left) } else { None }
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

    /// Data of the input after its first `n` bytes, which are data.
    pub(crate) fn pieces_after<'a>(&self, n: usize, input: &'a [u8], pieces: &mut Pieces<'a>) {
        if let State::Chunked(decoder) = &self.state {
            decoder.ahead(n, input, |data| {
                pieces.push(data);
                pieces.len() < PIECES
            });
        }
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
