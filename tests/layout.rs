//! Is the layout of a release still about functions that there are?
#![allow(clippy::expect_used, reason = "a test that fails should fail where it stands")]

use std::collections::HashSet;
use std::process::Command;

/// Below this share the start of a release spreads over pages again; `make layout` sees anew what runs.
const KNOWN_PERCENT: usize = 80;

#[test]
fn nearly_every_function_that_the_layout_names_is_in_the_binary() {
    let listed = Command::new("nm").args(["--defined-only", env!("CARGO_BIN_EXE_tidegate")]).output();
    let listed = listed.expect("nm, of Debian's package binutils");
    let symbols = String::from_utf8_lossy(&listed.stdout);
    let there: HashSet<String> =
        symbols.lines().filter_map(|line| line.split(' ').nth(2)).map(without_hashes).collect();
    let names: Vec<&str> = include_str!("../deploy/layout/start.txt").lines().filter(|l| !l.starts_with('#')).collect();
    let known = names.iter().filter(|name| there.contains(**name)).count();
    assert!(names.len() > 500, "{} names", names.len());
    assert!(
        known * 100 >= names.len() * KNOWN_PERCENT,
        "{known} of {} functions in deploy/layout/start.txt are in the binary: `make layout` writes it anew",
        names.len()
    );
}

/// A symbol as `deploy/layout/record.sh` writes it: `*` where the compiler's hashes stand.
fn without_hashes(symbol: &str) -> String {
    let hash = symbol.len().saturating_sub("17h0123456789abcdefE".len());
    if symbol.ends_with('E') && symbol.get(hash..hash + 3) == Some("17h") {
        return format!("{}17h*", symbol.get(..hash).unwrap_or_default());
    }
    let mut parts = symbol.split("Cs");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.find('_') {
            Some(end @ 5..=13) => {
                plain.push_str("Cs*");
                plain.push_str(part.get(end..).unwrap_or_default());
            }
            _ => {
                plain.push_str("Cs");
                plain.push_str(part);
            }
        }
    }
    plain
}
