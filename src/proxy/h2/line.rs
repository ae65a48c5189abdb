//! What is known about an HTTP/2 connection to an upstream, and how is it driven?

use super::pulse::{Heard, Pulse};
use crate::upstream::{Cluster, ConnectError, Endpoint, UpstreamStream, connect};
use bytes::Bytes;
use h2::client::{self, Connection, SendRequest};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// An upstream that answers no ping for so long is gone.
const PING: Duration = Duration::from_secs(20);

/// Streams that may be opened before the upstream has said how many it takes (RFC 9113 section 6.5.2 advises as many at least).
const UNTOLD_STREAMS: usize = 100;

/// What waits in memory for an upstream that takes nothing, of each stream.
const SEND_BUFFER: usize = 128 * 1024;

/// A connection, by what opens streams on it.
#[derive(Clone)]
pub struct Line {
    pub(super) send: SendRequest<Bytes>,
    state: Rc<State>,
}

struct State {
    closed: Cell<bool>,
    settled: Cell<bool>,
    /// Rung when it is settled or closed.
    news: Notify,
    open: Cell<u32>,
}

/// A stream of a line that is open, for as long as it is held: only then is silence asked about.
pub(super) struct Counted(Rc<State>);

impl Line {
    /// Whether it takes no more streams.
    pub(super) fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// A stream is open on it.
    pub(super) fn count(&self) -> Counted {
        self.state.open.set(self.state.open.get() + 1);
        Counted(Rc::clone(&self.state))
    }

    /// Whether the upstream takes extended CONNECT (RFC 8441 section 3), which its settings say.
    pub(super) async fn takes_connect(&self) -> bool {
        while !self.state.settled.get() && !self.is_closed() {
            // Nothing runs between the look and this: one thread, no await.
            self.state.news.notified().await;
        }
        self.send.is_extended_connect_protocol_enabled()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }
}

/// Connects, and drives the connection beside the requests that will share it.
pub(super) async fn open(
    cluster: &Cluster,
    endpoint: &Endpoint,
    ends: (SocketAddr, SocketAddr),
) -> Result<Line, ConnectError> {
    let stream = connect(cluster, endpoint, ends).await?;
    let heard = Rc::new(Cell::new(Instant::now()));
    let front = Rc::new(RefCell::new(Front::default()));
    let wire = Wire { stream, heard: Rc::clone(&heard), front: Rc::clone(&front) };
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(UNTOLD_STREAMS)
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(32 * 1024);
    let failed = |error: h2::Error| ConnectError::Io(io::Error::other(error));
    let (send, mut connection) = builder.handshake(wire).await.map_err(failed)?;
    let pings = connection.ping_pong().ok_or_else(|| ConnectError::Io(io::ErrorKind::Other.into()))?;
    let state =
        Rc::new(State { closed: Cell::new(false), settled: Cell::new(false), news: Notify::new(), open: Cell::new(0) });
    let pulse = Pulse::new(pings, heard, PING, PING);
    tokio::task::spawn_local(drive(connection, Rc::clone(&state), front, pulse));
    Ok(Line { send, state })
}

async fn drive(connection: Connection<Wire, Bytes>, state: Rc<State>, front: Rc<RefCell<Front>>, mut pulse: Pulse) {
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
            }
            return Poll::Ready(());
        }
        // What was read was looked at.
        if !state.settled.get() && front.borrow().is_whole() {
            state.settled.set(true);
            state.news.notify_waiters();
        }
        pulse.poll(cx, state.open.get() > 0)
    })
    .await;
    state.closed.set(true);
    state.news.notify_waiters();
}

/// How much came of the first frame, which is the settings (RFC 9113 section 3.4).
#[derive(Debug, Default)]
struct Front {
    length: [u8; 3],
    seen: usize,
}

impl Front {
    fn saw(&mut self, bytes: &[u8]) {
        for (place, byte) in self.length.iter_mut().skip(self.seen).zip(bytes) {
            *place = *byte;
        }
        self.seen = self.seen.saturating_add(bytes.len());
    }

    fn is_whole(&self) -> bool {
        let [a, b, c] = self.length;
        // A frame is its length, six bytes more, and its payload.
        self.seen as u64 >= 9 + u64::from(u32::from_be_bytes([0, a, b, c]))
    }
}

/// The bytes of a connection, and what is noticed of them.
struct Wire {
    stream: UpstreamStream,
    heard: Heard,
    front: Rc<RefCell<Front>>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let came = buf.filled().get(before..).unwrap_or_default();
        if !came.is_empty() {
            self.heard.set(Instant::now());
            self.front.borrow_mut().saw(came);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_whole_with_their_last_byte() {
        let mut front = Front::default();
        // Two settings of six bytes.
        let frame = [&[0, 0, 12, 4, 0, 0, 0, 0, 0][..], &[0; 12]].concat();
        for byte in &frame {
            assert!(!front.is_whole());
            front.saw(&[*byte]);
        }
        assert!(front.is_whole());
        let mut at_once = Front::default();
        at_once.saw(&frame);
        assert!(at_once.is_whole());
    }
}
