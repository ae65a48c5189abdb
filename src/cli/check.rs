//! What is wrong with these files?

use super::{FAILED, Format, manifest};
use crate::config::{Config, FilesIn, install, read_text, yaml};
use crate::model::{Action, Fragment, Origin, Problem, Severity};
use crate::snapshot::{Snapshot, compile};
use crate::source::{self, grammar, merge, read_files};
use crate::telemetry::metrics::Registry;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Series of a registry that nobody scrapes.
const SERIES: usize = 16;
/// The file that is standard input.
const STDIN: &str = "-";

/// Flags of `check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate check routes.yaml
  tidegate check routes/ --format json
  tidegate check gate.yaml                  with the routes and certificates that it names
  tidegate check configmap.yaml             the routes in a manifest, before it is applied
  kubectl kustomize edge | tidegate check -
  kubectl get cm -l tidegate.io/routes -o yaml | tidegate check -

Exit code: 0 when all is right (warnings included), 1 when something is wrong.")]
pub struct CheckArgs {
    /// Install configurations, routes files, folders of routes files, or manifests with routes ConfigMaps; told apart by their
    /// content; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The routes files are for ConfigMaps: clusters are Services, `namespace/service[:port]`
    #[arg(long)]
    kubernetes: bool,
    /// How problems are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints every problem; the exit code says whether there is an error.
pub(super) fn check(args: &CheckArgs, out: &mut dyn Write) -> io::Result<ExitCode> {
    let problems = find(&args.files, args.kubernetes);
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

/// Every problem with these files, sorted by place. `kubernetes`: their routes are for ConfigMaps, as those of a manifest are in
/// any case.
pub fn find(files: &[PathBuf], kubernetes: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (mut routes, mut said, mut kubernetes) = (Vec::new(), Fragment::default(), kubernetes);
    for file in files.iter().flat_map(|file| expand(file)) {
        match Kind::of(&file) {
            Kind::Install(wrong) => problems.extend(wrong),
            Kind::Routes => routes.push(file),
            Kind::Said(fragment, wrong, manifest) => {
                kubernetes |= manifest;
                problems.extend(wrong);
                said.routes.extend(fragment.routes);
                said.clusters.extend(fragment.clusters);
                said.tls.extend(fragment.tls);
            }
        }
    }
    let (read, wrong) = read_files(routes, Vec::new());
    said.routes.extend(read.routes);
    said.clusters.extend(read.clusters);
    said.tls.extend(read.tls);
    problems.extend(wrong);
    problems.extend(alone(said, kubernetes));
    problems.sort();
    problems.dedup();
    problems
}

/// What a file is, by its content.
enum Kind {
    /// An install configuration, and what is wrong with it.
    Install(Vec<Problem>),
    /// A routes file or a folder of such.
    Routes,
    /// Routes, as read, and whether from a manifest.
    Said(Fragment, Vec<Problem>, bool),
}

impl Kind {
    fn of(path: &Path) -> Self {
        let stdin = path == Path::new(STDIN);
        let text = if stdin { io::read_to_string(io::stdin()).map_err(|e| e.to_string()) } else { read_text(path) };
        let place = if stdin { "stdin".into() } else { path.display().to_string() };
        let text = match text {
            Ok(text) => text,
            Err(why) if stdin => {
                let problem = Problem::error(Origin::of(place), format!("it cannot be read: {why}"), "");
                return Self::Said(Fragment::default(), vec![problem], false);
            }
            // Reading it as routes says why it cannot be read.
            Err(_) => return Self::Routes,
        };
        let documents = yaml::parse(&text).ok();
        if let Some(documents) = documents.as_deref().filter(|documents| manifest::is_manifest(documents)) {
            let (fragment, problems) = manifest::read(&place, &text, documents);
            return Self::Said(fragment, problems, true);
        }
        match (is_install(&text, documents.as_deref()), stdin) {
            (true, true) => Self::install(Config::parse(&place, &text, Path::new(""))),
            (true, false) => Self::install(Config::load(path)),
            (false, true) => {
                let parsed = grammar::parse(&place, &text, &FilesIn(Path::new("")));
                Self::Said(parsed.fragment, parsed.problems, false)
            }
            (false, false) => Self::Routes,
        }
    }

    fn install(config: Result<Config, Vec<Problem>>) -> Self {
        Self::Install(config.map_or_else(|wrong| wrong, whole))
    }
}

/// A folder with manifests is its files, because each may be of another kind; any other is left to be read as a whole.
fn expand(path: &Path) -> Vec<PathBuf> {
    let is_yaml = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml") && p.is_file();
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(is_yaml).collect();
    files.sort();
    let is_manifest = |file: &PathBuf| {
        let documents = read_text(file).ok().and_then(|text| yaml::parse(&text).ok());
        documents.is_some_and(|documents| manifest::is_manifest(&documents))
    };
    if files.iter().any(is_manifest) { files } else { vec![path.to_path_buf()] }
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

/// Routes without an install configuration: listeners and certificates are not known, clusters may stand in other files or
/// be Services.
fn alone(fragment: Fragment, kubernetes: bool) -> Vec<Problem> {
    let clusters: BTreeSet<&str> = fragment.clusters.iter().map(|c| c.name.as_str()).collect();
    let mut problems = Vec::new();
    for route in &fragment.routes {
        let Action::Forward(targets) = &route.action else { continue };
        for target in targets.iter().filter(|t| !clusters.contains(t.cluster.as_str())) {
            if kubernetes && manifest::is_service(&target.cluster) {
                continue;
            }
            let what = format!("no cluster {:?} in these files", target.cluster);
            let known: Vec<_> = clusters.iter().copied().collect();
            let hint = match crate::config::decode::suggest(&target.cluster, &known) {
                near if near.starts_with("did you mean") => near,
                _ if kubernetes => "in Kubernetes a cluster is a Service: write namespace/service[:port]".into(),
                _ if manifest::is_service(&target.cluster) => {
                    "is it in a file that was not given? For a Service of Kubernetes add --kubernetes".into()
                }
                _ => "is it in a file that was not given?".into(),
            };
            problems.push(Problem::warning(route.origin.clone(), what, hint));
        }
    }
    problems.extend(source::merge(&[Arc::new(fragment)]).1);
    problems
}

/// An install configuration has keys that no routes file has.
fn is_install(text: &str, documents: Option<&[yaml::Node]>) -> bool {
    let Some(documents) = documents else {
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
        let args = CheckArgs { files: vec![top.path().join(files[0].0)], kubernetes: false, format };
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
        let problems = find(&["/nowhere/routes.yaml".into()], false);
        assert!(problems[0].what.contains("no such file"));
    }

    #[test]
    fn a_service_is_no_unknown_cluster_where_routes_are_for_a_cluster() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("r.yaml");
        std::fs::write(&file, "a.test/: shop/web:http\nb.test/: web\n").unwrap();
        let files = [file];
        let told = |kubernetes| find(&files, kubernetes).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(told(false).len() == 2 && told(false)[0].contains("add --kubernetes"), "{:?}", told(false));
        assert!(told(true).len() == 1 && told(true)[0].contains("write namespace/service"), "{:?}", told(true));
    }

    #[test]
    fn a_manifest_is_checked_before_it_is_applied() {
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: r, labels: { tidegate.io/routes: \"\" } }\ndata:\n  r: |\n    a.test/: shop/web\n";
        let (text, code) = run(&[("cm.yaml", map)], Format::Text);
        assert_eq!((text.as_str(), code), ("all is right\n", ExitCode::SUCCESS));
        let wrong = format!("{map}    b.test: shop/web\n");
        let (text, code) = run(&[("cm.yaml", &wrong)], Format::Text);
        assert!(text.contains("cm.yaml:7:5: r: b.test: error") && code == ExitCode::from(FAILED), "{text}");
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("a.yaml"), &wrong).unwrap();
        std::fs::write(top.path().join("b.yaml"), "c.test/: shop/web\nd.test: x\n").unwrap();
        let problems = find(&[top.path().into()], false);
        assert_eq!(problems.len(), 2, "a folder may hold both kinds: {problems:?}");
    }
}
