//! Does every rule that SECURITY.md promises name a test, and does that test exist?
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_table_of_refusals_names_exists() {
    let tests = tests_of_this_repository();
    let rows = rows(&fs::read_to_string(root().join("SECURITY.md")).unwrap());
    assert!(rows.len() > 20, "the table was not found");
    let missing: Vec<_> = rows.iter().filter(|(_, test)| !tests.contains(test)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_test_of_strictness_stands_in_the_table() {
    let named: BTreeSet<String> =
        rows(&fs::read_to_string(root().join("SECURITY.md")).unwrap()).into_iter().map(|(_, test)| test).collect();
    let mut there = BTreeSet::new();
    collect(&root().join("tests/it/strictness"), &mut there);
    let unnamed: Vec<_> = there.difference(&named).collect();
    assert!(!there.is_empty() && unnamed.is_empty(), "rules that SECURITY.md does not tell: {unnamed:?}");
}

/// Rule and test of each row of the table under `What is refused`.
fn rows(text: &str) -> Vec<(String, String)> {
    let section = text.split("\n## ").find(|section| section.starts_with("What is refused")).expect("the section");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = section.lines().filter(|line| line.starts_with("| ")).map(cells).filter(|row| row[0] != "rule");
    rows.map(|row| {
        let [rule, standard, test] = row.try_into().unwrap_or_else(|row| panic!("not three columns: {row:?}"));
        assert!(!standard.is_empty(), "no standard: {rule}");
        let name = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
        (rule, name.unwrap_or_else(|| panic!("not one test: {test:?}")).to_owned())
    })
    .collect()
}

/// Names of all functions that are tests.
fn tests_of_this_repository() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests"] {
        collect(&root().join(folder), &mut names);
    }
    names
}

fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for pair in lines.windows(2) {
                let test = matches!(pair[0], "#[test]" | "#[tokio::test]");
                let name =
                    pair[1].trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
                names.extend(name.filter(|_| test).map(str::to_owned));
            }
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
