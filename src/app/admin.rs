//! Where does the process answer operators and probes?
//!
//! On a thread of its own: no scrape delays a request, and no compile of a large configuration delays a probe.

use super::{App, Error};
use crate::admin::{self, AdminConfig, Door, Handles};
use crate::config::Admin;
use crate::lifecycle::Tasks;
use crate::source::Report;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

/// How often a port that another gate holds is tried again: the gate that leaves ends within seconds to a minute.
const AGAIN: Duration = Duration::from_millis(250);

/// The thread that answers, until this is dropped; `None`: nothing was to be opened.
#[derive(Debug)]
pub(super) struct Answering(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Drop for Answering {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.0.take() else { return };
        drop(stop);
        if thread.join().is_err() {
            tracing::error!("the admin thread had panicked");
        }
    }
}

impl App {
    /// Opens the socket file and the port, and says where the port is.
    pub(super) async fn start_admin(
        &self,
        report: watch::Receiver<Report>,
        bound: watch::Receiver<Vec<(String, SocketAddr)>>,
    ) -> Result<(Option<SocketAddr>, Answering), Error> {
        let handles = Handles {
            registry: self.registry.clone(),
            readiness: self.readiness.clone(),
            log: self.log.clone(),
            connections: self.connections.clone(),
            shared: self.shared.clone(),
            report,
            bound,
            drain: None,
        };
        let wanted = self.config.admin.clone();
        if wanted.address.is_none() && wanted.socket.is_none() {
            return Ok((None, Answering(None)));
        }
        let desk = Desk { wanted, share_ports: self.config.share_ports, handles, tasks: self.tasks.clone() };
        desk.start().await
    }
}

/// What the thread opens, and answers with.
struct Desk {
    wanted: Admin,
    share_ports: bool,
    handles: Handles,
    tasks: Tasks,
}

impl Desk {
    async fn start(self) -> Result<(Option<SocketAddr>, Answering), Error> {
        let (opened, told) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("admin".into()).spawn(move || self.run(opened, stopped))?;
        let answering = Answering(Some((stop, thread)));
        match told.await {
            Ok(outcome) => Ok((outcome?, answering)),
            Err(_) => Err(Error::Task("admin port".into())),
        }
    }

    fn run(self, opened: oneshot::Sender<Result<Option<SocketAddr>, Error>>, stopped: oneshot::Receiver<()>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(opened.send(Err(error.into()))),
        };
        LocalSet::new().block_on(&runtime, async move {
            let outcome = self.open().await;
            let fine = outcome.is_ok();
            if opened.send(outcome).is_ok() && fine {
                let _ = stopped.await;
            }
        });
    }

    /// Where ports are shared, a port that is taken is waited for beside all else: it belongs to one gate at a time, so that what
    /// is scraped there is never now the one and now the other.
    async fn open(self) -> Result<Option<SocketAddr>, Error> {
        if let Some(path) = &self.wanted.socket {
            let socket = admin::open_socket(path).map_err(|error| Error::AdminSocket(path.clone(), error))?;
            tracing::info!(path = %path.display(), "admin socket open");
            self.tasks.spawn_local("admin socket", self.answer(socket.into())).detach();
        }
        let Some(address) = self.wanted.address else { return Ok(None) };
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr()?;
                self.tasks.spawn_local("admin port", self.answer(listener.into())).detach();
                tracing::info!(%address, "admin port open");
                Ok(Some(address))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && self.share_ports => {
                tracing::info!(%address, "the admin port is another gate's; it is opened when that one leaves");
                self.tasks.clone().spawn_passing("admin port", self.answer_later(address)).detach();
                Ok(None)
            }
            Err(error) => Err(Error::Admin(address, error)),
        }
    }

    async fn answer_later(self, address: SocketAddr) {
        match freed(address).await {
            Ok(listener) => {
                tracing::info!(%address, "admin port open");
                self.answer(listener.into()).await;
            }
            Err(error) => tracing::error!(%address, %error, "the admin port cannot be opened"),
        }
    }

    fn answer(&self, door: Door) -> impl Future<Output = ()> + use<> {
        let config = AdminConfig { api: self.wanted.api, ..AdminConfig::default() };
        admin::serve(door, config, self.handles.clone(), self.tasks.clone())
    }
}

/// The port, as soon as nobody has it.
async fn freed(address: SocketAddr) -> io::Result<TcpListener> {
    loop {
        tokio::time::sleep(AGAIN).await;
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
}
