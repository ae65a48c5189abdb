//! How does this gate say that it lives, and whether it is ready?
//!
//! While a DaemonSet rolls with a surge, two gates run on one node. The one that became ready last speaks for the node; the
//! other one keeps silent, so that its drain does not take the node out of service. It speaks again when the newer one ends
//! or dies. Before a gate was ready for the first time it says nothing.

use super::{ADDRESSES, DURATION, GATE_LABEL, READY, RENEW, Record, conditional, held_spec, jittered, new_lease};
use crate::kubernetes::calls::Refusal;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const AGAIN: Duration = Duration::from_secs(1);

/// What this gate said last, and says next.
#[derive(Debug)]
pub(in crate::kubernetes) struct Presence {
    me: String,
    addresses: String,
    /// `None`: it never was.
    ready: Option<bool>,
    /// The Lease, as long as it is ours.
    held: Option<Record>,
    /// The Lease while it is another's, and since when it is as it is.
    other: Option<(Record, Instant)>,
    step: Step,
    at: Instant,
}

/// What is asked of the API server next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kubernetes) enum Step {
    /// Nothing.
    Rest,
    /// Read the Lease.
    Look,
    /// Make it.
    Create,
    /// Say what is so.
    Write,
}

impl Presence {
    /// A gate of that name, reached at these addresses, divided by commas.
    pub(in crate::kubernetes) fn new(me: impl Into<String>, addresses: impl Into<String>, now: Instant) -> Self {
        Self {
            me: me.into(),
            addresses: addresses.into(),
            ready: None,
            held: None,
            other: None,
            step: Step::Rest,
            at: now,
        }
    }

    /// What is to be asked next, and when.
    pub(in crate::kubernetes) fn next(&self) -> (Step, Instant) {
        (self.step, self.at)
    }

    /// Whether everything was said that has to be said before the process ends.
    pub(in crate::kubernetes) fn is_done(&self) -> bool {
        self.ready != Some(true) && self.step == Step::Rest
    }

    /// The gate became ready, or is not any more.
    pub(in crate::kubernetes) fn is_ready(&mut self, ready: bool, now: Instant) {
        if !ready && self.ready.is_none() || self.ready == Some(ready) {
            return;
        }
        self.ready = Some(ready);
        let speaks = ready || self.held.is_some();
        (self.step, self.at) = (if speaks { Step::Write } else { Step::Rest }, now);
    }

    /// The body of the next step: a new Lease, or a patch.
    pub(in crate::kubernetes) fn body(&self, name: &str) -> Value {
        let ready = if self.ready == Some(true) { "true" } else { "false" };
        let annotations = json!({ADDRESSES: self.addresses, READY: ready});
        let metadata = [("labels".to_owned(), json!({GATE_LABEL: "true"})), ("annotations".to_owned(), annotations)];
        let (metadata, spec) = (metadata.into_iter().collect(), held_spec(&self.me));
        match &self.held {
            _ if self.step == Step::Create => new_lease(name, metadata, spec),
            Some(record) => conditional(&record.version, metadata, spec),
            // Ready just now, or the other one is silent: whoever held it before, it is ours.
            None => json!({"metadata": metadata, "spec": spec}),
        }
    }

    /// Takes in what was answered to the last step.
    pub(in crate::kubernetes) fn heard(&mut self, now: Instant, answer: Result<Record, Refusal>) {
        let ready = self.ready == Some(true);
        let (step, after) = match (self.step, answer) {
            (Step::Look, Ok(record)) => self.looked(record, now),
            (_, Ok(record)) => {
                // It may have changed while the answer was on its way.
                let said = record.is_ready() == ready;
                self.held = Some(record);
                self.other = None;
                match (said, ready) {
                    (false, _) => (Step::Write, Duration::ZERO),
                    (true, true) => (Step::Write, jittered(RENEW)),
                    (true, false) => (Step::Rest, Duration::ZERO),
                }
            }
            (_, Err(Refusal::Absent)) if ready => {
                self.held = None;
                (Step::Create, Duration::ZERO)
            }
            (_, Err(Refusal::Absent)) => (Step::Rest, Duration::ZERO),
            (_, Err(Refusal::Conflict)) => (Step::Look, Duration::ZERO),
            (_, Err(Refusal::Forbidden)) => (self.step, jittered(10 * RENEW)),
            (_, Err(Refusal::Ending | Refusal::Failed)) => (self.step, jittered(AGAIN)),
        };
        (self.step, self.at) = (step, now + after);
    }

    fn looked(&mut self, record: Record, now: Instant) -> (Step, Duration) {
        if record.holder == self.me {
            self.held = Some(record);
            return (Step::Write, jittered(Duration::from_millis(100)));
        }
        self.held = None;
        if self.ready != Some(true) {
            return (Step::Rest, Duration::ZERO);
        }
        let same = self.other.as_ref().filter(|(other, _)| other.pulse() == record.pulse());
        let since = same.map_or(now, |(_, since)| *since);
        let silent = !record.is_ready() || now >= since + DURATION;
        self.other = Some((record, since));
        if silent { (Step::Write, Duration::ZERO) } else { (Step::Look, jittered(RENEW)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, ready: bool, renewed: &str) -> Record {
        let annotations = [(READY.to_owned(), ready.to_string())].into();
        Record { holder: holder.into(), version: "7".into(), renewed: renewed.into(), annotations, ..Record::default() }
    }

    fn ready_gate(now: Instant) -> Presence {
        let mut gate = Presence::new("a", "192.0.2.1,2001:db8::1", now);
        gate.is_ready(true, now);
        gate.heard(now, Ok(record("a", true, "1")));
        gate
    }

    #[test]
    fn a_gate_that_never_was_ready_says_nothing() {
        let now = Instant::now();
        let mut gate = Presence::new("a", "192.0.2.1", now);
        gate.is_ready(false, now);
        assert_eq!(gate.next().0, Step::Rest);
        assert!(gate.is_done());
    }

    #[test]
    fn a_ready_gate_makes_its_lease_with_its_addresses_and_renews_it() {
        let now = Instant::now();
        let mut gate = Presence::new("a", "192.0.2.1,2001:db8::1", now);
        gate.is_ready(true, now);
        assert_eq!(gate.next(), (Step::Write, now));
        gate.heard(now, Err(Refusal::Absent));
        assert_eq!(gate.next().0, Step::Create);
        let body = gate.body("tidegate-gate-n1");
        assert_eq!(body["metadata"]["name"], "tidegate-gate-n1");
        assert_eq!(body["metadata"]["annotations"][ADDRESSES], "192.0.2.1,2001:db8::1");
        assert_eq!(body["metadata"]["annotations"][READY], "true");
        gate.heard(now, Ok(record("a", true, "1")));
        let (step, at) = gate.next();
        assert!(step == Step::Write && at > now && at <= now + RENEW);
        assert_eq!(gate.body("l")["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn a_drain_is_said_at_once_and_then_there_is_silence() {
        let now = Instant::now();
        let mut gate = ready_gate(now);
        gate.is_ready(false, now);
        assert_eq!(gate.next(), (Step::Write, now));
        assert_eq!(gate.body("l")["metadata"]["annotations"][READY], "false");
        assert!(!gate.is_done());
        gate.heard(now, Ok(record("a", false, "2")));
        assert!(gate.is_done());
    }

    #[test]
    fn a_drain_that_begins_while_a_renewal_is_on_its_way_is_said_after_it() {
        let now = Instant::now();
        let mut gate = ready_gate(now);
        gate.is_ready(false, now);
        gate.heard(now, Ok(record("a", true, "2")));
        assert_eq!(gate.next(), (Step::Write, now));
    }

    #[test]
    fn the_older_of_two_gates_on_a_node_drains_in_silence() {
        let now = Instant::now();
        let mut gate = ready_gate(now);
        gate.is_ready(false, now);
        gate.heard(now, Err(Refusal::Conflict));
        assert_eq!(gate.next().0, Step::Look);
        gate.heard(now, Ok(record("newer", true, "2")));
        assert!(gate.is_done());
    }

    #[test]
    fn the_older_gate_speaks_again_when_the_newer_one_drains_or_dies() {
        let now = Instant::now();
        for draining in [true, false] {
            let mut gate = ready_gate(now);
            gate.heard(now, Err(Refusal::Conflict));
            gate.heard(now, Ok(record("newer", true, "2")));
            assert_eq!(gate.next().0, Step::Look);
            if draining {
                gate.heard(now, Ok(record("newer", false, "3")));
            } else {
                gate.heard(now + DURATION / 2, Ok(record("newer", true, "2")));
                assert_eq!(gate.next().0, Step::Look);
                gate.heard(now + DURATION, Ok(record("newer", true, "2")));
            }
            assert_eq!(gate.next().0, Step::Write);
        }
    }
}
