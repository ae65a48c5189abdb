//! How do several fragments become one model, the same on every node?
//!
//! Listeners, routes, clusters and certificates have names, and a name stands for one thing: the oldest wins (by the creation
//! time of its object; files are older than any object), then the one whose place comes first by name, then by position. Whoever
//! loses is a problem at its own place. The result does not depend on the order of the fragments, nor of what is in them.

use crate::model::{
    CertificateSpec, ClusterSpec, Fragment, ListenerSpec, Model, Origin, Problem, RouteSpec, TlsBinding,
};
use std::cmp::Ordering;
use std::fmt::Debug;
use std::sync::Arc;

/// Merges. Everything in the model is sorted, so that equal wishes are equal models.
pub fn merge(fragments: &[Arc<Fragment>]) -> (Model, Vec<Problem>) {
    let mut problems = Vec::new();
    let wanted = Fragment {
        listeners: LISTENERS.merge(fragments.iter().map(|f| &f.listeners), &mut problems),
        routes: ROUTES.merge(fragments.iter().map(|f| &f.routes), &mut problems),
        tls: bindings(fragments),
        certificates: CERTIFICATES.merge(fragments.iter().map(|f| &f.certificates), &mut problems),
        clusters: CLUSTERS.merge(fragments.iter().map(|f| &f.clusters), &mut problems),
    };
    problems.sort();
    problems.dedup();
    (Model { wanted }, problems)
}

/// How a kind of thing says its name and where it comes from.
struct Named<T> {
    kind: &'static str,
    name: fn(&T) -> &str,
    origin: fn(&T) -> &Origin,
}

const LISTENERS: Named<ListenerSpec> = Named { kind: "listener", name: |x| &x.name, origin: |x| &x.origin };
const ROUTES: Named<Arc<RouteSpec>> = Named { kind: "route", name: |x| &x.name, origin: |x| &x.origin };
const CERTIFICATES: Named<CertificateSpec> = Named { kind: "certificate", name: |x| &x.name, origin: |x| &x.origin };
const CLUSTERS: Named<Arc<ClusterSpec>> = Named { kind: "cluster", name: |x| &x.name, origin: |x| &x.origin };

impl<T: Clone + Debug> Named<T> {
    /// Each name once.
    fn merge<'a>(&self, all: impl Iterator<Item = &'a Vec<T>>, problems: &mut Vec<Problem>) -> Vec<T>
    where
        T: 'a,
    {
        let mut all: Vec<&T> = all.flatten().collect();
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

/// The oldest, then the place, then the position in it; the content itself settles what is left.
fn older<T: Debug>(origin: fn(&T) -> &Origin, a: &T, b: &T) -> Ordering {
    let (x, y) = (origin(a), origin(b));
    x.created.cmp(&y.created).then_with(|| x.cmp(y)).then_with(|| format!("{a:?}").cmp(&format!("{b:?}")))
}

fn bindings(fragments: &[Arc<Fragment>]) -> Vec<TlsBinding> {
    let mut all: Vec<TlsBinding> = fragments.iter().flat_map(|f| f.tls.iter().cloned()).collect();
    all.sort_by(|a, b| older(|binding: &TlsBinding| &binding.origin, a, b));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EndpointSpec, Position};
    use proptest::prelude::*;

    fn cluster(name: &str, origin: Origin, port: u16) -> ClusterSpec {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        ClusterSpec::new(name, origin, vec![EndpointSpec::new(address, 1)])
    }

    fn fragment(clusters: Vec<ClusterSpec>) -> Arc<Fragment> {
        let clusters = clusters.into_iter().map(Arc::new).collect();
        Arc::new(Fragment { clusters, ..Fragment::default() })
    }

    fn origin(place: &str, created: u64) -> Origin {
        Origin { created, ..Origin::of(place) }
    }

    #[test]
    fn the_oldest_wins_and_the_loser_is_told_at_its_own_place() {
        let young = fragment(vec![cluster("c", origin("a", 9), 1)]);
        let old = fragment(vec![cluster("c", origin("b", 3), 2)]);
        let (model, problems) = merge(&[young, old]);
        assert_eq!(model.wanted.clusters[0].origin.place.as_ref(), "b");
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
        assert_eq!(model.wanted.clusters[0].endpoints[0].address.port(), 2);
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
    }
}
