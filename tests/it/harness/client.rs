//! What does a test send as a client, byte for byte?

use super::wire::{End, Head, Io, Message, Wire};
use super::within;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection to the proxy.
pub struct Client {
    wire: Wire,
}

impl Deref for Client {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(tcp(address).await)
    }

    /// Sends a GET on a connection of its own and gives whatever comes until the end: nothing where it was not let in.
    pub async fn all_of(address: SocketAddr) -> Vec<u8> {
        let Ok(stream) = within("connecting", TcpStream::connect(address)).await else { return Vec::new() };
        let mut client = Self::over(stream);
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
        client.rest().await.0
    }

    /// Comes from another loopback address, such as 127.0.0.2.
    pub async fn connect_from(source: &str, address: SocketAddr) -> Self {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
        socket.bind(SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0)).unwrap();
        Self::over(within("connecting", socket.connect(address)).await.unwrap())
    }

    pub async fn tls(address: SocketAddr, config: &Arc<rustls::ClientConfig>, name: &str) -> Self {
        Self::over(tls(address, config, name).await.unwrap())
    }

    /// Tears the connection down.
    pub fn reset(self) {
        self.wire.reset();
    }

    pub fn over(io: impl Io + 'static) -> Self {
        Self { wire: Wire::new(io) }
    }

    /// Sends a GET and reads its final response; the connection stays.
    pub async fn get(&mut self, host: &str, path: &str) -> Message {
        self.request("GET", host, path, &[], b"").await
    }

    /// Sends a request with `Content-Length` where there is a body, and reads its final response.
    pub async fn request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Message {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        // A proxy that answers early may close before it took everything: the answer counts.
        let _ = self.wire.try_send(bytes).await;
        self.final_response(method).await
    }

    /// The next response to a GET, informational ones included.
    pub async fn response(&mut self) -> Message {
        self.response_to("GET").await
    }

    pub async fn response_to(&mut self, method: &str) -> Message {
        let head = self.wire.head().await.expect("a response, and the connection ended");
        let status = head.status();
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        self.wire.body(head, bodiless, false).await
    }

    /// The next response that is not informational.
    pub async fn final_response(&mut self, method: &str) -> Message {
        loop {
            let message = self.response_to(method).await;
            if message.status() >= 200 || message.status() == 101 {
                return message;
            }
        }
    }

    /// The head alone; the body is read by other means.
    pub async fn response_head(&mut self) -> Head {
        self.wire.head().await.expect("a response, and the connection ended")
    }

    /// Sends bytes that are no request, and expects this status and then the end of the connection.
    #[track_caller]
    pub fn refused(mut self, bytes: impl AsRef<[u8]>, status: u16) -> impl Future<Output = Message> {
        let place = std::panic::Location::caller();
        async move {
            let _ = self.wire.try_send(bytes.as_ref()).await;
            let shown = String::from_utf8_lossy(bytes.as_ref()).chars().take(200).collect::<String>();
            let message = self.response().await;
            assert_eq!(message.status(), status, "{shown:?} ({place})");
            assert_eq!(message.get("connection"), Some("close"), "{shown:?} ({place})");
            let (rest, end) = self.wire.rest().await;
            assert!(rest.is_empty(), "{shown:?}: more than one response ({place})");
            assert_eq!(end, End::Fin, "{shown:?} ({place})");
            message
        }
    }
}

pub async fn tcp(address: SocketAddr) -> TcpStream {
    let stream = within("connecting", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A handshake, or why it failed.
pub async fn tls(
    address: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within("the handshake", TlsConnector::from(config.clone()).connect(name, tcp(address).await)).await
}
