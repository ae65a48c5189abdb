//! How is what stands in files delivered at the start and again whenever they change?

use super::Feed;
use super::folder_watch::{Interest, POLL, Watch};
use crate::lifecycle::apart;
use crate::model::{Fragment, Origin, Problem};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// A file that has become empty is looked at again after this: whoever truncated it may be about to write it.
const DOUBT: Duration = Duration::from_millis(100);
/// Reading may show more to watch (authorities that a text names), and that may have changed meanwhile.
const ROUNDS: usize = 3;

/// What was read.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) fragment: Fragment,
    pub(super) problems: Vec<Problem>,
    /// A file is empty that was not: perhaps someone is about to write it.
    pub(super) doubt: bool,
}

/// Files that are read as a whole: those of routes, and those of the install configuration.
pub(super) trait Reader: Send + 'static {
    /// Reads everything that changed. With `sure`, an empty file is believed.
    fn read(&mut self, sure: bool) -> Reading;
    /// What to watch.
    fn interest(&self) -> Interest;
}

/// Reads and delivers for as long as the process runs; a message by `reloads` has everything read again.
pub(super) async fn deliver(mut reader: impl Reader, feed: Feed, mut reloads: mpsc::Receiver<()>) {
    let mut watch = Watch::new();
    loop {
        let mut troubles = watch.follow(&reader.interest()).troubles;
        let mut reading;
        (reader, reading) = read(reader, false).await;
        for _ in 0..ROUNDS {
            let followed = watch.follow(&reader.interest());
            troubles.extend(followed.troubles);
            if !followed.more && !reading.doubt {
                break;
            }
            let sure = reading.doubt;
            if sure {
                tokio::time::sleep(DOUBT).await;
            }
            (reader, reading) = read(reader, sure).await;
        }
        reading.problems.extend(troubles.into_iter().map(unwatched));
        feed.deliver(reading.fragment, reading.problems);
        tokio::select! {
            () = watch.changed() => {}
            Some(()) = reloads.recv() => {}
        }
    }
}

/// A hundred thousand routes take a while, in which probes and health checks should not wait: hence a thread of its own.
async fn read<R: Reader>(reader: R, sure: bool) -> (R, Reading) {
    apart(move || {
        let mut reader = reader;
        let reading = reader.read(sure);
        (reader, reading)
    })
    .await
}

fn unwatched((path, why): (PathBuf, String)) -> Problem {
    let what = format!("changes cannot be watched: {why}");
    let hint = format!("it is read every {} seconds; SIGHUP reads it at once", POLL.as_secs());
    Problem::warning(Origin::of(path.display().to_string()), what, hint)
}
