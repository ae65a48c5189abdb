//! At which addresses is there a gate that takes traffic, as far as the leader can know?
//!
//! A gate is alive when its Lease was renewed within its duration by the leader's own clock. A leader that has just begun has
//! seen each Lease once and cannot know which are kept alive: those gates are in doubt, and what was published of them stays.
//!
//! The Lease of a node that was removed would stay for ever. It may be deleted when the leader has seen no sign of life and what
//! stands in it is old too: here alone a calendar is asked, because a leader that begins must not begin to wait anew. A clock
//! that is hours wrong costs nothing but a write: a gate whose Lease is gone makes it again.

use super::{DURATION, Record};
use crate::kubernetes::calls::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How old the last sign of life in a Lease is when its gate is gone for good: longer than a machine takes to be mended or moved.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);
/// How long a leader looks at a Lease before it deletes it: until the gate is dead by its own clock, and for as long again, in
/// which its addresses are taken out of Ingresses.
const LOOKED_AT: Duration = DURATION.saturating_mul(2);
/// Leases that are deleted between two looks at all, which must not wait for long.
const AT_ONCE: usize = 5;
/// When a deletion that was refused is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// All gates that have a Lease.
#[derive(Debug, Default)]
pub(in crate::kubernetes) struct Gates {
    known: BTreeMap<String, Gate>,
    listed: bool,
}

#[derive(Debug)]
struct Gate {
    pulse: (String, String, i64),
    since: Instant,
    /// Whether it was renewed while we looked.
    renewed: bool,
    ready: bool,
    addresses: Vec<IpAddr>,
    /// resourceVersion: what changes meanwhile is not deleted.
    version: String,
    /// When it was to be deleted.
    given_up: Option<Instant>,
}

/// What of the gates is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kubernetes) struct Standing {
    /// Addresses of gates that are alive and ready.
    pub(in crate::kubernetes) live: BTreeSet<IpAddr>,
    /// Addresses of gates that say they are ready, and may be dead.
    pub(in crate::kubernetes) doubtful: BTreeSet<IpAddr>,
    /// Addresses of all gates, dead ones too.
    pub(in crate::kubernetes) all: BTreeSet<IpAddr>,
}

impl Gates {
    /// Takes in a whole list.
    pub(in crate::kubernetes) fn listed(&mut self, records: Vec<Record>, now: Instant) {
        let mut before = std::mem::take(&mut self.known);
        for record in records {
            let old = before.remove(&record.name);
            // One that was not in the list before was made while we looked; of the first list nobody knows.
            let made = self.listed && old.is_none();
            self.known.insert(record.name.clone(), Gate::of(&record, old, made, now));
        }
        self.listed = true;
    }

    /// What is known now.
    pub(in crate::kubernetes) fn standing(&self, now: Instant) -> Standing {
        let mut standing = Standing::default();
        for gate in self.known.values() {
            standing.all.extend(&gate.addresses);
            if !gate.ready || now >= gate.since + DURATION {
                continue;
            }
            let to = if gate.renewed { &mut standing.live } else { &mut standing.doubtful };
            to.extend(&gate.addresses);
        }
        standing
    }

    /// Some Leases whose gates are gone for good, each by name and version. They count as deleted for a while.
    pub(in crate::kubernetes) fn forgotten(&mut self, now: Instant, today: Timestamp) -> Vec<(String, String)> {
        let gone = |gate: &Gate| now >= gate.since + LOOKED_AT && gate.is_old(today);
        let due = |gate: &Gate| gone(gate) && gate.given_up.is_none_or(|at| now >= at + AGAIN);
        let all = self.known.iter_mut().filter(|(_, gate)| due(gate)).take(AT_ONCE);
        all.map(|(name, gate)| {
            gate.given_up = Some(now);
            (name.clone(), gate.version.clone())
        })
        .collect()
    }
}

impl Gate {
    fn of(record: &Record, old: Option<Self>, made: bool, now: Instant) -> Self {
        let (holder, renewed, transitions) = record.pulse();
        let pulse = (holder.to_owned(), renewed.to_owned(), transitions);
        let addresses = record.read_addresses().collect();
        let (since, renewed, given_up) = match old {
            Some(old) if old.pulse == pulse => (old.since, old.renewed, old.given_up),
            Some(_) => (now, true, None),
            None => (now, made, None),
        };
        Self { pulse, since, renewed, ready: record.is_ready(), addresses, version: record.version.clone(), given_up }
    }

    /// Whether what stands in it says that it was renewed long ago; what is no time says nothing.
    fn is_old(&self, today: Timestamp) -> bool {
        let (_, renewed, _) = &self.pulse;
        renewed.parse::<Timestamp>().is_ok_and(|renewed| today.duration_since(renewed) >= FORGOTTEN)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ADDRESSES, READY, RENEW};
    use super::*;

    fn gate(name: &str, address: &str, ready: bool, renewed: u32) -> Record {
        let annotations = [(ADDRESSES, address.to_owned()), (READY, ready.to_string())];
        let annotations = annotations.map(|(k, v)| (k.to_owned(), v)).into();
        Record { name: name.into(), renewed: renewed.to_string(), annotations, ..Record::default() }
    }

    fn texts(addresses: &BTreeSet<IpAddr>) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn gates_that_renew_are_live_and_those_that_stop_are_gone_after_the_duration() {
        let (mut gates, start) = (Gates::default(), Instant::now());
        gates.listed(vec![gate("a", "192.0.2.1, 2001:db8::1", true, 1), gate("b", "192.0.2.2", true, 1)], start);
        assert_eq!(texts(&gates.standing(start).live), [""; 0]);
        assert_eq!(texts(&gates.standing(start).doubtful), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let now = start + RENEW;
        gates.listed(vec![gate("a", "192.0.2.1, 2001:db8::1", true, 2), gate("b", "192.0.2.2", true, 1)], now);
        assert_eq!(texts(&gates.standing(now).live), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(texts(&gates.standing(now).doubtful), ["192.0.2.2"]);
        let standing = gates.standing(start + DURATION);
        assert_eq!(texts(&standing.live), ["192.0.2.1", "2001:db8::1"]);
        assert!(standing.doubtful.is_empty());
        assert_eq!(standing.all.len(), 3);
        assert!(gates.standing(now + DURATION).live.is_empty());
    }

    #[test]
    fn a_gate_that_is_not_ready_or_whose_lease_is_deleted_is_gone_at_once() {
        let (mut gates, now) = (Gates::default(), Instant::now());
        for renewed in 1..3 {
            gates.listed(vec![gate("a", "192.0.2.1", true, renewed), gate("b", "192.0.2.2", true, renewed)], now);
        }
        gates.listed(vec![gate("a", "192.0.2.1", false, 3)], now);
        assert!(gates.standing(now).live.is_empty() && gates.standing(now).doubtful.is_empty());
    }

    #[test]
    fn a_gate_that_comes_while_we_look_is_live_at_once() {
        let (mut gates, now) = (Gates::default(), Instant::now());
        gates.listed(vec![], now);
        gates.listed(vec![gate("a", "192.0.2.1", true, 1)], now);
        assert_eq!(texts(&gates.standing(now).live), ["192.0.2.1"]);
    }

    #[test]
    fn a_lease_that_is_old_and_was_looked_at_without_a_sign_of_life_is_forgotten_and_no_other() {
        let (mut gates, start) = (Gates::default(), Instant::now());
        let today: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let of = |name: &str, renewed: &str| Record {
            renewed: renewed.into(),
            version: format!("{name}7"),
            ..gate(name, "192.0.2.1", false, 1)
        };
        let seen = |beat: u32| {
            let alive = format!("2026-11-25T10:00:0{beat}.000000Z");
            let recent = of("recent", "2026-11-25T11:00:01.000000Z");
            // A gate whose clock is two hours behind, one that went today, and what says nothing of a time or of one to come.
            let odd = [of("odd", "yesterday"), of("none", ""), of("ahead", "2026-11-27T00:00:00Z")];
            [vec![of("gone", "2026-11-25T10:59:59.000000Z"), of("behind", &alive), recent], odd.into()].concat()
        };
        gates.listed(seen(0), start);
        assert_eq!(gates.forgotten(start, today), []);
        gates.listed(seen(1), start + DURATION);
        assert_eq!(gates.forgotten(start + DURATION, today), []);
        let now = start + LOOKED_AT;
        gates.listed(seen(2), now);
        assert_eq!(gates.forgotten(now, today), [("gone".to_owned(), "gone7".to_owned())]);
        gates.listed(seen(3), now);
        assert_eq!(gates.forgotten(now, today), [], "asked once");
        gates.listed(seen(4), now + AGAIN);
        assert_eq!(gates.forgotten(now + AGAIN, today).len(), 1, "and once more where it is still there");
    }

    #[test]
    fn of_many_old_leases_some_are_forgotten_at_once_and_the_rest_later() {
        let (mut gates, start) = (Gates::default(), Instant::now());
        let today: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let old = |n: usize| Record { renewed: "2026-11-01T00:00:00Z".into(), ..gate(&format!("g{n}"), "", false, 1) };
        gates.listed((0..AT_ONCE + 2).map(old).collect(), start);
        let now = start + LOOKED_AT;
        let counts = [(); 3].map(|()| gates.forgotten(now, today).len());
        assert_eq!(counts, [AT_ONCE, 2, 0]);
    }

    #[test]
    fn addresses_that_are_none_are_left_out() {
        let (mut gates, now) = (Gates::default(), Instant::now());
        gates.listed(vec![gate("a", "node-1,,192.0.2.1", true, 1)], now);
        assert_eq!(texts(&gates.standing(now).doubtful), ["192.0.2.1"]);
    }
}
