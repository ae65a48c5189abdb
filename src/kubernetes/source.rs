//! When does what was learnt become a fragment?
//!
//! At once, and where changes come faster than they are to be translated, those of some milliseconds together. Nothing is delivered
//! before every kind was listed and every Secret that is asked for is known: a gate that is ready has heard of every host there is.

use super::calls::Calls;
use super::client::Connection;
use super::hold::{Hold, spent};
use super::kinds::Kinds;
use super::lease::keeper::Keeper;
use super::names::{self, Names, Resolver};
use super::objects::Objects;
use super::secrets::Secrets;
use super::store::{Change, Store};
use super::translate::{Memory, Translation, translate};
use super::watch::Shared;
use crate::config::kubernetes::Settings;
use crate::lifecycle::{Task, Tasks};
use crate::model::{Problem, Wanted};
use crate::source::{Feed, Memberships, Source};
use crate::telemetry::{Histogram, Registry, families};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a change waits for a Secret that nothing asked for before it. Without, a host would have its route, and a TLS alert.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is said what the gate waits for before it is ready.
const REMIND: Duration = Duration::from_secs(10);

/// Routes, clusters and certificates of a cluster's objects.
pub struct KubernetesSource {
    settings: Settings,
    /// The names of the certificates of the install configuration, where they change.
    certificates: Option<watch::Receiver<BTreeSet<String>>>,
    tasks: Tasks,
    registry: Registry,
    memberships: Memberships,
    store: Rc<Store>,
    connection: watch::Sender<Option<Rc<Connection>>>,
    translations: watch::Sender<Option<Translated>>,
}

/// The slot that Kubernetes delivers into: the name that `Report::delivered` knows it by.
pub const SOURCE: &str = "kubernetes";

/// What was learnt, for those that write back.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// The way to the API server, once there is one.
    pub connection: watch::Receiver<Option<Rc<Connection>>>,
    /// What was watched; borrowed for moments only.
    pub objects: Rc<RefCell<Objects>>,
    /// The last translation, its fragment taken out; told anew too when an object has a new version that changes no translation.
    pub translations: watch::Receiver<Option<Translated>>,
}

/// A translation, and the delivery that it went into.
#[derive(Clone, Debug)]
pub struct Translated {
    /// What became of each object.
    pub translation: Rc<Translation>,
    /// It serves as soon as the report of the publisher names this delivery of [`SOURCE`], or a later one.
    pub delivery: u64,
}

impl KubernetesSource {
    /// A source that starts its watches in this group, and says here who belongs to each cluster.
    pub fn new(settings: Settings, memberships: Memberships, tasks: &Tasks, registry: &Registry) -> Self {
        Self {
            store: Rc::new(Store::new(&settings, memberships.clone())),
            settings,
            certificates: None,
            tasks: tasks.clone(),
            registry: registry.clone(),
            memberships,
            connection: watch::Sender::new(None),
            translations: watch::Sender::new(None),
        }
    }

    /// Has [`Settings::certificates`] follow these.
    #[must_use]
    pub fn certificate_names(mut self, names: watch::Receiver<BTreeSet<String>>) -> Self {
        self.settings.certificates.clone_from(&names.borrow());
        self.certificates = Some(names);
        self
    }

    /// Waits until there are others.
    async fn certificates_changed(&self) {
        let Some(mut names) = self.certificates.clone() else { return std::future::pending().await };
        if names.wait_for(|now| *now != self.settings.certificates).await.is_err() {
            // They will never change again.
            std::future::pending().await
        }
    }

    /// What this source will have learnt.
    pub fn learnt(&self) -> Learnt {
        Learnt {
            connection: self.connection.subscribe(),
            objects: Rc::clone(&self.store.objects),
            translations: self.translations.subscribe(),
        }
    }

    async fn open(&self) -> Rc<Connection> {
        let connection = Rc::new(Connection::open(&self.settings, &self.registry).await);
        self.connection.send_replace(Some(Rc::clone(&connection)));
        connection
    }

    /// Waits until every kind was listed, and says what it waits for.
    async fn listed(&self) {
        while !self.store.missing.borrow().is_empty() {
            if timeout(REMIND, self.store.changed()).await.is_err() {
                let missing: Vec<String> = self.store.missing.borrow().iter().cloned().collect();
                tracing::warn!(missing = missing.join(", "), "not ready: waiting for the API server to list these");
            }
        }
    }

    fn resolver(&self, names: watch::Receiver<Names>, connection: &Rc<Connection>) -> (Task, Option<Task>) {
        let (told, gates) = watch::channel(None);
        // Without Leases nobody can know where the others are.
        let others = if self.settings.status {
            let calls = Rc::new(Calls::new(Rc::clone(connection), &self.registry));
            let keeper = Keeper::new(calls, connection.namespace(), watch::channel(false).1);
            Some(self.tasks.spawn_local("addresses of gates", keeper.tell_addresses(told)))
        } else {
            told.send_replace(Some(BTreeSet::new()));
            None
        };
        let resolver = Resolver {
            gates,
            store: Rc::clone(&self.store),
            memberships: self.memberships.clone(),
            own: self.settings.addresses.clone(),
            names,
        };
        (self.tasks.spawn_local("external names", resolver.run()), others)
    }
}

impl Source for KubernetesSource {
    async fn run(self, feed: Feed) {
        let connection = self.open().await;
        let shared = Rc::new(Shared::new(Rc::clone(&connection)));
        let kinds = Kinds { store: &self.store, shared: &shared, tasks: &self.tasks, registry: &self.registry };
        let _watches = kinds.start(&self.settings);
        let (names, reader) = watch::channel(Names::new());
        let _resolver = self.settings.external_names.then(|| self.resolver(reader, &connection));
        self.listed().await;
        let mut work = Work {
            secrets: Secrets::new(&self.store, &shared, &self.tasks, &self.registry),
            took: self.registry.histogram(&families::KUBERNETES_TRANSLATE_DURATION, &[]),
            memory: Memory::default(),
            hold: Hold::default(),
            namespace: connection.namespace().to_string(),
            patience: None,
            delivered: false,
            source: self,
            feed,
            names,
        };
        loop {
            let held = work.turn();
            work.next(held).await;
        }
    }
}

/// Translating again and again.
struct Work {
    source: KubernetesSource,
    feed: Feed,
    secrets: Secrets,
    memory: Memory,
    hold: Hold,
    namespace: String,
    took: Histogram,
    names: watch::Sender<Names>,
    /// Until when a translation waits for its Secrets.
    patience: Option<Instant>,
    delivered: bool,
}

impl Work {
    /// Translates and delivers; gives the time until which changes are collected.
    fn turn(&mut self) -> Instant {
        let (started, before) = (Instant::now(), spent());
        let store = Rc::clone(&self.source.store);
        store.seen();
        if let Some(names) = &self.source.certificates {
            self.source.settings.certificates.clone_from(&names.borrow());
        }
        let mut translation =
            translate(&store.objects.borrow(), &self.source.settings, &self.namespace, &mut self.memory);
        self.took.observe(started.elapsed());
        self.secrets.follow(&translation.secrets);
        if !self.secrets.known() && self.may_wait() {
            return Instant::now();
        }
        self.patience = None;
        self.delivered = true;
        let fragment = std::mem::take(&mut translation.fragment);
        self.deliver(fragment, Rc::new(translation));
        self.hold.after(spent().saturating_sub(before), Instant::now())
    }

    /// Before the first delivery a Secret is waited for however long it takes.
    fn may_wait(&mut self) -> bool {
        let until = *self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
        !self.delivered || Instant::now() < until
    }

    /// Who belongs to a cluster is said before the cluster is there.
    fn deliver(&self, fragment: Wanted, translation: Rc<Translation>) {
        let store = &self.source.store;
        store.road.borrow_mut().bind(&translation, &store.slices.borrow());
        if self.source.settings.external_names {
            self.names.send_if_modified(|last| {
                let new = names::of(&translation);
                let changed = *last != new;
                *last = new;
                changed
            });
        }
        let delivery = self.feed.deliver(fragment, self.problems(&translation));
        self.source.translations.send_replace(Some(Translated { translation, delivery }));
    }

    /// What could not be translated, and what could not be read.
    fn problems(&self, translation: &Translation) -> Arc<[Problem]> {
        let unread = self.source.store.problems();
        if unread.is_empty() {
            return Arc::clone(&translation.problems);
        }
        let mut problems = [&*translation.problems, &unread].concat();
        // A name that cannot be resolved is said once for each port of its Service.
        problems.sort();
        problems.dedup();
        problems.into()
    }

    /// Waits until there is something to translate, and until `held`.
    async fn next(&self, held: Instant) {
        let patience = self.patience.filter(|_| self.delivered);
        loop {
            tokio::select! {
                change = self.source.store.changed() => match change {
                    Change::Wish => break,
                    Change::Version => self.source.translations.send_modify(|_| {}),
                },
                () = self.source.certificates_changed() => break,
                () = until(patience) => break,
                () = sleep(REMIND), if !self.delivered => {
                    tracing::warn!("not ready: waiting for the API server to say what Secrets hold");
                }
            }
        }
        // A timer of the past too may wait for the end of its millisecond.
        if held > Instant::now() {
            sleep_until(held).await;
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
