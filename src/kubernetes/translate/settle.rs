//! What comes of each piece beside all others, and what does that change in the fragment?

use super::claims::{Affected, Claims, Settled};
use super::known::Known;
use super::outcome::Became;
use super::piece::{Owned, Owner, State};
use super::seen::News;
use super::service::Clusters;
use crate::model::{Action, Problem, RouteSpec, Sorted};
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// The pieces together, as the last translation left them.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    claims: Claims,
    pub(super) known: Known,
    pub(super) routes: Sorted<Arc<RouteSpec>>,
    pub(super) ingresses: Sorted<Became>,
    pub(super) exposed: Sorted<Became>,
    /// Pieces of which something is wrong.
    pub(super) troubled: Affected,
}

/// What the collections gain and lose.
#[derive(Default)]
struct Edits {
    routes: (Vec<Arc<RouteSpec>>, Vec<Arc<RouteSpec>>),
    ingresses: (Vec<Became>, Vec<Became>),
    exposed: (Vec<Became>, Vec<Became>),
}

impl Settlement {
    /// Takes in what is different. Whether problems are others now.
    pub(super) fn follow(&mut self, news: &News, services: &BTreeSet<String>, clusters: &Clusters<'_>) -> bool {
        let mut affected = Affected::new();
        self.claims.follow(&news.gone, &news.come, &mut affected);
        self.known.renew(services, clusters, &mut affected);
        for owned in &news.gone {
            affected.remove(&Rc::as_ptr(owned));
        }
        let (mut edits, mut troubles) = (Edits::default(), false);
        for owned in affected.values() {
            troubles |= self.judge(owned, clusters, &mut edits);
        }
        for owned in &news.gone {
            edits.became(owned).into_iter().for_each(|edits| edits.0.push(Became::of(owned)));
            let state = owned.state.take();
            names(&state.routes).into_iter().for_each(|name| self.known.release(name, owned));
            edits.routes.0.extend(state.routes);
            troubles |= self.troubled.remove(&Rc::as_ptr(owned)).is_some();
        }
        self.routes.edit(edits.routes.0, edits.routes.1);
        self.ingresses.edit(edits.ingresses.0, edits.ingresses.1);
        self.exposed.edit(edits.exposed.0, edits.exposed.1);
        self.known.finish() || troubles
    }

    /// Finds out what comes of a piece. Whether something is wrong with it, or was.
    fn judge(&mut self, owned: &Rc<Owned>, clusters: &Clusters<'_>, edits: &mut Edits) -> bool {
        let settled = self.claims.settle(owned);
        let wanted = names(&settled.routes);
        wanted.iter().for_each(|name| self.known.take(name, owned, clusters));
        let new = self.state(owned, settled);
        let before = Became::of(owned);
        let old = owned.state.replace(new);
        let state = owned.state.borrow();
        let kept = names(&state.routes);
        let released = names(&old.routes).into_iter().filter(|name| !kept.contains(name));
        released.for_each(|name| self.known.release(name, owned));
        let (gone, come) = different(&old.routes, &state.routes);
        edits.routes.0.extend(gone);
        edits.routes.1.extend(come);
        if let Some(edits) = edits.became(owned) {
            edits.0.push(before);
            edits.1.push(Became::of(owned));
        }
        let wrong = !(owned.piece().problems.is_empty() && state.problems.is_empty());
        let was = match wrong {
            true => self.troubled.insert(Rc::as_ptr(owned), Rc::clone(owned)),
            false => self.troubled.remove(&Rc::as_ptr(owned)),
        };
        wrong || was.is_some()
    }

    fn state(&self, owned: &Owned, settled: Settled) -> State {
        let Settled { routes, lost, mut problems } = settled;
        let mut accepted = 0;
        for route in &routes {
            let before = problems.len();
            let faults = forwards(route).filter_map(|name| self.known.fault(name));
            problems
                .extend(faults.map(|(what, hint)| Problem::error(route.origin.clone(), what.clone(), hint.clone())));
            accepted += usize::from(problems.len() == before);
        }
        let refused = owned.piece().refused + lost + routes.len() - accepted;
        State { routes: routes.into_iter().collect(), problems, accepted, refused }
    }
}

impl Edits {
    /// What became of a ConfigMap is found out of all of its texts together.
    fn became(&mut self, owned: &Owned) -> Option<&mut (Vec<Became>, Vec<Became>)> {
        match owned.owner {
            Owner::Service => Some(&mut self.exposed),
            Owner::Ingress => Some(&mut self.ingresses),
            Owner::ConfigMap => None,
        }
    }
}

/// Clusters that a route forwards to.
fn forwards(route: &RouteSpec) -> impl Iterator<Item = &Arc<str>> {
    let all = if let Action::Forward(all) = &route.action { all.as_slice() } else { &[] };
    all.iter().map(|weighted| &weighted.cluster)
}

fn names(routes: &[Arc<RouteSpec>]) -> BTreeSet<&Arc<str>> {
    routes.iter().flat_map(|route| forwards(route)).collect()
}

/// Routes of one list that are not in the other, each way.
fn different(old: &[Arc<RouteSpec>], new: &[Arc<RouteSpec>]) -> (Vec<Arc<RouteSpec>>, Vec<Arc<RouteSpec>>) {
    let missing = |from: &[Arc<RouteSpec>], all: &[Arc<RouteSpec>]| {
        let all: HashSet<_> = all.iter().map(Arc::as_ptr).collect();
        from.iter().filter(|route| !all.contains(&Arc::as_ptr(route))).cloned().collect()
    };
    (missing(old, new), missing(new, old))
}
