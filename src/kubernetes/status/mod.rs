//! How do the writers of objects learn what became of them?
//!
//! One gate, the leader, writes: addresses into the status of Ingresses, annotations on routes ConfigMaps, Events on whatever has a
//! problem. What to write is decided by pure functions over plain data (`ingress`, `config_map`, `events`); here stand the
//! loops that wait, ask them and send. Each kind has its own loop and pace: five thousand Ingresses do not delay the word that an
//! edit is live.
//!
//! ```text
//!  Lease ─► leading ─┬─► gates' Leases ─► Standing ─┐
//!                    ├─► Translation, Objects ──────┴─► ingress    ─► ingresses/status
//!                    ├─► Translation, Objects, Report ► config_map ─► annotations ─► RoutesLive
//!                    └─► Report, Objects ─────────────► events     ─► Events  ◄──────────┘
//! ```

mod config_map;
mod events;
mod ingress;
mod pace;
mod place;

use super::calls::{Calls, Kind, Refusal, Written};
use super::lease::gates::Standing;
use super::lease::keeper::Keeper;
use super::lease::presence::Presence;
use super::{Connection, Learnt, SOURCE, Translated};
use crate::config::kubernetes::Settings;
use crate::lifecycle::Readiness;
use crate::message::random;
use crate::source::Report;
use crate::telemetry::{Registry, families};
use config_map::Annotator;
use events::{Event, Telling};
use ingress::Statuses;
use pace::Pace;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// How long is waited after a change for the ones that belong to it.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How many times as long as it takes to compare all Ingresses is waited before they are compared again: of thousands, that takes
/// milliseconds of the thread that publishes changes.
const RARE: u32 = 200;
/// How often everything is compared again without a change: what was put off is written then.
const TICK: Duration = Duration::from_secs(2);
/// How many objects are planned at a time; what changes while they are written counts for the next.
const ROUND: usize = 20;

/// What is looked at.
pub struct Inputs {
    /// What was watched and translated, and the way to the API server.
    pub learnt: Learnt,
    /// Who this gate is.
    pub settings: Settings,
    /// The outcome of the last publish.
    pub reports: watch::Receiver<Report>,
    /// Whether this gate is ready.
    pub readiness: Readiness,
    /// Where writes are counted.
    pub registry: Registry,
}

/// Writes until `stop` ends, then says that this gate is not ready and steps down, which takes two requests.
pub async fn run(mut inputs: Inputs, stop: impl Future<Output = ()>) {
    let (stopping, stopped) = watch::channel(false);
    let stop = async {
        stop.await;
        stopping.send_replace(true);
    };
    let mut end = stopped.clone();
    let writing = async {
        let connection = tokio::select! {
            connection = connection(&mut inputs.learnt.connection) => connection,
            _ = end.wait_for(|stop| *stop) => return,
        };
        write(&inputs, connection, stopped).await;
    };
    tokio::join!(stop, writing);
}

async fn connection(of: &mut watch::Receiver<Option<Rc<Connection>>>) -> Rc<Connection> {
    loop {
        let there = of.borrow_and_update().clone();
        match there {
            Some(connection) => return connection,
            None => changed(of).await,
        }
    }
}

async fn write(inputs: &Inputs, connection: Rc<Connection>, stopped: watch::Receiver<bool>) {
    let me = identity(&inputs.settings);
    let (lead, leading) = watch::channel(false);
    let (stand, standing) = watch::channel(None);
    let (tell, live) = mpsc::channel(64);
    let namespace = Arc::clone(connection.namespace());
    let calls = Rc::new(Calls::new(connection, &inputs.registry));
    let keeper = Keeper::new(Rc::clone(&calls), &namespace, stopped);
    let gauge = inputs.registry.gauge(&families::KUBERNETES_LEADER, &[]);
    let writer = Writer { calls, inputs, me: me.clone(), leading: leading.clone() };
    let writing = async {
        tokio::join!(
            writer.ingresses(standing),
            writer.config_maps(tell),
            writer.events(live),
            keeper.clone().watch_gates(leading, stand),
        )
    };
    let keeping =
        async { tokio::join!(keeper.clone().lead(me.clone(), lead, gauge), present(keeper.clone(), inputs, &me)) };
    tokio::select! {
        _ = writing => {}
        _ = keeping => {}
    }
}

/// Nobody else's name, also after a restart: a Lease of the process before is another's.
fn identity(settings: &Settings) -> String {
    let name = settings.pod.as_deref().or(settings.node.as_deref()).unwrap_or("tidegate");
    format!("{name}-{:08x}", random::next() >> 32)
}

async fn present(keeper: Keeper, inputs: &Inputs, me: &str) {
    let settings = &inputs.settings;
    // Without a name of its own in the cluster it is no gate of it: somebody's laptop, a test.
    let Some(name) = settings.node.as_ref().or(settings.pod.as_ref()) else { return };
    let addresses: Vec<String> = settings.addresses.iter().map(ToString::to_string).collect();
    let gate = Presence::new(me, addresses.join(","), Instant::now());
    keeper.be_present(format!("tidegate-gate-{name}"), gate, inputs.readiness.clone()).await;
}

/// The loops. Each writes only while this gate leads, and never ends.
struct Writer<'a> {
    calls: Rc<Calls>,
    inputs: &'a Inputs,
    me: String,
    leading: watch::Receiver<bool>,
}

impl Writer<'_> {
    async fn ingresses(&self, mut standing: watch::Receiver<Option<Standing>>) {
        let (mut leading, mut translations) = (self.leading.clone(), self.inputs.learnt.translations.clone());
        let (mut statuses, mut pace) = (Statuses::default(), Pace::new(20, 40));
        loop {
            until(&mut leading).await;
            let translated = translations.borrow_and_update().clone();
            let gates = standing.borrow_and_update().clone();
            let started = Instant::now();
            let changes = match (translated, gates) {
                (Some(translated), Some(gates)) => {
                    let objects = self.inputs.learnt.objects.borrow();
                    statuses.plan((&objects, &translated.translation), &gates, Instant::now(), ROUND)
                }
                _ => Vec::new(),
            };
            let took = started.elapsed();
            for change in &changes {
                sleep_until(pace.take(Instant::now())).await;
                if !*leading.borrow() {
                    break;
                }
                // What was refused is planned again after a pause, if it is still to be.
                let _ = self.calls.patch::<Written>(Kind::Ingress, &change.path(), &change.body()).await;
            }
            if changes.is_empty() {
                tokio::select! {
                    () = changed(&mut translations) => {}
                    () = changed(&mut standing) => {}
                    () = changed(&mut leading) => {}
                    () = sleep(TICK) => {}
                }
                sleep(DEBOUNCE.max(took * RARE)).await;
            }
        }
    }

    async fn config_maps(&self, tell: mpsc::Sender<Event>) {
        let (mut leading, mut translations) = (self.leading.clone(), self.inputs.learnt.translations.clone());
        let (mut reports, mut pace) = (self.inputs.reports.clone(), Pace::new(20, 40));
        loop {
            until(&mut leading).await;
            let mut annotator = Annotator::default();
            while *leading.borrow_and_update() {
                let translated = translations.borrow_and_update().clone();
                let report = reports.borrow_and_update().clone();
                let changes = match translated {
                    Some(translated) if is_live(&translated, &report) => {
                        let objects = self.inputs.learnt.objects.borrow();
                        annotator.plan((&objects, &translated.translation), &report, Instant::now())
                    }
                    _ => Vec::new(),
                };
                for change in &changes {
                    sleep_until(pace.take(Instant::now())).await;
                    if !*leading.borrow() {
                        break;
                    }
                    let answer = self.calls.patch::<Written>(Kind::ConfigMap, &change.path(), &change.body()).await;
                    if let Ok(written) = answer {
                        annotator.written(change, &written.metadata.resource_version);
                        if change.edited {
                            // Whoever edits faster than Events may be written misses some of them.
                            let _ = tell.try_send(Event::live(change));
                        }
                    }
                }
                tokio::select! {
                    () = changed(&mut translations) => {}
                    () = changed(&mut reports) => {}
                    () = changed(&mut leading) => {}
                    () = sleep(TICK) => {}
                }
                sleep(DEBOUNCE).await;
            }
        }
    }

    async fn events(&self, mut live: mpsc::Receiver<Event>) {
        let (mut leading, mut reports) = (self.leading.clone(), self.inputs.reports.clone());
        let mut pace = Pace::new(10, 40);
        loop {
            until(&mut leading).await;
            let mut telling = Telling::default();
            while *leading.borrow_and_update() {
                let problems = Arc::clone(&reports.borrow_and_update().problems);
                telling.see(&problems, Instant::now());
                let sayings = telling.plan(&self.inputs.learnt.objects.borrow(), Instant::now(), ROUND);
                for saying in &sayings {
                    sleep_until(pace.take(Instant::now())).await;
                    if !*leading.borrow() {
                        break;
                    }
                    let answer = self.say(&saying.event, saying.before).await;
                    telling.heard(saying, answer, Instant::now());
                }
                let due = telling.due().unwrap_or_else(|| Instant::now() + TICK);
                tokio::select! {
                    () = changed(&mut reports) => {}
                    () = changed(&mut leading) => {}
                    Some(event) = live.recv() => {
                        sleep_until(pace.take(Instant::now())).await;
                        let _ = self.say(&event, 0).await;
                    }
                    () = sleep_until(due) => {}
                }
            }
        }
    }

    async fn say(&self, event: &Event, before: u32) -> Result<(), Refusal> {
        let path = event.collection();
        let answer: Result<Written, Refusal> = if before == 0 {
            self.calls.create(Kind::Event, &path, &event.body(&self.me)).await
        } else {
            self.calls.patch(Kind::Event, &format!("{path}/{}", event.name()), &Event::again(before)).await
        };
        answer.map(|_| ())
    }
}

/// Whether what serves has this translation in it.
fn is_live(translated: &Translated, report: &Report) -> bool {
    report.delivered.get(SOURCE).is_some_and(|delivered| *delivered >= translated.delivery)
}

/// Waits for it to be true; for ever when nobody can say so any more.
async fn until(leading: &mut watch::Receiver<bool>) {
    if leading.wait_for(|leads| *leads).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for a change; for ever when there will be none.
async fn changed<T>(of: &mut watch::Receiver<T>) {
    if of.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
