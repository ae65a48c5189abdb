//! Who has a host and path, when several objects want it?
//!
//! The oldest object, then the one that comes first by namespace and name: the same on every gate, and not changed by an edit of
//! either. Objects of several namespaces may share a host, as long as they take different paths of it: a team that must not
//! take paths of another's host has to be kept from it by admission, because Ingress knows no owner of a host. Only routes that
//! take every request of a host and path exclude each other; those with further conditions stand side by side, and the compiler
//! warns of what is hidden. The default backend of an Ingress comes last whatever its age.

use super::piece::Owned;
use crate::model::{HostPattern, PathMatch, Problem, RouteSpec};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::sync::Arc;

/// What is left of each piece's routes.
pub(super) struct Settled {
    /// The routes, each with the number of its piece.
    pub(super) routes: Vec<(usize, Arc<RouteSpec>)>,
    /// Routes that lost everything, by the number of their piece.
    pub(super) lost: Vec<usize>,
    /// What the losers are told.
    pub(super) problems: Vec<Problem>,
}

/// Rank of a claim: default backends last, then the piece, then the place in it.
type Rank = (bool, usize, usize);
/// A host, whether the path is exact, and the path without its last slash.
type Claimed<'a> = (&'a HostPattern, bool, &'a str);

/// Gives each host and path to one object; of the pieces the first wins.
pub(super) fn settle(pieces: &[Owned<'_>]) -> Settled {
    let claims = || {
        pieces.iter().enumerate().flat_map(|(number, owned)| {
            let piece = owned.piece;
            let routes = piece.fragment.routes.iter().enumerate().map(move |(at, r)| ((false, number, at), r));
            routes.chain(piece.fallback.iter().map(move |r| ((true, number, 0), r)))
        })
    };
    let mut owners: HashMap<Claimed<'_>, Rank> = HashMap::new();
    for (rank, route) in claims() {
        for host in claimed(route) {
            match owners.entry((host, exact(route), path(route))) {
                Entry::Occupied(mut owner) => *owner.get_mut() = rank.min(*owner.get()),
                Entry::Vacant(free) => drop(free.insert(rank)),
            }
        }
    }
    let mut settled = Settled { routes: Vec::new(), lost: Vec::new(), problems: Vec::new() };
    for (rank, route) in claims() {
        let taken =
            |host: &HostPattern| owners.get(&(host, exact(route), path(route))).copied().filter(|owner| *owner != rank);
        let losses: Vec<_> = claimed(route).filter_map(|host| Some((host, taken(host)?))).collect();
        settled.judge(pieces, rank, route, &losses);
    }
    settled
}

impl Settled {
    fn judge(&mut self, pieces: &[Owned<'_>], rank: Rank, route: &Arc<RouteSpec>, losses: &[(&HostPattern, Rank)]) {
        let (fallback, number, _) = rank;
        for (host, owner) in losses {
            // An Ingress that says itself what takes everything has no use for its default backend there.
            if !(fallback && owner.1 == number) {
                let place = pieces.get(owner.1).map(ToString::to_string).unwrap_or_default();
                self.problems.push(lost(route, host, &place, fallback));
            }
        }
        if losses.is_empty() {
            self.routes.push((number, Arc::clone(route)));
        } else if losses.len() < route.hosts.len() {
            let keeps = |host: &&HostPattern| losses.iter().all(|(lost, _)| lost != host);
            let hosts = route.hosts.iter().filter(keeps).cloned().collect();
            self.routes.push((number, Arc::new(RouteSpec { hosts, ..RouteSpec::clone(route) })));
        } else if !(fallback && losses.iter().all(|(_, owner)| owner.1 == number)) {
            self.lost.push(number);
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
fn claimed(route: &RouteSpec) -> impl Iterator<Item = &HostPattern> {
    const ANY: &[HostPattern] = &[HostPattern::Any];
    let matches = &route.matches;
    let plain = route.listeners.is_empty()
        && matches.methods.is_empty()
        && matches.headers.is_empty()
        && matches.query.is_empty()
        && matches.sources.is_empty()
        && !matches!(matches.path, PathMatch::Regex(_));
    let hosts: &[HostPattern] = match (plain, route.hosts.as_slice()) {
        (false, _) => &[],
        (true, []) => ANY,
        (true, hosts) => hosts,
    };
    // A host that stands there twice is claimed once.
    hosts.iter().enumerate().filter(|(at, host)| !hosts.iter().take(*at).any(|h| h == *host)).map(|(_, host)| host)
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
