//! Which files does a text name, and what was in them when it was read?

use crate::config::decode::Files;
use crate::config::read_bytes;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// A file that a text names, and its content.
pub(super) type Named = (PathBuf, Result<Vec<u8>, String>);

/// Files of a folder, with a record of what was read.
pub(super) struct Recording<'p> {
    base: &'p Path,
    read: RefCell<Vec<Named>>,
}

impl<'p> Recording<'p> {
    /// The files that a text in this file may name.
    pub(super) fn beside(path: &'p Path) -> Self {
        Self { base: path.parent().unwrap_or(Path::new("")), read: RefCell::default() }
    }

    /// What was read.
    pub(super) fn read(self) -> Vec<Named> {
        self.read.into_inner()
    }
}

impl Files for Recording<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let path = self.base.join(path);
        let content = read_bytes(&path);
        self.read.borrow_mut().push((path, content.clone()));
        content
    }
}
