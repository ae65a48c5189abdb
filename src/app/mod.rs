//! How are the rooms built, wired, started and stopped? The composition root: every room is built here, in the order of the code.
//!
//! Threads: this one is the control thread (sources, publisher, health checks, listeners' sockets); one more for each worker;
//! one for the admin port; one for the access log.

mod admin;
mod sockets;
mod sources;
mod stop;
mod worker;

pub use stop::Ended;

use crate::config::{Access, AccessFormat, Config, LogFormat};
use crate::lifecycle::{Drain, Draining, Ending, Readiness, ReadinessGuard, Signal, Signals, Tasks};
use crate::listener::{self, Bound, Capacity, Listeners, Settings, Wiring};
use crate::proxy::Parts;
use crate::snapshot::{ListenerSnapshot, Shared};
use crate::source::Report;
use crate::telemetry::access_log::{AccessLog, AccessLogConfig, Output, Writer};
use crate::telemetry::{Connections, Format, Log, Registry, families, log};
use sockets::Sockets;
use sources::Reload;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::LocalSet;
use worker::Workers;

/// Why the process could not start.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("the log cannot be set up: {0}")]
    Log(#[from] log::LogError),
    #[error("the access log cannot be opened")]
    AccessLog(#[source] io::Error),
    #[error("the admin port {0} cannot be opened; choose another by admin.address or --admin")]
    Admin(SocketAddr, #[source] io::Error),
    #[error("the admin socket {} cannot be opened; choose another by admin.socket", .0.display())]
    AdminSocket(PathBuf, #[source] io::Error),
    #[error("threads or signals cannot be set up")]
    Io(#[from] io::Error),
    #[error("no listener could be opened: see the problems above")]
    NoListener,
    #[error("task {0} ended, without which the process is of no use")]
    Task(String),
}

/// What is told once everything is open.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Listeners and where they are bound.
    pub listeners: Vec<Bound>,
    /// The admin port.
    pub admin: Option<SocketAddr>,
}

/// Runs until a signal ends it. `opened` is called once, when traffic is taken.
pub fn run(config: Config, opened: impl FnOnce(&Opened)) -> Result<Ended, Error> {
    let log = start_log(&config)?;
    let nofile = listener::limits::raise_nofile();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        workers = config.worker_count(),
        files = nofile.now,
        "starting"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (app, ending) = App::build(config, log, nofile.now)?;
    let ended = LocalSet::new().block_on(&runtime, app.serve(ending, opened));
    // What is read or compiled at this moment is of no use any more, and not waited for.
    runtime.shutdown_background();
    ended
}

fn start_log(config: &Config) -> Result<Log, Error> {
    let wanted = &config.telemetry.log;
    let format = match wanted.format {
        LogFormat::Text => log::LogFormat::Text,
        LogFormat::Json => log::LogFormat::Json,
    };
    Ok(Log::start(format, wanted.level.parse().unwrap_or_default())?)
}

/// Everything that was built, before it runs.
struct App {
    config: Config,
    log: Log,
    registry: Registry,
    readiness: Readiness,
    drain: Drain,
    draining: Draining,
    shared: Shared,
    connections: Connections,
    access_log: AccessLog,
    writer: Option<Writer>,
    capacity: Arc<Capacity>,
    tasks: Tasks,
}

/// What the control loop listens to.
struct Control {
    sockets: Sockets,
    report: watch::Receiver<Report>,
    reload: Reload,
    signals: Signals,
    ending: Ending,
    ready: Option<ReadinessGuard>,
    status: Option<sources::Status>,
}

impl App {
    fn build(config: Config, log: Log, nofile: u64) -> Result<(Self, Ending), Error> {
        let workers = config.worker_count();
        let registry = Registry::new(workers, config.telemetry.metrics.max_series as usize);
        let (access_log, writer) = start_access_log(&config, &registry)?;
        let (drain, draining) = Drain::new();
        let (tasks, ending) = Tasks::new();
        registry.gauge(&families::WORKERS, &[]).set(i64::try_from(workers).unwrap_or(i64::MAX));
        let by_files = nofile.saturating_sub(u64::from(config.limits.admin_reserve)) / 2;
        let limit = usize::try_from(by_files).unwrap_or(usize::MAX).min(config.limits.connections as usize);
        let app = Self {
            config,
            log,
            registry,
            readiness: Readiness::new(),
            drain,
            draining,
            shared: Shared::default(),
            connections: Connections::new(workers),
            access_log,
            writer,
            capacity: Capacity::new(limit.max(1)),
            tasks,
        };
        Ok((app, ending))
    }

    async fn serve(self, ending: Ending, opened: impl FnOnce(&Opened)) -> Result<Ended, Error> {
        let signals = Signals::listen()?;
        let ready = Some(self.readiness.guard("first configuration and listeners"));
        let (reload, reloads) = Reload::new();
        let (report, status, problems) = self.start_sources(reloads);
        let (bound, bound_reader) = watch::channel(Vec::new());
        let (admin, answering) = self.start_admin(report.clone(), bound_reader).await?;
        let wiring = Wiring {
            lookup: lookup(&self.shared),
            share_ports: self.config.share_ports,
            capacity: Arc::clone(&self.capacity),
            draining: self.draining.clone(),
            registry: self.registry.clone(),
        };
        let (listeners, inboxes) = Listeners::new(self.config.worker_count(), wiring);
        let workers = Workers::start(inboxes, &self.parts())?;
        let sockets = Sockets::new(listeners, bound, problems);
        let mut control = Control { sockets, report, reload, signals, ending, ready, status };
        let outcome = self.control(&mut control, admin, opened).await;
        let ended = stop::shut_down(self, control, workers, outcome).await;
        // Last, so that probes and scrapes see the drain to its end.
        drop(answering);
        ended
    }

    fn parts(&self) -> Parts {
        Parts {
            shared: self.shared.clone(),
            access_log: self.access_log.clone(),
            draining: self.draining.clone(),
            connections: self.connections.clone(),
            registry: self.registry.clone(),
        }
    }

    /// Follows published configurations and signals until one of them ends the process.
    async fn control(
        &self,
        control: &mut Control,
        admin: Option<SocketAddr>,
        opened: impl FnOnce(&Opened),
    ) -> Result<Signal, Error> {
        let mut opened = Some(opened);
        loop {
            tokio::select! {
                changed = control.report.changed() => {
                    if changed.is_err() {
                        return Err(Error::Task("publisher".into()));
                    }
                    let generation = control.report.borrow_and_update().generation;
                    if generation > 0 {
                        control.sockets.follow(&self.shared);
                    }
                    if control.ready.is_some() && generation > 0 {
                        let listeners = control.sockets.bound();
                        if listeners.is_empty() && !self.config.listeners.is_empty() {
                            control.sockets.problems().iter().for_each(|problem| tracing::error!("{problem}"));
                            return Err(Error::NoListener);
                        }
                        control.ready = None;
                        if let Some(opened) = opened.take() {
                            opened(&Opened { listeners, admin });
                        }
                    }
                }
                () = control.sockets.due() => control.sockets.follow(&self.shared),
                signal = control.signals.next() => match signal {
                    Signal::Reload => {
                        self.access_log.reopen();
                        control.reload.tell();
                    }
                    signal => return Ok(signal),
                },
                ended = control.ending.next() => return Err(Error::Task(ended.task.into_owned())),
            }
        }
    }
}

fn lookup(shared: &Shared) -> listener::Lookup {
    let shared = shared.clone();
    Arc::new(move |name, address| {
        let settings = |l: &Arc<ListenerSnapshot>| Settings { spec: Arc::clone(&l.spec), tls: l.tls.clone() };
        shared.load().serving(name, address).map(settings)
    })
}

fn start_access_log(config: &Config, registry: &Registry) -> Result<(AccessLog, Option<Writer>), Error> {
    let wanted = &config.telemetry.access_log;
    let format = match wanted.format {
        AccessFormat::Off => return Ok((AccessLog::off(), None)),
        AccessFormat::Json => Format::Json,
        AccessFormat::Combined => Format::Combined,
    };
    let output = match &wanted.to {
        Access::Stdout => Output::Stdout,
        Access::File(path) => Output::File(path.clone()),
    };
    let settings = AccessLogConfig { format, output, ..AccessLogConfig::default() };
    let (log, writer) = AccessLog::start(&settings, registry).map_err(Error::AccessLog)?;
    Ok((log, Some(writer)))
}

/// How long the access log may take to write what is left.
const FLUSH: Duration = Duration::from_secs(5);
