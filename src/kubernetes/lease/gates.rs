//! At which addresses is there a gate that takes traffic, as far as the leader can know?
//!
//! A gate is alive when its Lease was renewed within its duration by the leader's own clock. A leader that has just begun has
//! seen each Lease once and cannot know which are kept alive: those gates are in doubt, and what was published of them stays.

use super::{DURATION, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tokio::time::Instant;

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
}

impl Gate {
    fn of(record: &Record, old: Option<Self>, made: bool, now: Instant) -> Self {
        let (holder, renewed, transitions) = record.pulse();
        let pulse = (holder.to_owned(), renewed.to_owned(), transitions);
        let addresses = record.addresses().split(',').filter_map(|a| a.trim().parse().ok()).collect();
        let (since, renewed) = match old {
            Some(old) if old.pulse == pulse => (old.since, old.renewed),
            Some(_) => (now, true),
            None => (now, made),
        };
        Self { pulse, since, renewed, ready: record.is_ready(), addresses }
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
    fn addresses_that_are_none_are_left_out() {
        let (mut gates, now) = (Gates::default(), Instant::now());
        gates.listed(vec![gate("a", "node-1,,192.0.2.1", true, 1)], now);
        assert_eq!(texts(&gates.standing(now).doubtful), ["192.0.2.1"]);
    }
}
