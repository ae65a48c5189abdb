//! Does every example load, are the schemas current and complete, and is every class of mistake told as it should be?
//!
//! `UPDATE=1 cargo test --test config` writes the schemas and the expected messages anew; look at the difference.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail where it stands"
)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate::cli::SchemaKind;
use tidegate::config::yaml::{self, Node};
use tidegate::config::{Config, FilesIn};
use tidegate::message::RequestHead;
use tidegate::model::Problem;
use tidegate::route::{Route, Table};
use tidegate::source::grammar;
use tidegate::telemetry::Registry;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no .{extension}");
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Every problem of an install configuration or a routes file; which it is, its name says.
fn problems(path: &Path) -> Vec<Problem> {
    let (text, folder) = (fs::read_to_string(path).unwrap(), path.parent().unwrap());
    if name(path).starts_with("install") {
        Config::parse(&name(path), &text, folder).err().unwrap_or_default()
    } else {
        grammar::parse(&name(path), &text, &FilesIn(folder)).problems
    }
}

/// Compares with what is committed, or writes it.
fn current(path: &Path, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, text).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(committed == text, "{} is not current: UPDATE=1 cargo test --test config\n{text}", path.display());
}

fn schema(kind: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(root().join(format!("config/{kind}.schema.json"))).unwrap()).unwrap()
}

#[test]
fn every_example_loads_and_names_its_schema() {
    for path in files("config", "yaml") {
        assert_eq!(problems(&path), [], "{}", path.display());
        let kind = if name(&path).starts_with("install") { "install" } else { "routes" };
        let first = format!("# yaml-language-server: $schema={kind}.schema.json\n");
        assert!(fs::read_to_string(&path).unwrap().starts_with(&first), "{}", path.display());
    }
}

#[test]
fn every_example_is_valid_by_its_schema() {
    for path in files("config", "yaml") {
        let schema = schema(if name(&path).starts_with("install") { "install" } else { "routes" });
        for document in yaml::parse(&fs::read_to_string(&path).unwrap()).unwrap() {
            let value = as_json(&document);
            assert!(valid(&schema, &schema, &value), "{}: {value:#}", path.display());
        }
    }
}

#[test]
fn the_full_examples_use_every_key_of_the_schemas() {
    for (kind, example) in [("install", "install-full.yaml"), ("routes", "routes-full.yaml")] {
        let mut used = BTreeSet::new();
        for document in yaml::parse(&fs::read_to_string(root().join("config").join(example)).unwrap()).unwrap() {
            keys(&document, &mut used);
        }
        let mut known = BTreeSet::new();
        for definition in schema(kind)["definitions"].as_object().unwrap().values() {
            known.extend(definition["properties"].as_object().into_iter().flat_map(|p| p.keys().cloned()));
        }
        let missing: Vec<_> = known.difference(&used).collect();
        assert!(missing.is_empty(), "{example} does not use {missing:?}");
    }
}

/// The requests of the comments, each with the route that takes it: `# GET a.test/x x-a: 1, x-b: 2 -> a.test/`.
fn promised(text: &str) -> Vec<(RequestHead, String)> {
    let asked = text.lines().filter_map(|line| line.strip_prefix("#   ")?.split_once(" -> "));
    asked.map(|(request, route)| (head(request), route.trim().to_owned())).collect()
}

fn head(request: &str) -> RequestHead {
    let mut parts = request.trim().splitn(3, ' ');
    let (method, url) = (parts.next().unwrap(), parts.next().unwrap());
    let (host, path) = url.split_at(url.find('/').unwrap());
    let mut head = RequestHead::sample(method.parse().unwrap(), host, path);
    for field in parts.next().into_iter().flat_map(|fields| fields.split(", ")) {
        let (name, value) = field.split_once(": ").unwrap();
        head.fields.push(name.trim().as_bytes(), value.trim().as_bytes());
    }
    head
}

#[test]
fn precedence_is_as_the_example_says_for_any_order_of_definition() {
    let path = root().join("config/routes-precedence.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let promised = promised(&text);
    let specs = grammar::parse(&name(&path), &text, &FilesIn(&root())).fragment.routes;
    let registry = Registry::new(1, 0);
    let compiled = |spec| Arc::new(Route::compile(spec, |_| None, &registry).unwrap());
    let mut routes: Vec<_> = specs.iter().map(compiled).collect();
    let unused: Vec<_> = routes.iter().filter(|r| promised.iter().all(|(_, name)| *name != r.spec.name)).collect();
    assert!(unused.is_empty() && promised.len() > 25, "routes that no request of the comments reaches: {unused:?}");
    for turn in 0..routes.len() {
        // Each route is the first once and the last once, and neighbours change places.
        routes.rotate_left(1);
        routes.reverse();
        let table = Table::build(routes.clone());
        for (head, route) in &promised {
            let found = table.find(head, std::net::Ipv4Addr::LOCALHOST.into()).unwrap();
            assert_eq!(found.route.spec.name, *route, "{} {}{} in order {turn}", head.method, head.host, head.path);
        }
    }
}

#[test]
fn the_committed_schemas_are_current() {
    current(&root().join("config/install.schema.json"), &SchemaKind::Install.text());
    current(&root().join("config/routes.schema.json"), &SchemaKind::Routes.text());
}

#[test]
fn every_section_of_the_schemas_is_described_and_takes_no_unknown_key() {
    for kind in ["install", "routes"] {
        for (section, definition) in schema(kind)["definitions"].as_object().unwrap() {
            assert_eq!(definition["additionalProperties"], false, "{kind}: {section}");
            let properties = definition["properties"].as_object().unwrap();
            for (key, value) in properties {
                assert!(value["description"].as_str().is_some_and(|d| d.len() > 3), "{kind}: {section}.{key}");
            }
        }
    }
}

#[test]
fn every_class_of_mistake_is_told_as_expected() {
    for path in files("tests/config/bad", "yaml") {
        let lines: Vec<_> = problems(&path).iter().map(|p| format!("{p}\n")).collect();
        assert!(!lines.is_empty(), "{} is right", path.display());
        current(&path.with_extension("expected"), &lines.concat());
    }
}

#[test]
fn every_mistake_has_a_line_and_says_what_would_be_right() {
    for path in files("tests/config/bad", "yaml") {
        for problem in problems(&path) {
            assert!(problem.origin.position.is_some(), "{problem}");
            assert!(
                !problem.hint.is_empty() || problem.what.contains("expected") || problem.what.contains("exactly one"),
                "{problem}"
            );
        }
    }
}

fn keys(node: &Node, used: &mut BTreeSet<String>) {
    match &node.value {
        yaml::Value::Map(entries) => {
            for entry in entries {
                used.insert(entry.key.to_string());
                keys(&entry.node, used);
            }
        }
        yaml::Value::List(items) => items.iter().for_each(|item| keys(item, used)),
        yaml::Value::Null | yaml::Value::Text(_) => {}
    }
}

/// As an editor sees it: numbers and booleans by their looks.
fn as_json(node: &Node) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Text(text) if &**text == "true" || &**text == "false" => Value::Bool(&**text == "true"),
        yaml::Value::Text(text) => text.parse::<u64>().map_or_else(|_| Value::from(&**text), Value::from),
        yaml::Value::List(items) => items.iter().map(as_json).collect(),
        yaml::Value::Map(entries) => {
            Value::Object(entries.iter().map(|e| (e.key.to_string(), as_json(&e.node))).collect())
        }
    }
}

/// As much of JSON Schema as our schemas use.
fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(rules) = schema.as_object() else { return schema != &Value::Bool(false) };
    rules.iter().all(|(rule, said)| match rule.as_str() {
        "$ref" => valid(root, root.pointer(said.as_str().unwrap().trim_start_matches('#')).unwrap(), value),
        "allOf" => said.as_array().unwrap().iter().all(|s| valid(root, s, value)),
        "anyOf" => said.as_array().unwrap().iter().any(|s| valid(root, s, value)),
        "enum" => said.as_array().unwrap().iter().any(|v| v == value || plain(v) == plain(value)),
        "type" => said.as_array().map_or(vec![said], |all| all.iter().collect()).iter().any(|t| is_type(t, value)),
        "required" => said.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
        "items" => value.as_array().is_none_or(|all| all.iter().all(|item| valid(root, said, item))),
        "pattern" => {
            value.as_str().is_none_or(|text| regex::Regex::new(said.as_str().unwrap()).unwrap().is_match(text))
        }
        "minimum" => value.as_u64().is_none_or(|n| n >= said.as_u64().unwrap()),
        "maximum" => value.as_u64().is_none_or(|n| n <= said.as_u64().unwrap()),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            map.iter().all(|(key, value)| match property(schema, key) {
                Some(property) => valid(root, property, value),
                None => valid(root, said, value),
            })
        }),
        _ => true,
    })
}

fn property<'s>(schema: &'s Value, key: &str) -> Option<&'s Value> {
    schema["properties"].get(key).or_else(|| {
        let patterns = schema["patternProperties"].as_object()?;
        patterns.iter().find(|(pattern, _)| regex::Regex::new(pattern).unwrap().is_match(key)).map(|(_, schema)| schema)
    })
}

/// `1.2` with quotes or without.
fn plain(value: &Value) -> String {
    value.to_string().trim_matches('"').to_owned()
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        _ => value.is_number(),
    }
}
