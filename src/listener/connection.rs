//! Which protocol does a connection speak, and who serves it?

use super::resting::{Awake, Resting};
use super::{ConnectionGuard, Incoming};
use crate::http1::Conn;
use crate::message::Io;
use crate::proxy::h1::Left;
use crate::proxy::{Connection, Worker, h1, h2};
use crate::telemetry::connections::Spoken;
use std::rc::Rc;

/// Serves a connection until it ends or rests; its guard holds its place, and the drain, until it ends. What is needed at the
/// start alone is no part of the future: it would stay there.
pub fn serve(incoming: Incoming, worker: Rc<Worker>, resting: Rc<Resting>) -> impl Future<Output = ()> {
    let Incoming { listener, stream, peer, local, tls, alpn_h2: http2, guard } = incoming;
    let snapshot = worker.shared.load();
    let settings = snapshot.serving(&listener.name, listener.address).cloned();
    let connection = settings.map(|settings| {
        let shown = worker.connections.open(&listener.name, peer, tls.is_some());
        Rc::new(Connection::new((worker, settings, listener.draining.clone()), (peer, local), tls, shown))
    });
    run(Task { stream, connection, guard, http2 }, resting)
}

/// Serves a connection that has rested.
pub(super) fn resume(awake: Awake, resting: Rc<Resting>) -> impl Future<Output = ()> {
    let Awake { stream, connection, guard } = awake;
    run(Task { stream, connection: Some(connection), guard, http2: false }, resting)
}

struct Task {
    stream: Io,
    connection: Option<Rc<Connection>>,
    guard: ConnectionGuard,
    http2: bool,
}

fn run(task: Task, resting: Rc<Resting>) -> impl Future<Output = ()> {
    let Task { stream, mut connection, mut guard, http2 } = task;
    let mut conn = Conn::new(stream);
    async move {
        loop {
            // Lent, not moved: what is moved out of a future's beginning keeps its place there beside the new one.
            let Some(known) = &connection else { return };
            match if http2 { Left::Http2 } else { h1::serve(&mut conn, known).await } {
                Left::Ended => return,
                Left::Http2 => {
                    known.shown.speaks(Spoken::H2);
                    return Box::pin(h2::serve(conn, Rc::clone(known))).await;
                }
                Left::Rests => {
                    let Some(known) = connection.take() else { return };
                    let awake = Awake { stream: conn.into_parts().0, connection: known, guard };
                    let Err(Some(awake)) = resting.take(awake) else { return };
                    (conn, connection, guard) = (Conn::new(awake.stream), Some(awake.connection), awake.guard);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl Fn(Incoming, Rc<Worker>, Rc<Resting>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_at_rest_is_little_more_than_its_socket() {
        // With 104 bytes of tokio's around it, a task fills 512; it gets multiples of 128.
        assert!(size(serve) <= 408, "{} bytes", size(serve));
    }
}
