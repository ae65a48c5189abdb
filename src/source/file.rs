//! How do routes files become a fragment, at the start and whenever they change?

use super::certificates::Certificates;
use super::folder_watch::Interest;
use super::reread::{Reader, Reading, deliver};
use super::routes_file::RoutesFiles;
use super::{Feed, Source};
use crate::config::CertificateFiles;
use crate::model::{Fragment, Problem};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Files of routes, watched.
pub struct FileSource {
    routes: RoutesFiles,
    reloads: mpsc::Receiver<()>,
}

impl FileSource {
    /// Routes files and folders; a message by `reloads` has all of them read again.
    pub fn new(routes: Vec<PathBuf>, reloads: mpsc::Receiver<()>) -> Self {
        Self { routes: RoutesFiles::new(routes), reloads }
    }
}

impl Source for FileSource {
    async fn run(self, feed: Feed) {
        deliver(self.routes, feed, self.reloads).await;
    }
}

impl Reader for RoutesFiles {
    fn read(&mut self, sure: bool) -> Reading {
        Self::read(self, sure)
    }

    fn interest(&self) -> Interest {
        Self::interest(self)
    }
}

/// Reads once, without watching: for commands that look at a configuration.
pub fn read_files(routes: Vec<PathBuf>, certificates: &[CertificateFiles]) -> (Fragment, Vec<Problem>) {
    let mut reading = RoutesFiles::new(routes).read(true);
    let (certificates, problems) = Certificates::of(certificates).read();
    reading.fragment.certificates = certificates;
    reading.problems.extend(problems);
    (reading.fragment, reading.problems)
}

#[cfg(test)]
mod tests;
