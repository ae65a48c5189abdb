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
    let mut found = Found { services: kubernetes, ..Found::default() };
    for file in files.iter().flat_map(|file| expand(file, kubernetes)) {
        match Kind::of(&file, kubernetes) {
            Kind::Install(names, wrong) => {
                found.certificates.extend(names);
                found.problems.extend(wrong);
            }
            Kind::Routes => found.routes.push(file),
            Kind::Said(fragment, wrong) => found.say(fragment, wrong),
            Kind::Object(object) => found.objects.push(object),
        }
    }
    found.problems()
}

/// What the files turned out to be.
#[derive(Default)]
struct Found {
    /// Names of certificates of install configurations.
    certificates: BTreeSet<String>,
    routes: Vec<PathBuf>,
    objects: Vec<Object>,
    /// Whether clusters may be Services.
    services: bool,
    said: Fragment,
    problems: Vec<Problem>,
}

impl Found {
    fn say(&mut self, fragment: Fragment, wrong: Vec<Problem>) {
        self.said.routes.extend(fragment.routes);
        self.said.clusters.extend(fragment.clusters);
        self.said.tls.extend(fragment.tls);
        self.problems.extend(wrong);
    }

    fn problems(mut self) -> Vec<Problem> {
        let (read, wrong) = read_files(std::mem::take(&mut self.routes), &[]);
        self.say(read, wrong);
        // Not before all files were looked at, because they may name certificates of the install configuration.
        for object in std::mem::take(&mut self.objects) {
            let (fragment, wrong) = object.read(&self.certificates);
            self.say(fragment, wrong);
            self.services = true;
        }
        let mut problems = self.problems;
        problems.extend(alone(self.said, self.services));
        problems.sort();
        problems.dedup();
        problems
    }
}

/// What a file is, by its content.
enum Kind {
    /// An install configuration: the names of its certificates, and what is wrong with it.
    Install(Vec<String>, Vec<Problem>),
    /// A routes file or a folder of such.
    Routes,
    /// Routes, as read.
    Said(Fragment, Vec<Problem>),
    /// What a gate reads from objects.
    Object(Object),
}

impl Kind {
    /// `kubernetes`: routes are for ConfigMaps.
    fn of(path: &Path, kubernetes: bool) -> Self {
        let stdin = path == Path::new(STDIN);
        let text = if stdin { io::read_to_string(io::stdin()).map_err(|e| e.to_string()) } else { read_text(path) };
        let place = if stdin { "stdin".into() } else { path.display().to_string() };
        let text = match text {
            Ok(text) => text,
            Err(why) if stdin => {
                let problem = Problem::error(Origin::of(place), format!("it cannot be read: {why}"), "");
                return Self::Said(Fragment::default(), vec![problem]);
            }
            // Reading it as routes says why it cannot be read.
            Err(_) => return Self::Routes,
        };
        let documents = yaml::parse(&text).ok();
        if documents.as_deref().is_some_and(manifest::is_manifest) {
            return Self::Object(Object { place, text, documents });
        }
        match (is_install(&text, documents.as_deref()), stdin) {
            (true, true) => Self::install(Config::parse(&place, &text, Path::new(""))),
            (true, false) => Self::install(Config::load(path)),
            (false, _) if kubernetes => Self::Object(Object { place, text, documents: None }),
            (false, true) => {
                let parsed = grammar::parse(&place, &text, &FilesIn(Path::new("")));
                Self::Said(parsed.fragment, parsed.problems)
            }
            (false, false) => Self::Routes,
        }
    }

    fn install(config: Result<Config, Vec<Problem>>) -> Self {
        let names = config.iter().flat_map(|config| &config.certificates).map(|files| files.name.clone()).collect();
        Self::Install(names, config.map_or_else(|wrong| wrong, whole))
    }
}

/// A text that a gate reads from objects.
struct Object {
    place: String,
    text: String,
    /// Of a manifest; `None`: the text is one of routes.
    documents: Option<Vec<yaml::Node>>,
}

impl Object {
    fn read(self, certificates: &BTreeSet<String>) -> (Fragment, Vec<Problem>) {
        match self.documents {
            Some(documents) => manifest::read(&self.place, &self.text, &documents, certificates),
            None => manifest::read_text(&self.place, self.text, certificates),
        }
    }
}

/// A folder with manifests is its files, because each may be of another kind, and so is one of texts for ConfigMaps; any other is
/// left to be read as a whole.
fn expand(path: &Path, kubernetes: bool) -> Vec<PathBuf> {
    let is_yaml = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml") && p.is_file();
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(is_yaml).collect();
    files.sort();
    let is_manifest = |file: &PathBuf| {
        let documents = read_text(file).ok().and_then(|text| yaml::parse(&text).ok());
        documents.is_some_and(|documents| manifest::is_manifest(&documents))
    };
    let apart = files.iter().any(|file| kubernetes || is_manifest(file));
    if apart { files } else { vec![path.to_path_buf()] }
}

/// An install configuration with everything that it names, as far as the snapshot that would serve.
fn whole(config: Config) -> Vec<Problem> {
    let (mut fragment, mut problems) = read_files(config.routes, &config.certificates);
    fragment.listeners = config.listeners;
    fragment.tls.extend(config.tls);
    let (model, conflicts) = merge(&[Arc::new(fragment.into())]);
    let registry = Registry::new(1, SERIES);
    let (_, wrong) = compile(&model, &Snapshot::default(), &registry);
    problems.extend(conflicts);
    problems.extend(wrong);
    problems
}

/// Routes without an install configuration: listeners and certificates are not known, clusters may stand in other files or
/// be Services.
fn alone(fragment: Fragment, kubernetes: bool) -> Vec<Problem> {
    let clusters: BTreeSet<&str> = fragment.clusters.iter().map(|c| &*c.name).collect();
    let mut problems = Vec::new();
    for route in &fragment.routes {
        let Action::Forward(targets) = &route.action else { continue };
        for target in targets.iter().filter(|t| !clusters.contains(&*t.cluster)) {
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
    problems.extend(source::merge(&[Arc::new(fragment.into())]).1);
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
    fn routes_for_config_maps_are_judged_as_the_gate_judges_them() {
        let top = tempfile::tempdir().unwrap();
        let text = "a.test/: shop/web\nclusters: { shop/web: { max_idle: 1 }, shop/b: 127.0.0.1:1 }\n";
        std::fs::write(top.path().join("r.yaml"), text).unwrap();
        for files in [top.path().into(), top.path().join("r.yaml")] {
            let problems = find(&[files], true);
            assert!(problems.len() == 1 && problems[0].what.contains("has endpoints of its own"), "{problems:?}");
            let place = format!("{}:2:40: clusters.shop/b", top.path().join("r.yaml").display());
            assert_eq!(problems[0].origin.to_string(), place);
        }
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

    const REFUSED_BY_THE_GATE: &str = "apiVersion: v1\nkind: ConfigMap\n\
        metadata: { name: r, namespace: edge, labels: { tidegate.io/routes: \"\" } }\nbinaryData: { b: AA== }\ndata:\n  r: |\n    \
        tls: a/b\n    a.test/: shop/web\n    clusters:\n      shop/web: { endpoints: [\"127.0.0.1:1\"] }\n      plain: {}\n";

    #[test]
    fn a_manifest_is_judged_as_the_gate_judges_it() {
        let (text, code) = run(&[("cm.yaml", REFUSED_BY_THE_GATE)], Format::Text);
        for wrong in [
            "cm.yaml:4:18: binaryData[b]: error: binary data holds no routes",
            "cm.yaml:7:5: r: tls: error: \"a/b\" is neither a certificate of the install configuration nor",
            "name a Secret of namespace edge",
            "cm.yaml:10:7: r: clusters.shop/web: error: cluster shop/web has endpoints of its own",
            "cm.yaml:11:7: r: clusters.plain: error: \"plain\" is no Service",
            "\n4 errors\n",
        ] {
            assert!(text.contains(wrong), "{wrong}: {text}");
        }
        assert_eq!(code, ExitCode::from(FAILED));
    }

    #[test]
    fn a_manifest_may_name_certificates_of_the_install_configuration_beside_it() {
        let top = tempfile::tempdir().unwrap();
        let gate = "listeners: { http: { address: 127.0.0.1:0 } }\ncertificates: { a/b: { certificate: c, key: k } }\n";
        let files = [("cm.yaml", REFUSED_BY_THE_GATE), ("gate.yaml", gate)].map(|(name, text)| {
            let file = top.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        });
        let told =
            |files: &[PathBuf]| find(files, false).iter().filter(|p| p.what.contains("\"a/b\" is neither")).count();
        assert_eq!((told(&files[..1]), told(&files)), (1, 0));
    }
}
