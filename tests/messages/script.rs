//! What is a connection whose other end has said everything already?

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gives one piece with each read, then the end; keeps what is written.
#[derive(Debug, Default)]
pub struct Script {
    pieces: VecDeque<Vec<u8>>,
    pub written: Vec<u8>,
    /// Says nothing until it is spoken to.
    answers: bool,
    reader: Option<Waker>,
}

impl Script {
    pub fn new(pieces: &[&[u8]]) -> Self {
        let pieces = pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec()).collect();
        Self { pieces, ..Self::default() }
    }

    /// The same, but nothing comes before something was written.
    pub fn answering(bytes: &[u8]) -> Self {
        Self { answers: true, ..Self::new(&[bytes]) }
    }

    /// What was not read.
    pub fn rest(self) -> Vec<u8> {
        self.pieces.into_iter().flatten().collect()
    }
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.answers && self.written.is_empty() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(mut piece) = self.pieces.pop_front() {
            let n = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..n]);
            if n < piece.len() {
                self.pieces.push_front(piece.split_off(n));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The outcome of a future that waits for nothing.
#[track_caller]
pub fn now<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it waits for what will not come"),
    }
}

/// Every cut of `bytes` in two, and byte by byte.
pub fn cuts(bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let twos = (1..bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
    twos.chain([bytes.chunks(1).collect()])
}

/// Byte by byte, by sevens, and in two at a few places, which are always the same ones of the same bytes.
pub fn some_cuts(bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let mut state = bytes.iter().fold(bytes.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let twos = (0..4).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (front, back) = bytes.split_at((state >> 16) % (bytes.len() + 1));
        vec![front, back]
    });
    [bytes.chunks(1).collect(), bytes.chunks(7).collect()].into_iter().chain(twos)
}
