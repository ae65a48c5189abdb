//! What asks and answers when costs are counted exactly? Clients and an upstream that go in step, so that every round of requests
//! wakes the proxy alike however busy the machine is, and a configuration under which the proxy does its full work.

pub(crate) mod http2;

use memchr::memmem;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections of the clients, and of the proxy to the upstream, where all requests of a round are at one moment.
pub(crate) const CONNECTIONS: usize = 64;
/// Nothing here takes so long unless it has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

const HOSTS: usize = 16;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: app\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

/// Of every host; the last four do more with a request than most.
const ROUTES: &str = r#"routes:
  - { path: /pieces, to: app }
  - { path: /item/, to: app }
  - path: "~^/thing/[0-9]+$"
    to: app
    headers: { require: { accept: ".+" }, forbid: [x-debug] }
    request_headers: { set: { x-from: gate }, remove: [cookie] }
    response_headers: { set: { strict-transport-security: max-age=31536000 }, remove: server }
  - { path: /old/, to: app, max_body: 1MiB, rewrite: { path: /new/, host: app.internal } }
  - { path: /direct, respond: { status: 200, body: direct } }
  - { path: /moved, redirect: { path: /item } }
"#;

/// Every body with a length.
pub(crate) const BODY: &str = "hello";

/// A request and how its answer ends.
pub(crate) struct Exchange {
    /// Method and target.
    pub(crate) line: &'static str,
    /// Further fields, the empty line and the body.
    pub(crate) rest: &'static str,
    /// Status of the answer.
    pub(crate) status: &'static str,
    /// Its last bytes, which are nowhere else in it.
    pub(crate) end: &'static [u8],
}

/// What a request is nearly always.
pub(crate) const PLAIN: Exchange =
    Exchange { line: "GET /item/1?page=1", rest: "\r\n", status: "200", end: b"\r\n\r\nok" };

/// Writes a configuration of one worker with all that it does by default (access log, forwarded fields, request ids, metrics),
/// several hosts and a route of a path; says where it is.
pub(crate) fn configuration(folder: &Path, upstream: SocketAddr) -> PathBuf {
    let hosts: Vec<_> = (0..HOSTS).map(|host| format!("host-{host}.test")).collect();
    let clusters = format!("---\nclusters:\n  app: {{ endpoints: [\"{upstream}\"] }}\n");
    let routes = format!("hosts: [{}]\n{ROUTES}{clusters}", hosts.join(", "));
    fs::write(folder.join("routes.yaml"), routes).expect("the folder is ours");
    let (install, log) = (folder.join("tidegate.yaml"), folder.join("access.log"));
    let text = format!(
        "workers: 1\nlisteners: {{ http: {{ address: \"127.0.0.1:0\" }} }}\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
         sources: {{ routes: {}/routes.yaml }}\ntelemetry: {{ access_log: {{ path: {} }} }}\n",
        folder.display(),
        log.display()
    );
    fs::write(&install, text).expect("the folder is ours");
    install
}

/// Starts an upstream that takes one request on each of its connections before it answers them all, until they close.
pub(crate) fn upstream() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let accept = |_| prepared(listener.accept().expect("the proxy connects").0);
        let mut streams: Vec<_> = (0..CONNECTIONS).map(accept).collect();
        let mut buffer = [0; 4096];
        loop {
            for stream in &mut streams {
                let mut filled = 0;
                while !is_whole(&buffer[..filled]) {
                    match stream.read(&mut buffer[filled..]) {
                        Ok(count @ 1..) => filled += count,
                        _ => return,
                    }
                }
            }
            // What is asked in one round is alike.
            let chunked = buffer.starts_with(b"GET /pieces");
            for stream in &mut streams {
                if stream.write_all(if chunked { CHUNKED_ANSWER } else { ANSWER }).is_err() {
                    return;
                }
            }
        }
    });
    address
}

/// Whether a request is there with its body.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return false };
    let (head, body) = bytes.split_at(end + 4);
    if memmem::find(head, b"chunked").is_some() {
        return body.ends_with(b"0\r\n\r\n");
    }
    memmem::find(head, b"content-length: ").is_none() || body.len() == BODY.len()
}

fn prepared(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("an option of TCP");
    stream.set_read_timeout(Some(LIMIT)).expect("an option of sockets");
    stream
}

/// Keep-alive connections that ask in step.
pub(crate) struct Clients(Vec<TcpStream>);

impl Clients {
    /// Opens them.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let open = |_| prepared(TcpStream::connect(address).expect("the proxy listens"));
        Self((0..CONNECTIONS).map(open).collect())
    }

    /// One request on every connection, so many times; every answer must be the one that is expected, whole.
    pub(crate) fn ask(&mut self, times: usize, exchange: &Exchange) {
        let requests: Vec<_> = (0..self.0.len()).map(|index| exchange.request(index % HOSTS)).collect();
        let mut buffer = [0; 4096];
        for _ in 0..times {
            for (stream, request) in self.0.iter_mut().zip(&requests) {
                stream.write_all(request.as_bytes()).expect("the proxy reads");
            }
            for stream in &mut self.0 {
                let mut filled = 0;
                while !buffer[..filled].ends_with(exchange.end) {
                    let read = stream.read(&mut buffer[filled..]);
                    assert!(
                        matches!(read, Ok(1..)),
                        "{}: {read:?} after {}",
                        exchange.line,
                        String::from_utf8_lossy(&buffer[..filled])
                    );
                    filled += read.unwrap_or_default();
                }
                let answer = String::from_utf8_lossy(&buffer[..filled]);
                assert!(answer[..filled.min(20)].contains(exchange.status), "{answer}");
            }
        }
    }

    /// One request on every connection, which the proxy then ends.
    #[allow(dead_code, reason = "not every test that includes this ends connections")]
    pub(crate) fn ask_last(&mut self, exchange: &Exchange) {
        self.ask(1, exchange);
        for stream in &mut self.0 {
            assert_eq!(stream.read(&mut [0]).ok(), Some(0), "the answer ends with the connection");
        }
    }
}

impl Exchange {
    fn request(&self, host: usize) -> String {
        let Self { line, rest, .. } = self;
        format!(
            "{line} HTTP/1.1\r\nHost: host-{host}.test\r\nUser-Agent: closed-loop/1\r\nAccept: */*\r\n\
             Referer: http://host.test/\r\nAccept-Encoding: gzip\r\nCookie: session=0123456789abcdef\r\n{rest}"
        )
    }
}
