//! Who watches over connections at rest, and wakes them up?
//!
//! A connection that waits for long gives up its task, its timer and its registration with the runtime, a kilobyte together.
//! What is left is a place here and an entry in an epoll set of this worker's own, which the runtime watches as one thing.
//! Each worker has one.

use super::ConnectionGuard;
use super::connection;
use super::waiting::Waiting;
use crate::http1::Deadline;
use crate::message::Io;
use crate::proxy::Connection;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::TcpStream as Socket;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;

/// Events taken by one system call.
const BATCH: usize = 64;

/// The other end has gone, or has said that it sends nothing more.
const GONE: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Connections of one worker at rest.
#[derive(Debug)]
pub struct Resting {
    set: AsyncFd<OwnedFd>,
    waiting: RefCell<Waiting<Place>>,
    sooner: Notify,
}

/// A connection: what it is over, what is known of it, its place under the limits.
pub(super) struct Awake {
    pub(super) stream: Io,
    pub(super) connection: Rc<Connection>,
    pub(super) guard: ConnectionGuard,
}

/// The same at rest, in one piece; always in cleartext.
struct Place {
    socket: Socket,
    connection: Connection,
    guard: ConnectionGuard,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Resting {
    /// Nobody at rest yet. Needs a runtime with I/O.
    pub fn new() -> io::Result<Rc<Self>> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        #[expect(deprecated, reason = "for types whose descriptor may change; that of an `OwnedFd` does not")]
        let set = AsyncFd::with_interest(set, Interest::READABLE)?;
        Ok(Rc::new(Self { set, waiting: RefCell::new(Waiting::new()), sooner: Notify::new() }))
    }

    /// Watches over a connection from now on. Where that cannot be done it comes back; `None` besides: it is lost.
    pub(super) fn take(&self, awake: Awake) -> Result<(), Option<Awake>> {
        let until = awake.connection.pause.get().map_or_else(Instant::now, |pause| pause.until);
        let place = awake.rest()?;
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.next();
        let number = waiting.insert(place, until).map_err(Place::wake)?;
        let added = waiting.get(number).map_or(Ok(()), |place| {
            let data = EventData::new_u64(u64::from(number));
            epoll::add(&self.set, &place.socket, data, EventFlags::IN | EventFlags::RDHUP)
        });
        if added.is_err() {
            return Err(waiting.remove(number).and_then(Place::wake));
        }
        if waiting.next() != first {
            self.sooner.notify_one();
        }
        Ok(())
    }

    /// Wakes up whoever hears something, and ends whose time is over, until the thread ends.
    pub async fn run(self: Rc<Self>) {
        let mut limit = Deadline::until(Instant::now());
        loop {
            let next = self.waiting.borrow().next();
            next.into_iter().for_each(|next| limit.set(next));
            tokio::select! {
                biased;
                ready = self.set.readable() => if let Ok(mut ready) = ready {
                    self.hear();
                    ready.clear_ready();
                },
                () = self.sooner.notified() => {}
                () = poll_fn(|cx| limit.poll(cx)), if next.is_some() => self.end_late(),
            }
        }
    }

    /// Ends those whose listener drains. A drain lets a first request in: its client has only just connected.
    pub fn drain(self: &Rc<Self>) {
        self.hear();
        let ended = self.waiting.borrow().numbers(Place::is_to_end);
        ended.into_iter().for_each(|number| drop(self.remove(number)));
    }

    /// Wakes up all whose sockets have something to say.
    fn hear(self: &Rc<Self>) {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; BATCH];
        loop {
            let heard = match epoll::wait(&self.set, &mut events, Some(&AT_ONCE)) {
                Err(Errno::INTR) => continue,
                heard => heard.unwrap_or(0),
            };
            for event in events.iter().take(heard) {
                let (flags, data) = (event.flags, event.data);
                self.wake(u32::try_from(data.u64()).unwrap_or(u32::MAX), flags.intersects(GONE));
            }
            if heard < BATCH {
                return;
            }
        }
    }

    fn wake(self: &Rc<Self>, number: u32, gone: bool) {
        let Some(place) = self.remove(number) else { return };
        // Whoever leaves in cleartext needs no task for it.
        if gone && place.has_ended() {
            return;
        }
        if let Some(awake) = place.wake() {
            spawn_local(connection::resume(awake, Rc::clone(self)));
        }
    }

    fn end_late(self: &Rc<Self>) {
        // First those that say something, perhaps only now: they are in time.
        self.hear();
        let now = Instant::now();
        loop {
            let due = self.waiting.borrow().due(now);
            let Some(number) = due else { return };
            drop(self.remove(number));
        }
    }

    /// Takes a connection out of the set, before its socket is closed or goes back to the runtime.
    fn remove(&self, number: u32) -> Option<Place> {
        let place = self.waiting.borrow_mut().remove(number)?;
        if let Err(error) = epoll::delete(&self.set, &place.socket) {
            tracing::error!(%error, "a connection at rest was not watched");
        }
        Some(place)
    }
}

impl Awake {
    /// Takes the socket from the runtime, which holds some hundred bytes for it.
    fn rest(self) -> Result<Place, Option<Self>> {
        let Self { stream, connection, mut guard } = self;
        let connection = match Rc::try_unwrap(connection) {
            Ok(connection) => connection,
            Err(connection) => return Err(Some(Self { stream, connection, guard })),
        };
        match stream {
            Io::Tcp(stream) => match stream.into_std() {
                Ok(socket) => {
                    guard.rests(true);
                    Ok(Place { socket, connection, guard })
                }
                Err(error) => Err(lost(&connection, &error)),
            },
            stream @ Io::Tls(_) => Err(Some(Self { stream, connection: Rc::new(connection), guard })),
        }
    }
}

impl Place {
    /// Gives the socket back to the runtime.
    fn wake(self) -> Option<Awake> {
        let Self { socket, connection, mut guard } = self;
        guard.rests(false);
        match TcpStream::from_std(socket) {
            Ok(stream) => Some(Awake { stream: Io::Tcp(stream), connection: Rc::new(connection), guard }),
            Err(error) => lost(&connection, &error),
        }
    }

    fn is_to_end(&self) -> bool {
        self.connection.pause.get().is_some_and(|pause| pause.served > 0) && self.connection.is_draining()
    }

    /// Whether nothing is to be read any more before the end.
    fn has_ended(&self) -> bool {
        match self.socket.peek(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

fn lost(connection: &Connection, error: &io::Error) -> Option<Awake> {
    tracing::debug!(%error, peer = %connection.peer, "a connection was lost on its way to rest or back");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_quarter_of_what_a_task_would_be() {
        let each = Waiting::<Place>::EACH;
        assert!(each <= 272, "{each} bytes");
    }
}
