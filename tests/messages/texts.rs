//! Is a configuration text read to its end, whoever wrote it, and every mistake told at a place that is in it?

use crate::cases;
use crate::memory::peak;
use crate::mutate::{mutated, tries};
use crate::parsers::least;
use proptest::prelude::*;
use std::path::Path;
use tidegate::config::Config;
use tidegate::config::decode::Files;
use tidegate::model::{Model, Problem};
use tidegate::snapshot::{Snapshot, compile};
use tidegate::source::grammar;
use tidegate::telemetry::metrics::Registry;

/// Whatever a text names is this.
struct Same;

impl Files for Same {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        if path.contains("none") { Err("there is no such file".into()) } else { Ok(path.as_bytes().to_vec()) }
    }
}

/// Every example and every known mistake whose name begins with this.
fn examples(kind: &str) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for folder in ["config", "tests/config/bad"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let named = |file: &&std::path::PathBuf| {
            let name = file.file_name().unwrap().to_string_lossy();
            name.starts_with(kind) && name.ends_with(".yaml")
        };
        seeds.extend(files.iter().filter(named).map(|file| std::fs::read(file).unwrap()));
    }
    assert!(!seeds.is_empty());
    seeds
}

pub fn routes() -> Vec<Vec<u8>> {
    cases::with_found("routes", examples("routes"))
}

pub fn installs() -> Vec<Vec<u8>> {
    cases::with_found("install", examples("install"))
}

/// A text of routes gives routes and problems, and the routes compile.
pub fn routes_hold(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (parsed, memory) = peak(|| grammar::parse("routes.yaml", text, &Same));
    assert_bounded(memory, text);
    assert_placed(&parsed.problems, text);
    let registry = Registry::new(1, 1000);
    let (_, problems) = compile(&Model::from(parsed.fragment), &Snapshot::default(), &registry);
    assert_placed(&problems, text);
}

/// An install configuration is right as a whole, or every mistake is told.
pub fn an_install_holds(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (parsed, memory) = peak(|| Config::parse("install.yaml", text, Path::new("/nowhere")));
    assert_bounded(memory, text);
    match parsed {
        Ok(config) => assert!(!config.listeners.is_empty()),
        Err(problems) => {
            assert!(!problems.is_empty());
            assert_placed(&problems, text);
        }
    }
}

/// An alias adds parts that the text does not hold, up to a limit of its own.
fn assert_bounded(memory: usize, text: &str) {
    let limit = if text.contains('*') { 100_000_000 } else { 1_000_000 };
    assert!(memory < limit + 2000 * text.len(), "{memory} bytes held for {text:?}");
}

fn assert_placed(problems: &[Problem], text: &str) {
    let lines = u32::try_from(text.split(['\n', '\r']).count()).unwrap();
    for problem in problems {
        assert!(!problem.what.is_empty() && !problem.to_string().is_empty());
        let at = problem.origin.position.unwrap_or_else(|| panic!("{problem} is nowhere in {text:?}"));
        assert!(at.line >= 1 && at.line <= lines && at.column >= 1, "{problem} is not in {text:?}");
    }
}

#[test]
fn time_grows_with_the_text_and_no_faster() {
    type Make = fn(usize) -> String;
    let inputs: [(&str, Make); 12] = [
        ("lines", |n| (0..n / 20).map(|i| format!("h{i}.test/p{i}: up\n")).collect()),
        ("the same line", |n| "a.test/: up\n".repeat(n / 12)),
        ("documents", |n| "---\na.test/: { respond: 200 }\n".repeat(n / 32)),
        ("routes of a host", |n| {
            let one = |i| format!("  - {{ path: /p{i}, respond: 200 }}\n");
            "hosts: [a.test]\nroutes:\n".to_owned() + &(0..n / 32).map(one).collect::<String>()
        }),
        ("hosts of a route", |n| {
            let hosts: Vec<_> = (0..n / 10).map(|i| format!("h{i}.test")).collect();
            format!("hosts: [{}]\nroutes: [{{ path: /, respond: 200 }}]\n", hosts.join(", "))
        }),
        ("misspelt keys", |n| {
            "hosts: [a.test]\n".to_owned() + &(0..n / 10).map(|i| format!("rout{i}: x\n")).collect::<String>()
        }),
        ("brackets", |n| "[".repeat(n)),
        ("comments", |n| "# a comment\n".repeat(n / 12)),
        ("a long text", |n| format!("a.test/: \"{}\"\n", "x".repeat(n))),
        ("a folded text", |n| format!("a.test/: >\n{}", "  word\n".repeat(n / 7))),
        ("aliases", |n| format!("a: &a [x]\nb: [{}]\n", "*a, ".repeat(n / 4))),
        ("anchors within anchors", |n| "- &a [ &b [ &c [ x ] ] ]\n".repeat(n / 25)),
    ];
    for (what, make) in inputs {
        let (small, large) = (make(2000), make(16_000));
        let small_time = least(|| drop(grammar::parse("routes.yaml", &small, &Same)));
        let large_time = least(|| drop(grammar::parse("routes.yaml", &large, &Same)));
        // Eight times the bytes: a square would take 64 times as long.
        assert!(large_time < small_time * 30, "{what}: {small_time:?} and then {large_time:?}");
    }
}

proptest! {
    #![proptest_config(tries())]

    #[test]
    fn a_text_of_routes_is_read_to_its_end_and_what_it_says_compiles(text in mutated(routes())) {
        routes_hold(&text);
    }

    #[test]
    fn an_install_configuration_is_right_or_tells_every_mistake_at_its_place(text in mutated(installs())) {
        an_install_holds(&text);
    }
}
