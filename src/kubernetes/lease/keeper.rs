//! When is the API server asked for Leases? The loops around [`Election`], [`Presence`] and [`Gates`]; they decide nothing.

use super::election::{self, Election};
use super::gates::{Gates, Standing};
use super::presence::{self, Presence};
use super::{DURATION, GATE_LABEL, LEADER, Record, Wire, WireList, collection};
use crate::kubernetes::calls::{Calls, Kind, Refusal, Timestamp};
use crate::lifecycle::Readiness;
use crate::telemetry::Gauge;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// How often the leader looks which gates live.
const LIST: Duration = Duration::from_secs(3);
/// How often every gate looks where the others are, if it must know.
const ADDRESSES_AGAIN: Duration = Duration::from_secs(30);

/// The Leases of one namespace.
#[derive(Clone)]
pub(in crate::kubernetes) struct Keeper {
    pub(in crate::kubernetes) calls: Rc<Calls>,
    /// Path of all Leases of the namespace.
    pub(in crate::kubernetes) path: String,
    /// Turns true when the process ends.
    pub(in crate::kubernetes) stop: watch::Receiver<bool>,
}

impl Keeper {
    /// For the Leases of a namespace.
    pub(in crate::kubernetes) fn new(calls: Rc<Calls>, namespace: &str, stop: watch::Receiver<bool>) -> Self {
        Self { calls, path: collection(namespace), stop }
    }

    /// Takes part in the election until the process ends, and then steps down.
    pub(in crate::kubernetes) async fn lead(mut self, me: String, leading: watch::Sender<bool>, gauge: Gauge) {
        let say = |leads: bool| {
            gauge.set(i64::from(leads));
            leading.send_if_modified(|was| std::mem::replace(was, leads) != leads)
        };
        let mut election = Election::new(me, Instant::now());
        loop {
            let (step, at) = election.next();
            let leads = election.leads(Instant::now());
            if say(leads) {
                tracing::info!(leads, "the leader of all gates changed");
            }
            let lapses = election.until().filter(|_| leads);
            tokio::select! {
                () = ended(&mut self.stop) => break,
                () = sleep_until(lapses.map_or(at, |lapses| at.min(lapses))) => {}
            }
            let begun = Instant::now();
            if begun < at {
                continue;
            }
            let asking = self.elect(step, election.body(LEADER));
            tokio::pin!(asking);
            let answer = tokio::select! {
                answer = &mut asking => answer,
                () = sleep_until(lapses.unwrap_or(begun)), if lapses.is_some() => {
                    say(false);
                    asking.await
                }
            };
            election.heard(begun, Instant::now(), answer);
        }
        say(false);
        if let Some(body) = election.release(Instant::now()) {
            let _ = self.write(LEADER, &body).await;
        }
    }

    async fn elect(&self, step: election::Step, body: Value) -> Result<Record, Refusal> {
        match step {
            election::Step::Look => self.look(LEADER).await,
            election::Step::Create => self.create(&body).await,
            election::Step::Claim | election::Step::Renew => self.write(LEADER, &body).await,
        }
    }

    /// Says whether this gate is ready until the process ends, and then that it is not.
    pub(in crate::kubernetes) async fn be_present(mut self, name: String, mut gate: Presence, readiness: Readiness) {
        loop {
            let ready = readiness.is_ready() && !*self.stop.borrow();
            gate.is_ready(ready, Instant::now());
            let (step, at) = gate.next();
            if *self.stop.borrow() && gate.is_done() {
                return;
            }
            tokio::select! {
                () = readiness.becomes(!ready), if !*self.stop.borrow() => continue,
                () = ended(&mut self.stop), if !*self.stop.borrow() => continue,
                () = sleep_until(at), if step != presence::Step::Rest => {}
            }
            let answer = match step {
                presence::Step::Rest => continue,
                presence::Step::Look => self.look(&name).await,
                presence::Step::Create => self.create(&gate.body(&name)).await,
                presence::Step::Write => self.write(&name, &gate.body(&name)).await,
            };
            gate.heard(Instant::now(), answer);
        }
    }

    /// While this gate leads, says which gates there are; `None`: it does not lead, or cannot know.
    pub(in crate::kubernetes) async fn watch_gates(
        self,
        mut leading: watch::Receiver<bool>,
        standing: watch::Sender<Option<Standing>>,
    ) {
        let say = |now: Option<Standing>| {
            standing.send_if_modified(|was| {
                let changed = *was != now;
                *was = now;
                changed
            });
        };
        while leading.wait_for(|leads| *leads).await.is_ok() {
            let mut gates = Gates::default();
            let mut listed = Instant::now();
            while *leading.borrow_and_update() {
                let asked = Instant::now();
                match self.list().await {
                    Ok(records) => {
                        listed = asked;
                        gates.listed(records, asked);
                        say(Some(gates.standing(asked)));
                        self.forget(&mut gates, asked).await;
                    }
                    // Who did not look cannot say that a gate is dead.
                    Err(_) if asked >= listed + DURATION / 2 => {
                        gates = Gates::default();
                        say(None);
                    }
                    Err(_) => {}
                }
                tokio::select! {
                    _ = leading.changed() => {}
                    () = sleep(LIST) => {}
                }
            }
            say(None);
        }
    }

    /// Says again and again at which addresses there are gates, dead ones too; where nobody answers, what was known holds.
    pub(in crate::kubernetes) async fn tell_addresses(self, told: watch::Sender<Option<BTreeSet<IpAddr>>>) {
        loop {
            if let Ok(records) = self.list().await {
                told.send_replace(Some(records.iter().flat_map(Record::read_addresses).collect()));
            }
            let known = told.borrow().is_some();
            sleep(if known { ADDRESSES_AGAIN } else { LIST }).await;
        }
    }

    /// Deletes the Leases of gates that are gone for good.
    async fn forget(&self, gates: &mut Gates, now: Instant) {
        for (name, version) in gates.forgotten(now, Timestamp::now()) {
            let path = format!("{}/{name}", self.path);
            // Later again: nothing depends on it, and an API server that is slow must not keep us from looking who lives.
            if self.calls.delete(Kind::Lease, &path, &version).await.is_err() {
                return;
            }
            tracing::info!(lease = name, "the gate is gone for good, and its Lease with it");
        }
    }

    async fn look(&self, name: &str) -> Result<Record, Refusal> {
        let path = format!("{}/{name}", self.path);
        self.calls.read::<Wire>(Kind::Lease, &path).await.map(Record::from)
    }

    async fn create(&self, body: &Value) -> Result<Record, Refusal> {
        self.calls.create::<Wire>(Kind::Lease, &self.path, body).await.map(Record::from)
    }

    async fn write(&self, name: &str, body: &Value) -> Result<Record, Refusal> {
        let path = format!("{}/{name}", self.path);
        self.calls.patch::<Wire>(Kind::Lease, &path, body).await.map(Record::from)
    }

    async fn list(&self) -> Result<Vec<Record>, Refusal> {
        let path = format!("{}?labelSelector={}", self.path, GATE_LABEL.replace('/', "%2F"));
        let list = self.calls.read::<WireList>(Kind::Lease, &path).await?;
        Ok(list.items.into_iter().map(Record::from).collect())
    }
}

/// Waits for the end of the process.
async fn ended(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
