//! What is wrong with these files?

use super::{FAILED, Format};
use crate::config::{Config, install, read_text, yaml};
use crate::model::{Action, Fragment, Origin, Problem, Severity};
use crate::snapshot::{Snapshot, compile};
use crate::source::{self, merge, read_files};
use crate::telemetry::metrics::Registry;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Series of a registry that nobody scrapes.
const SERIES: usize = 16;

/// Flags of `check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate check routes.yaml
  tidegate check routes/ --format json
  tidegate check gate.yaml                  with the routes and certificates that it names

Exit code: 0 when all is right (warnings included), 1 when something is wrong.")]
pub struct CheckArgs {
    /// Install configurations, routes files, or folders of routes files; told apart by their content
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How problems are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints every problem; the exit code says whether there is an error.
pub(super) fn check(args: &CheckArgs, out: &mut dyn Write) -> io::Result<ExitCode> {
    let problems = find(&args.files);
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    match args.format {
        Format::Json => {
            let all: Vec<_> = problems.iter().map(json).collect();
            writeln!(out, "{:#}", serde_json::Value::Array(all))?;
        }
        Format::Text => {
            for problem in &problems {
                writeln!(out, "{problem}")?;
            }
            writeln!(out, "{}", summary(errors, problems.len() - errors))?;
        }
    }
    Ok(if errors > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Every problem with these files, sorted by place.
pub fn find(files: &[PathBuf]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (installs, routes): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|file| is_install(file));
    for file in &installs {
        match Config::load(file) {
            Ok(config) => problems.extend(whole(config)),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if !routes.is_empty() {
        let (fragment, wrong) = read_files(routes, Vec::new());
        problems.extend(wrong);
        problems.extend(alone(fragment));
    }
    problems.sort();
    problems.dedup();
    problems
}

/// An install configuration with everything that it names, as far as the snapshot that would serve.
fn whole(config: Config) -> Vec<Problem> {
    let (mut fragment, mut problems) = read_files(config.routes, config.certificates);
    fragment.listeners = config.listeners;
    fragment.tls.extend(config.tls);
    let (model, conflicts) = merge(&[Arc::new(fragment)]);
    let registry = Registry::new(1, SERIES);
    let (_, wrong) = compile(&model, &Snapshot::default(), &registry);
    problems.extend(conflicts);
    problems.extend(wrong);
    problems
}

/// Routes without an install configuration: listeners and certificates are not known, clusters may stand in other files.
fn alone(fragment: Fragment) -> Vec<Problem> {
    let clusters: BTreeSet<&str> = fragment.clusters.iter().map(|c| c.name.as_str()).collect();
    let mut problems = Vec::new();
    for route in &fragment.routes {
        let Action::Forward(targets) = &route.action else { continue };
        for target in targets.iter().filter(|t| !clusters.contains(t.cluster.as_str())) {
            let what = format!("no cluster {:?} in these files", target.cluster);
            let known: Vec<_> = clusters.iter().copied().collect();
            let near = crate::config::decode::suggest(&target.cluster, &known);
            let hint =
                if near.starts_with("did you mean") { near } else { "is it in a file that was not given?".into() };
            problems.push(Problem::warning(route.origin.clone(), what, hint));
        }
    }
    problems.extend(source::merge(&[Arc::new(fragment)]).1);
    problems
}

/// An install configuration has keys that no routes file has.
fn is_install(path: &Path) -> bool {
    let Ok(text) = read_text(path) else { return false };
    let Ok(documents) = yaml::parse(&text) else {
        // Broken YAML: the name of a key at the beginning of a line tells as much as there is.
        return install::KEYS.iter().any(|key| text.lines().any(|line| line.starts_with(&format!("{key}:"))));
    };
    documents.iter().any(|document| match &document.value {
        yaml::Value::Map(entries) => entries.iter().any(|entry| {
            let listeners = &*entry.key == "listeners" && matches!(entry.node.value, yaml::Value::Map(_));
            listeners || install::KEYS.contains(&&*entry.key)
        }),
        _ => false,
    })
}

fn json(problem: &Problem) -> serde_json::Value {
    let Origin { place, position, key, .. } = &problem.origin;
    serde_json::json!({
        "file": &**place,
        "line": position.map(|p| p.line),
        "column": position.map(|p| p.column),
        "key": key,
        "severity": if problem.severity == Severity::Error { "error" } else { "warning" },
        "what": problem.what,
        "hint": problem.hint,
    })
}

fn summary(errors: usize, warnings: usize) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "all is right".into(),
        (0, n) => format!("no errors, {}", count(n, "warning")),
        (n, 0) => count(n, "error"),
        (e, w) => format!("{}, {}", count(e, "error"), count(w, "warning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(files: &[(&str, &str)], format: Format) -> (String, ExitCode) {
        let top = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(top.path().join(name), text).unwrap();
        }
        let args = CheckArgs { files: vec![top.path().join(files[0].0)], format };
        let mut out = Vec::new();
        let code = check(&args, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), code)
    }

    #[test]
    fn a_right_file_is_told_so() {
        let (text, code) = run(&[("r.yaml", "a.test/: x\nclusters: { x: 127.0.0.1:1 }\n")], Format::Text);
        assert_eq!((text.as_str(), code), ("all is right\n", ExitCode::SUCCESS));
    }

    #[test]
    fn an_error_is_an_exit_code_and_a_warning_is_not() {
        let (text, code) = run(&[("r.yaml", "a.test/: x\n")], Format::Text);
        assert!(text.contains("warning: no cluster \"x\"") && code == ExitCode::SUCCESS, "{text}");
        let (text, code) = run(&[("r.yaml", "a.test: x\n")], Format::Text);
        assert!(text.contains("r.yaml:1:1: a.test: error") && text.ends_with("1 error\n"), "{text}");
        assert_eq!(code, ExitCode::from(FAILED));
    }

    #[test]
    fn problems_are_objects_for_programs() {
        let (text, _) = run(&[("r.yaml", "a.test/: { to: x, tmeout: 1s }\n")], Format::Json);
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((all[0]["line"].as_u64(), all[0]["column"].as_u64()), (Some(1), Some(19)));
        assert_eq!(all[0]["hint"], "did you mean \"timeout\"?");
    }

    #[test]
    fn an_install_configuration_is_checked_with_what_it_names() {
        let gate = "listeners: { http: { address: 127.0.0.1:0 } }\n";
        let (text, code) = run(&[("gate.yaml", gate), ("routes.yaml", "a.test/: nowhere\n")], Format::Text);
        assert!(text.contains("nowhere") && code == ExitCode::from(FAILED), "{text}");
        let (text, _) = run(&[("gate.yaml", "listeners: { http: { adress: :1 } }\n")], Format::Text);
        assert!(text.contains("did you mean \"address\"?"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let problems = find(&["/nowhere/routes.yaml".into()]);
        assert!(problems[0].what.contains("no such file"));
    }
}
