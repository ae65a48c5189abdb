//! How does an HTTP/1 connection end, and how is a client's end noticed?

use crate::http1::{BodyKind, Conn, Deadline, compose};
use crate::message::{Io, ResponseHead, Version};
use crate::proxy::request::Downstream;
use socket2::SockRef;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// A client that we close on gets so long, and over HTTP/2 may send so much, until it has read our last answer.
pub(in crate::proxy) const LINGER: Duration = Duration::from_secs(2);
pub(in crate::proxy) const LINGER_BYTES: usize = 512 * 1024;

/// One that goes on sending what nobody wants gets so long, and may send so much: many clients read an answer after their whole body.
const LINGER_MOST: Duration = Duration::from_secs(10);
const LINGER_MOST_BYTES: usize = 64 * 1024 * 1024;

/// Closes without taking our last answer from a client that is still sending: a reset would (RFC 9112 section 9.6). `asked`: the client
/// said that it would send no more; where that is so nothing is waited for, as nginx and HAProxy do.
pub(super) async fn linger(conn: &mut Conn<Io>, deadline: &mut Deadline, asked: bool) {
    if !conn.stream().is_tls() && poll_fn(|cx| Poll::Ready(is_silent(conn, cx, asked))).await {
        return;
    }
    let end = Instant::now() + LINGER_MOST;
    let (mut taken, mut seen) = (0, usize::MAX);
    poll_fn(|cx| {
        if let Poll::Ready(Err(_)) = conn.poll_shutdown(cx) {
            return Poll::Ready(());
        }
        loop {
            let n = conn.input().len();
            conn.input().consume(n);
            match conn.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 && taken < LINGER_MOST_BYTES => taken += n,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    if std::mem::replace(&mut seen, taken) != taken {
                        deadline.set(end.min(Instant::now() + LINGER));
                    }
                    return deadline.poll(cx);
                }
            }
        }
    })
    .await;
}

/// Sends what was written before the end, as far as the client takes it.
pub(super) async fn flush_last(conn: &mut Conn<Io>, deadline: &mut Deadline) {
    deadline.set(Instant::now() + LINGER);
    poll_fn(|cx| if conn.poll_flush(cx).is_ready() { Poll::Ready(()) } else { deadline.poll(cx) }).await;
}

/// Whether nothing can come any more, or nothing did that breaks the client's word. Costs no system call as long as nothing came.
fn is_silent(conn: &mut Conn<Io>, cx: &mut Context<'_>, asked: bool) -> bool {
    let nothing_came = conn.input().is_empty() && !conn.has_ended() && conn.poll_fill(cx).is_pending();
    (nothing_came && asked && conn.reader.is_done()) || conn.has_ended()
}

/// Tells a TLS client that nothing was cut off (RFC 8446 section 6.1), if that can be done at once.
pub(in crate::proxy) async fn goodbye(conn: &mut Conn<Io>) {
    if conn.stream().is_tls() {
        poll_fn(|cx| {
            let _ = conn.poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }
}

/// Ends with a reset, so that a response without a length cannot be taken for whole.
pub(super) fn abort(conn: &Conn<Io>) {
    let _ = SockRef::from(conn.stream().tcp()).set_linger(Some(Duration::ZERO));
}

impl Downstream for Conn<Io> {
    /// The end of the client's direction alone is no reason to give up: half-closed clients are served. A reset is, and so is
    /// a TLS stream that ends without saying so.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.has_ended()
            && let Err(error) = ready!(Conn::poll_gone(self, cx))
        {
            return Poll::Ready(error);
        }
        Poll::Pending
    }

    fn inform(&mut self, cx: &mut Context<'_>, head: &ResponseHead, version: Version) {
        if version == Version::Http11 {
            let out = self.out();
            compose::response(out, head, BodyKind::None);
            compose::end(out);
            // What does not leave now goes before the next response.
            let _ = self.poll_flush(cx);
        }
    }
}
