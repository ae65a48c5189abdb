//! What is the upstream's side of a request in flight, over HTTP/1 or HTTP/2?

use super::h2::{IncomingBody, SlotSender, Stream};
use super::worker::Worker;
use crate::http1::{BodyError, BodyKind, BodySource, Conn, RelayError, poll_relay};
use crate::message::{Fields, hop};
use crate::upstream::{Cluster, Endpoint, Permit, UpstreamStream};
use bytes::Bytes;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Largest piece handed to HTTP/2 at once: more would only wait in its buffers.
const PIECE: usize = 64 * 1024;

/// The upstream's side of one attempt.
pub struct Remote {
    /// The connection, and what is particular to its protocol.
    pub wire: Wire,
    /// Whether the whole request has been sent.
    pub sent: bool,
    /// Whether more of the request's body is waited for: all that came was taken.
    pub starved: bool,
    /// Whether the upstream stopped taking the request: its answer may still come, the connection is not used again.
    pub refused: bool,
    /// Whether the upstream lets the connection be used again.
    pub keep: bool,
    /// Whether the connection had served a request before.
    pub reused: bool,
    /// How the response's body ends.
    pub body: BodyKind,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its cluster.
    pub cluster: Arc<Cluster>,
    /// The place in flight; given back when dropped.
    pub permit: Permit,
}

/// Protocol towards the upstream.
pub enum Wire {
    /// HTTP/1, our own engine.
    H1(Conn<UpstreamStream>),
    /// HTTP/2 over hyper. Boxed: the rarer and larger of the two.
    H2(Box<H2Wire>),
}

/// A stream of an HTTP/2 connection.
pub struct H2Wire {
    /// Takes the request's body.
    pub slot: SlotSender,
    /// Gives the response's body; `None` before its head.
    pub body: Option<IncomingBody>,
    /// Its place on a connection; given back when dropped.
    pub stream: Stream,
}

impl Remote {
    /// An attempt of which nothing was sent yet.
    pub fn new(wire: Wire, reused: bool, endpoint: Arc<Endpoint>, cluster: Arc<Cluster>, permit: Permit) -> Self {
        let (sent, starved, refused, keep) = (false, false, false, false);
        Self { wire, sent, starved, refused, keep, reused, body: BodyKind::None, endpoint, cluster, permit }
    }

    /// Moves the request's body on. `moved` counts its bytes.
    pub fn poll_push<B: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut B,
        moved: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        match &mut self.wire {
            Wire::H1(conn) => poll_relay(cx, down, conn, moved, hop::strip_request_trailers),
            Wire::H2(wire) => wire.slot.poll_push(cx, down, moved),
        }
    }

    /// The next piece of the response's body as shared bytes, for HTTP/2 downstream.
    pub fn take(&mut self, n: usize) -> Bytes {
        match &mut self.wire {
            Wire::H1(conn) => {
                let n = n.min(PIECE);
                let piece = Bytes::copy_from_slice(conn.data().get(..n).unwrap_or_default());
                conn.consume(n);
                piece
            }
            Wire::H2(wire) => wire.body.as_mut().map(|body| body.take(n)).unwrap_or_default(),
        }
    }

    /// Whether everything was sent and received, so that nothing of this request is left on the connection.
    fn is_clean(&mut self) -> bool {
        let Wire::H1(conn) = &mut self.wire else { return false };
        self.sent
            && self.keep
            && !self.refused
            && conn.reader.is_done()
            && conn.is_flushed()
            && conn.input().is_empty()
            && !conn.has_ended()
    }

    /// The response was read: keeps the connection for the next request where that is safe, closes it otherwise.
    pub fn release(mut self, worker: &Worker) {
        // A connection that began with a PROXY header speaks for one client and is never used for another.
        if self.cluster.may_reuse_connections()
            && self.is_clean()
            && let Wire::H1(conn) = self.wire
        {
            let spec = self.cluster.spec();
            worker.pool.checkin(&self.endpoint, conn, spec.max_idle, spec.idle_timeout);
        }
    }
}

impl BodySource for Remote {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        match &mut self.wire {
            Wire::H1(conn) => conn.poll_data(cx),
            Wire::H2(wire) => wire.body.as_mut().map_or(Poll::Ready(Ok(None)), |body| body.poll_data(cx)),
        }
    }

    fn data(&self) -> &[u8] {
        match &self.wire {
            Wire::H1(conn) => conn.data(),
            Wire::H2(wire) => wire.body.as_ref().map(BodySource::data).unwrap_or_default(),
        }
    }

    fn consume(&mut self, n: usize) {
        match &mut self.wire {
            Wire::H1(conn) => conn.consume(n),
            Wire::H2(wire) => {
                if let Some(body) = &mut wire.body {
                    body.consume(n);
                }
            }
        }
    }

    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError> {
        match &mut self.wire {
            Wire::H1(conn) => conn.take_trailers(),
            Wire::H2(wire) => wire.body.as_mut().map_or(Ok(None), BodySource::take_trailers),
        }
    }
}
