//! How long does an HTTP/2 connection of a client live, and each of its streams?
//!
//! hyper asks for a response body only while the client grants it room, and waits for a preface for ever: the limits of both
//! stand here, outside of hyper.

use super::Rewind;
use super::downstream::respond;
use crate::http1::{Buffer, Conn, Deadline};
use crate::message::Io;
use crate::model::ListenerSpec;
use crate::proxy::h1::{goodbye, speaks_http2};
use crate::proxy::worker::{Connection, Worker};
use http::Request as HttpRequest;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Serves until the client or a drain ends it. The preface may have been read already.
pub async fn serve(conn: Conn<Io>, connection: Rc<Connection>) {
    let listener = connection.listener();
    let spec = &listener.spec;
    let Some((stream, front)) = preface(conn, spec).await else { return };
    let life = Rc::new(Life::new(Rc::clone(&connection.worker)));
    let streams = Streams::default();
    let (shared, seen, next) = (Rc::clone(&connection), Rc::clone(&life), streams.clone());
    let service = service_fn(move |request: HttpRequest<Incoming>| {
        let guard = next.begin(&seen);
        // Boxed at once: hyper and the executor hand it on by value, and its thousands of bytes were a tenth of a request's cost.
        let response = Box::pin(respond(Rc::clone(&shared), request, guard));
        async move { Ok::<_, Infallible>(response.await) }
    });
    let io = TokioIo::new(Rewind::new(stream, front));
    let mut serving = pin!(builder(spec, streams).serve_connection(io, service));
    let mut draining = pin!(connection.worker.draining.started());
    let mut deadline = Deadline::new(spec.timeouts.keep_alive);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = serving.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, peer = %connection.peer, "HTTP/2 connection ended");
                }
                return Poll::Ready(());
            }
            let ends = || connection.is_stale() || connection.is_ending() || life.is_used_up(spec);
            if life.closing.get().is_none() && (ends() || draining.as_mut().poll(cx).is_ready()) {
                life.close();
                serving.as_mut().graceful_shutdown();
                continue;
            }
            match life.poll_idle(cx, spec, &mut deadline) {
                Poll::Pending => return Poll::Pending,
                // A client that takes no leave is not waited for.
                Poll::Ready(()) if life.closing.get().is_some() => return Poll::Ready(()),
                Poll::Ready(()) => {
                    life.close();
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    })
    .await;
}

/// Reads until the client has said that it speaks HTTP/2, within the time for a head. `None`: it did not.
async fn preface(mut conn: Conn<Io>, spec: &ListenerSpec) -> Option<(Io, Buffer)> {
    if speaks_http2(&mut conn, &mut Deadline::new(spec.timeouts.head)).await {
        return Some(conn.into_parts());
    }
    goodbye(&mut conn).await;
    None
}

fn builder(spec: &ListenerSpec, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(spec.limits.streams)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(128 * 1024)
        // The bound against HPACK bombs (CVE-2026-49975) is this size together with the number of streams.
        .max_header_list_size(spec.limits.http2_head_bytes)
        .keep_alive_interval(spec.timeouts.idle)
        .keep_alive_timeout(spec.timeouts.head)
        .enable_connect_protocol();
    builder
}

/// How many streams are open and were, and since when none is.
struct Life {
    worker: Rc<Worker>,
    open: Cell<u32>,
    served: Cell<u32>,
    since: Cell<Instant>,
    closing: Cell<Option<Instant>>,
}

impl Life {
    fn new(worker: Rc<Worker>) -> Self {
        let (open, served) = (Cell::new(0), Cell::new(0));
        Self { worker, open, served, since: Cell::new(Instant::now()), closing: Cell::new(None) }
    }

    fn is_used_up(&self, spec: &ListenerSpec) -> bool {
        let limit = spec.limits.requests_per_connection;
        limit != 0 && self.served.get() >= limit
    }

    fn close(&self) {
        self.closing.set(Some(Instant::now()));
    }

    /// Ready when no stream was open for as long as may be. Open streams have limits of their own.
    fn poll_idle(&self, cx: &mut Context<'_>, spec: &ListenerSpec, deadline: &mut Deadline) -> Poll<()> {
        loop {
            if self.open.get() == 0 {
                deadline.set(match self.closing.get() {
                    None => self.since.get() + spec.timeouts.keep_alive,
                    Some(closing) => closing.max(self.since.get()) + spec.timeouts.head,
                });
            }
            std::task::ready!(deadline.poll(cx));
            if self.open.get() == 0 {
                return Poll::Ready(());
            }
            deadline.set(Instant::now() + spec.timeouts.keep_alive);
        }
    }
}

/// One stream while it is open. Its limit counts once the response is left to hyper; before, whoever waits watches the time.
pub(crate) struct Guard {
    life: Rc<Life>,
    limit: RefCell<Option<Deadline>>,
    late: Cell<bool>,
}

impl Guard {
    /// From now on the stream is cut when `limit` passes.
    pub(super) fn arm(&self, limit: Deadline) {
        self.limit.replace(Some(limit));
    }

    /// Something moved.
    pub(super) fn set(&self, at: Instant) {
        if let Some(limit) = self.limit.borrow_mut().as_mut() {
            limit.set(at);
        }
    }

    /// Whether the stream was cut because its client took nothing in time.
    pub(super) fn was_late(&self) -> bool {
        self.late.get()
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.limit.borrow_mut().as_mut().map_or(Poll::Pending, |limit| limit.poll(cx))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.life.open.set(self.life.open.get().saturating_sub(1));
        self.life.since.set(Instant::now());
        if let Some(limit) = self.limit.take() {
            self.life.worker.give_back_deadline(limit);
        }
    }
}

/// Runs the streams of one connection on the worker's own thread, each under its guard. hyper hands over a stream's task
/// right after it called the service for it.
#[derive(Clone, Default)]
struct Streams(Rc<RefCell<Option<Rc<Guard>>>>);

impl Streams {
    fn begin(&self, life: &Rc<Life>) -> Rc<Guard> {
        life.open.set(life.open.get() + 1);
        life.served.set(life.served.get().saturating_add(1));
        let guard = Guard { life: Rc::clone(life), limit: RefCell::new(None), late: Cell::new(false) };
        let guard = Rc::new(guard);
        self.0.replace(Some(Rc::clone(&guard)));
        guard
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        let guard = self.0.take();
        tokio::task::spawn_local(async move {
            let mut future = pin!(future);
            poll_fn(|cx| {
                if future.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let cut = guard.as_ref().map_or(Poll::Pending, |guard| guard.poll(cx));
                if let (Poll::Ready(()), Some(guard)) = (cut, &guard) {
                    // Dropping the future resets the stream.
                    guard.late.set(true);
                }
                cut
            })
            .await;
        });
    }
}
