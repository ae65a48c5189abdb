//! What is in the certificate files now, and what was in them when they could last be read?

use super::folder_watch::Interest;
use crate::config::{CertificateFiles, read_bytes};
use crate::model::{CertificateSpec, Pem, Problem};
use std::path::Path;

/// The certificates of a configuration, and what was last read of each.
#[derive(Default)]
pub(super) struct Certificates {
    all: Vec<(CertificateFiles, Option<CertificateSpec>)>,
}

impl Certificates {
    pub(super) fn of(files: &[CertificateFiles]) -> Self {
        let mut all = Self::default();
        all.follow(files);
        all
    }

    /// These are the certificates from now on. One whose name there was keeps what was read last until its files can be read.
    pub(super) fn follow(&mut self, files: &[CertificateFiles]) {
        let mut before = std::mem::take(&mut self.all);
        let last = |before: &mut Vec<(CertificateFiles, Option<CertificateSpec>)>, name: &str| {
            let at = before.iter().position(|(old, _)| old.name == name)?;
            before.swap_remove(at).1
        };
        self.all = files.iter().map(|files| (files.clone(), last(&mut before, &files.name))).collect();
    }

    /// Reads every file again. A certificate of which a file cannot be read keeps what was read last, as a whole: a chain
    /// and a key of different times fit together no more.
    pub(super) fn read(&mut self) -> (Vec<CertificateSpec>, Vec<Problem>) {
        let mut problems = Vec::new();
        for (files, last) in &mut self.all {
            let kept = last.is_some();
            let mut read = |path: &Path| read_pem(files, path, kept).map_err(|problem| problems.push(problem)).ok();
            let pairs: Vec<_> = files.pairs.iter().map(|(chain, key)| (read(chain), read(key))).collect();
            let pairs: Option<Vec<_>> = pairs.into_iter().map(|(chain, key)| chain.zip(key)).collect();
            if let Some(pairs) = pairs {
                *last = Some(CertificateSpec { name: files.name.clone(), origin: files.origin.clone(), pairs });
            }
        }
        (self.all.iter().filter_map(|(_, last)| last.clone()).collect(), problems)
    }

    /// What to watch.
    pub(super) fn interest(&self, interest: &mut Interest) {
        let pairs = self.all.iter().flat_map(|(files, _)| &files.pairs);
        interest.files.extend(pairs.flat_map(|(chain, key)| [chain.clone(), key.clone()]));
    }
}

fn read_pem(files: &CertificateFiles, path: &Path, kept: bool) -> Result<Pem, Problem> {
    let hint =
        if kept { "the last one that could be read stays" } else { "its hosts get a TLS alert until it is there" };
    let wrong = |why: &str| {
        let what = format!("{} of certificate {:?} cannot be read: {why}", path.display(), files.name);
        Problem::error(files.origin.clone(), what, hint)
    };
    let pem = read_bytes(path).map_err(|why| wrong(&why))?;
    if memchr::memmem::find(&pem, b"-----BEGIN ").is_none() {
        return Err(wrong("it is not a PEM file"));
    }
    Ok(Pem(pem.into()))
}
