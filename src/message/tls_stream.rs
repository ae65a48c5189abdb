//! How does TLS of a client become a stream, without memory for one that is idle?
//!
//! Made of rustls' unbuffered interface. tokio-rustls would hold 4096 bytes for each connection for as long as it lives, and read
//! 4 to 18 kB at once.
//!
//! ```text
//! socket -> received (records) -> rustls -> the caller, or plain (what it had no room for)
//! socket <- sealed (records)   <- rustls <- the caller
//! ```

mod block;
mod seal;
mod session;
#[cfg(test)]
mod tests;

pub use block::Block;

use rustls::{CommonState, ServerConfig};
use session::Session;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// TLS over a socket, the server's side, handshake done. What was written and the socket did not take leaves with the next read, write
/// or flush; until then no further bytes are taken.
pub struct TlsStream<S> {
    socket: S,
    session: Session,
}

impl<S> TlsStream<S> {
    /// The socket below, for its addresses and options.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// What the handshake agreed on.
    pub fn connection(&self) -> &CommonState {
        self.session.connection()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Shakes hands with a client of which `received` came so far.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] around a [`rustls::Error`], which the client was told; otherwise those of the socket.
    pub async fn accept(socket: S, received: Block, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = Session::new(config, received).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let mut stream = Self { socket, session };
        poll_fn(|cx| stream.poll_shake(cx)).await?;
        Ok(stream)
    }

    fn poll_shake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let shaken = self.session.shake();
            let sent = ready!(self.poll_send(cx));
            if shaken? {
                return Poll::Ready(sent);
            }
            sent?;
            if ready!(self.session.received.poll_fill(&mut self.socket, cx))? == 0 {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Sends the records that are sealed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sealed = &mut self.session.sealed;
        while !sealed.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, sealed.bytes()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sealed.discard(n),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    sealed.settle();
                    return Poll::Pending;
                }
            }
        }
        // Where nothing was to be said, the block that was lent for it is still there.
        sealed.clear();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = to.filled().len();
        loop {
            this.session.open(to);
            // What was accepted, and what rustls has to say. That it fails is told where one writes.
            let _ = this.poll_send(cx);
            let some = to.filled().len() > before;
            if to.remaining() == 0 || some && !this.session.received.is_pressed() {
                return Poll::Ready(Ok(()));
            }
            match this.session.ended() {
                Some(_) if some => return Poll::Ready(Ok(())),
                Some(ended) => return Poll::Ready(ended),
                None => {}
            }
            match this.session.received.poll_fill(&mut this.socket, cx) {
                Poll::Ready(Ok(0)) => this.session.cut(None),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => this.session.cut(Some(error)),
                Poll::Pending if some => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let taken = this.session.seal(parts);
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) if taken.is_ok() => Poll::Ready(Err(error)),
            _ => Poll::Ready(taken),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.close();
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.socket).poll_shutdown(cx)) {
            // The client was faster.
            Err(error) if error.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}
