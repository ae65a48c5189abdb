//! How does the rest of a large response get from socket to socket without being copied through this process?
//!
//! By splice(2): the kernel hands pages on through a pipe. Only where both sides are cleartext, the length is known, and the upstream
//! sends faster than is read; for small pieces a copy costs less. A pipe is lent to one body and given back only when it is
//! empty, so that nothing of one response can reach another client; with bytes in it, it is closed.

use crate::http1::{BodyError, BodyWriter, Conn, RelayError};
use crate::message::Io;
use crate::proxy::remote::{Remote, Wire};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, getrlimit};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Pipes of one thread, lent ones included: two descriptors each, of which connections must have nearly all. Bodies beyond them are
/// copied.
const MOST: u64 = 256;
const DESCRIPTORS_EACH: u64 = 256;

/// A slot for each 4 KiB of it: as many pieces as a network card delivers them in.
const PIPE_BYTES: usize = 256 * 1024;

/// The most that is on its way in one pipe.
const PIECE: u64 = 256 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    static MADE: Cell<usize> = const { Cell::new(0) };
    static ALLOWED: Cell<usize> = Cell::new(allowed(getrlimit(Resource::Nofile).current));
}

fn allowed(descriptors: Option<u64>) -> usize {
    descriptors.map_or(MOST, |limit| (limit / DESCRIPTORS_EACH).min(MOST)) as usize
}

/// The way of one body past this process.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pipe: Option<Pipe>,
    off: bool,
}

/// A pipe that holds bytes of one body, or is about to.
#[derive(Debug)]
struct Pipe {
    /// `None` only while it is dropped.
    ends: Option<Ends>,
    held: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Rest {
    /// Whether bytes are on their way, so that nothing else may be written.
    pub(super) fn is_on(&self) -> bool {
        self.pipe.is_some()
    }

    /// Whether what comes for this client may go this way.
    pub(super) fn is_open(&self, down: &Conn<Io>) -> bool {
        !self.off && !down.stream().is_tls() && matches!(down.writer, BodyWriter::Length(_))
    }

    /// Passes the rest of the body on. `Ready`: what is left, if anything, is to be read.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        remote: &mut Remote,
        down: &mut Conn<Io>,
        moved: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        let Wire::H1(up) = &mut remote.wire else { return Poll::Ready(Ok(())) };
        loop {
            while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held > 0) {
                let n = ready!(pipe.poll_drain(cx, down.stream().tcp())).map_err(RelayError::Sink)?;
                down.sent(n);
                *moved += n as u64;
            }
            let pipe = self.pipe.take();
            let Some(left) = up.bulk() else { return Poll::Ready(Ok(())) };
            let Some(mut pipe) = pipe.or_else(Pipe::lend) else {
                self.off = true;
                return Poll::Ready(Ok(()));
            };
            match ready!(pipe.poll_fill(cx, up.stream().socket(), left.min(PIECE))) {
                Ok(0) => return Poll::Ready(Err(RelayError::Source(BodyError::Truncated))),
                Ok(n) => {
                    up.took_unseen(n);
                    self.pipe = Some(pipe);
                }
                Err(error) if is_impossible(&error) => {
                    ALLOWED.set(0);
                    self.off = true;
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(RelayError::Source(error.into()))),
            }
        }
    }
}

/// Whether the call is not to be had here, for a filter of system calls, say. Then bytes are read as ever.
fn is_impossible(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::PERM))
}

impl Pipe {
    /// An empty pipe, used before or new; `None`: there are enough, or no descriptors.
    fn lend() -> Option<Self> {
        let known = FREE.with_borrow_mut(Vec::pop);
        Some(Self { ends: Some(known.or_else(Ends::make)?), held: 0 })
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream, most: u64) -> Poll<io::Result<usize>> {
        let Some(Ends { write, .. }) = &self.ends else { return Poll::Ready(Ok(0)) };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        loop {
            ready!(from.poll_read_ready(cx))?;
            let pass = || Ok(splice(from, None, write, None, most, SpliceFlags::NONBLOCK)?);
            match from.try_io(Interest::READABLE, pass) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                passed => {
                    self.held = *passed.as_ref().unwrap_or(&0);
                    return Poll::Ready(passed);
                }
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(Ends { read, .. }) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            let pass = || Ok(splice(read, None, to, None, self.held, SpliceFlags::NONBLOCK)?);
            match to.try_io(Interest::WRITABLE, pass) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                passed => {
                    self.held -= *passed.as_ref().unwrap_or(&0);
                    return Poll::Ready(passed);
                }
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(ends) = self.ends.take().filter(|_| self.held == 0) {
            // A thread that is ending keeps none.
            let _ = FREE.try_with(|free| free.borrow_mut().push(ends));
        }
    }
}

impl Ends {
    fn make() -> Option<Self> {
        if MADE.get() >= ALLOWED.get() {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Not where the user has many already (/proc/sys/fs/pipe-user-pages-soft): a small one takes too little at a time.
        if fcntl_setpipe_size(&write, PIPE_BYTES).is_err() {
            ALLOWED.set(MADE.get());
            return None;
        }
        MADE.set(MADE.get() + 1);
        Some(Self { read, write })
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = MADE.try_with(|made| made.set(made.get().saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    fn counts() -> (usize, usize) {
        (FREE.with_borrow(Vec::len), MADE.get())
    }

    #[tokio::test]
    async fn a_pipe_that_holds_bytes_is_closed_and_an_empty_one_is_kept() {
        let ((mut sender, from), (to, mut receiver)) = (pair().await, pair().await);
        sender.write_all(b"hello").await.unwrap();
        let mut pipe = Pipe::lend().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &from, 3)).await.unwrap(), 3);
        drop(pipe);
        assert_eq!(counts(), (0, 0));
        let mut pipe = Pipe::lend().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &from, 3)).await.unwrap(), 2);
        assert_eq!(poll_fn(|cx| pipe.poll_drain(cx, &to)).await.unwrap(), 2);
        drop(pipe);
        assert_eq!(counts(), (1, 1));
        let mut bytes = [0; 2];
        receiver.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"lo", "what was in the first pipe is gone with it");
    }

    #[test]
    fn a_thread_has_as_many_pipes_as_leave_connections_their_descriptors() {
        assert_eq!([Some(100), Some(1024), Some(20_000), None].map(allowed), [0, 4, 78, 256]);
        ALLOWED.set(3);
        let mut lent: Vec<_> = (0..3).map_while(|_| Pipe::lend()).collect();
        assert_eq!(lent.len(), 3);
        assert!(Pipe::lend().is_none());
        lent.pop();
        assert!(Pipe::lend().is_some());
    }
}
