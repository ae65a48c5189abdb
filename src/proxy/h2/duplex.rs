//! How does an HTTP/2 stream carry a tunnel (RFC 8441): as bytes both ways?

use super::body::{RecvBody, poll_room};
use crate::http1::BodySource;
use bytes::Bytes;
use h2::SendStream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream as a connection.
pub(in crate::proxy) struct Duplex<'a> {
    pub(super) from: &'a mut RecvBody,
    pub(super) to: &'a mut SendStream<Bytes>,
}

impl AsyncRead for Duplex<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let from = &mut self.get_mut().from;
        let polled = ready!(from.poll_data(cx)).map_err(io::Error::other)?;
        if let Some(n) = polled {
            let n = n.min(buf.remaining());
            buf.put_slice(from.data().get(..n).unwrap_or_default());
            from.consume(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let to = &mut self.get_mut().to;
        let n = ready!(poll_room(to, cx, buf.len())).map_err(io::Error::other)?;
        let piece = Bytes::copy_from_slice(buf.get(..n).unwrap_or_default());
        Poll::Ready(to.send_data(piece, false).map(|()| n).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let to = &mut self.get_mut().to;
        Poll::Ready(to.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
