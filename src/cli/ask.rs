//! What does a proxy that runs say on its admin port?

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;
use thiserror::Error;

/// A proxy that does not answer in this time does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Error)]
enum AskError {
    #[error("{0:?} is not an admin address; write it as 127.0.0.1:9901 or unix:/run/tidegate/admin.sock")]
    Address(String),
    #[error("the admin port {address} does not answer")]
    Io {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the admin port answers {status}: {body}")]
    Status { status: u16, body: String },
    #[error("{0} does not speak HTTP; is it the admin port?")]
    Garbage(String),
}

/// Begins the path of a socket file where an address may stand too.
const UNIX: &str = "unix:";

/// Asks for a page; what is wrong is told on standard error.
pub(super) fn ask(admin: &str, path: &str, query: &[(&str, &str)]) -> Result<String, ExitCode> {
    get(admin, path, query).map_err(|error| told(&error))
}

/// Asks for a page that says yes by 200 and no by 503, with the reasons in its body.
pub(super) fn ask_whether(admin: &str, path: &str) -> Result<Result<String, String>, ExitCode> {
    match get(admin, path, &[]) {
        Ok(yes) => Ok(Ok(yes)),
        Err(AskError::Status { status: 503, body }) => Ok(Err(body)),
        Err(error) => Err(told(&error)),
    }
}

fn told(error: &AskError) -> ExitCode {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    super::fail(&format!("{error}{cause}"))
}

/// The body of a 200.
fn get(admin: &str, path: &str, query: &[(&str, &str)]) -> Result<String, AskError> {
    let mut target = path.to_owned();
    for (at, (name, value)) in query.iter().enumerate() {
        target.push(if at == 0 { '?' } else { '&' });
        target.push_str(name);
        target.push('=');
        escape(value, &mut target);
    }
    let failed = |source| AskError::Io { address: admin.to_owned(), source };
    let answer = match admin.strip_prefix(UNIX) {
        Some(path) => UnixStream::connect(path).and_then(|stream| exchange(stream, &target)),
        None => TcpStream::connect_timeout(&resolve(admin)?, PATIENCE).and_then(|stream| exchange(stream, &target)),
    };
    let answer = answer.map_err(failed)?;
    let garbage = || AskError::Garbage(admin.to_owned());
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(garbage)?;
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    match status.ok_or_else(garbage)? {
        200 => Ok(body.to_owned()),
        status => Err(AskError::Status { status, body: body.trim().to_owned() }),
    }
}

/// `:9901` is a port of this machine.
fn resolve(admin: &str) -> Result<SocketAddr, AskError> {
    let whole = if admin.starts_with(':') { format!("127.0.0.1{admin}") } else { admin.to_owned() };
    let wrong = || AskError::Address(admin.to_owned());
    whole.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

/// HTTP/1.0, so that the answer ends with the connection and comes in one piece.
fn exchange(mut stream: impl Patient, target: &str) -> io::Result<Vec<u8>> {
    stream.be_patient()?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\nAccept: */*\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A stream that gives up after [`PATIENCE`].
trait Patient: Read + Write {
    fn be_patient(&self) -> io::Result<()>;
}

impl Patient for TcpStream {
    fn be_patient(&self) -> io::Result<()> {
        self.set_read_timeout(Some(PATIENCE))?;
        self.set_write_timeout(Some(PATIENCE))
    }
}

impl Patient for UnixStream {
    fn be_patient(&self) -> io::Result<()> {
        self.set_read_timeout(Some(PATIENCE))?;
        self.set_write_timeout(Some(PATIENCE))
    }
}

fn escape(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::TcpListener;
    use std::thread;

    /// Answers one request with this text; gives back what it was asked.
    fn answering(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // All of it: closing with something unread would reset the connection.
            let mut asked = Vec::new();
            let mut buffer = [0; 1024];
            while !asked.ends_with(b"\r\n\r\n") {
                let length = stream.read(&mut buffer).unwrap();
                asked.extend_from_slice(&buffer[..length]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (address, asked)
    }

    #[test]
    fn a_question_is_escaped_and_its_answer_is_the_body() {
        let (address, asked) = answering("HTTP/1.0 200 OK\r\na: b\r\n\r\nbody\r\n\r\nmore");
        let body = get(&address, "/x", &[("url", "http://a/?b=c&d"), ("header", "a: \u{e9}")]).unwrap();
        assert_eq!(body, "body\r\n\r\nmore");
        assert!(asked.join().unwrap().starts_with("GET /x?url=http://a/%3Fb%3Dc%26d&header=a:%20%C3%A9 HTTP/1.0\r\n"));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let (address, _asked) = answering("HTTP/1.1 400 Bad\r\n\r\n{\"hint\":1}\n");
        let error = get(&address, "/x", &[]).unwrap_err().to_string();
        assert_eq!(error, "the admin port answers 400: {\"hint\":1}");
        let (address, _asked) = answering("SSH-2.0\r\n");
        assert!(matches!(get(&address, "/", &[]), Err(AskError::Garbage(_))));
        assert!(matches!(get("nowhere", "/", &[]), Err(AskError::Address(_))));
        // Bound but not listening: nobody else gets the port while it is asked.
        let closed = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = closed.local_addr().unwrap().as_socket().unwrap().to_string();
        assert!(matches!(get(&address, "/", &[]), Err(AskError::Io { .. })));
    }
}
