//! How do records become bytes, and bytes records, without a socket?
//!
//! rustls keeps nothing of what comes: it is shown the same bytes until it says that they may go, and keeps positions in them where a
//! message of a handshake has come in part. So what was received is never shown in another way, also where one only wants to write.

use super::block::Block;
use super::seal::seal;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, ServerConfig};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use tokio::io::ReadBuf;

/// Room for one alert.
const ALERT: usize = 256;

/// One connection of TLS, the server's side.
pub(super) struct Session {
    connection: UnbufferedServerConnection,
    /// Records of the client that were not opened yet.
    pub(super) received: Block,
    /// Bytes of the client for which there was no room.
    plain: Block,
    /// Records for the client that are not sent yet.
    pub(super) sealed: Block,
    end: End,
    closed: bool,
}

/// How what the client sends has ended.
enum End {
    /// It has not.
    Open,
    /// The client said so.
    Closed,
    /// The socket did, which anybody on the way may have done.
    Cut,
    /// The socket failed.
    Lost(io::Error),
    /// What came breaks the protocol, or says that the client gave up.
    Failed(rustls::Error),
}

/// What a turn led to.
#[derive(PartialEq)]
enum Turn {
    /// There may be more to do.
    Again,
    /// Nothing is left but to write.
    Ready,
    /// A handshake waits for the client.
    Blocked,
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>, received: Block) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            received,
            plain: Block::default(),
            sealed: Block::default(),
            end: End::Open,
            closed: false,
        })
    }

    pub(super) fn connection(&self) -> &CommonState {
        &self.connection
    }

    /// Hands out what came, as far as there is room.
    pub(super) fn open(&mut self, to: &mut ReadBuf<'_>) {
        let n = to.remaining().min(self.plain.bytes().len());
        to.put_slice(self.plain.bytes().get(..n).unwrap_or_default());
        self.plain.discard(n);
        while to.remaining() > 0 && !self.received.is_empty() && self.turn(to) == Turn::Again {}
    }

    /// Goes on with the handshake: whether it is done. What the client sends behind it is kept.
    pub(super) fn shake(&mut self) -> io::Result<bool> {
        while self.turn(&mut ReadBuf::new(&mut [])) == Turn::Again {}
        match &self.end {
            End::Failed(error) => Err(failure(error)),
            _ => Ok(!self.connection.is_handshaking()),
        }
    }

    /// Makes records of the first bytes of the parts: of how many.
    pub(super) fn seal(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.until_ready()?;
        self.sealed.lend();
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(self.received.bytes_mut());
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else {
            return Err(ErrorKind::NotConnected.into());
        };
        let sealed = seal(&mut traffic, parts, &mut self.sealed).map_err(io::Error::other);
        if sealed.is_err() {
            self.encode_all();
        }
        sealed
    }

    /// Tells the client, once, that nothing more comes.
    pub(super) fn close(&mut self) {
        // After an error the client got its alert.
        if std::mem::replace(&mut self.closed, true) || self.until_ready().is_err() {
            return;
        }
        self.sealed.lend();
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(self.received.bytes_mut());
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state
            && let Ok(n) = traffic.queue_close_notify(self.sealed.room(ALERT))
        {
            self.sealed.added(n);
        } else {
            self.encode_all();
        }
    }

    /// Nothing more comes from the socket, or it failed. A message that came in part stays: rustls knows of it, and one may go on to write.
    pub(super) fn cut(&mut self, error: Option<io::Error>) {
        self.end = error.map_or(End::Cut, End::Lost);
    }

    /// How what the client sends has ended; `None`: it goes on. Bytes that came before are handed out first.
    pub(super) fn ended(&mut self) -> Option<io::Result<()>> {
        match &self.end {
            End::Open => None,
            End::Closed => Some(Ok(())),
            End::Failed(error) => Some(Err(failure(error))),
            // The kernel tells an error once; so do we.
            End::Cut | End::Lost(_) => match std::mem::replace(&mut self.end, End::Cut) {
                End::Lost(error) => Some(Err(error)),
                _ => Some(Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection ended without close_notify"))),
            },
        }
    }

    /// Opens what is complete, so that nothing stands before a write.
    fn until_ready(&mut self) -> io::Result<()> {
        loop {
            match self.turn(&mut ReadBuf::new(&mut [])) {
                Turn::Again => {}
                Turn::Ready => return Ok(()),
                Turn::Blocked => {
                    return Err(match &self.end {
                        End::Failed(error) => failure(error),
                        _ => ErrorKind::NotConnected.into(),
                    });
                }
            }
        }
    }

    fn turn(&mut self, to: &mut ReadBuf<'_>) -> Turn {
        if let End::Failed(_) = self.end {
            return Turn::Blocked;
        }
        match self.try_turn(to) {
            Ok(turn) => turn,
            Err(error) => {
                // rustls would read what is wrong again: from here on it is asked for its alert alone.
                self.encode_all();
                self.received.clear();
                self.end = End::Failed(error);
                Turn::Blocked
            }
        }
    }

    /// One turn of rustls: a record opened, a message encoded, or nothing more to do.
    fn try_turn(&mut self, to: &mut ReadBuf<'_>) -> Result<Turn, rustls::Error> {
        let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(self.received.bytes_mut());
        let turn = match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    hand(record.payload, to, &mut self.plain);
                }
                Turn::Again
            }
            ConnectionState::EncodeTlsData(mut data) => {
                encode(&mut data, &mut self.sealed);
                Turn::Again
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Turn::Again
            }
            ConnectionState::PeerClosed => {
                self.end = End::Closed;
                Turn::Again
            }
            ConnectionState::WriteTraffic(_) | ConnectionState::Closed => Turn::Ready,
            ConnectionState::BlockedHandshake => Turn::Blocked,
            _ => return Err(rustls::Error::General("a state that is not known".to_owned())),
        };
        self.received.discard(discard);
        // RFC 8446 section 6.1: what comes after the closure is ignored.
        if let End::Closed = self.end {
            self.received.clear();
        }
        Ok(turn)
    }

    /// Encodes what rustls has to say. While it has something, it does not look at what was received.
    fn encode_all(&mut self) {
        while self.connection.wants_write() {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.sealed),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                _ => return,
            }
        }
    }
}

/// As tokio-rustls tells it, which speaks to our upstreams.
fn failure(error: &rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error.clone())
}

fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, out: &mut Block) {
    out.lend();
    let mut encoded = data.encode(out.room(ALERT));
    if let Err(EncodeError::InsufficientSize(more)) = &encoded {
        encoded = data.encode(out.room(more.required_size));
    }
    out.added(encoded.unwrap_or(0));
}

fn hand(bytes: &[u8], to: &mut ReadBuf<'_>, behind: &mut Block) {
    let (now, later) = bytes.split_at_checked(to.remaining()).unwrap_or((bytes, &[]));
    to.put_slice(now);
    if !later.is_empty() {
        behind.put(later);
    }
}

#[cfg(test)]
impl Session {
    /// Bytes of memory in blocks.
    pub(super) fn held(&self) -> usize {
        self.received.held() + self.plain.held() + self.sealed.held()
    }
}
