//! How do several fragments become one model, the same on every node?
//!
//! Listeners, routes, clusters and certificates have names, and a name stands for one thing: the oldest wins (by the creation
//! time of its object; files are older than any object), then the one whose place comes first by name, then by position. Whoever
//! loses is a problem at its own place. The result does not depend on the order of the fragments, nor of what is in them.
//!
//! What was merged before is remembered: of thousands of names, those are looked at of which a fragment has another version.

use crate::model::wanted::older;
use crate::model::{
    CertificateSpec, ClusterSpec, Keyed, ListenerSpec, Model, Origin, Problem, RouteSpec, Sorted, TlsBinding, Wanted,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

/// Merges. Everything in the model is sorted, so that equal wishes are equal models.
pub fn merge(fragments: &[Arc<Wanted>]) -> (Model, Vec<Problem>) {
    Merger::default().merge(fragments)
}

/// Merges again and again. What it gives depends on the fragments alone, never on what it merged before.
#[derive(Debug, Default)]
pub struct Merger {
    before: Vec<Arc<Wanted>>,
    model: Model,
    routes: Lost,
    clusters: Lost,
    certificates: Lost,
    /// Problems of what is not held by name: there is little of it, and it is merged as a whole.
    others: Vec<Problem>,
}

/// What the losers of a name are told, by that name.
type Lost = BTreeMap<Box<str>, Vec<Problem>>;

impl Merger {
    /// Merges. Whatever is equal to what it was is the very same.
    pub fn merge(&mut self, fragments: &[Arc<Wanted>]) -> (Model, Vec<Problem>) {
        if self.before.len() != fragments.len() {
            *self = Self { before: vec![Arc::default(); fragments.len()], ..Self::default() };
        }
        let before = std::mem::replace(&mut self.before, fragments.to_vec());
        let wanted = &mut self.model.wanted;
        ROUTES.follow((&before, fragments), &mut wanted.routes, &mut self.routes);
        CLUSTERS.follow((&before, fragments), &mut wanted.clusters, &mut self.clusters);
        CERTIFICATES.follow((&before, fragments), &mut wanted.certificates, &mut self.certificates);
        if !before.iter().zip(fragments).all(|(old, new)| same_others(old, new)) {
            self.others.clear();
            renew(&mut wanted.listeners, LISTENERS.merge(fragments.iter().map(|f| &f.listeners), &mut self.others));
            renew(&mut wanted.tls, bindings(fragments));
        }
        let lost = [&self.routes, &self.clusters, &self.certificates].into_iter().flat_map(Lost::values).flatten();
        let mut problems: Vec<Problem> = lost.chain(&self.others).cloned().collect();
        problems.sort();
        problems.dedup();
        (self.model.clone(), problems)
    }
}

fn same_others(old: &Wanted, new: &Wanted) -> bool {
    Arc::ptr_eq(&old.listeners, &new.listeners) && Arc::ptr_eq(&old.tls, &new.tls)
}

/// What is equal stays the same.
fn renew<T: PartialEq>(held: &mut Arc<[T]>, new: Vec<T>) {
    if **held != *new {
        *held = new.into();
    }
}

/// How a kind of thing says its name and where it comes from.
struct Named<T> {
    kind: &'static str,
    name: fn(&T) -> &str,
    origin: fn(&T) -> &Origin,
}

/// The same of a kind of which there are thousands.
struct Many<T: Keyed> {
    named: Named<T>,
    held: fn(&Wanted) -> &Sorted<T>,
}

const LISTENERS: Named<ListenerSpec> = Named { kind: "listener", name: |x| &x.name, origin: |x| &x.origin };
const ROUTES: Many<Arc<RouteSpec>> =
    Many { named: Named { kind: "route", name: |x| &x.name, origin: |x| &x.origin }, held: |wanted| &wanted.routes };
const CLUSTERS: Many<Arc<ClusterSpec>> = Many {
    named: Named { kind: "cluster", name: |x| &x.name, origin: |x| &x.origin },
    held: |wanted| &wanted.clusters,
};
const CERTIFICATES: Many<Arc<CertificateSpec>> = Many {
    named: Named { kind: "certificate", name: |x| &x.name, origin: |x| &x.origin },
    held: |wanted| &wanted.certificates,
};

impl<T: Clone + Debug> Named<T> {
    /// Each name once.
    fn merge<'a>(&self, all: impl Iterator<Item = &'a Arc<[T]>>, problems: &mut Vec<Problem>) -> Vec<T>
    where
        T: 'a,
    {
        let mut all: Vec<&T> = all.flat_map(|all| all.iter()).collect();
        all.sort_by(|a, b| (self.name)(a).cmp((self.name)(b)).then_with(|| older(self.origin, *a, *b)));
        let mut kept: Vec<T> = Vec::with_capacity(all.len());
        for item in all {
            match kept.last() {
                Some(winner) if (self.name)(winner) == (self.name)(item) => problems.push(self.lost(item, winner)),
                _ => kept.push(item.clone()),
            }
        }
        kept
    }

    fn lost(&self, item: &T, winner: &T) -> Problem {
        let what = format!("there is already a {} {:?}, which is older or comes first", self.kind, (self.name)(item));
        let hint = format!("it is at {}; give one of them another name", (self.origin)(winner));
        Problem::error((self.origin)(item).clone(), what, hint)
    }
}

impl<T: Keyed<Key = str> + Debug + PartialEq> Many<T> {
    /// Brings what was merged up to what the fragments are now.
    fn follow(&self, (before, now): (&[Arc<Wanted>], &[Arc<Wanted>]), merged: &mut Sorted<T>, lost: &mut Lost) {
        let pairs = || before.iter().zip(now).map(|(old, new)| ((self.held)(old), (self.held)(new)));
        let diffs: Vec<_> = pairs().flat_map(|(old, new)| old.diff(new)).collect();
        let touched: BTreeSet<&str> =
            diffs.iter().filter_map(|(old, new)| new.or(*old)).map(|item| (self.named.name)(item)).collect();
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for name in touched {
            let mut all: Vec<&T> = now.iter().flat_map(|wanted| (self.held)(wanted).all(name)).collect();
            all.sort_by(|a, b| a.among(b));
            lost.remove(name);
            if let Some((winner, losers @ [_, ..])) = all.split_first() {
                lost.insert(name.into(), losers.iter().map(|item| self.named.lost(item, winner)).collect());
            }
            let (old, new) = (merged.get(name), all.first().copied());
            if old != new {
                gone.extend(old.cloned());
                come.extend(new.cloned());
            }
        }
        merged.edit(gone, come);
    }
}

fn bindings(fragments: &[Arc<Wanted>]) -> Vec<TlsBinding> {
    let mut all: Vec<_> = fragments.iter().flat_map(|f| f.tls.iter().cloned()).collect();
    all.sort_by(|a, b| older(|binding: &TlsBinding| &binding.origin, a, b));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EndpointSpec, Fragment, Position};
    use proptest::prelude::*;

    fn cluster(name: &str, origin: Origin, port: u16) -> ClusterSpec {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        ClusterSpec::new(name, origin, vec![EndpointSpec::new(address, 1)])
    }

    fn fragment(clusters: Vec<ClusterSpec>) -> Arc<Wanted> {
        let clusters = clusters.into_iter().map(Arc::new).collect();
        Arc::new(Fragment { clusters, ..Fragment::default() }.into())
    }

    fn origin(place: &str, created: u64) -> Origin {
        Origin { created, ..Origin::of(place) }
    }

    #[test]
    fn the_oldest_wins_and_the_loser_is_told_at_its_own_place() {
        let young = fragment(vec![cluster("c", origin("a", 9), 1)]);
        let old = fragment(vec![cluster("c", origin("b", 3), 2)]);
        let (model, problems) = merge(&[young, old]);
        assert_eq!(model.wanted.clusters.get("c").unwrap().origin.place.as_ref(), "b");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].origin.place.as_ref(), "a");
        assert!(problems[0].what.contains("cluster \"c\"") && problems[0].hint.contains("at b"));
    }

    #[test]
    fn of_two_of_one_age_the_first_place_wins_then_the_first_line() {
        let at = |line| Origin::of("a").at("x", Some(Position { line, column: 1 }));
        let here = fragment(vec![cluster("c", at(7), 1), cluster("c", at(3), 2)]);
        let there = fragment(vec![cluster("c", origin("b", 0), 3)]);
        let (model, problems) = merge(&[there, here]);
        assert_eq!(model.wanted.clusters.len(), 1);
        assert_eq!(model.wanted.clusters.get("c").unwrap().endpoints[0].address.port(), 2);
        assert_eq!(problems.len(), 2);
    }

    proptest! {
        #[test]
        fn any_order_of_fragments_and_of_their_parts_gives_the_same_model(
            (first, second) in prop::collection::vec(("[a-c]", "[x-z]", 0u64..3, 1u16..4), 0..12).prop_flat_map(|all| {
                (Just(all.clone()), Just(all).prop_shuffle())
            }),
            cut in 0usize..12,
        ) {
            let build = |list: &[(String, String, u64, u16)]| {
                fragment(list.iter().map(|(name, place, age, port)| cluster(name, origin(place, *age), *port)).collect())
            };
            let cut = cut.min(second.len());
            let whole = merge(&[build(&first)]);
            let parts = merge(&[build(&second[..cut]), build(&second[cut..])]);
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn what_was_merged_before_makes_no_difference(
            rounds in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(("[a-e]", "[x-z]", 0u64..3, 1u16..4), 0..8), 2),
                1..6,
            ),
        ) {
            let mut merger = Merger::default();
            for round in rounds {
                let build = |list: &Vec<(String, String, u64, u16)>| {
                    fragment(list.iter().map(|(name, place, age, port)| cluster(name, origin(place, *age), *port)).collect())
                };
                let fragments: Vec<_> = round.iter().map(build).collect();
                prop_assert_eq!(merger.merge(&fragments), merge(&fragments));
            }
        }
    }
}
