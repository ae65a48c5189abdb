//! Which stream does the HTTP/2 library get: one whose first bytes are read again, that tells when bytes come, and that does not
//! end with a reset?

use super::pulse::Heard;
use crate::http1::{Buffer, Deadline};
use crate::proxy::h1::{LINGER, LINGER_BYTES};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A stream whose first bytes were already read.
#[derive(Debug)]
pub(super) struct Rewind<S> {
    front: Buffer,
    stream: S,
    heard: Heard,
    /// Our direction is closed: until when, and for how many bytes, the client's is read.
    linger: Option<(Deadline, usize)>,
}

impl<S> Rewind<S> {
    /// `front` is read first, then `stream`; `heard` is when.
    pub(super) fn new(stream: S, front: Buffer, heard: Heard) -> Self {
        Self { front, stream, heard, linger: None }
    }
}

impl<S: AsyncRead + Unpin> Rewind<S> {
    /// Takes what the client still sends until it has closed, too: with bytes unread the kernel would reset the connection, and
    /// the client might lose the end of what it was sent.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (deadline, left) = self.linger.get_or_insert_with(|| (Deadline::new(LINGER), LINGER_BYTES));
        let mut block = [0; 4096];
        loop {
            let mut read = ReadBuf::new(&mut block);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() && *left >= read.filled().len() => {
                    *left -= read.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return deadline.poll(cx),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.front.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            this.heard.set(Instant::now());
            return Poll::Ready(Ok(()));
        }
        let n = this.front.len().min(buf.remaining());
        buf.put_slice(this.front.bytes().get(..n).unwrap_or_default());
        this.front.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        this.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn rewind<S>(stream: S) -> Rewind<S> {
        Rewind::new(stream, Buffer::default(), Rc::new(Cell::new(Instant::now())))
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_still_sends_is_taken_until_it_closes_or_for_a_while() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = rewind(near);
        let client = async {
            assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0, "our direction is closed");
            far.write_all(&[0; 1000]).await.unwrap();
            drop(far);
        };
        let (closed, ()) = tokio::join!(stream.shutdown(), client);
        closed.unwrap();
        let (near, _quiet) = tokio::io::duplex(64);
        let start = Instant::now();
        rewind(near).shutdown().await.unwrap();
        assert_eq!(start.elapsed(), LINGER);
    }
}
