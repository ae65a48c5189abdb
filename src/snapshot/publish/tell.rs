//! What is said of a publish: to the log, in metrics, and to those who follow reports?

use super::Publisher;
use crate::model::{Problem, Severity};
use crate::source::Timings;
use std::sync::Arc;
use std::time::SystemTime;

impl Publisher {
    /// Problems from everywhere, sorted; the very list that was told last where nothing is new, so that thousands are not copied
    /// with every change.
    pub(super) fn together<'a>(&self, all: impl Iterator<Item = &'a [Problem]>) -> Arc<[Problem]> {
        let mut all: Vec<&Problem> = all.flatten().collect();
        all.sort();
        all.dedup();
        let told = Arc::clone(&self.report.borrow().problems);
        if told.iter().eq(all.iter().copied()) { told } else { all.into_iter().cloned().collect() }
    }

    pub(super) fn tell(&mut self, problems: &Arc<[Problem]>, published: Option<Timings>) {
        let generation = self.shared.load().generation;
        let told = Arc::clone(&self.report.borrow().problems);
        if !Arc::ptr_eq(&told, problems) {
            for problem in problems.iter().filter(|p| told.binary_search(p).is_err()) {
                match problem.severity {
                    Severity::Error => tracing::error!(generation, "{problem}"),
                    Severity::Warning => tracing::warn!(generation, "{problem}"),
                }
            }
            self.metrics.problems(problems);
        }
        self.metrics.publishes(published.is_some());
        if let Some(timings) = published {
            let took = timings.merge + timings.compile + timings.swap;
            self.metrics.published(generation, took);
            tracing::info!(
                generation,
                problems = problems.len(),
                took_us = took.as_micros(),
                "configuration published"
            );
        }
        self.report.send_modify(|report| {
            report.generation = generation;
            report.problems = Arc::clone(problems);
            report.delivered.clone_from(&self.delivered);
            if let Some(timings) = published {
                report.timings = timings;
                report.published_at = Some(SystemTime::now());
            }
        });
    }
}
