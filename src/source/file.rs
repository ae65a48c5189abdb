//! How do routes files and certificate files become fragments, at the start and whenever they change?

use super::certificates::Certificates;
use super::folder_watch::{Interest, POLL, Watch};
use super::routes_file::{Reading, RoutesFiles};
use super::{Feed, Source};
use crate::config::CertificateFiles;
use crate::model::{Fragment, Origin, Problem};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// A file that has become empty is looked at again after this: whoever truncated it may be about to write it.
const DOUBT: Duration = Duration::from_millis(100);
/// Reading may show more to watch (authorities that a text names), and that may have changed meanwhile.
const ROUNDS: usize = 3;

/// Files: routes and certificates, watched.
pub struct FileSource {
    reader: Reader,
    reloads: mpsc::Receiver<()>,
}

impl FileSource {
    /// Routes files and folders, and the files of certificates; a message by `reloads` has all of them read again.
    pub fn new(routes: Vec<PathBuf>, certificates: Vec<CertificateFiles>, reloads: mpsc::Receiver<()>) -> Self {
        let reader = Reader { routes: RoutesFiles::new(routes), certificates: Certificates::new(certificates) };
        Self { reader, reloads }
    }
}

impl Source for FileSource {
    async fn run(self, feed: Feed) {
        let Self { mut reader, mut reloads } = self;
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
}

/// Reads once, without watching: for commands that look at a configuration.
pub fn read_files(routes: Vec<PathBuf>, certificates: Vec<CertificateFiles>) -> (Fragment, Vec<Problem>) {
    let mut reader = Reader { routes: RoutesFiles::new(routes), certificates: Certificates::new(certificates) };
    let reading = reader.read(true);
    (reading.fragment, reading.problems)
}

/// A hundred thousand routes take a while, in which probes and health checks should not wait: hence a thread of its own.
async fn read(reader: Reader, sure: bool) -> (Reader, Reading) {
    let task = tokio::task::spawn_blocking(move || {
        let mut reader = reader;
        let reading = reader.read(sure);
        (reader, reading)
    });
    match task.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await, // The runtime is ending.
        },
    }
}

struct Reader {
    routes: RoutesFiles,
    certificates: Certificates,
}

impl Reader {
    fn read(&mut self, sure: bool) -> Reading {
        let mut reading = self.routes.read(sure);
        let (certificates, problems) = self.certificates.read();
        reading.fragment.certificates = certificates;
        reading.problems.extend(problems);
        reading
    }

    fn interest(&self) -> Interest {
        let mut interest = Interest::default();
        self.routes.interest(&mut interest);
        self.certificates.interest(&mut interest);
        interest
    }
}

fn unwatched((path, why): (PathBuf, String)) -> Problem {
    let what = format!("changes cannot be watched: {why}");
    let hint = format!("it is read every {} seconds; SIGHUP reads it at once", POLL.as_secs());
    Problem::warning(Origin::of(path.display().to_string()), what, hint)
}

#[cfg(test)]
mod tests;
