//! Which of a route's clusters gets a request?

use super::Fault;
use crate::message::random;
use crate::model::{ValueError, WeightedCluster};
use crate::upstream::Cluster;
use std::fmt;
use std::sync::Arc;

/// Clusters by weight. There is always one to choose.
#[derive(Clone)]
pub struct Target {
    first: Arc<Cluster>,
    /// Boxed, because most of thousands of routes have one cluster.
    more: Option<Box<More>>,
}

#[derive(Clone)]
struct More {
    /// Each further cluster with the sum of the weights before it.
    others: Box<[(u64, Arc<Cluster>)]>,
    total: u64,
    /// Clusters of weight 0: they are held, so that they are known to be used, and never chosen.
    resting: Box<[Arc<Cluster>]>,
}

impl Target {
    pub(super) fn compile(
        weighted: &[WeightedCluster],
        cluster: impl Fn(&str) -> Option<Arc<Cluster>>,
    ) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut chosen = Vec::new();
        let mut resting = Vec::new();
        let mut total = 0u64;
        for entry in weighted {
            let Some(found) = cluster(&entry.cluster) else {
                faults.push(Fault::Cluster(entry.cluster.to_string()));
                continue;
            };
            if entry.weight == 0 {
                resting.push(found);
                continue;
            }
            chosen.push((total, found));
            total += u64::from(entry.weight);
        }
        if faults.is_empty() && chosen.is_empty() {
            let hint = "give at least one cluster a weight above 0";
            faults.push(Fault::Action(ValueError::new("no cluster of the route gets anything", hint)));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut chosen = chosen.into_iter();
        let Some((_, first)) = chosen.next() else { return Err(faults) };
        let more = More { others: chosen.collect(), total, resting: resting.into() };
        let only = more.others.is_empty() && more.resting.is_empty();
        Ok(Self { first, more: (!only).then(|| Box::new(more)) })
    }

    /// A cluster by weight; the only one without drawing a number.
    pub fn choose(&self) -> &Arc<Cluster> {
        match &self.more {
            None => &self.first,
            Some(more) => self.at(random::below(more.total)),
        }
    }

    fn at(&self, number: u64) -> &Arc<Cluster> {
        let others = self.more.as_ref().map_or(&[][..], |more| &more.others);
        others.iter().rev().find(|(before, _)| *before <= number).map_or(&self.first, |(_, cluster)| cluster)
    }

    /// Every cluster, those of weight 0 included.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let more = self.more.as_deref();
        let others = more.map_or(&[][..], |more| &more.others).iter().map(|(_, cluster)| cluster);
        std::iter::once(&self.first).chain(others).chain(more.map_or(&[][..], |more| &more.resting))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clusters().map(|cluster| &cluster.spec().name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::cluster;
    use super::*;

    fn target(weights: &[(&str, u32)]) -> Result<Target, Vec<Fault>> {
        let weighted: Vec<_> =
            weights.iter().map(|(n, weight)| WeightedCluster { cluster: (*n).into(), weight: *weight }).collect();
        Target::compile(&weighted, |name| (name != "none").then(|| cluster(name)))
    }

    #[test]
    fn each_cluster_gets_its_share() {
        let target = target(&[("a", 1), ("rest", 0), ("b", 2), ("c", 1)]).unwrap();
        let names: Vec<_> = (0..4).map(|n| target.at(n).spec().name.to_string()).collect();
        assert_eq!(names, ["a", "b", "b", "c"]);
        assert_eq!(target.clusters().count(), 4);
        assert!((0..200).all(|_| &*target.choose().spec().name != "rest"));
    }

    #[test]
    fn an_unknown_cluster_or_no_weight_at_all_is_a_fault() {
        assert_eq!(target(&[("a", 1), ("none", 0)]).unwrap_err(), [Fault::Cluster("none".into())]);
        assert!(matches!(target(&[("a", 0)]).unwrap_err()[..], [Fault::Action(_)]));
        assert!(target(&[]).is_err());
    }
}
