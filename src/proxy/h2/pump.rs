//! How does a body go out over an HTTP/2 stream, piece by piece, its end together with its last piece?

use super::body::{Closed, poll_room};
use super::convert;
use crate::http1::{BodyError, BodySource};
use crate::message::Fields;
use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use std::task::{Context, Poll, ready};

/// Largest piece handed over at once: more would only wait there.
const PIECE: usize = 16 * 1024;

/// A body on its way out. One piece is held until the other side has room for it.
#[derive(Debug, Default)]
pub(super) struct Pump {
    piece: Bytes,
    end: End,
    taken: u64,
}

/// How the body goes on after the piece in hand.
#[derive(Debug, Default)]
enum End {
    #[default]
    Unknown,
    Here,
    Trailers(Box<HeaderMap>),
    Failed(BodyError),
    /// It was said.
    Said,
}

/// Which side failed.
#[derive(Debug)]
pub(super) enum Failed {
    Source(BodyError),
    Sink,
}

impl From<Closed> for Failed {
    fn from(_: Closed) -> Self {
        Self::Sink
    }
}

impl From<h2::Error> for Failed {
    fn from(_: h2::Error) -> Self {
        Self::Sink
    }
}

impl Pump {
    /// A whole body.
    pub(super) fn whole(piece: Bytes) -> Self {
        Self { piece, end: End::Here, taken: 0 }
    }

    /// Whether something waits for the other side.
    pub(super) fn is_held_up(&self) -> bool {
        !self.piece.is_empty()
    }

    /// How many bytes were taken from the source, sent or held.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Moves the body on until its end was handed over. `moved` counts what was sent; `keep` says which trailer fields go on.
    pub(super) fn poll<B: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut B,
        to: &mut SendStream<Bytes>,
        moved: &mut u64,
        keep: fn(&mut Fields),
    ) -> Poll<Result<(), Failed>> {
        loop {
            if self.piece.is_empty() {
                match std::mem::take(&mut self.end) {
                    End::Unknown => ready!(self.fetch(cx, from, keep))?,
                    end => return Poll::Ready(self.finish(end, to)),
                }
            }
            if self.piece.is_empty() {
                continue;
            }
            let room = ready!(poll_room(to, cx, self.piece.len()))?;
            // Only now: what comes next is waited for when this piece has left.
            if room >= self.piece.len() && matches!(self.end, End::Unknown) {
                self.look_ahead(cx, from, keep);
            }
            let part = self.piece.split_to(room.min(self.piece.len()));
            *moved += part.len() as u64;
            let last = self.piece.is_empty() && matches!(self.end, End::Here);
            to.send_data(part, last)?;
            if last {
                self.end = End::Said;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// The same for a whole body.
    pub(super) fn poll_whole(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<Bytes>,
        moved: &mut u64,
    ) -> Poll<Result<(), Failed>> {
        self.poll(cx, &mut Nothing, to, moved, |_| {})
    }

    fn fetch<B: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut B,
        keep: fn(&mut Fields),
    ) -> Poll<Result<(), Failed>> {
        match ready!(from.poll_data(cx)).map_err(Failed::Source)? {
            Some(n) => {
                self.piece = from.take(n.min(PIECE));
                self.taken += self.piece.len() as u64;
            }
            None => self.end = ended(from, keep),
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the piece in hand is the last.
    fn look_ahead<B: BodySource>(&mut self, cx: &mut Context<'_>, from: &mut B, keep: fn(&mut Fields)) {
        match from.poll_data(cx) {
            Poll::Ready(Ok(None)) => self.end = ended(from, keep),
            Poll::Ready(Err(error)) => self.end = End::Failed(error),
            Poll::Ready(Ok(Some(_))) | Poll::Pending => {}
        }
    }

    fn finish(&mut self, end: End, to: &mut SendStream<Bytes>) -> Result<(), Failed> {
        self.end = End::Said;
        match end {
            End::Unknown | End::Said => {}
            End::Here => to.send_data(Bytes::new(), true)?,
            End::Trailers(map) => to.send_trailers(*map)?,
            End::Failed(error) => return Err(Failed::Source(error)),
        }
        Ok(())
    }
}

/// The source of a body that is whole already.
struct Nothing;

impl BodySource for Nothing {
    fn poll_data(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        Poll::Ready(Ok(None))
    }

    fn data(&self) -> &[u8] {
        &[]
    }

    fn consume(&mut self, _n: usize) {}

    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError> {
        Ok(None)
    }
}

fn ended<B: BodySource>(from: &mut B, keep: fn(&mut Fields)) -> End {
    match from.take_trailers() {
        Err(error) => End::Failed(error),
        Ok(None) => End::Here,
        Ok(Some(mut fields)) => {
            keep(&mut fields);
            if fields.is_empty() { End::Here } else { End::Trailers(Box::new(convert::to_map(&fields))) }
        }
    }
}
