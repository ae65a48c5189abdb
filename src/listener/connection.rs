//! Which protocol does a connection speak, and who serves it?

use super::Incoming;
use crate::http1::{Buffer, Conn};
use crate::proxy::{Connection, Worker, h1, h2};
use crate::telemetry::connections::Spoken;
use std::rc::Rc;

/// Serves a connection until it ends; its guard holds its place, and the drain, until then.
pub async fn serve(incoming: Incoming, worker: Rc<Worker>) {
    let Incoming { listener, stream, peer, local, tls, alpn_h2, guard } = incoming;
    let snapshot = worker.shared.load();
    let Some(settings) = snapshot.listeners.iter().find(|l| *l.spec.name == *listener.name).cloned() else { return };
    drop(snapshot);
    let shown = worker.connections.open(&listener.name, peer, tls.is_some());
    let is_tls = tls.is_some();
    let connection = Rc::new(Connection::new(worker, settings, (peer, local), tls, shown));
    if alpn_h2 {
        connection.shown.speaks(Spoken::H2);
        h2::serve(stream, Buffer::default(), connection).await;
    } else if let Some(conn) = h1::serve(Conn::new(stream), Rc::clone(&connection), !is_tls).await {
        connection.shown.speaks(Spoken::H2);
        let (stream, front) = conn.into_parts();
        h2::serve(stream, front, connection).await;
    }
    drop(guard);
}
