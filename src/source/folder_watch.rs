//! When may a file have changed?
//!
//! Folders are watched, never files: an editor replaces a file by another one of the same name, and a Kubernetes volume
//! swaps a symlink beside it; a watch on the file itself would stay with the old one. Where watching is not possible the
//! files are looked at every two seconds.

use notify::event::EventKind;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// A change counts when nothing has followed it for so long: writing a file is several events.
const QUIET: Duration = Duration::from_millis(20);
/// A folder that never rests is read all the same.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// How often files are looked at where they cannot be watched.
pub(super) const POLL: Duration = Duration::from_secs(2);

/// What is of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Files by name.
    pub(super) files: BTreeSet<PathBuf>,
    /// Folders with all their YAML files.
    pub(super) folders: BTreeSet<PathBuf>,
}

impl Interest {
    fn absolute(&self) -> Self {
        let all = |paths: &BTreeSet<PathBuf>| {
            paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect()
        };
        Self { files: all(&self.files), folders: all(&self.folders) }
    }

    /// Whether a change at this path may be a change of something of interest. A log file beside it is not.
    fn concerns(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let wanted = || self.files.iter().chain(&self.folders);
        // `..data` is the symlink that a Kubernetes volume swaps.
        name.starts_with("..")
            || wanted().any(|p| p.starts_with(path))
            || path.parent().is_some_and(|folder| self.folders.contains(folder))
                && (is_yaml(path) || path.extension().is_none())
    }
}

/// Whether a file of a folder is read.
pub(super) fn is_yaml(path: &Path) -> bool {
    let hidden = path.file_name().and_then(|n| n.to_str()).is_none_or(|n| n.starts_with('.'));
    !hidden && path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}

/// A watch on the folders around what is of interest.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    interest: Arc<Mutex<Interest>>,
    woken: Arc<Notify>,
    /// Each folder and what it was: a folder made anew needs a new watch.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    polls: bool,
}

/// What became of a wish to follow something.
#[derive(Default)]
pub(super) struct Followed {
    /// Something is watched that was not before: what happened up to now may have been missed.
    pub(super) more: bool,
    /// Why something cannot be watched.
    pub(super) troubles: Vec<(PathBuf, String)>,
}

impl Watch {
    pub(super) fn new() -> Self {
        let (interest, woken) = (Arc::new(Mutex::new(Interest::default())), Arc::new(Notify::new()));
        let (seen, wake) = (Arc::clone(&interest), Arc::clone(&woken));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if is_of_interest(event, &seen.lock().unwrap_or_else(PoisonError::into_inner)) {
                wake.notify_one();
            }
        });
        Self { watcher: watcher.ok(), interest, woken, watched: BTreeMap::new(), polls: false }
    }

    /// Watches what is around these files and folders, and nothing else any more.
    pub(super) fn follow(&mut self, interest: &Interest) -> Followed {
        // Events name absolute paths, whatever was asked for.
        let interest = &interest.absolute();
        let folders = around(interest);
        *self.interest.lock().unwrap_or_else(PoisonError::into_inner) = interest.clone();
        let mut followed = Followed::default();
        let Some(watcher) = &mut self.watcher else {
            self.polls = true;
            let trouble = "changes are not told on this machine".to_owned();
            followed.troubles.extend(interest.files.iter().next().map(|file| (file.clone(), trouble)));
            return followed;
        };
        for gone in self.watched.keys().filter(|f| !folders.contains_key(*f)).cloned().collect::<Vec<_>>() {
            // An error only says that the folder is gone, and its watch with it.
            let _ = watcher.unwatch(&gone);
            self.watched.remove(&gone);
        }
        self.polls = false;
        for (folder, id) in folders {
            if self.watched.get(&folder) == Some(&id) {
                continue;
            }
            if self.watched.remove(&folder).is_some() {
                let _ = watcher.unwatch(&folder);
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder, id);
                    followed.more = true;
                }
                Err(error) => {
                    self.polls = true;
                    followed.troubles.push((folder, error.to_string()));
                }
            }
        }
        followed
    }

    /// Waits until something may have changed and nothing more has for a moment.
    pub(super) async fn changed(&self) {
        if !self.polls {
            self.woken.notified().await;
        } else if timeout(POLL, self.woken.notified()).await.is_err() {
            return;
        }
        let begun = Instant::now();
        while begun.elapsed() < LONGEST_WAIT && timeout(QUIET, self.woken.notified()).await.is_ok() {}
    }
}

fn is_of_interest(event: notify::Result<notify::Event>, interest: &Interest) -> bool {
    match event {
        // Reading is no change, and reading is what a change makes us do.
        Ok(event) if matches!(event.kind, EventKind::Access(access) if !is_close_after_write(access)) => false,
        Ok(event) => event.need_rescan() || event.paths.iter().any(|path| interest.concerns(path)),
        Err(_) => true,
    }
}

fn is_close_after_write(access: notify::event::AccessKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    access == AccessKind::Close(AccessMode::Write)
}

/// The folders to watch and their identities: of each path the folder it is in, the one it leads to by symlinks, and where
/// neither is there the next one above.
fn around(interest: &Interest) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut folders = BTreeMap::new();
    let mut add = |path: &Path| {
        for folder in path.ancestors() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            if let Some(about) = std::fs::metadata(folder).ok().filter(std::fs::Metadata::is_dir) {
                folders.insert(folder.to_path_buf(), (about.dev(), about.ino()));
                return;
            }
        }
    };
    for path in interest.files.iter().chain(&interest.folders) {
        add(path.parent().unwrap_or(Path::new(".")));
        if let Some(folder) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
            add(folder);
        }
    }
    interest.folders.iter().for_each(|folder| add(folder));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_beside_the_routes_is_of_no_interest() {
        let interest = Interest { files: ["/a/r.yaml".into()].into(), folders: ["/a/routes".into()].into() };
        for path in ["/a/r.yaml", "/a/..data", "/a/routes", "/a", "/a/routes/x.yml", "/a/routes/..2024"] {
            assert!(interest.concerns(Path::new(path)), "{path}");
        }
        for path in ["/a/access.log", "/a/routes/x.yaml.swp", "/a/r.yaml~", "/b/r.yaml"] {
            assert!(!interest.concerns(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_watched_from_above() {
        let top = tempfile::tempdir().unwrap();
        let interest = Interest { files: [top.path().join("a/b/c.yaml")].into(), ..Interest::default() };
        assert_eq!(around(&interest).into_keys().collect::<Vec<_>>(), [top.path()]);
    }
}
