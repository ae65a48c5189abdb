//! How is an address bound, once for each worker?
//!
//! Every worker has a socket of its own on the same port (SO_REUSEPORT): the kernel spreads connections, and nobody waits for a
//! lock. What accepted sockets inherit from the listening one (TCP_NODELAY, keep-alive) is set here and costs nothing
//! later. An IPv6 listener takes IPv6 alone, `[::]` too: it stands beside `0.0.0.0`, it does not replace it.

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;
use thiserror::Error;

/// Connections that wait to be accepted, for each socket; the kernel holds it below net.core.somaxconn.
const BACKLOG: i32 = 8192;

/// Why an address cannot be bound.
#[derive(Debug, Error)]
pub(super) enum BindError {
    #[error("another process listens on {0}")]
    InUse(SocketAddr),
    #[error("no permission to listen on {0}")]
    Permission(SocketAddr),
    #[error("no interface of this machine has the address {0}")]
    NoSuchAddress(SocketAddr),
    #[error("cannot listen on {0}")]
    Other(SocketAddr, #[source] io::Error),
}

impl BindError {
    fn of(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::AddrInUse => Self::InUse(address),
            ErrorKind::PermissionDenied => Self::Permission(address),
            ErrorKind::AddrNotAvailable => Self::NoSuchAddress(address),
            _ => Self::Other(address, error),
        }
    }

    /// What would be right, or where to look.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::InUse(address) => format!("see which one with: ss -ltnp 'sport = :{}'", address.port()),
            Self::Permission(address) if address.port() < 1024 => {
                "ports below 1024 need the capability NET_BIND_SERVICE: \
                 setcap cap_net_bind_service=+ep on the binary (in a container also capabilities.add), or a higher port"
                    .to_owned()
            }
            Self::Permission(_) => String::new(),
            Self::NoSuchAddress(_) => "0.0.0.0 and [::] listen on all of them".to_owned(),
            Self::Other(_, error) => error.to_string(),
        }
    }
}

/// Binds `count` sockets to one address. Port 0: the first socket chooses, the others follow. `shared`: this process holds
/// the port already (a renamed listener, the wildcard beside one address), or a second gate is welcome there; otherwise a port where anybody listens is refused,
/// because SO_REUSEPORT alone would quietly share its connections with a second proxy of the same user.
pub(super) fn bind(
    address: SocketAddr,
    count: usize,
    shared: bool,
) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let fail = |error| BindError::of(address, error);
    if !shared && address.port() != 0 {
        prove_free(address).map_err(fail)?;
    }
    let first = listen(address).map_err(fail)?;
    let bound = first.local_addr().map_err(fail)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(listen(bound).map_err(fail)?);
    }
    Ok((bound, sockets))
}

/// Lets no connection begin on this socket any more, while those that have begun can still be accepted: SYNs are dropped by a
/// filter. Their clients send them again after a second, by when another gate alone has the port. Merely closed, the socket would
/// reset whoever the kernel gave it since the last look.
pub(super) fn turn_away(socket: &impl AsFd) -> io::Result<()> {
    // Classic BPF over the TCP header: byte 13 holds the flags; SYN without ACK (RFC 9293 section 3.5) gets 0 bytes.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    SockRef::from(socket).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

fn prove_free(address: SocketAddr) -> io::Result<()> {
    let socket = socket(address)?;
    socket.bind(&address.into())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    let dead_after = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    socket.set_tcp_keepalive(&dead_after.with_retries(4))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    fn any_port() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[test]
    fn all_workers_get_a_socket_on_the_port_that_the_first_one_chose() {
        let (bound, sockets) = bind(any_port(), 3, false).unwrap();
        assert_ne!(bound.port(), 0);
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == bound));
    }

    #[test]
    fn connections_spread_over_the_sockets() {
        let (bound, sockets) = bind(any_port(), 2, false).unwrap();
        let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(bound).unwrap()).collect();
        let accepted = |socket: &TcpListener| std::iter::from_fn(|| socket.accept().ok()).count();
        let counts: Vec<_> = sockets.iter().map(accepted).collect();
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }

    #[test]
    fn accepted_sockets_inherit_nodelay_and_keepalive() {
        let (bound, sockets) = bind(any_port(), 1, false).unwrap();
        let _client = TcpStream::connect(bound).unwrap();
        let (accepted, _) = sockets[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert!(SockRef::from(&accepted).keepalive().unwrap());
    }

    #[test]
    fn a_socket_that_turns_away_keeps_who_came_before() {
        let (address, sockets) = bind(any_port(), 1, false).unwrap();
        let mut early = TcpStream::connect(address).unwrap();
        turn_away(&sockets[0]).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut, "neither connected nor reset");
        let (mut accepted, _) = sockets[0].accept().unwrap();
        early.write_all(b"x").unwrap();
        let mut byte = [0];
        accepted.set_nonblocking(false).unwrap();
        accepted.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_port_where_another_listens_is_refused_even_if_it_would_share_it() {
        let (bound, _theirs) = bind(any_port(), 1, false).unwrap();
        let error = bind(bound, 1, false).unwrap_err();
        assert!(matches!(error, BindError::InUse(address) if address == bound), "{error}");
        assert!(error.hint().contains(&format!("sport = :{}", bound.port())));
        assert!(bind(bound, 1, true).is_ok(), "our own port can be taken over");
    }

    #[test]
    fn an_address_that_no_interface_has_is_said_so() {
        let error = bind("192.0.2.1:0".parse().unwrap(), 1, false).unwrap_err();
        assert!(matches!(error, BindError::NoSuchAddress(_)), "{error}");
    }

    #[test]
    fn a_low_port_without_permission_names_the_capability() {
        let error = BindError::of((Ipv4Addr::UNSPECIFIED, 80).into(), ErrorKind::PermissionDenied.into());
        assert!(error.hint().contains("NET_BIND_SERVICE"));
    }

    #[test]
    fn an_ipv6_wildcard_leaves_the_port_free_for_ipv4() {
        let Ok((six, _sockets)) = bind((Ipv6Addr::UNSPECIFIED, 0).into(), 1, false) else {
            return; // A machine without IPv6.
        };
        assert!(bind((Ipv4Addr::UNSPECIFIED, six.port()).into(), 1, false).is_ok());
    }
}
