//! Where do questions come in: a port of the machine, or a socket file that is this process' own?
//!
//! Two gates on one machine share its network, so that at a port one cannot tell which of them answers. A probe of a container must
//! be answered by the process in that container: it asks at a socket file, which is in a folder of that container alone.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as Knock;
use std::path::Path;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Who asks at a socket file counts as this machine.
pub(super) const HERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// Where questions come in.
#[derive(Debug)]
pub enum Door {
    /// A port.
    Port(TcpListener),
    /// A socket file.
    Socket(UnixListener),
}

/// Who came in.
#[derive(Debug)]
pub(super) enum Visitor {
    Port(TcpStream, SocketAddr),
    Socket(UnixStream),
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self::Port(listener)
    }
}

impl From<UnixListener> for Door {
    fn from(listener: UnixListener) -> Self {
        Self::Socket(listener)
    }
}

impl Door {
    pub(super) async fn accept(&self) -> io::Result<Visitor> {
        match self {
            Self::Port(listener) => listener.accept().await.map(|(stream, peer)| Visitor::Port(stream, peer)),
            Self::Socket(listener) => listener.accept().await.map(|(stream, _)| Visitor::Socket(stream)),
        }
    }
}

/// Opens a socket file that only this user may ask at. One that a process left behind which is gone (a container started again
/// finds the folder of its pod as it was) is replaced; where somebody answers, it is theirs: `AddrInUse`.
pub fn open_socket(path: &Path) -> io::Result<UnixListener> {
    let left = fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    if left && Knock::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = open_socket(&path).unwrap();
        assert_eq!(open_socket(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        let second = open_socket(&path).unwrap();
        let door = Door::from(second);
        let (came, _client) = tokio::join!(door.accept(), UnixStream::connect(&path));
        assert!(matches!(came.unwrap(), Visitor::Socket(_)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert_eq!(open_socket(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
