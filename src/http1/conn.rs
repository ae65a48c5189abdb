//! What is one HTTP/1 connection, on either side: a stream, received bytes, bytes to send, a body each way?

use super::buffer::Buffer;
use super::framing::BodyKind;
use super::head::{HeadError, HeadLimits, parse_request, parse_response};
use super::read::{BodyError, BodyReader, BodySource, Front, PIECES, Pieces};
use super::write::{BodyWriter, gather};
use crate::message::{Fields, RequestHead, ResponseHead};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bodies up to this size are copied behind their head, so that both leave in one write; larger slices go by `writev`.
const COALESCE: usize = 8 * 1024;

/// A body with so much left is worth another way than through the buffer, and pieces of less than that are not.
const BULK: u64 = 64 * 1024;
const FEW: usize = 16 * 1024;

/// Output buffers kept for reuse by one thread.
const KEPT_OUTPUTS: usize = 64;

thread_local! {
    static OUTPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Why no head could be read.
#[derive(Debug, Error)]
pub enum ReadHeadError {
    /// It was refused.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The connection ended inside of it (or, for a response, before it).
    #[error("the connection ended before the head was complete")]
    Closed,
    /// The connection failed.
    #[error("reading a head failed")]
    Io(#[from] io::Error),
}

/// One HTTP/1 connection.
#[derive(Debug)]
pub struct Conn<S> {
    stream: S,
    input: Buffer,
    scanned: usize,
    output: Vec<u8>,
    written: usize,
    /// The stream took bytes that it may not have passed on yet, as TLS does when its socket is full.
    held: bool,
    /// The body that comes in.
    pub reader: BodyReader,
    /// The body that goes out.
    pub writer: BodyWriter,
    /// The client waits for 100 (Continue) before it sends its body; sent when the body is first asked for.
    pub expects_continue: bool,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// A connection at its start.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            input: Buffer::default(),
            scanned: 0,
            output: Vec::new(),
            written: 0,
            held: false,
            reader: BodyReader::default(),
            writer: BodyWriter::default(),
            expects_continue: false,
            ended: false,
        }
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Takes the stream back, with the bytes that were received and not used.
    pub fn into_parts(self) -> (S, Buffer) {
        (self.stream, self.input)
    }

    /// Bytes received and not used.
    pub fn input(&mut self) -> &mut Buffer {
        &mut self.input
    }

    /// Whether the other side has closed its direction.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads the head of the next request. `None`: the client closed between two requests.
    pub fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Poll<Result<Option<()>, ReadHeadError>> {
        loop {
            if !self.input.is_empty()
                && let Some(n) = parse_request(self.input.bytes(), &mut self.scanned, limits, head)?
            {
                self.took_head(n);
                return Poll::Ready(Ok(Some(())));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(if self.input.is_empty() { Ok(None) } else { Err(ReadHeadError::Closed) });
            }
        }
    }

    /// Reads the head of a response.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), ReadHeadError>> {
        loop {
            if !self.input.is_empty()
                && let Some(n) = parse_response(self.input.bytes(), &mut self.scanned, limits, head)?
            {
                self.took_head(n);
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(ReadHeadError::Closed));
            }
        }
    }

    fn took_head(&mut self, n: usize) {
        self.input.consume(n);
        self.scanned = 0;
    }

    /// Reads once; 0 at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(self.input.poll_fill(&mut self.stream, cx))?;
        self.ended = n == 0;
        Poll::Ready(Ok(n))
    }

    /// Watches for the end of the other side while nothing is expected from it, taking what it sends early up to one block.
    /// `Ready(Ok(()))`: it has closed its direction; an error: it is gone.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.input.len() < COALESCE && !self.ended {
            ready!(self.poll_fill(cx))?;
        }
        if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Where heads are written to; they leave with the next flush or body bytes.
    pub fn out(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output = OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        &mut self.output
    }

    /// Whether everything written has left.
    pub fn is_flushed(&self) -> bool {
        self.output.is_empty() && !self.held
    }

    /// Takes body bytes by a copy that waits for [`Self::poll_flush`] or the next write: how many; `None`: they are too many for that.
    pub fn copy(&mut self, data: &[u8]) -> io::Result<Option<usize>> {
        if data.is_empty() {
            return Ok(Some(0));
        }
        let mut writer = self.writer;
        let out = self.out();
        if out.len() + data.len() > COALESCE {
            return Ok(None);
        }
        let n = writer.before(data.len(), out)?;
        out.extend(data.get(..n).unwrap_or_default());
        writer.after(n, out);
        self.writer = writer;
        Ok(Some(n))
    }

    /// Writes body bytes behind what is to be written already: how many were.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, pieces: &[&[u8]]) -> Poll<io::Result<usize>> {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        let mut writer = self.writer;
        let n = writer.before(total, self.out())?;
        self.writer = writer;
        loop {
            let head = self.output.get(self.written..).unwrap_or_default();
            let (head_len, mut slices) = (head.len(), [IoSlice::new(&[]); PIECES + 1]);
            let parts = gather(&mut slices, head, pieces, n);
            let wrote = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held = true;
            if wrote > head_len {
                self.output.clear();
                self.written = 0;
                self.writer.after(wrote - head_len, &mut self.output);
                return Poll::Ready(Ok(wrote - head_len));
            }
            self.written += wrote;
        }
    }

    /// How many bytes of the body are left, where it is large, comes fast, and nothing of it was received that was not used: they can be
    /// taken from the stream itself.
    pub fn bulk(&self) -> Option<u64> {
        match self.reader.left() {
            Some(left) if left >= BULK && self.input.is_empty() && self.input.is_pressed() && !self.ended => Some(left),
            _ => None,
        }
    }

    /// `n` bytes of the body were taken from the stream itself. Where they were few, or the last ones, reading begins again with a small
    /// block, which little is copied to.
    pub fn took_unseen(&mut self, n: usize) {
        self.reader.took(n);
        if n < FEW || self.reader.is_done() {
            self.input.relax();
        }
    }

    /// `n` bytes of the body were written to the stream itself.
    pub fn sent(&mut self, n: usize) {
        self.writer.after(n, &mut self.output);
    }

    /// Ends the body that goes out; [`Self::poll_flush`] sends what is left.
    pub fn finish(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        let mut writer = std::mem::take(&mut self.writer);
        writer.finish(trailers, self.out())
    }

    /// Writes what is left, then gives the memory back.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_flushed() {
            while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
                let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
                if wrote == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += wrote;
                self.held = true;
            }
            // TLS keeps records back until it is flushed; for TCP this does nothing.
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.held = false;
        }
        self.release_output();
        Poll::Ready(Ok(()))
    }

    fn release_output(&mut self) {
        self.written = 0;
        self.output.clear();
        let output = std::mem::take(&mut self.output);
        if (1..=4 * COALESCE).contains(&output.capacity()) {
            OUTPUTS.with_borrow_mut(|kept| {
                if kept.len() < KEPT_OUTPUTS {
                    kept.push(output);
                }
            });
        }
    }

    /// Closes our direction after everything written has left.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Whether a connection that nobody waits for can carry another message: still open, and nothing came that nobody asked for. Costs no
    /// system call and no buffer as long as nothing came; if something did, the connection is of no use any more.
    pub fn is_idle(&mut self) -> bool {
        let (mut byte, mut nobody) = ([0], Context::from_waker(Waker::noop()));
        let mut byte = ReadBuf::new(&mut byte);
        self.input.is_empty()
            && !self.ended
            && Pin::new(&mut self.stream).poll_read(&mut nobody, &mut byte).is_pending()
    }

    /// Sets how both bodies end from here on.
    pub fn frame(&mut self, incoming: BodyKind, outgoing: BodyKind) {
        self.reader = BodyReader::new(incoming);
        self.writer = BodyWriter::new(outgoing);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> BodySource for Conn<S> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        loop {
            match self.reader.front(&mut self.input)? {
                Front::Data(n) => return Poll::Ready(Ok(Some(n))),
                Front::End => return Poll::Ready(Ok(None)),
                Front::More => {}
            }
            if std::mem::take(&mut self.expects_continue) {
                self.out().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                let _ = self.poll_flush(cx)?;
            }
            if ready!(self.poll_fill(cx))? == 0 {
                self.reader.ended()?;
            }
        }
    }

    fn data(&self) -> &[u8] {
        self.input.bytes()
    }

    fn pieces<'a>(&'a self, n: usize, pieces: &mut Pieces<'a>) {
        let input = self.input.bytes();
        pieces.extend(input.get(..n));
        self.reader.pieces_after(n, input, pieces);
    }

    fn consume(&mut self, mut n: usize) {
        while n > 0
            && let Ok(Front::Data(at_hand)) = self.reader.front(&mut self.input)
        {
            let used = n.min(at_hand);
            self.reader.took(used);
            self.input.consume(used);
            n -= used;
        }
    }

    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError> {
        self.reader.finish()
    }
}
