//! Which downstream connections are open?
//!
//! A table for people, not for counting (that is what the gauges are for): each worker has its own part with room for so many
//! rows, and a connection beyond it is served all the same, without a row. A row costs one uncontended lock when a connection
//! begins and when it ends, and one relaxed store for each request.

use super::series::worker;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Rows of each worker.
const ROWS: usize = 1000;

/// All open connections of the process; clones are the same.
#[derive(Clone, Debug)]
pub struct Connections(Arc<[Part]>);

/// Two cache lines for each worker's part, so that two workers' locks share none.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(Mutex<Rows>);

#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Option<Arc<Row>>>,
    free: Vec<usize>,
    open: usize,
}

#[derive(Debug)]
struct Row {
    peer: SocketAddr,
    listener: Arc<str>,
    tls: bool,
    since: u64,
    protocol: AtomicU8,
    requests: AtomicU64,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Spoken {
    /// Nothing yet.
    Unknown,
    /// HTTP/1.0 or 1.1.
    H1,
    /// HTTP/2.
    H2,
    /// Anything, after an upgrade or CONNECT.
    Tunnel,
}

/// One open connection, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionView {
    /// Other end.
    pub peer: SocketAddr,
    /// Name of the listener.
    pub listener: String,
    /// Whether it is encrypted.
    pub tls: bool,
    /// What it speaks.
    pub protocol: Spoken,
    /// When it was accepted, in seconds since the epoch.
    pub since: u64,
    /// Requests so far.
    pub requests: u64,
}

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    connections: Connections,
    part: usize,
    row: Option<(usize, Arc<Row>)>,
}

impl Connections {
    /// For so many workers; other threads share one more part.
    pub fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| Part::default()).collect())
    }

    /// Notes a connection. To be called on the worker that serves it.
    pub fn open(&self, listener: &Arc<str>, peer: SocketAddr, tls: bool) -> OpenConnection {
        let part = worker().min(self.0.len().saturating_sub(1));
        let row = self.lock(part).and_then(|mut rows| rows.open(listener, peer, tls));
        OpenConnection { connections: self.clone(), part, row }
    }

    /// How many are open, and at most `limit` of them, oldest first.
    pub fn list(&self, limit: usize) -> (usize, Vec<ConnectionView>) {
        let (mut open, mut views) = (0, Vec::new());
        for part in 0..self.0.len() {
            let Some(rows) = self.lock(part) else { continue };
            open += rows.open;
            views.extend(rows.rows.iter().flatten().map(|row| row.view()));
        }
        views.sort_by_key(|view| (view.since, view.peer));
        views.truncate(limit);
        (open, views)
    }

    fn lock(&self, part: usize) -> Option<MutexGuard<'_, Rows>> {
        self.0.get(part).map(|part| part.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rows {
    fn open(&mut self, listener: &Arc<str>, peer: SocketAddr, tls: bool) -> Option<(usize, Arc<Row>)> {
        self.open += 1;
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.rows.len() < ROWS => {
                self.rows.push(None);
                self.rows.len() - 1
            }
            None => return None,
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (protocol, requests) = (AtomicU8::new(0), AtomicU64::new(0));
        let row = Arc::new(Row { peer, listener: Arc::clone(listener), tls, since, protocol, requests });
        *self.rows.get_mut(at)? = Some(Arc::clone(&row));
        Some((at, row))
    }

    fn close(&mut self, at: Option<usize>) {
        self.open = self.open.saturating_sub(1);
        if let Some(at) = at
            && let Some(row) = self.rows.get_mut(at)
        {
            *row = None;
            self.free.push(at);
        }
    }
}

impl Row {
    fn view(&self) -> ConnectionView {
        ConnectionView {
            peer: self.peer,
            listener: self.listener.to_string(),
            tls: self.tls,
            protocol: match self.protocol.load(Relaxed) {
                1 => Spoken::H1,
                2 => Spoken::H2,
                3 => Spoken::Tunnel,
                _ => Spoken::Unknown,
            },
            since: self.since,
            requests: self.requests.load(Relaxed),
        }
    }
}

impl OpenConnection {
    /// Says what it speaks, from now on.
    pub fn speaks(&self, protocol: Spoken) {
        if let Some((_, row)) = &self.row {
            row.protocol.store(protocol as u8, Relaxed);
        }
    }

    /// Counts a request. Only the connection's own worker counts, so a plain load and store is enough.
    #[inline]
    pub fn request(&self) {
        if let Some((_, row)) = &self.row {
            row.requests.store(row.requests.load(Relaxed) + 1, Relaxed);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let at = self.row.as_ref().map(|(at, _)| *at);
        if let Some(mut rows) = self.connections.lock(self.part) {
            rows.close(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn an_open_connection_has_a_row_until_it_is_dropped() {
        let (connections, listener) = (Connections::new(1), Arc::from("https"));
        let one = connections.open(&listener, peer(1), true);
        let two = connections.open(&listener, peer(2), false);
        one.speaks(Spoken::H2);
        (0..3).for_each(|_| one.request());
        let (open, views) = connections.list(10);
        let seen = views.iter().find(|view| view.peer == peer(1)).unwrap();
        assert_eq!((open, seen.protocol, seen.requests, seen.tls), (2, Spoken::H2, 3, true));
        assert_eq!(connections.list(1).1.len(), 1);
        drop(one);
        drop(two);
        assert_eq!(connections.list(10), (0, Vec::new()));
        assert_eq!(connections.0[1].0.lock().unwrap().free.len(), 2, "rows are used again");
    }

    #[test]
    fn a_connection_beyond_the_table_is_counted_without_a_row() {
        let (connections, listener) = (Connections::new(0), Arc::from("http"));
        let held: Vec<_> = (0..ROWS + 5).map(|_| connections.open(&listener, peer(1), false)).collect();
        held.iter().for_each(OpenConnection::request);
        let (open, views) = connections.list(usize::MAX);
        assert_eq!((open, views.len()), (ROWS + 5, ROWS));
    }
}
