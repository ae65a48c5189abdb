//! How long does an HTTP/2 connection of a client live, and what happens on it?
//!
//! One task: it reads what comes, runs the streams that were woken in their lanes, and writes what they have to say.

use super::downstream::{self, Stream};
use super::lanes::{Inbox, Lanes, Work};
use super::pulse::Pulse;
use super::rewind::Rewind;
use crate::http1::{Buffer, Conn, Deadline};
use crate::message::Io;
use crate::model::ListenerSpec;
use crate::proxy::h1::{goodbye, speaks_http2};
use crate::proxy::rest::Doing;
use crate::proxy::worker::Connection;
use bytes::Bytes;
use h2::server::{self, Builder};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::time::Instant;

/// What waits in memory for a client that takes nothing, of each stream.
const SEND_BUFFER: usize = 128 * 1024;

/// How often streams and frames take turns before others of the thread have theirs.
const TURNS: u32 = 8;

/// Serves until the client or a drain ends it. The preface may have been read already.
pub async fn serve(conn: Conn<Io>, connection: Rc<Connection>) {
    let listener = connection.listener();
    let spec = &listener.spec;
    let mut deadline = Deadline::new(spec.timeouts.head);
    let Some((stream, front)) = preface(conn, &mut deadline).await else { return };
    let heard = Rc::new(Cell::new(Instant::now()));
    let shaking = builder(spec).handshake::<_, Bytes>(Rewind::new(stream, front, Rc::clone(&heard)));
    let Some(mut wire) = within(shaking, &mut deadline).await else { return };
    let Some(pings) = wire.ping_pong() else { return };
    let pulse = Pulse::new(pings, heard, spec.timeouts.idle, spec.timeouts.head);
    let shared = Rc::clone(&connection);
    let lanes = Lanes::new(move |inbox| lane(Rc::clone(&shared), inbox));
    // Until a stream comes.
    connection.rest.does(Doing::Stays);
    let mut session = Session {
        outer: lanes.outer(),
        connection: &connection,
        spec,
        wire,
        lanes,
        pulse,
        drained: connection.drained(),
        deadline,
        served: 0,
        since: Instant::now(),
        closing: None,
    };
    session.outer.wake_by_ref();
    poll_fn(|cx| session.poll(cx)).await;
    // Streams that are still open notice that the connection has ended.
    session.lanes.run();
}

/// Reads until the client has said that it speaks HTTP/2, within the time for a head. `None`: it did not.
async fn preface(mut conn: Conn<Io>, deadline: &mut Deadline) -> Option<(Io, Buffer)> {
    if speaks_http2(&mut conn, deadline).await {
        return Some(conn.into_parts());
    }
    goodbye(&mut conn).await;
    None
}

/// `None`: it failed, or took too long.
async fn within<T, E>(work: impl Future<Output = Result<T, E>>, deadline: &mut Deadline) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done.ok()),
        Poll::Pending => deadline.poll(cx).map(|()| None),
    })
    .await
}

fn builder(spec: &ListenerSpec) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(spec.limits.streams)
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buffer_size(SEND_BUFFER)
        // The bound against HPACK bombs (CVE-2026-49975) is this size together with the number of streams.
        .max_header_list_size(spec.limits.http2_head_bytes)
        .enable_connect_protocol();
    builder
}

/// Its streams count for nothing in the budget of the connection's task: flow control bounds what each does in one go.
fn lane(connection: Rc<Connection>, inbox: Inbox<Stream>) -> Work {
    Box::pin(tokio::task::unconstrained(async move {
        let mut deadline = Deadline::new(connection.listener().spec.timeouts.idle);
        loop {
            let stream = inbox.next().await;
            downstream::serve(&connection, stream, &mut deadline).await;
        }
    }))
}

struct Session<'a> {
    connection: &'a Rc<Connection>,
    spec: &'a ListenerSpec,
    wire: server::Connection<Rewind<Io>, Bytes>,
    lanes: Lanes<Stream>,
    /// Woken when there are frames to read or to write.
    outer: Waker,
    pulse: Pulse,
    drained: Pin<Box<dyn Future<Output = ()>>>,
    deadline: Deadline,
    served: u32,
    /// When the last stream ended.
    since: Instant,
    /// Since when the client knows that no more streams are taken.
    closing: Option<Instant>,
}

impl Session<'_> {
    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lanes.wake(cx.waker());
        let (busy, served) = (self.lanes.busy() > 0, self.served);
        for _ in 0..TURNS {
            if !self.lanes.run() {
                break;
            }
            if self.poll_wire(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        if (busy || served != self.served) && self.lanes.busy() == 0 {
            self.since = Instant::now();
            self.connection.rest.does(Doing::Waits);
        }
        let ended = self.poll_end(cx);
        self.lanes.sleep();
        ended
    }

    /// Reads and writes frames. Ready when there are no more.
    fn poll_wire(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let outer = self.outer.clone();
        let mut cx = Context::from_waker(&outer);
        loop {
            match std::task::ready!(self.wire.poll_accept(&mut cx)) {
                Some(Ok(stream)) => self.begin(stream, task),
                Some(Err(error)) => {
                    tracing::debug!(%error, peer = %self.connection.peer, "HTTP/2 connection ended");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    fn begin(&mut self, stream: Stream, task: &mut Context<'_>) {
        self.served = self.served.saturating_add(1);
        self.connection.rest.does(Doing::Works);
        self.connection.worker.at_work.works(self.connection, task.waker());
        self.lanes.begin(stream);
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connection.rest.is_due() {
            self.connection.rest.does(Doing::Stays);
            self.lanes.clear();
        }
        if self.pulse.poll(cx, true).is_ready() {
            tracing::debug!(peer = %self.connection.peer, "HTTP/2 connection is silent");
            return Poll::Ready(());
        }
        if self.closing.is_none() && (self.is_to_close() || self.drained.as_mut().poll(cx).is_ready()) {
            self.close();
        }
        match self.poll_idle(cx) {
            Poll::Ready(()) if self.closing.is_none() => self.close(),
            // A client that takes no leave is not waited for.
            Poll::Ready(()) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
        self.poll_idle(cx)
    }

    fn is_to_close(&self) -> bool {
        let limit = self.spec.limits.requests_per_connection;
        self.connection.is_stale() || self.connection.is_ending() || (limit != 0 && self.served >= limit)
    }

    /// Says that no more streams are taken.
    fn close(&mut self) {
        self.closing = Some(Instant::now());
        self.wire.graceful_shutdown();
        self.outer.wake_by_ref();
    }

    /// Ready when no stream was open for as long as may be. Open streams have limits of their own.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let idle = self.lanes.busy() == 0;
            if idle {
                self.deadline.set(match self.closing {
                    None => self.since + self.spec.timeouts.keep_alive,
                    Some(closing) => closing.max(self.since) + self.spec.timeouts.head,
                });
            }
            std::task::ready!(self.deadline.poll(cx));
            if idle {
                return Poll::Ready(());
            }
            self.deadline.set(Instant::now() + self.spec.timeouts.keep_alive);
        }
    }
}
