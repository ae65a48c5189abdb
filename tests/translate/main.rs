//! Do the objects of a cluster ask for what the cases say?
//!
//! `cases/NAME/`: `objects.yaml` (as one would apply them), `then.yaml` (what is there later, where a case is about a change),
//! `settings.yaml` (where a case needs some), `model.txt` and `problems.txt` (what comes of it). `UPDATE=1 cargo test --test
//! translate` writes these two anew; look at the difference.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]

mod cluster;
mod incremental;
mod show;

use cluster::Cluster;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use tidegate::kubernetes::translate::{Memory, Translation};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate/cases")
}

fn cases() -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn translated(case: &Path) -> Translation {
    let mut memory = Memory::default();
    let mut last = Cluster::read(case, "objects.yaml").translate(&mut memory);
    if case.join("then.yaml").exists() {
        last = Cluster::read(case, "then.yaml").translate(&mut memory);
    }
    last
}

#[test]
fn every_case_comes_out_as_written() {
    let mut wrong = Vec::new();
    for case in cases() {
        let translation = translated(&case);
        for (file, text) in [("model.txt", show::model(&translation)), ("problems.txt", show::problems(&translation))] {
            let path = case.join(file);
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, &text).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != text {
                wrong.push(format!("{} is not:\n{text}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_second_look_at_the_same_objects_changes_nothing() {
    for case in cases() {
        let mut memory = Memory::default();
        let cluster = Cluster::read(&case, "objects.yaml");
        let first = cluster.translate(&mut memory);
        assert_eq!(first, cluster.translate(&mut memory), "{}", case.display());
        assert_eq!(first, cluster.again().translate(&mut memory), "{} after a relist", case.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_order_in_which_objects_appear_makes_no_difference(
        which in 0usize..1000,
        order in prop::collection::vec(0usize..1000, 0..40),
    ) {
        let cases = cases();
        let case = &cases[which % cases.len()];
        let whole = Cluster::read(case, "objects.yaml");
        let at_once = whole.translate(&mut Memory::default());
        let mut memory = Memory::default();
        let mut growing = whole.empty();
        let mut rest = whole.documents.clone();
        for number in order {
            if !rest.is_empty() {
                growing.add(rest.remove(number % rest.len()));
                growing.translate(&mut memory);
            }
        }
        for document in rest {
            growing.add(document);
        }
        prop_assert_eq!(at_once, growing.translate(&mut memory), "{}", case.display());
    }
}
