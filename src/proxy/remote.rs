//! What is the upstream's side of a request in flight, over HTTP/1 or HTTP/2?

use super::h2::H2Wire;
use super::tunnel::{self, Moved};
use super::worker::Worker;
use crate::http1::{BodyError, BodyKind, BodySource, Conn, Deadline, Pieces, RelayError, poll_relay};
use crate::message::{Fields, hop};
use crate::upstream::{Cluster, Endpoint, Permit, UpstreamStream};
use bytes::Bytes;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

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
    /// HTTP/1, our own engine. Boxed: it moves between here and the pool as one pointer.
    H1(Box<Conn<UpstreamStream>>),
    /// A stream of HTTP/2. Boxed: the rarer and larger of the two.
    H2(Box<H2Wire>),
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
            Wire::H2(wire) => wire.poll_push(cx, down, moved),
        }
    }

    /// Whether all that was taken of the request's body has left.
    pub fn is_flushed(&self) -> bool {
        match &self.wire {
            Wire::H1(conn) => conn.is_flushed(),
            Wire::H2(wire) => !wire.is_held_up(),
        }
    }

    /// Joins both sides after a switch of protocols.
    pub async fn tunnel<S>(self, down: &mut Conn<S>, idle: Duration, deadline: &mut Deadline) -> Moved
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.wire {
            Wire::H1(mut up) => tunnel::run(down, &mut *up, idle, deadline).await,
            Wire::H2(mut wire) => match wire.tunnel() {
                Some(up) => tunnel::run(down, &mut Conn::new(up), idle, deadline).await,
                None => Moved::default(),
            },
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

    fn is_bulk(&self) -> bool {
        matches!(&self.wire, Wire::H1(conn) if conn.bulk().is_some() && !conn.stream().is_tls())
    }

    fn pieces<'a>(&'a self, n: usize, pieces: &mut Pieces<'a>) {
        match &self.wire {
            Wire::H1(conn) => conn.pieces(n, pieces),
            Wire::H2(wire) => pieces.extend(wire.body.as_ref().and_then(|body| body.data().get(..n))),
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

    fn take(&mut self, n: usize) -> Bytes {
        match &mut self.wire {
            Wire::H1(conn) => conn.take(n),
            Wire::H2(wire) => wire.body.as_mut().map(|body| body.take(n)).unwrap_or_default(),
        }
    }

    fn take_trailers(&mut self) -> Result<Option<Fields>, BodyError> {
        match &mut self.wire {
            Wire::H1(conn) => conn.take_trailers(),
            Wire::H2(wire) => wire.body.as_mut().map_or(Ok(None), BodySource::take_trailers),
        }
    }
}
