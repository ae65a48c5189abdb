//! How does a test write bytes to a connection, and read HTTP/1 from it without forgiving anything?

use super::within;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A byte stream over a TCP connection.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Io for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Io for tokio_rustls::client::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Io for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other end said that it was done.
    Fin,
    /// The connection was torn down (or, with TLS, ended without a word).
    Reset,
}

/// First line and fields of a message.
#[derive(Clone, Debug)]
pub struct Head {
    pub first: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn status(&self) -> u16 {
        let mut parts = self.first.splitn(3, ' ');
        let version = parts.next().unwrap();
        assert!(version == "HTTP/1.1" || version == "HTTP/1.0", "not a status line: {:?}", self.first);
        let status = parts.next().unwrap_or_else(|| panic!("no status: {:?}", self.first));
        assert!(status.len() == 3 && parts.next().is_some(), "not a status line: {:?}", self.first);
        status.parse().unwrap()
    }

    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap()
    }

    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap()
    }

    /// The only value of a field; a field sent twice fails the test.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} was sent {} times: {self:?}", all.len());
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

/// A message as far as it came.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// How the connection ended before the body did; `None`: the message is whole.
    pub cut: Option<End>,
    /// The connection's end was the body's end.
    pub until_close: bool,
}

impl Message {
    #[track_caller]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        assert_eq!(self.cut, None, "the body was cut: {self:?}");
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.head.has(name)
    }
}

/// A connection with what was read from it and not used yet.
pub struct Wire {
    io: Box<dyn Io>,
    buffer: Vec<u8>,
    ended: Option<End>,
    /// Everything ever received, for those who want to look later.
    pub received: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    pub fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), buffer: Vec::new(), ended: None, received: Arc::default() }
    }

    /// Writes everything; says whether that was possible.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("writing", async {
            self.io.write_all(bytes.as_ref()).await?;
            self.io.flush().await
        })
        .await
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn half_close(&mut self) {
        // Fails where the other end closed already, which is no news.
        let _ = self.io.shutdown().await;
    }

    /// Tears the connection down so that the other end sees a reset.
    pub fn reset(self) {
        socket2::SockRef::from(self.io.tcp()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Waits for more bytes; `false` when the connection ended.
    async fn fill(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let mut chunk = [0; 16 * 1024];
        match within("reading", self.io.read(&mut chunk)).await {
            Ok(0) => self.ended = Some(End::Fin),
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                self.received.lock().unwrap().extend_from_slice(&chunk[..n]);
                return true;
            }
            Err(e) => {
                let known = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
                assert!(known.contains(&e.kind()), "reading failed: {e}");
                self.ended = Some(End::Reset);
            }
        }
        false
    }

    /// Exactly `n` bytes, or how the connection ended before.
    pub async fn exactly(&mut self, n: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < n {
            if !self.fill().await {
                return Err(self.ended.unwrap());
            }
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Whatever comes next, at least one byte; `None` at the end.
    pub async fn some(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() && !self.fill().await {
            return None;
        }
        Some(std::mem::take(&mut self.buffer))
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        while self.fill().await {}
        (std::mem::take(&mut self.buffer), self.ended.unwrap())
    }

    /// How the connection ends; bytes that come before it fail the test.
    #[track_caller]
    pub fn end(&mut self) -> impl Future<Output = End> {
        let place = std::panic::Location::caller();
        async move {
            let (rest, end) = self.rest().await;
            assert!(rest.is_empty(), "more came before the end ({place}): {:?}", String::from_utf8_lossy(&rest));
            end
        }
    }

    /// A line without its CRLF.
    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("a line ends without CR: {line:?}"));
                assert!(!line.contains(&b'\r'), "a bare CR: {line:?}");
                return Ok(line.iter().map(|b| char::from(*b)).collect());
            }
            if !self.fill().await {
                return Err(self.ended.unwrap());
            }
        }
    }

    async fn fields(&mut self) -> Result<Vec<(String, String)>, End> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            assert!(!name.is_empty() && name.bytes().all(token), "not a field name: {line:?}");
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// A head; the end of the connection in place of its first byte is `Err`, within it fails the test.
    pub async fn head(&mut self) -> Result<Head, End> {
        if self.buffer.is_empty() && !self.fill().await {
            return Err(self.ended.unwrap());
        }
        let first = self.line().await.expect("the connection ended within a head");
        let fields = self.fields().await.expect("the connection ended within a head");
        Ok(Head { first, fields })
    }

    /// The body that follows `head`; `bodiless` for what has none whatever its fields say.
    pub async fn body(&mut self, head: Head, bodiless: bool, request: bool) -> Message {
        let mut message = Message { head, body: Vec::new(), trailers: Vec::new(), cut: None, until_close: false };
        let length = message.head.get("content-length").map(|v| v.parse::<usize>().unwrap());
        let coding = message.head.get("transfer-encoding").map(str::to_owned);
        assert!(length.is_none() || coding.is_none(), "two framings at once: {:?}", message.head);
        if bodiless {
            return message;
        }
        match (coding, length) {
            (Some(coding), _) => {
                assert_eq!(coding, "chunked");
                message.cut = self.chunks(&mut message).await.err();
            }
            (None, Some(length)) => match self.exactly(length).await {
                Ok(body) => message.body = body,
                Err(end) => (message.body, message.cut) = (std::mem::take(&mut self.buffer), Some(end)),
            },
            (None, None) if request => {}
            (None, None) => {
                let (body, end) = self.rest().await;
                message.body = body;
                message.until_close = true;
                message.cut = (end == End::Reset).then_some(end);
            }
        }
        message
    }

    async fn chunks(&mut self, message: &mut Message) -> Result<(), End> {
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).expect("a chunk size");
            if size == 0 {
                message.trailers = self.fields().await?;
                return Ok(());
            }
            match self.exactly(size).await {
                Ok(chunk) => message.body.extend(chunk),
                Err(end) => {
                    message.body.append(&mut self.buffer);
                    return Err(end);
                }
            }
            assert_eq!(self.exactly(2).await?, b"\r\n", "a chunk ends with CRLF");
        }
    }

    /// One chunk of a body in chunked coding, for looking at a stream as it comes; empty: the last one.
    pub async fn chunk(&mut self) -> Result<Vec<u8>, End> {
        let size = self.line().await?;
        let size = usize::from_str_radix(&size, 16).expect("a chunk size");
        let mut data = self.exactly(size + 2).await?;
        data.truncate(size);
        Ok(data)
    }
}
