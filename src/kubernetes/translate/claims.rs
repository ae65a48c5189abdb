//! Who has a host and path, when several objects want it?
//!
//! The oldest object, then the one that comes first by namespace and name: the same on every gate, and not changed by an edit of
//! either. Objects of several namespaces may share a host, as long as they take different paths of it: a team that must not
//! take paths of another's host has to be kept from it by admission, because Ingress knows no owner of a host. Only routes that
//! take every request of a host and path exclude each other; those with further conditions stand side by side, and the compiler
//! warns of what is hidden. The default backend of an Ingress comes last whatever its age.
//!
//! Claims are remembered. A change of one object touches its own claims, and whoever else has one of them.

use super::piece::Owned;
use crate::model::{HostPattern, PathMatch, Problem, RouteSpec};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;

/// What is left of a piece's routes.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) routes: Vec<Arc<RouteSpec>>,
    /// Routes that lost everything.
    pub(super) lost: usize,
    /// What the losers are told.
    pub(super) problems: Vec<Problem>,
}

/// Every claim there is.
#[derive(Debug, Default)]
pub(super) struct Claims {
    hasher: DefaultHashBuilder,
    /// Who has the same claim, the winner first.
    slots: HashTable<SmallVec<[Claimant; 1]>>,
}

/// Pieces to be judged anew, by where they are in memory.
pub(super) type Affected = BTreeMap<*const Owned, Rc<Owned>>;

/// A route of a piece, and one of its hosts.
#[derive(Clone, Debug)]
struct Claimant {
    owned: Rc<Owned>,
    route: u32,
    host: u32,
}

/// A host, whether the path is exact, and the path without its last slash.
type Claimed<'a> = (&'a HostPattern, bool, &'a str);

impl Claims {
    /// Takes out and puts in what these claim, and adds whom that touches.
    pub(super) fn follow(&mut self, gone: &[Rc<Owned>], come: &[Rc<Owned>], affected: &mut Affected) {
        gone.iter().flat_map(claims).for_each(|claimant| self.remove(&claimant, affected));
        come.iter().flat_map(claims).for_each(|claimant| self.add(claimant, affected));
        affected.extend(come.iter().map(|owned| (Rc::as_ptr(owned), Rc::clone(owned))));
        for owned in gone {
            affected.remove(&Rc::as_ptr(owned));
        }
    }

    fn add(&mut self, claimant: Claimant, affected: &mut Affected) {
        let Some(claimed) = claimant.claimed() else { return };
        let hasher = &self.hasher;
        let same = |slot: &SmallVec<[Claimant; 1]>| slot.first().and_then(Claimant::claimed) == Some(claimed);
        let again = |slot: &SmallVec<[Claimant; 1]>| hasher.hash_one(slot.first().and_then(Claimant::claimed));
        match self.slots.entry(hasher.hash_one(Some(claimed)), same, again) {
            Entry::Vacant(free) => drop(free.insert(smallvec![claimant])),
            Entry::Occupied(mut slot) => {
                let slot = slot.get_mut();
                let place = slot.partition_point(|other| other.rank() < claimant.rank());
                if place == 0 {
                    affect(slot, affected);
                }
                slot.insert(place, claimant);
            }
        }
    }

    fn remove(&mut self, claimant: &Claimant, affected: &mut Affected) {
        let Some(claimed) = claimant.claimed() else { return };
        let same = |slot: &SmallVec<[Claimant; 1]>| slot.first().and_then(Claimant::claimed) == Some(claimed);
        let Ok(mut found) = self.slots.find_entry(self.hasher.hash_one(Some(claimed)), same) else { return };
        let slot = found.get_mut();
        let Some(place) = slot.iter().position(|other| other.is(claimant)) else { return };
        slot.remove(place);
        if slot.is_empty() {
            found.remove();
        } else if place == 0 {
            affect(slot, affected);
        }
    }

    /// Gives each host and path to one object, as far as this piece is concerned.
    pub(super) fn settle(&self, owned: &Rc<Owned>) -> Settled {
        let mut settled = Settled::default();
        for (place, route) in (0..owned.count()).filter_map(|place| Some((place, owned.route(place)?))) {
            let losses: Vec<_> = hosts(route).filter_map(|host| self.lost(owned, place, host)).collect();
            settled.judge(owned, (place, route), &losses);
        }
        settled
    }

    /// Who has a host of this route, if not the route itself.
    fn lost<'a>(&'a self, owned: &'a Rc<Owned>, route: usize, host: usize) -> Option<(&'a HostPattern, &'a Claimant)> {
        let claimant = Claimant::new(owned, route, host);
        let claimed = {
            let route = owned.route(route)?;
            (claimed(route).get(host)?, exact(route), path(route))
        };
        let same = |slot: &SmallVec<[Claimant; 1]>| slot.first().and_then(Claimant::claimed) == Some(claimed);
        let winner = self.slots.find(self.hasher.hash_one(Some(claimed)), same)?.first()?;
        // A host that stands there twice is claimed once.
        (!winner.is_route(&claimant)).then_some((claimed.0, winner))
    }
}

fn affect(slot: &[Claimant], affected: &mut Affected) {
    affected.extend(slot.iter().map(|other| (Rc::as_ptr(&other.owned), Rc::clone(&other.owned))));
}

fn claims(owned: &Rc<Owned>) -> impl Iterator<Item = Claimant> {
    let routes = (0..owned.count()).filter_map(|place| Some((place, owned.route(place)?)));
    routes.flat_map(move |(place, route)| hosts(route).map(move |host| Claimant::new(owned, place, host)))
}

impl Claimant {
    fn new(owned: &Rc<Owned>, route: usize, host: usize) -> Self {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self { owned: Rc::clone(owned), route: small(route), host: small(host) }
    }

    fn claimed(&self) -> Option<Claimed<'_>> {
        let route = self.owned.route(self.route as usize)?;
        Some((claimed(route).get(self.host as usize)?, exact(route), path(route)))
    }

    /// Default backends last, then the piece, then the place in it.
    fn rank(&self) -> impl Ord + '_ {
        (self.owned.is_fallback(self.route as usize), self.owned.rank(), self.route, self.host)
    }

    fn is(&self, other: &Self) -> bool {
        self.is_route(other) && self.host == other.host
    }

    fn is_route(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.owned, &other.owned) && self.route == other.route
    }
}

impl Settled {
    fn judge(
        &mut self,
        owned: &Rc<Owned>,
        (place, route): (usize, &Arc<RouteSpec>),
        losses: &[(&HostPattern, &Claimant)],
    ) {
        let fallback = owned.is_fallback(place);
        // An Ingress that says itself what takes everything has no use for its default backend there.
        let of_itself = |(_, owner): &(&HostPattern, &Claimant)| fallback && Rc::ptr_eq(&owner.owned, owned);
        for (host, owner) in losses.iter().filter(|loss| !of_itself(loss)) {
            self.problems.push(lost(route, host, &owner.owned.to_string(), fallback));
        }
        if losses.is_empty() {
            self.routes.push(Arc::clone(route));
        } else if losses.len() < route.hosts.len() {
            let keeps = |host: &&HostPattern| losses.iter().all(|(lost, _)| lost != host);
            let hosts = route.hosts.iter().filter(keeps).cloned().collect();
            self.routes.push(Arc::new(RouteSpec { hosts, ..RouteSpec::clone(route) }));
        } else if !losses.iter().all(of_itself) {
            self.lost += 1;
        }
    }
}

fn lost(route: &RouteSpec, host: &HostPattern, owner: &str, fallback: bool) -> Problem {
    let what = format!("{host}{} is taken already, by {owner}", crate::source::grammar::show_path(&route.matches.path));
    let hint = if fallback {
        "a default backend takes what nobody else wants, and the oldest one takes it"
    } else {
        "the oldest object keeps a host and path; choose another one here"
    };
    Problem::error(route.origin.clone(), what, hint)
}

/// The hosts of which a route takes every request of its path; none where it has further conditions.
fn claimed(route: &RouteSpec) -> &[HostPattern] {
    let matches = &route.matches;
    let plain = route.listeners.is_empty()
        && matches.methods.is_empty()
        && matches.headers.is_empty()
        && matches.query.is_empty()
        && matches.sources.is_empty()
        && !matches!(matches.path, PathMatch::Regex(_));
    match (plain, route.hosts.as_slice()) {
        (false, _) => &[],
        (true, []) => &[HostPattern::Any],
        (true, hosts) => hosts,
    }
}

/// Their numbers. A host that stands there twice is claimed once.
fn hosts(route: &RouteSpec) -> impl Iterator<Item = usize> {
    let all = claimed(route);
    all.iter().enumerate().filter(|(at, host)| !all.iter().take(*at).any(|h| h == *host)).map(|(at, _)| at)
}

fn exact(route: &RouteSpec) -> bool {
    matches!(route.matches.path, PathMatch::Exact(_))
}

fn path(route: &RouteSpec) -> &str {
    match &route.matches.path {
        PathMatch::Exact(path) | PathMatch::Regex(path) => path,
        PathMatch::Prefix(path) => path.strip_suffix('/').unwrap_or(path),
    }
}
