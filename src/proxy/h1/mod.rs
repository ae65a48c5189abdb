//! How is an HTTP/1 connection of a client served?
//!
//! One task, straight line: read a head, decide, forward, relay both bodies at once, record, again.

mod closing;
mod response;
mod splice;
mod upstream;

use super::error::ProxyError;
use super::forward::forward;
use super::pipeline::{self, Decision};
use super::request::Request;
use super::respond;
use super::rest::{Doing, Pause};
use super::worker::Connection;
use crate::http1::{BodyKind, Conn, Deadline, HeadLimits, ReadHeadError, framing};
use crate::message::{FieldId, Io, Version, hop};
use crate::model::ListenerSpec;
use crate::snapshot::ListenerSnapshot;
use crate::telemetry::connections::Spoken;
pub(super) use closing::{LINGER, LINGER_BYTES, goodbye};
pub(super) use upstream::send;

use closing::{abort, flush_last, linger};
use response::{own, relay, switch};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// What becomes of the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The next request may come.
    KeepAlive,
    /// We close, after the client could read what was sent.
    Close,
    /// The same after a response that lacks its end, which the client sees by itself, or a tunnel.
    Cut,
    /// The client must see that the response is not whole.
    Abort,
    /// There is nobody any more.
    Gone,
}

/// How a connection is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It has ended.
    Ended,
    /// The client begins to speak HTTP/2, by prior knowledge in cleartext.
    Http2,
    /// Nothing came for long, and nothing is under way: its socket is all that it needs until it is served again. What is to be
    /// known of it meanwhile is its [`Pause`].
    Rests,
}

/// How an HTTP/2 connection begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves until one side closes, a drain ends it, or nothing came for long; from its start, or after a pause.
///
/// What a request needs stands in a future of its own, which is dropped while nothing comes.
pub fn serve<'a>(conn: &'a mut Conn<Io>, connection: &'a Rc<Connection>) -> impl Future<Output = Left> + 'a {
    let first = || Pause { served: 0, until: Instant::now() + connection.listener().spec.timeouts.head };
    let Pause { mut served, until } = connection.pause.take().unwrap_or_else(first);
    let mut deadline = Deadline::until(until);
    async move {
        loop {
            if conn.input().is_empty() {
                let doing = if conn.stream().is_tls() { Doing::Stays } else { Doing::Dozes };
                match wait(conn, connection, doing, served, &mut deadline).await {
                    Came::Bytes => {}
                    // Its limit goes as well: to keep the timer would keep what it is to wake.
                    Came::Rest if conn.is_flushed() && !(served > 0 && connection.is_draining()) => {
                        connection.pause.set(Some(Pause { served, until: deadline.at() }));
                        return Left::Rests;
                    }
                    Came::Rest => continue,
                    Came::End => {
                        goodbye(conn).await;
                        return Left::Ended;
                    }
                }
            }
            if served == 0 {
                if connection.tls.is_none() && speaks_http2(conn, &mut deadline).await {
                    return Left::Http2;
                }
                connection.shown.speaks(Spoken::H1);
            }
            if !Box::pin(busy(conn, connection, &mut served, &mut deadline)).await {
                return Left::Ended;
            }
        }
    }
}

/// Serves requests for as long as they follow each other closely. `false`: the connection has ended.
async fn busy(conn: &mut Conn<Io>, connection: &Rc<Connection>, served: &mut u32, deadline: &mut Deadline) -> bool {
    poll_fn(|cx| {
        connection.worker.at_work.works(connection, cx.waker());
        Poll::Ready(())
    })
    .await;
    loop {
        // Loaded anew each time: the configuration may have changed while nothing came.
        let listener = connection.listener();
        let mut request = connection.worker.lend();
        let last = connection.is_draining() || (listener.spec.limits.requests_per_connection == *served + 1);
        let after = one(conn, connection, &listener, &mut request, deadline, last).await;
        let (last, ended) = (request.last, request.ended);
        connection.worker.give_back(request);
        *served = served.saturating_add(1);
        match after {
            After::KeepAlive => {}
            After::Close => linger(conn, deadline, last).await,
            After::Cut => {
                flush_last(conn, deadline).await;
                linger(conn, deadline, last).await;
            }
            After::Abort => abort(conn),
            After::Gone => {}
        }
        if after != After::KeepAlive {
            return false;
        }
        deadline.set(ended + listener.spec.timeouts.keep_alive);
        if !conn.input().is_empty() {
            continue;
        }
        match wait(conn, connection, Doing::Waits, *served, deadline).await {
            Came::Bytes => {}
            Came::Rest => return true,
            Came::End => {
                goodbye(conn).await;
                return false;
            }
        }
    }
}

/// Whether the first bytes are HTTP/2's preface; reads on only while they may be.
pub(super) async fn speaks_http2(conn: &mut Conn<Io>, deadline: &mut Deadline) -> bool {
    poll_fn(|cx| {
        loop {
            let input = conn.input().bytes();
            let n = input.len().min(PREFACE.len());
            if input.get(..n) != PREFACE.get(..n) || n == PREFACE.len() {
                return Poll::Ready(n == PREFACE.len() && input.starts_with(PREFACE));
            }
            match conn.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => return deadline.poll(cx).map(|()| false),
            }
        }
    })
    .await
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// The first bytes of a request.
    Bytes,
    /// Nothing for a while: it is time to rest.
    Rest,
    /// The client's end, a drain, or the time limit: nothing will come.
    End,
}

/// Waits for the first byte of a request, holding no buffer, until the deadline as it is set.
fn wait<'a>(
    conn: &'a mut Conn<Io>,
    connection: &'a Rc<Connection>,
    doing: Doing,
    served: u32,
    deadline: &'a mut Deadline,
) -> impl Future<Output = Came> + 'a {
    connection.rest.does(doing);
    // Of the others it is known in which list they stand: they are told of a drain.
    let mut drained = (doing == Doing::Stays).then(|| connection.drained());
    poll_fn(move |cx| {
        // First of all, because it is said once; bytes that have come are found by who goes on.
        let due = connection.rest.is_due();
        if doing == Doing::Dozes && !due {
            connection.worker.at_work.dozes(connection, cx.waker());
        }
        let mut drains = |cx: &mut Context<'_>| {
            let told = drained.as_mut().is_some_and(|drained| drained.as_mut().poll(cx).is_ready());
            told || connection.is_draining()
        };
        let came = if due {
            Came::Rest
        } else if let Poll::Ready(read) = conn.poll_fill(cx) {
            if matches!(read, Ok(n) if n > 0) { Came::Bytes } else { Came::End }
        } else if served > 0 && drains(cx) {
            // A drain lets a first request in: its client has only just connected.
            Came::End
        } else {
            ready!(deadline.poll(cx));
            Came::End
        };
        connection.rest.does(Doing::Works);
        Poll::Ready(came)
    })
}

/// One request, from its head to its record. Cannot fail: what goes wrong is answered, or ends the connection.
async fn one(
    conn: &mut Conn<Io>,
    connection: &Rc<Connection>,
    listener: &ListenerSnapshot,
    request: &mut Request,
    deadline: &mut Deadline,
    last: bool,
) -> After {
    let started = Instant::now();
    let head = read_head(conn, &listener.spec, request, deadline).await;
    request.begin(connection, started);
    let result = match head {
        Ok(true) => {
            connection.metrics.in_flight.add(1);
            connection.metrics.http1.add(1);
            connection.shown.request();
            let result = exchange(conn, connection, listener, request, deadline, last).await;
            connection.metrics.in_flight.sub(1);
            result
        }
        Ok(false) => return After::Gone,
        Err(error) => Err(error),
    };
    let after = match result {
        Ok(after) => after,
        Err(error) => fail(conn, connection, listener, request, deadline, &error).await,
    };
    request.finish(&connection.worker, listener);
    after
}

/// `false`: the client closed, or sent nothing of use.
async fn read_head(
    conn: &mut Conn<Io>,
    spec: &ListenerSpec,
    request: &mut Request,
    deadline: &mut Deadline,
) -> Result<bool, ProxyError> {
    let limits = HeadLimits {
        bytes: spec.limits.head_bytes as usize,
        target: spec.limits.target_bytes as usize,
        fields: spec.limits.headers as usize,
    };
    let mut armed = false;
    poll_fn(|cx| match conn.poll_request(cx, &limits, &mut request.head) {
        Poll::Ready(Ok(Some(()))) => Poll::Ready(Ok(true)),
        Poll::Ready(Ok(None) | Err(ReadHeadError::Closed | ReadHeadError::Io(_))) => Poll::Ready(Ok(false)),
        Poll::Ready(Err(ReadHeadError::Head(error))) => Poll::Ready(Err(error.into())),
        Poll::Pending => {
            // Nearly every head comes in one piece: only the others pay for a look at the clock.
            if !std::mem::replace(&mut armed, true) {
                deadline.set(Instant::now() + spec.timeouts.head);
            }
            deadline.poll(cx).map(|()| Err(ProxyError::HeadTimeout))
        }
    })
    .await
}

async fn exchange(
    conn: &mut Conn<Io>,
    connection: &Rc<Connection>,
    listener: &ListenerSnapshot,
    request: &mut Request,
    deadline: &mut Deadline,
    last: bool,
) -> Result<After, ProxyError> {
    let version = request.head.version;
    let body = framing::of_request(&request.head.fields, version)?;
    let options = hop::connection_options(&request.head.fields);
    request.last = options.close || (version == Version::Http10 && !options.keep_alive);
    let keep = !last && !request.last;
    request.keep = keep;
    conn.frame(body, BodyKind::None);
    conn.expects_continue = version == Version::Http11 && request.head.fields.has(FieldId::Expect);
    match pipeline::decide(listener, options, request)? {
        Decision::Respond(answer) => Ok(own(conn, connection, listener, request, deadline, answer, keep).await),
        Decision::Forward => {
            let remote = forward(connection, request, conn, body, deadline).await?;
            if remote.body == BodyKind::Tunnel {
                return Ok(switch(conn, connection, listener, request, remote, deadline).await);
            }
            pipeline::respond_with(listener, request);
            Ok(relay(conn, connection, listener, request, remote, deadline, keep).await)
        }
    }
}

/// Answers a failure. The connection is kept only where nobody can misunderstand what comes next on it.
async fn fail(
    conn: &mut Conn<Io>,
    connection: &Connection,
    listener: &ListenerSnapshot,
    request: &mut Request,
    deadline: &mut Deadline,
    error: &ProxyError,
) -> After {
    request.failed(error);
    let keep = match error {
        ProxyError::Gone => return After::Gone,
        ProxyError::Head(_) | ProxyError::Framing(_) | ProxyError::Refused(_) | ProxyError::HeadTimeout => false,
        // Nothing else will be answered on it: the client must shake hands anew.
        ProxyError::Misdirected if connection.is_stale() => false,
        _ => request.keep && !connection.is_ending(),
    };
    let answer = respond::error(error, &request.head);
    own(conn, connection, listener, request, deadline, answer, keep).await
}
