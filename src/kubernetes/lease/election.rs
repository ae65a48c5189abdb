//! Which gate writes for all? The one that holds the Lease; decided here, without asking anybody or any calendar.
//!
//! A gate takes the Lease when it has itself seen it unchanged for its whole duration, by its own monotonic clock: clocks of two
//! machines are never compared. Every write is conditional on the version that was seen, so that of two that try one succeeds.
//! The holder stops leading [`LEADS`] after it *began* its last successful renewal, which is before anybody can take over.

use super::{DURATION, Fields, RENEW, Record, conditional, held_spec, jittered, new_lease};
use crate::kubernetes::calls::{Refusal, timestamp};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// How long after the begin of its last renewal a gate leads.
const LEADS: Duration = Duration::from_secs(11);
/// How often a follower looks: also the longest time without a leader after one has stepped down.
const LOOK: Duration = Duration::from_secs(2);
/// How soon something is tried again after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// What one gate knows of the election.
#[derive(Debug)]
pub(in crate::kubernetes) struct Election {
    me: String,
    seen: Option<Seen>,
    /// When the last successful write of ours began.
    held: Option<Instant>,
    step: Step,
    at: Instant,
}

#[derive(Debug)]
struct Seen {
    record: Record,
    /// Since when it has been as it is, as far as we looked.
    since: Instant,
}

/// What is asked of the API server next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kubernetes) enum Step {
    /// Read the Lease.
    Look,
    /// Make it, held by us.
    Create,
    /// Make it ours.
    Claim,
    /// Keep it ours.
    Renew,
}

impl Election {
    /// A gate of that name, which must be no other's.
    pub(in crate::kubernetes) fn new(me: impl Into<String>, now: Instant) -> Self {
        Self { me: me.into(), seen: None, held: None, step: Step::Look, at: now }
    }

    /// Whether this gate may write for all.
    pub(in crate::kubernetes) fn leads(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// Until when it leads without another renewal.
    pub(in crate::kubernetes) fn until(&self) -> Option<Instant> {
        self.held.map(|begun| begun + LEADS)
    }

    /// What is to be asked next, and when.
    pub(in crate::kubernetes) fn next(&self) -> (Step, Instant) {
        (self.step, self.at)
    }

    /// The body of that step: a new Lease, or a patch.
    pub(in crate::kubernetes) fn body(&self, name: &str) -> Value {
        let seen = self.seen.as_ref().map(|seen| &seen.record);
        let mut spec = held_spec(&self.me);
        if self.step != Step::Renew {
            spec.insert("acquireTime".into(), timestamp().into());
            spec.insert("leaseTransitions".into(), seen.map_or(0, |record| record.transitions + 1).into());
        }
        match seen {
            Some(record) if self.step != Step::Create => conditional(&record.version, Fields::new(), spec),
            _ => new_lease(name, Fields::new(), spec),
        }
    }

    /// The patch by which a leader steps down; `None`: it does not lead.
    pub(in crate::kubernetes) fn release(&self, now: Instant) -> Option<Value> {
        let record = self.seen.as_ref().filter(|_| self.leads(now)).map(|seen| &seen.record)?;
        let nobody = [("holderIdentity".to_owned(), "".into()), ("renewTime".to_owned(), timestamp().into())];
        Some(conditional(&record.version, Fields::new(), nobody.into_iter().collect()))
    }

    /// Takes in what was answered to the step that was begun at `begun`.
    pub(in crate::kubernetes) fn heard(&mut self, begun: Instant, now: Instant, answer: Result<Record, Refusal>) {
        if !self.leads(now) {
            self.held = None;
        }
        let (step, after) = match (self.step, answer) {
            (Step::Look, Ok(record)) => self.looked(record, now),
            (_, Ok(record)) => {
                self.observe(record, now);
                self.held = Some(begun);
                (Step::Renew, jittered(RENEW))
            }
            (Step::Look | Step::Renew, Err(Refusal::Absent)) => {
                (self.held, self.seen) = (None, None);
                (Step::Create, Duration::ZERO)
            }
            // Perhaps by an earlier renewal of ours whose answer was lost: whoever looks, knows.
            (Step::Renew, Err(Refusal::Conflict)) => (Step::Look, Duration::ZERO),
            (Step::Renew, Err(_)) if self.held.is_some() => (Step::Renew, jittered(AGAIN)),
            (_, Err(Refusal::Forbidden)) => (Step::Look, jittered(10 * RENEW)),
            (_, Err(_)) => (Step::Look, jittered(AGAIN)),
        };
        (self.step, self.at) = (step, now + after);
    }

    fn looked(&mut self, record: Record, now: Instant) -> (Step, Duration) {
        let holder = record.holder.clone();
        // What is there now is not ours to judge from what was there before we asked.
        let since = self.observe(record, now);
        let duration = self.seen.as_ref().map_or(DURATION, |seen| seen.record.duration);
        if holder == self.me {
            let step = if self.held.is_some() { Step::Renew } else { Step::Claim };
            return (step, jittered(Duration::from_millis(100)));
        }
        self.held = None;
        let lapses = since + duration;
        if holder.is_empty() || now >= lapses {
            return (Step::Claim, Duration::ZERO);
        }
        (Step::Look, jittered(LOOK).min(lapses.saturating_duration_since(now) + Duration::from_millis(50)))
    }

    /// Since when it has been as it is.
    fn observe(&mut self, record: Record, now: Instant) -> Instant {
        let same = self.seen.as_ref().filter(|seen| seen.record.pulse() == record.pulse());
        let since = same.map_or(now, |seen| seen.since);
        self.seen = Some(Seen { record, since });
        since
    }
}

#[cfg(test)]
mod tests;
