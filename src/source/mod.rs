//! Where do fragments come from, and how do several become one model?
//!
//! A source delivers whole fragments into its slot; the publisher waits for the slots it must have, merges what is there and
//! reports what became of it.

mod certificates;
pub mod file;
mod folder_watch;
pub mod grammar;
pub mod install;
pub mod memberships;
pub mod merge;
mod recording;
pub mod report;
mod reread;
mod routes_file;

pub use file::{FileSource, read_files};
pub use install::InstallSource;
pub use memberships::Memberships;
pub use merge::merge;
pub use report::{Report, Timings};

use crate::model::{Problem, Wanted};
use std::sync::Arc;
use tokio::sync::watch;

/// Where fragments come from. It runs on the control thread for as long as the process does.
pub trait Source {
    /// Delivers a fragment at the start and after each change. A source that cannot read delivers its last good content
    /// together with a problem.
    fn run(self, feed: Feed) -> impl Future<Output = ()>;
}

/// What a source delivered last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivery {
    /// What it wants.
    pub fragment: Arc<Wanted>,
    /// What of it could not be read.
    pub problems: Arc<[Problem]>,
    /// Counts what this source delivered that was new, from 1.
    pub number: u64,
}

/// The place where one source leaves what it delivers, as the publisher sees it.
#[derive(Clone, Debug)]
pub struct Slot {
    name: Arc<str>,
    required: bool,
    delivered: watch::Receiver<Option<Delivery>>,
}

/// The same place, as the source sees it.
#[derive(Debug)]
pub struct Feed {
    delivered: watch::Sender<Option<Delivery>>,
}

/// A slot and the feed that fills it. Nothing is published before every required slot was filled once.
pub fn slot(name: &str, required: bool) -> (Feed, Slot) {
    let (sender, receiver) = watch::channel(None);
    (Feed { delivered: sender }, Slot { name: name.into(), required, delivered: receiver })
}

impl Feed {
    /// Delivers; what equals the last delivery wakes nobody. The number of the delivery that stands now: it is live as soon as
    /// [`Report::delivered`] names it or a later one.
    pub fn deliver(&self, fragment: impl Into<Wanted>, problems: impl Into<Arc<[Problem]>>) -> u64 {
        let (fragment, problems) = (fragment.into(), problems.into());
        let mut number = 1;
        self.delivered.send_if_modified(|last| {
            let same = |last: &Delivery| *last.fragment == fragment && last.problems == problems;
            let changed = last.as_ref().is_none_or(|last| !same(last));
            number = last.as_ref().map_or(0, |last| last.number) + u64::from(changed);
            if changed {
                *last = Some(Delivery { fragment: Arc::new(fragment), problems, number });
            }
            changed
        });
        number
    }

    /// What was delivered last.
    pub fn last(&self) -> Option<Delivery> {
        self.delivered.borrow().clone()
    }
}

impl Slot {
    /// The source's name, for logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether nothing may be published before it was filled.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// What is there now; it counts as seen.
    pub fn take(&mut self) -> Option<Delivery> {
        self.delivered.borrow_and_update().clone()
    }

    /// Waits for something that was not seen. False when the source has ended, and then never again anything else.
    pub async fn changed(&mut self) -> bool {
        self.delivered.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fragment, Origin};

    #[tokio::test]
    async fn an_equal_delivery_wakes_nobody() {
        let (feed, mut slot) = slot("file", true);
        assert_eq!(feed.deliver(Fragment::default(), vec![]), 1);
        assert!(slot.changed().await && slot.take().is_some());
        assert_eq!(feed.deliver(Fragment::default(), vec![]), 1, "what equals the last delivery is the last delivery");
        assert!(!slot.delivered.has_changed().unwrap());
        assert_eq!(feed.deliver(Fragment::default(), vec![Problem::error(Origin::of("f"), "wrong", "")]), 2);
        assert!(slot.changed().await);
        drop(feed);
        assert!(slot.take().is_some_and(|d| d.problems.len() == 1), "what an ended source left stays");
        assert!(!slot.changed().await);
    }
}
