//! What is really spoken behind a node port? Asked, not guessed.
//!
//! Asked are the ports that HTTP or TLS may be behind: what is by name or number a database, a mail server and the like is left in
//! peace. Three connections at the most: a GET over HTTP/1, a TLS handshake, the preface of HTTP/2.

use super::ask::{AGENT, connect, secure};
use super::inventory::{Inventory, Port, Service};
use super::judge::Probed;
use super::protocol::{Protocol, Speaks, guess};
use futures_util::stream::{self, StreamExt};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Ports that are asked at the same time.
const AT_ONCE: usize = 16;
/// What every HTTP/2 connection begins with (RFC 9113 section 3.4), and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Asks every port that may speak HTTP; each answer is waited for no longer than `patience`.
pub async fn probe(inventory: &Inventory, patience: Duration) -> Probed {
    let mut asked = Vec::new();
    for service in inventory.services.iter().filter(|s| s.node_ports().next().is_some()) {
        for port in &service.ports {
            let known = guess(port).protocol == Protocol::Other;
            if let Some(node_port) = port.node_port.filter(|_| !known) {
                asked.push(async move { (node_port, speaks(&addresses(inventory, service, port), patience).await) });
            }
        }
    }
    stream::iter(asked).buffer_unordered(AT_ONCE).collect().await
}

/// The node port of some nodes, those with a ready endpoint first, and one endpoint itself.
pub(super) fn addresses(inventory: &Inventory, service: &Service, port: &Port) -> Vec<SocketAddr> {
    let mut found = node_port_at(inventory, service, port.node_port.unwrap_or_default());
    let endpoint = service.endpoints.iter().find(|e| e.ready && e.port_name == port.name);
    found.extend(endpoint.map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port)));
    found
}

/// Addresses of some nodes with a port; where the policy is Local, of nodes that answer.
pub(super) fn node_port_at(inventory: &Inventory, service: &Service, node_port: u16) -> Vec<SocketAddr> {
    const NODES: usize = 3;
    let ready = service.ready_nodes();
    let mut nodes: Vec<_> = inventory.nodes.iter().flatten().collect();
    nodes.sort_by_key(|node| !ready.contains(node.name.as_str()));
    let addresses = nodes.into_iter().take(NODES).flat_map(|node| &node.addresses);
    addresses.map(|address| SocketAddr::new(*address, node_port)).collect()
}

async fn speaks(at: &[SocketAddr], patience: Duration) -> Speaks {
    let hello = format!("GET / HTTP/1.1\r\nhost: node\r\nuser-agent: {AGENT}\r\nconnection: close\r\n\r\n");
    let Some(said) = say(at, hello.as_bytes(), patience).await else {
        return Speaks::new(Protocol::Unknown, "nobody answered when it was asked");
    };
    let first = by_answer(&said);
    // Servers of HTTPS tell those who come without TLS by a 400, others by nothing at all.
    let sure = first
        .as_ref()
        .is_some_and(|speaks| speaks.protocol != Protocol::Http || said.get(9..12).is_none_or(|s| s != b"400"));
    if let (true, Some(speaks)) = (sure, &first) {
        return speaks.clone();
    }
    if let Ok(stream) = connect(at, patience).await
        && timeout(patience, secure(stream, "node", false)).await.is_ok_and(|tls| tls.is_ok())
    {
        return Speaks::new(Protocol::Tls, "it answered a TLS handshake");
    }
    if let Some(speaks) = first {
        return speaks;
    }
    match say(at, PREFACE, patience).await.as_deref().and_then(by_answer) {
        Some(speaks) => speaks,
        None => Speaks::other("no HTTP", "it answered neither HTTP nor TLS when it was asked"),
    }
}

/// Says something and hears the first bytes of the answer; `None`: nobody lets connect.
async fn say(at: &[SocketAddr], words: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let mut stream = connect(at, patience).await.ok()?;
    let mut heard = vec![0; 1024];
    let listen = async {
        stream.write_all(words).await.ok()?;
        // The status line is in the first segment of every server that was met; more is not needed.
        stream.read(&mut heard).await.ok()
    };
    let length = timeout(patience, listen).await.ok().flatten().unwrap_or_default();
    heard.truncate(length);
    Some(heard)
}

/// What the first bytes tell; `None`: nothing.
fn by_answer(said: &[u8]) -> Option<Speaks> {
    let settings = |frame: &[u8]| matches!(frame, [_, _, _, 4, _, 0, 0, 0, 0, ..]);
    match said {
        [] => None,
        said if said.starts_with(b"HTTP/1.") => {
            let status = said.get(9..12).map(String::from_utf8_lossy).unwrap_or_default();
            Some(Speaks::new(Protocol::Http, format!("it answered GET / with {status}")))
        }
        [0x15, 0x03, ..] => Some(Speaks::new(Protocol::Tls, "it answered with a TLS alert")),
        said if settings(said) => Some(Speaks::new(Protocol::Http2, "it answered with HTTP/2 settings")),
        said if said.starts_with(b"SSH-") => Some(Speaks::other("SSH", "it says so itself")),
        said if said.starts_with(b"220") => Some(Speaks::other("SMTP or FTP", "it says so itself")),
        said if said.starts_with(b"-ERR") || said.starts_with(b"-DENIED") => {
            Some(Speaks::other("Redis", "it says so itself"))
        }
        [_, _, _, 0, 0x0a, ..] => Some(Speaks::other("MySQL", "it says so itself")),
        _ => Some(Speaks::other("no HTTP", "it answered with something else when it was asked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    const PATIENCE: Duration = Duration::from_millis(500);

    /// A peer that says `answer` to whoever says something, or at once.
    fn peer(answer: &'static [u8], at_once: bool) -> SocketAddr {
        use std::io::{Read, Write};
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            // A GET, a TLS handshake, a preface.
            for stream in listener.incoming().take(3) {
                let mut stream = stream.unwrap();
                if !at_once {
                    let _ = stream.read(&mut [0; 1024]);
                }
                let _ = stream.write_all(answer);
                let _ = stream.read(&mut [0; 1024]);
            }
        });
        address
    }

    #[tokio::test]
    async fn what_answers_tells_what_it_speaks() {
        let said = async |answer, at_once| speaks(&[peer(answer, at_once)], PATIENCE).await;
        let http = said(b"HTTP/1.1 404 Not Found\r\n\r\n", false).await;
        assert_eq!((http.protocol, http.because.as_str()), (Protocol::Http, "it answered GET / with 404"));
        assert_eq!(
            said(b"HTTP/1.1 400 Bad Request\r\n\r\n", false).await.protocol,
            Protocol::Http,
            "and no TLS either"
        );
        assert_eq!(said(b"\x15\x03\x01\x00\x02\x02\x0a", false).await.protocol, Protocol::Tls);
        assert_eq!(said(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00", true).await.protocol, Protocol::Http2);
        assert_eq!(said(b"SSH-2.0-x\r\n", true).await.word(), "SSH");
        assert_eq!(said(b"\x4a\x00\x00\x00\x0a8.0", true).await.word(), "MySQL");
        assert_eq!(said(b"", false).await.protocol, Protocol::Other);
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_stays_unknown() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(speaks(&[address], PATIENCE).await.protocol, Protocol::Unknown);
        assert_eq!(speaks(&[], PATIENCE).await.protocol, Protocol::Unknown);
    }
}
