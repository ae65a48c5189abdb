//! What do the routes files say now, and what did they say when they were last right?

use super::folder_watch::{Interest, is_yaml};
use super::grammar::{Parsed, Refused, keep_last_good, parse};
use super::recording::{Named, Recording};
use super::reread::Reading;
use crate::config::{read_bytes, read_text};
use crate::model::{Fragment, Origin, Problem};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The routes files and folders of a configuration, and what was last read of each file.
pub(super) struct RoutesFiles {
    places: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
}

/// A file, as last read.
#[derive(Default)]
struct File {
    /// What was read, to see whether it is still the same.
    text: Option<Result<String, String>>,
    /// Files that the text names (authorities), as read.
    named: Vec<Named>,
    /// What of it is right, with last good versions of what is not.
    fragment: Fragment,
    problems: Vec<Problem>,
}

impl RoutesFiles {
    pub(super) fn new(places: Vec<PathBuf>) -> Self {
        Self { places, files: BTreeMap::new() }
    }

    /// Reads everything that changed. With `sure`, an empty file is believed.
    pub(super) fn read(&mut self, sure: bool) -> Reading {
        let mut reading = Reading::default();
        let mut before = std::mem::take(&mut self.files);
        for place in &self.places {
            let list = match list(place) {
                Ok(list) => list,
                Err(why) => {
                    let hint = "what was read last stays";
                    let origin = Origin::of(place.display().to_string());
                    reading.problems.push(Problem::error(origin, format!("the folder cannot be read: {why}"), hint));
                    before.keys().filter(|file| file.parent() == Some(place.as_path())).cloned().collect()
                }
            };
            for path in list {
                // A file may be named twice, alone and by its folder.
                if let (None, file) = (self.files.get(&path), before.remove(&path).unwrap_or_default()) {
                    let (file, doubt) = file.read(&path, sure);
                    reading.doubt |= doubt;
                    self.files.insert(path, file);
                }
            }
        }
        for file in self.files.values() {
            reading.fragment.routes.extend(file.fragment.routes.iter().cloned());
            reading.fragment.clusters.extend(file.fragment.clusters.iter().cloned());
            reading.fragment.tls.extend(file.fragment.tls.iter().cloned());
            reading.problems.extend(file.problems.iter().cloned());
        }
        reading
    }

    /// What to watch.
    pub(super) fn interest(&self) -> Interest {
        let mut interest = Interest::default();
        for place in &self.places {
            let to = if place.is_dir() { &mut interest.folders } else { &mut interest.files };
            to.insert(place.clone());
        }
        for (path, file) in &self.files {
            interest.files.insert(path.clone());
            interest.files.extend(file.named.iter().map(|(path, _)| path.clone()));
        }
        interest
    }
}

impl File {
    fn read(self, path: &Path, sure: bool) -> (Self, bool) {
        let text = read_text(path);
        let blank = |text: &Result<String, String>| text.as_ref().is_ok_and(|t| t.trim().is_empty());
        if !sure && blank(&text) && self.text.as_ref().is_some_and(|t| !blank(t)) {
            return (self, true);
        }
        let same = self.text.as_ref() == Some(&text);
        if same && self.named.iter().all(|(path, last)| read_bytes(path) == *last) {
            return (self, false);
        }
        (self.take(path, text), false)
    }

    fn take(self, path: &Path, text: Result<String, String>) -> Self {
        let place = path.display().to_string();
        let files = Recording::beside(path);
        let parsed = match &text {
            Ok(text) => parse(&place, text, &files),
            Err(why) => {
                let hint = "name a routes file, see `tidegate schema routes`";
                let problem =
                    Problem::error(Origin::of(place.as_str()), format!("the file cannot be read: {why}"), hint);
                let refused = Refused { text: true, ..Refused::default() };
                Parsed { problems: vec![problem], refused, ..Parsed::default() }
            }
        };
        // A text that cannot be read names no files; those of the last good content stay of interest.
        let named = if parsed.refused.text { self.named } else { files.read() };
        let (fragment, problems) = keep_last_good(&place, parsed, &self.fragment);
        Self { text: Some(text), named, fragment, problems }
    }
}

/// The YAML files of a folder in the order of their names; a file is a list of itself.
pub(super) fn list(place: &Path) -> Result<Vec<PathBuf>, String> {
    if !place.is_dir() {
        return Ok(vec![place.to_path_buf()]);
    }
    let entries = std::fs::read_dir(place).map_err(|error| error.to_string())?;
    let paths: Result<Vec<PathBuf>, std::io::Error> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|error| error.to_string())?;
    paths.retain(|path| is_yaml(path) && !path.is_dir());
    paths.sort();
    Ok(paths)
}
