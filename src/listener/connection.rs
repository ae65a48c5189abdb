//! Which protocol does a connection speak, and who serves it?

use super::Incoming;
use crate::http1::Conn;
use crate::proxy::{Connection, Worker, h1, h2};
use crate::telemetry::connections::Spoken;
use std::rc::Rc;

/// Serves a connection until it ends; its guard holds its place, and the drain, until then. What is needed at the start alone is
/// no part of the future: it would stay there.
pub fn serve(incoming: Incoming, worker: Rc<Worker>) -> impl Future<Output = ()> {
    let Incoming { listener, stream, peer, local, tls, alpn_h2, guard } = incoming;
    let snapshot = worker.shared.load();
    let settings = snapshot.serving(&listener.name, listener.address).cloned();
    let connection = settings.map(|settings| {
        let shown = worker.connections.open(&listener.name, peer, tls.is_some());
        Rc::new(Connection::new((worker, settings, listener.draining.clone()), (peer, local), tls, shown))
    });
    let mut conn = Conn::new(stream);
    async move {
        // Lent, not moved: what is moved out of a future's beginning keeps its place there beside the new one.
        let Some(connection) = &connection else { return };
        let http2 = alpn_h2 || h1::serve(&mut conn, connection).await;
        if http2 {
            connection.shown.speaks(Spoken::H2);
            Box::pin(h2::serve(conn, Rc::clone(connection))).await;
        }
        drop(guard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl Fn(Incoming, Rc<Worker>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_at_rest_is_little_more_than_its_socket() {
        // With 104 bytes of tokio's around it, a task fills 512; it gets multiples of 128.
        assert!(size(serve) <= 408, "{} bytes", size(serve));
    }
}
