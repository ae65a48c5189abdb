//! What is in the certificate files now, and what was in them when they could last be read?

use super::folder_watch::Interest;
use crate::config::{CertificateFiles, read_bytes};
use crate::model::{CertificateSpec, Pem, Problem};
use std::path::Path;

/// The certificates of a configuration, and what was last read of each.
pub(super) struct Certificates {
    all: Vec<(CertificateFiles, Option<CertificateSpec>)>,
}

impl Certificates {
    pub(super) fn new(files: Vec<CertificateFiles>) -> Self {
        Self { all: files.into_iter().map(|files| (files, None)).collect() }
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
