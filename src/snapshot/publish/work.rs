//! What is compiled for a wish, if anything?

use super::Publisher;
use crate::model::{ClusterSpec, Model, Problem};
use crate::snapshot::compile::same_but_endpoints;
use crate::snapshot::{Snapshot, small};
use crate::telemetry::metrics::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl Publisher {
    /// What is to be compiled for a model, if anything.
    pub(super) fn work(&self, model: &Model) -> Option<Work> {
        let same = |last: &Model| last == model || only_endpoints_differ(last, model);
        let (previous, registry) = (self.shared.full(), self.registry.clone());
        let work = Work { model: model.clone(), previous, registry, compile: self.compile };
        (!self.last.as_ref().is_some_and(same)).then_some(work)
    }
}

pub(super) type Compile = fn(&Model, &Snapshot, &Registry) -> (Snapshot, Vec<Problem>);

/// What is compiled from what.
pub(super) struct Work {
    model: Model,
    previous: Arc<Snapshot>,
    registry: Registry,
    compile: Compile,
}

/// What came of it.
pub(super) struct Compiled {
    pub(super) snapshot: Snapshot,
    pub(super) problems: Vec<Problem>,
    pub(super) took: Duration,
}

impl Work {
    /// Whether nothing else has to wait long for it.
    pub(super) fn is_small(&self) -> bool {
        small::is_small(&self.model, &self.previous)
    }

    pub(super) fn run(self) -> Compiled {
        let started = Instant::now();
        let (snapshot, problems) = (self.compile)(&self.model, &self.previous, &self.registry);
        Compiled { snapshot, problems, took: started.elapsed() }
    }
}

fn only_endpoints_differ(a: &Model, b: &Model) -> bool {
    let (a, b) = (&a.wanted, &b.wanted);
    let alike = |(x, y): (Option<&Arc<ClusterSpec>>, Option<&Arc<ClusterSpec>>)| {
        x.zip(y).is_some_and(|(x, y)| x.origin == y.origin && same_but_endpoints(x, y))
    };
    a.routes == b.routes
        && a.clusters.diff(&b.clusters).into_iter().all(alike)
        && a.listeners == b.listeners
        && a.tls == b.tls
        && a.certificates == b.certificates
}
