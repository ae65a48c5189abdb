//! How do body bytes move from one side to the other, with back-pressure and without a copy of large ones?

use super::conn::Conn;
use super::read::{BodyError, BodySource, Pieces};
use super::write::BodyWriter;
use crate::message::Fields;
use std::io;
use std::task::{Context, Poll, ready};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// Which end of a relay failed.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The side that the body comes from.
    #[error("the sending side failed")]
    Source(#[source] BodyError),
    /// The side that the body goes to.
    #[error("the receiving side failed")]
    Sink(#[source] io::Error),
}

/// Moves a body on until its end was written and flushed. What was received is flushed before waiting for more, so that
/// events of a stream are never held back; nothing is read while the sink cannot take it. `moved` counts body bytes.
/// `keep` says which trailer fields go on.
pub fn poll_relay<B, S>(
    cx: &mut Context<'_>,
    from: &mut B,
    to: &mut Conn<S>,
    moved: &mut u64,
    keep: fn(&mut Fields),
) -> Poll<Result<(), RelayError>>
where
    B: BodySource,
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match from.poll_data(cx) {
            Poll::Ready(Ok(Some(n))) => {
                let took = ready!(poll_pass(cx, from, to, n)).map_err(RelayError::Sink)?;
                from.consume(took);
                *moved += took as u64;
            }
            Poll::Ready(Ok(None)) => return poll_end(cx, from, to, keep),
            Poll::Ready(Err(error)) => {
                // What came before is not lost by it, where there is room.
                let _ = to.poll_flush(cx);
                return Poll::Ready(Err(RelayError::Source(error)));
            }
            Poll::Pending => {
                let _ = to.poll_flush(cx).map_err(RelayError::Sink)?;
                return Poll::Pending;
            }
        }
    }
}

/// Hands on the first `n` bytes at hand: small ones by a copy, others with all that stands behind them in one write.
fn poll_pass<B, S>(cx: &mut Context<'_>, from: &B, to: &mut Conn<S>, n: usize) -> Poll<io::Result<usize>>
where
    B: BodySource,
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(took) = to.copy(from.data().get(..n).unwrap_or_default())? {
        return Poll::Ready(Ok(took));
    }
    let mut pieces = Pieces::new();
    from.pieces(n, &mut pieces);
    to.poll_send(cx, &pieces)
}

fn poll_end<B, S>(
    cx: &mut Context<'_>,
    from: &mut B,
    to: &mut Conn<S>,
    keep: fn(&mut Fields),
) -> Poll<Result<(), RelayError>>
where
    B: BodySource,
    S: AsyncRead + AsyncWrite + Unpin,
{
    if to.writer == BodyWriter::Tunnel {
        return to.poll_shutdown(cx).map_err(RelayError::Sink);
    }
    let mut trailers = from.take_trailers().map_err(RelayError::Source)?;
    if let Some(fields) = &mut trailers {
        keep(fields);
    }
    to.finish(trailers.as_ref()).map_err(RelayError::Sink)?;
    to.poll_flush(cx).map_err(RelayError::Sink)
}

#[cfg(test)]
mod tests {
    use super::super::framing::BodyKind;
    use super::super::read::Limited;
    use super::*;
    use std::future::poll_fn;
    use std::io::IoSlice;
    use std::pin::Pin;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

    /// Sends `wire` in and returns what comes out for these framings.
    async fn relay(wire: &[u8], incoming: BodyKind, outgoing: BodyKind) -> (Result<(), RelayError>, Vec<u8>, u64) {
        let (near, mut far) = tokio::io::duplex(1 << 22);
        let (near_out, mut far_out) = tokio::io::duplex(1 << 22);
        far.write_all(wire).await.unwrap();
        drop(far);
        let (mut from, mut to, mut moved) = (Conn::new(near), Conn::new(near_out), 0);
        from.frame(incoming, BodyKind::None);
        to.frame(BodyKind::None, outgoing);
        let result = poll_fn(|cx| poll_relay(cx, &mut from, &mut to, &mut moved, |_| {})).await;
        drop(to);
        let mut out = Vec::new();
        far_out.read_to_end(&mut out).await.unwrap();
        (result, out, moved)
    }

    #[tokio::test]
    async fn a_body_is_framed_anew_for_the_other_side() {
        let (result, out, moved) = relay(b"5\r\nhello\r\n0\r\n\r\n", BodyKind::Chunked, BodyKind::Length(5)).await;
        assert!(result.is_ok());
        assert_eq!((out.as_slice(), moved), (&b"hello"[..], 5));
        let (_, out, _) = relay(b"hello", BodyKind::UntilClose, BodyKind::Chunked).await;
        assert_eq!(out, b"5\r\nhello\r\n0\r\n\r\n");
        let (_, out, _) = relay(b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n", BodyKind::Chunked, BodyKind::Chunked).await;
        assert_eq!(out, b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n");
    }

    #[tokio::test]
    async fn a_large_body_arrives_whole() {
        let body: Vec<u8> = (0..2_000_000u32).map(|n| (n / 7) as u8).collect();
        let (result, out, moved) = relay(&body, BodyKind::Length(2_000_000), BodyKind::Length(2_000_000)).await;
        assert!(result.is_ok());
        assert!(out == body && moved == 2_000_000);
        let (result, out, _) = relay(&body, BodyKind::UntilClose, BodyKind::Chunked).await;
        assert!(result.is_ok());
        let (_, back, _) = relay(&out, BodyKind::Chunked, BodyKind::UntilClose).await;
        assert!(back == body);
    }

    #[tokio::test]
    async fn what_the_stream_below_holds_back_is_flushed_before_a_wait_and_at_the_end() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (near_out, mut far_out) = tokio::io::duplex(1 << 20);
        let (mut from, mut to) = (Conn::new(near), Conn::new(tokio::io::BufWriter::with_capacity(1 << 20, near_out)));
        from.frame(BodyKind::Length(200_000), BodyKind::None);
        to.frame(BodyKind::None, BodyKind::Length(200_000));
        let (mut half, mut moved) = (vec![0; 100_000], 0);
        for ended in [false, true] {
            far.write_all(&half).await.unwrap();
            let relayed = poll_fn(|cx| Poll::Ready(poll_relay(cx, &mut from, &mut to, &mut moved, |_| {}))).await;
            assert_eq!(relayed.is_ready(), ended);
            let read = far_out.read_exact(&mut half);
            tokio::time::timeout(std::time::Duration::from_secs(5), read)
                .await
                .expect("all that came has left")
                .unwrap();
        }
        assert!(to.is_flushed());
    }

    #[tokio::test]
    async fn a_body_cut_short_is_never_a_clean_end() {
        for (wire, kind) in
            [(&b"hel"[..], BodyKind::Length(5)), (b"5\r\nhel", BodyKind::Chunked), (b"", BodyKind::Chunked)]
        {
            let (result, out, _) = relay(wire, kind, BodyKind::Chunked).await;
            assert!(matches!(result, Err(RelayError::Source(BodyError::Truncated))));
            assert!(!out.ends_with(b"0\r\n\r\n"));
        }
    }

    #[tokio::test]
    async fn what_came_before_a_cut_goes_on() {
        for (wire, kind) in [(&b"hel"[..], BodyKind::Length(5)), (b"5\r\nhel", BodyKind::Chunked)] {
            let (result, out, moved) = relay(wire, kind, BodyKind::Length(5)).await;
            assert!(matches!(result, Err(RelayError::Source(BodyError::Truncated))));
            assert_eq!((out.as_slice(), moved), (&b"hel"[..], 3));
        }
    }

    /// Takes so much in each write, and counts the writes.
    struct Sink {
        taken: Vec<u8>,
        most: usize,
        writes: usize,
    }

    impl AsyncRead for Sink {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let n = bytes.len().min(self.most);
            self.taken.extend_from_slice(&bytes[..n]);
            self.writes += 1;
            Poll::Ready(Ok(n))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).take(self.most).collect();
            self.poll_write(cx, &bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Chunks of these sizes, all received at once, and their data.
    fn chunks(sizes: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let (mut wire, mut data) = (Vec::new(), Vec::new());
        for (number, size) in sizes.iter().enumerate() {
            let bytes: Vec<u8> = (0..*size).map(|at| (at % 251 + number) as u8).collect();
            wire.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            wire.extend_from_slice(&bytes);
            wire.extend_from_slice(b"\r\n");
            data.extend_from_slice(&bytes);
        }
        (wire, data)
    }

    /// What comes out in chunks of what was received, for a sink of so much in each write and a body of so much at most.
    fn rechunked(wire: &[u8], most: usize, limit: u64) -> (Poll<Result<(), RelayError>>, Sink) {
        let sink = |taken| Sink { taken, most, writes: 0 };
        let (mut from, mut to, mut moved) = (Conn::new(sink(Vec::new())), Conn::new(sink(Vec::new())), 0);
        from.input().preload(wire);
        from.frame(BodyKind::Chunked, BodyKind::None);
        to.frame(BodyKind::None, BodyKind::Chunked);
        let mut source = Limited { source: &mut from, left: limit, waits: false, but_bulk: false };
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let relayed = poll_relay(cx, &mut source, &mut to, &mut moved, |_| {});
        (relayed, to.into_parts().0)
    }

    #[test]
    fn chunks_that_are_at_hand_leave_as_one_in_one_write() {
        let (mut wire, data) = chunks(&[16_384; 15]);
        wire.extend_from_slice(b"0\r\n\r\n");
        let (relayed, sink) = rechunked(&wire, usize::MAX, u64::MAX);
        assert!(matches!(relayed, Poll::Ready(Ok(()))));
        assert_eq!(sink.writes, 2, "all data, then the end");
        assert_eq!(sink.taken, [&b"3c000\r\n"[..], &data, b"\r\n0\r\n\r\n"].concat());
    }

    #[tokio::test]
    async fn chunks_that_leave_in_parts_are_the_same_body() {
        let (mut wire, data) = chunks(&[9_000, 1, 20_000, 300, 8_192, 16_384, 12_345]);
        wire.extend_from_slice(b"0\r\n\r\n");
        for most in [97, 1_000, 9_001, 40_000] {
            let (relayed, sink) = rechunked(&wire, most, u64::MAX);
            assert!(matches!(relayed, Poll::Ready(Ok(()))));
            let (result, out, moved) = relay(&sink.taken, BodyKind::Chunked, BodyKind::UntilClose).await;
            assert!(result.is_ok() && out == data && moved == data.len() as u64, "{most} bytes in each write");
        }
    }

    #[test]
    fn of_chunks_that_are_at_hand_no_more_leaves_than_is_allowed() {
        let (wire, data) = chunks(&[9_000; 5]);
        let (relayed, sink) = rechunked(&wire, usize::MAX, 20_000);
        assert!(matches!(relayed, Poll::Ready(Err(RelayError::Source(BodyError::TooLarge)))));
        assert_eq!(sink.taken, [&b"4650\r\n"[..], &data[..18_000], b"\r\n"].concat());
    }

    #[test]
    fn what_is_wrong_behind_chunks_that_are_at_hand_is_no_end() {
        let (mut wire, data) = chunks(&[9_000; 2]);
        wire.extend_from_slice(b"x\r\n");
        let (relayed, sink) = rechunked(&wire, usize::MAX, u64::MAX);
        assert!(matches!(relayed, Poll::Ready(Err(RelayError::Source(BodyError::Chunk(_))))));
        assert_eq!(sink.taken, [&b"4650\r\n"[..], &data, b"\r\n"].concat());
    }
}
