//! What asks and answers when costs are counted exactly? Clients and an upstream that go in step, so that every round of requests
//! wakes the proxy alike however busy the machine is, and a configuration under which the proxy does its full work.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections of the clients, and of the proxy to the upstream, where all requests of a round are at one moment.
pub(crate) const CONNECTIONS: usize = 64;
/// Nothing here takes so long unless it has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const HOSTS: usize = 16;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: app\r\nContent-Length: 2\r\n\r\nok";

/// Writes a configuration of one worker with all that it does by default (access log, forwarded fields, request ids, metrics),
/// several hosts and a route of a path; says where it is.
pub(crate) fn configuration(folder: &Path, upstream: SocketAddr) -> PathBuf {
    let mut routes = String::new();
    for host in 0..HOSTS {
        let _ = writeln!(routes, "host-{host}.test/: app\nhost-{host}.test/item/: app");
    }
    let _ = write!(routes, "---\nclusters:\n  app: {{ endpoints: [\"{upstream}\"] }}\n");
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
                while !buffer[..filled].ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer[filled..]) {
                        Ok(count @ 1..) => filled += count,
                        _ => return,
                    }
                }
            }
            for stream in &mut streams {
                if stream.write_all(ANSWER).is_err() {
                    return;
                }
            }
        }
    });
    address
}

fn prepared(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("an option of TCP");
    stream.set_read_timeout(Some(LIMIT)).expect("an option of sockets");
    stream
}

/// Keep-alive connections that ask in step.
pub(crate) struct Clients(Vec<(TcpStream, String)>);

impl Clients {
    /// Opens them.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let open = |index| {
            let request = format!(
                "GET /item/{index}?page=1 HTTP/1.1\r\nHost: host-{}.test\r\nUser-Agent: closed-loop/1\r\nAccept: */*\r\n\
                 Referer: http://host.test/\r\nAccept-Encoding: gzip\r\nCookie: session=0123456789abcdef\r\n\r\n",
                index % HOSTS
            );
            (prepared(TcpStream::connect(address).expect("the proxy listens")), request)
        };
        Self((0..CONNECTIONS).map(open).collect())
    }

    /// One request on every connection, so many times; every answer must be the upstream's, whole.
    pub(crate) fn ask(&mut self, times: usize) {
        let mut buffer = [0; 4096];
        for _ in 0..times {
            for (stream, request) in &mut self.0 {
                stream.write_all(request.as_bytes()).expect("the proxy reads");
            }
            for (stream, _) in &mut self.0 {
                let mut filled = 0;
                while !buffer[..filled].ends_with(b"\r\n\r\nok") {
                    let count = stream.read(&mut buffer[filled..]).expect("the proxy answers");
                    assert!(count > 0, "the proxy closed: {}", String::from_utf8_lossy(&buffer[..filled]));
                    filled += count;
                }
                assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..filled]));
            }
        }
    }
}
