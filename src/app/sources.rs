//! Which sources are there, and how do they come to the publisher?

use super::App;
use crate::config::kubernetes::Settings;
use crate::kubernetes::{KubernetesSource, Learnt, SOURCE, status};
use crate::model::Fragment;
use crate::snapshot::Publisher;
use crate::source::{self, Feed, FileSource, InstallSource, Memberships, Report, Slot, Source};
use crate::upstream::health;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// The names of the certificates of the install configuration.
type Certificates = watch::Receiver<BTreeSet<String>>;

impl App {
    /// Starts what delivers fragments, what publishes them, and checks of each cluster that comes to serve. The feed takes what is
    /// wrong with sockets.
    pub(super) fn start_sources(&self, reloads: Reloads) -> (watch::Receiver<Report>, Option<Status>, Feed) {
        let memberships = Memberships::default();
        let (install, certificates) = self.start_install(reloads.install);
        let (sockets, of_sockets) = source::slot("sockets", false);
        // At once: a slot that is filled later has everything merged anew.
        sockets.deliver(Fragment::default(), Vec::new());
        let mut slots = vec![install, self.start_files(reloads.files), of_sockets];
        let kubernetes = self.start_kubernetes(&memberships, certificates).map(|(slot, settings, learnt)| {
            slots.push(slot);
            (settings, learnt)
        });
        let (publisher, report) = Publisher::new(self.shared.clone(), slots, self.registry.clone());
        let tasks = self.tasks.clone();
        let publisher = publisher.memberships(memberships).on_cluster(move |cluster| {
            tasks.spawn_passing("health checks", health::run(Arc::downgrade(cluster))).detach();
        });
        self.tasks.spawn_local("publisher", publisher.run()).detach();
        let wanted = kubernetes.filter(|(settings, _)| settings.status);
        let status = wanted.map(|(settings, learnt)| self.start_status(settings, learnt, report.clone()));
        (report, status, sockets)
    }

    /// What the install configuration itself wants, and the names of its certificates.
    fn start_install(&self, reloads: mpsc::Receiver<()>) -> (Slot, Certificates) {
        let (feed, slot) = source::slot("install", true);
        let install = InstallSource::new(self.config.clone(), reloads);
        let names = install.certificate_names();
        self.tasks.spawn_local("install source", install.run(feed)).detach();
        (slot, names)
    }

    fn start_files(&self, reloads: mpsc::Receiver<()>) -> Slot {
        let (feed, slot) = source::slot("files", true);
        let files = FileSource::new(self.config.routes.clone(), reloads);
        self.tasks.spawn_local("file source", files.run(feed)).detach();
        slot
    }

    fn start_kubernetes(&self, memberships: &Memberships, names: Certificates) -> Option<(Slot, Settings, Learnt)> {
        let settings = self.config.kubernetes.clone()?;
        let (feed, slot) = source::slot(SOURCE, true);
        let source = KubernetesSource::new(settings.clone(), memberships.clone(), &self.tasks, &self.registry);
        let source = source.certificate_names(names);
        let learnt = source.learnt();
        self.tasks.spawn_local("kubernetes source", source.run(feed)).detach();
        Some((slot, settings, learnt))
    }

    fn start_status(&self, settings: Settings, learnt: Learnt, reports: watch::Receiver<Report>) -> Status {
        let (readiness, registry) = (self.readiness.clone(), self.registry.clone());
        let inputs = status::Inputs { learnt, settings, reports, readiness, registry };
        let (stop, stopped) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let run = async move {
            status::run(inputs, async { drop(stopped.await) }).await;
            let _ = done.send(());
        };
        self.tasks.spawn_local("status", run).detach();
        Status { stop, ended }
    }
}

/// Who is told to read again.
#[derive(Debug)]
pub(super) struct Reload {
    install: mpsc::Sender<()>,
    files: mpsc::Sender<()>,
}

/// What each of them hears.
#[derive(Debug)]
pub(super) struct Reloads {
    install: mpsc::Receiver<()>,
    files: mpsc::Receiver<()>,
}

impl Reload {
    pub(super) fn new() -> (Self, Reloads) {
        let ((install, of_install), (files, of_files)) = (mpsc::channel(1), mpsc::channel(1));
        (Self { install, files }, Reloads { install: of_install, files: of_files })
    }

    /// Whoever has not read since the last time reads once for both.
    pub(super) fn tell(&self) {
        let _ = self.install.try_send(());
        let _ = self.files.try_send(());
    }
}

/// What writes back to the cluster.
pub(super) struct Status {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// How long the farewell may take: whoever waits for the process does not wait for the API server.
const FAREWELL: Duration = Duration::from_secs(1);

impl Status {
    /// Steps down, so that the next gate writes at once.
    pub(super) async fn end(self) {
        let _ = self.stop.send(());
        if timeout(FAREWELL, self.ended).await.is_err() {
            tracing::warn!("the cluster could not be told that this gate ends; its Leases run out");
        }
    }
}
