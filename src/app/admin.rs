//! Where does the process answer operators and probes?

use super::{App, Error};
use crate::admin::{self, AdminConfig, Door, Handles};
use crate::source::Report;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How often a port that another gate holds is tried again: the gate that leaves ends within seconds to a minute.
const AGAIN: Duration = Duration::from_millis(250);

impl App {
    /// Opens the socket file and the port. Where ports are shared, a port that is taken is waited for beside all else: it
    /// belongs to one gate at a time, so that what is scraped there is never now the one and now the other.
    pub(super) async fn start_admin(
        &self,
        report: watch::Receiver<Report>,
        bound: watch::Receiver<Vec<(String, SocketAddr)>>,
    ) -> Result<Option<SocketAddr>, Error> {
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
        if let Some(path) = &self.config.admin.socket {
            let socket = admin::open_socket(path).map_err(|error| Error::AdminSocket(path.clone(), error))?;
            tracing::info!(path = %path.display(), "admin socket open");
            self.tasks.spawn_local("admin socket", self.answer(socket.into(), handles.clone())).detach();
        }
        let Some(address) = self.config.admin.address else { return Ok(None) };
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr()?;
                self.tasks.spawn_local("admin port", self.answer(listener.into(), handles)).detach();
                tracing::info!(%address, "admin port open");
                Ok(Some(address))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && self.config.share_ports => {
                tracing::info!(%address, "the admin port is another gate's; it is opened when that one leaves");
                let (config, tasks) = (self.admin_config(), self.tasks.clone());
                let later = async move {
                    match freed(address).await {
                        Ok(listener) => {
                            tracing::info!(%address, "admin port open");
                            admin::serve(listener, config, handles, tasks).await;
                        }
                        Err(error) => tracing::error!(%address, %error, "the admin port cannot be opened"),
                    }
                };
                self.tasks.spawn_passing("admin port", later).detach();
                Ok(None)
            }
            Err(error) => Err(Error::Admin(address, error)),
        }
    }

    fn answer(&self, door: Door, handles: Handles) -> impl Future<Output = ()> + use<> {
        admin::serve(door, self.admin_config(), handles, self.tasks.clone())
    }

    fn admin_config(&self) -> AdminConfig {
        AdminConfig { api: self.config.admin.api, ..AdminConfig::default() }
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
