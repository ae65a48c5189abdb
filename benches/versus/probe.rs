//! Does a proxy serve, and does it do the work that it is compared for?

use crate::peer::Kind;
use crate::wire;
use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(2);

/// One request on a connection of its own: status, and all bytes after the head.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = wire::head_end(&bytes).ok_or_else(|| Error::other("no head"))?;
    let status = wire::status(&bytes).ok_or_else(|| Error::other("no status line"))?;
    Ok((status, bytes.split_off(end)))
}

/// Asks the upstream what reached it. Traefik can give a request an id by a plugin alone, so does that much less, and tells the
/// port of the Host field.
pub fn same_work(address: SocketAddr, host: &str, full: bool, kind: Kind) -> std::result::Result<(), String> {
    let (status, head) = get(address, host, "/head").map_err(|error| error.to_string())?;
    let shown = String::from_utf8_lossy(&head);
    let field = |name: &str| wire::field(&head, name.as_bytes()).map(String::from_utf8_lossy);
    if status != 200 || field("connection").is_some_and(|value| value == "close") {
        return Err(format!("status {status}, upstream head {shown:?}"));
    }
    let port = if kind == Kind::Traefik { 80 } else { address.port() }.to_string();
    let wanted = [("for", "127.0.0.1"), ("proto", "http"), ("host", host), ("port", port.as_str())];
    for (name, value) in wanted {
        let found = field(&format!("x-forwarded-{name}"));
        if full && found.as_deref() != Some(value) {
            return Err(format!("X-Forwarded-{name} is {found:?} instead of {value}: {shown:?}"));
        }
    }
    if full && kind != Kind::Traefik && field("x-request-id").is_none_or(|id| id.len() < 16) {
        return Err(format!("no X-Request-Id reaches the upstream: {shown:?}"));
    }
    Ok(())
}
