//! How does a person's own shell reach what is inside?
//!
//! A socket in a folder is the same socket in every network namespace. Outside, ports of the loopback are listened on; each
//! connection goes over the socket, where its first line says whom it wants: `PLACE ADDRESS:PORT`.

use super::network::Place;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// The socket in its folder.
const SOCKET: &str = "wire";

/// Outside: leads a port of the loopback to an address in a place; the wanted port, or another one when it is taken.
pub async fn lead(folder: &Path, port: u16, whom: String) -> io::Result<u16> {
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    };
    let port = listener.local_addr()?.port();
    let socket = folder.join(SOCKET);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(carry(stream, socket.clone(), whom.clone()));
        }
    });
    Ok(port)
}

async fn carry(mut stream: TcpStream, socket: PathBuf, whom: String) -> io::Result<()> {
    let mut inside = UnixStream::connect(socket).await?;
    inside.write_all(format!("{whom}\n").as_bytes()).await?;
    copy_bidirectional(&mut stream, &mut inside).await.map(drop)
}

/// Inside: takes what comes over the socket to these places, as long as the runtime lives.
pub fn serve(folder: &Path, places: Vec<Place>) -> io::Result<()> {
    let listener = UnixListener::bind(folder.join(SOCKET))?;
    let places: Arc<[Place]> = places.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(arrive(stream, Arc::clone(&places)));
        }
    });
    Ok(())
}

async fn arrive(stream: UnixStream, places: Arc<[Place]>) -> io::Result<()> {
    let mut outside = BufReader::new(stream);
    let mut line = String::new();
    outside.read_line(&mut line).await?;
    let (place, address) = line.trim().split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut inside = match places.iter().find(|known| known.name == place) {
        // Its loopback is its own.
        Some(place) => {
            let stream = place.connect(address).map_err(io::Error::other)?;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)?
        }
        None => TcpStream::connect(address).await?,
    };
    copy_bidirectional(&mut outside, &mut inside).await.map(drop)
}
