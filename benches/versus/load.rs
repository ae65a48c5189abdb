//! Who asks? A closed loop over a number of connections that counts statuses and checks bodies.
//!
//! Written for this: wrk shows no statuses but "non-2xx", and neither it nor h2load can open connections and warm up outside
//! of the window that is measured.

use crate::upstream;
use crate::wire::{self, Framing};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Failures after which a run is given up: something is broken, and counting it exactly helps nobody.
const TOO_MANY: u64 = 100;

/// What is asked, where, and how often at a time.
#[derive(Clone)]
pub struct Plan {
    /// The proxy.
    pub target: SocketAddr,
    /// TLS towards it.
    pub tls: Option<TlsConnector>,
    /// Hosts, given to the connections in turn.
    pub hosts: Vec<String>,
    /// What each request is.
    pub ask: Ask,
    /// Connections at a time.
    pub connections: usize,
    /// Many requests on a connection, or one.
    pub reuse: bool,
}

/// One request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// 64 bytes.
    Small,
    /// 1 MiB.
    Large,
    /// 1 MiB in chunks of 16 KiB to the upstream.
    Upload,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers that were right in status and length.
    pub ok: u64,
    /// As good, but outside of the window that is measured.
    pub warm: u64,
    /// Other statuses.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that broke, bodies that were wrong.
    pub broken: u64,
    /// The first of those.
    pub first: Option<String>,
}

impl Tally {
    fn count(&mut self, outcome: Result<u16, io::Error>) {
        match outcome {
            Ok(200) => self.ok += 1,
            Ok(status) => *self.statuses.entry(status).or_default() += 1,
            Err(error) => {
                self.broken += 1;
                self.first.get_or_insert_with(|| error.to_string());
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.broken += other.broken;
        self.first = self.first.take().or(other.first);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }

    /// Everything that was not right.
    pub fn failures(&self) -> u64 {
        self.broken + self.statuses.values().sum::<u64>()
    }
}

/// Opens the connections, checks one whole answer on each, warms up, then runs for `duration` between two calls of `mark`.
pub fn run<M>(
    plan: &Plan,
    warm: Duration,
    duration: Duration,
    mut mark: impl FnMut() -> M,
) -> Result<(M, M, Tally), String> {
    on_this_thread(async {
        let limit = warm + duration + Duration::from_secs(20);
        let work = async {
            let mut clients = open(plan).await?;
            let warmed = rounds(plan, &mut clients, warm).await;
            if warmed.ok == 0 {
                return Err(format!("no right answer while warming up: {warmed:?}"));
            }
            let before = mark();
            let tally = rounds(plan, &mut clients, duration).await;
            let warm = warmed.ok + plan.connections as u64;
            Ok((before, mark(), Tally { warm, ..tally }))
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(format!("no end within {limit:?}")))
    })
}

/// Opens the connections, one request on each, and calls `mark` while they are all idle.
pub fn hold<M>(plan: &Plan, settle: Duration, mark: impl FnOnce() -> M) -> Result<M, String> {
    on_this_thread(async {
        let clients = tokio::time::timeout(Duration::from_secs(60), open(plan)).await;
        let clients = clients.map_err(|_| "the connections are not all open after 60 s".to_owned())??;
        tokio::time::sleep(settle).await;
        let mark = mark();
        drop(clients);
        Ok(mark)
    })
}

fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(tokio::task::LocalSet::new().run_until(work))
}

/// One at a time: what the proxy needs at the most for them at once is not the question.
async fn open(plan: &Plan) -> Result<Vec<Client>, String> {
    let mut clients = Vec::with_capacity(plan.connections);
    for index in 0..plan.connections {
        let mut client = Client::new(plan, index);
        match client.exchange(Check::Whole).await {
            Ok(200) => clients.push(client),
            Ok(status) => return Err(format!("status {status} on connection {index}")),
            Err(error) => return Err(format!("{error} on connection {index}")),
        }
    }
    Ok(clients)
}

async fn rounds(plan: &Plan, clients: &mut Vec<Client>, duration: Duration) -> Tally {
    let until = Instant::now() + duration;
    let reuse = plan.reuse;
    let tasks: Vec<_> = clients
        .drain(..)
        .map(|mut client| {
            tokio::task::spawn_local(async move {
                let mut tally = Tally::default();
                while Instant::now() < until && tally.failures() < TOO_MANY {
                    if !reuse {
                        client.stream = None;
                    }
                    tally.count(client.exchange(Check::Length).await);
                }
                (client, tally)
            })
        })
        .collect();
    let mut total = Tally::default();
    for task in tasks {
        let (client, tally) = task.await.expect("a client does not panic");
        clients.push(client);
        total.add(tally);
    }
    total
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Whole,
    Length,
}

struct Client {
    target: SocketAddr,
    tls: Option<TlsConnector>,
    host: String,
    request: Vec<u8>,
    expected: Rc<[u8]>,
    stream: Option<Box<dyn Stream>>,
    buffer: Vec<u8>,
    reuse: bool,
}

impl Client {
    fn new(plan: &Plan, index: usize) -> Self {
        let host = plan.hosts[index % plan.hosts.len()].clone();
        Self {
            target: plan.target,
            tls: plan.tls.clone(),
            request: plan.ask.request(&host, plan.reuse),
            host,
            expected: plan.ask.expected().into(),
            stream: None,
            buffer: vec![0; plan.ask.buffer_bytes()],
            reuse: plan.reuse,
        }
    }

    /// One request and its whole answer. The stream is given up where anything goes wrong.
    async fn exchange(&mut self, check: Check) -> io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(&self.request).await?;
        stream.flush().await?;
        let (status, complete) = self.answer(&mut *stream, check).await?;
        if self.reuse && complete {
            self.stream = Some(stream);
        } else if complete {
            // The proxy closes first, as it was asked to, and TIME_WAIT is not on this side's ports.
            while stream.read(&mut self.buffer).await.is_ok_and(|count| count > 0) {}
        }
        Ok(status)
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        let Some(connector) = &self.tls else { return Ok(Box::new(stream)) };
        let name = rustls::pki_types::ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    async fn answer(&mut self, stream: &mut dyn Stream, check: Check) -> io::Result<(u16, bool)> {
        let wrong = |what: &str| io::Error::other(what.to_owned());
        let mut filled = 0;
        let end = loop {
            let count = stream.read(&mut self.buffer[filled..]).await?;
            if count == 0 {
                return Err(wrong("closed before the end of the head"));
            }
            filled += count;
            if let Some(end) = wire::head_end(&self.buffer[..filled]) {
                break end;
            }
        };
        let head = &self.buffer[..end];
        let status = wire::status(head).ok_or_else(|| wrong("no status line"))?;
        if status != 200 {
            return Ok((status, false));
        }
        let Some(Framing::Length(length)) = wire::framing(head) else { return Err(wrong("no Content-Length")) };
        if length != self.expected.len() as u64 {
            return Err(wrong(&format!("a body of {length} bytes")));
        }
        let mut at = 0;
        let mut from = end;
        loop {
            let piece = &self.buffer[from..filled];
            let expected = self.expected.get(at..at + piece.len()).ok_or_else(|| wrong("bytes after the body"))?;
            // The small body is compared every time; the large one would cost the generator more than the request.
            if (check == Check::Whole || length <= 1024) && piece != expected {
                return Err(wrong("the body's bytes are not the upstream's"));
            }
            at += piece.len();
            if at == self.expected.len() {
                return Ok((status, true));
            }
            from = 0;
            filled = stream.read(&mut self.buffer).await?;
            if filled == 0 {
                return Err(wrong("closed before the end of the body"));
            }
        }
    }
}

impl Ask {
    /// The path on the upstream.
    pub fn path(self) -> &'static str {
        match self {
            Self::Small => "/small",
            Self::Large => "/large",
            Self::Upload => "/upload",
        }
    }

    fn expected(self) -> Vec<u8> {
        match self {
            Self::Small => upstream::body(upstream::SMALL),
            Self::Large => upstream::body(upstream::LARGE),
            Self::Upload => upstream::LARGE.to_string().into_bytes(),
        }
    }

    fn buffer_bytes(self) -> usize {
        if self == Self::Large { 256 * 1024 } else { 4096 }
    }

    fn request(self, host: &str, reuse: bool) -> Vec<u8> {
        let close = if reuse { "" } else { "Connection: close\r\n" };
        let common = format!("Host: {host}\r\nUser-Agent: versus/1\r\nAccept: */*\r\n{close}");
        if self != Self::Upload {
            return format!("GET {} HTTP/1.1\r\n{common}\r\n", self.path()).into_bytes();
        }
        let mut bytes = format!("POST /upload HTTP/1.1\r\n{common}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for piece in upstream::body(upstream::LARGE).chunks(16 * 1024) {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }
}
