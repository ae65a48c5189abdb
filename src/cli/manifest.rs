//! Which texts of routes stand in a Kubernetes manifest, and where in it?
//!
//! `tidegate check` reads what `kubectl apply` will send: any number of documents, among them routes ConfigMaps, or the List
//! that `kubectl get -o yaml` prints. Each data key of a routes ConfigMap is a text of routes. In a literal block (`key: |`) its
//! lines are lines of the manifest, so a problem has its place there; a text in quotes has its own lines. What is right in them, the
//! gate's own translation says, so that nothing passes here that is refused there.

use crate::config::yaml::{Entry, Node, Value};
use crate::kubernetes::objects::{Key, Meta, RoutesConfigMap};
use crate::kubernetes::translate::{Alone, read_alone};
use crate::model::{Fragment, Origin, Position, Problem};
use std::collections::BTreeSet;
use std::sync::Arc;

/// ConfigMaps with this label are read by the gate, whatever its value.
pub(super) const LABEL: &str = "tidegate.io/routes";
/// Where a ConfigMap is that does not say it: `deploy/` puts gates there, and a gate reads those of its own namespace.
const NAMESPACE: &str = "tidegate";

/// Whether these documents are objects of Kubernetes.
pub(super) fn is_manifest(documents: &[Node]) -> bool {
    documents.iter().any(|document| get(document, "apiVersion").is_some() && get(document, "kind").is_some())
}

/// Everything that the routes ConfigMaps of a manifest say, as one fragment, and what is wrong in them. `certificates` are the
/// names that the install configuration has.
pub(super) fn read(
    place: &str,
    text: &str,
    documents: &[Node],
    certificates: &BTreeSet<String>,
) -> (Fragment, Vec<Problem>) {
    let lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(text).lines().collect();
    let manifest = Manifest { place: place.into(), lines };
    let (mut fragment, mut problems) = (Fragment::default(), Vec::new());
    let maps: Vec<&Node> = documents.iter().flat_map(objects).filter(|o| is_routes(o)).collect();
    if maps.is_empty() {
        let what = format!("no ConfigMap with the label {LABEL} in this manifest: there is nothing to check");
        let hint = format!("label the ConfigMap of your routes: metadata: {{ labels: {{ {LABEL}: \"\" }} }}");
        problems.push(Problem::warning(Origin::of(place), what, hint));
    }
    for map in maps {
        let object = config_map(map);
        let own = Arc::clone(&object.meta.key.namespace);
        let mut alone = read_alone(object, &own, certificates);
        for entry in fields(map, "data") {
            let (said, wrong) = manifest.text(entry, &mut alone);
            fragment.routes.extend(said.routes);
            fragment.clusters.extend(said.clusters);
            fragment.tls.extend(said.tls);
            problems.extend(wrong);
        }
        for entry in fields(map, "binaryData") {
            let wrong = alone.binary.remove(&*entry.key);
            problems.extend(wrong.map(|p| Problem { origin: manifest.at(&p.origin.key, entry.node.at), ..p }));
        }
    }
    (fragment, problems)
}

/// A routes file that is for a ConfigMap, as it will be read there.
pub(super) fn read_text(place: &str, text: String, certificates: &BTreeSet<String>) -> (Fragment, Vec<Problem>) {
    let key = String::new();
    let object = RoutesConfigMap { data: [(key.clone(), text)].into(), ..RoutesConfigMap::default() };
    let (mut fragment, mut problems) =
        read_alone(object, NAMESPACE, certificates).texts.remove(&key).unwrap_or_default();
    let place: Arc<str> = place.into();
    for origin in origins(&mut fragment, &mut problems) {
        origin.place = Arc::clone(&place);
    }
    (fragment, problems)
}

/// The object that the API server would make of it. Of a repeated key the first counts here, and the others are told.
fn config_map(map: &Node) -> RoutesConfigMap {
    let metadata = |key| get(map, "metadata").and_then(|metadata| text(metadata, key));
    let key = Key::new(metadata("namespace").unwrap_or(NAMESPACE), metadata("name").unwrap_or_default());
    let first = |entry: &&Entry| entry.repeats.is_none();
    let texts = fields(map, "data").iter().filter(first).filter_map(|entry| match &entry.node.value {
        Value::Text(text) => Some((entry.key.to_string(), text.to_string())),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    });
    RoutesConfigMap {
        meta: Meta { key, ..Meta::default() }.into(),
        data: texts.collect(),
        binary: fields(map, "binaryData").iter().filter(first).map(|entry| entry.key.to_string()).collect(),
        ..RoutesConfigMap::default()
    }
}

/// A document, or the items of one that is a list.
fn objects(document: &Node) -> Vec<&Node> {
    let is_list = text(document, "kind").is_some_and(|kind| kind.ends_with("List"));
    match get(document, "items").map(|items| &items.value) {
        Some(Value::List(items)) if is_list => items.iter().collect(),
        _ => vec![document],
    }
}

fn is_routes(object: &Node) -> bool {
    let labels = get(object, "metadata").and_then(|metadata| get(metadata, "labels"));
    text(object, "kind") == Some("ConfigMap") && labels.is_some_and(|labels| get(labels, LABEL).is_some())
}

fn entries(node: &Node) -> Option<&[Entry]> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        _ => None,
    }
}

fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    entries(node)?.iter().find(|entry| &*entry.key == key).map(|entry| &entry.node)
}

fn fields<'n>(node: &'n Node, key: &str) -> &'n [Entry] {
    get(node, key).and_then(entries).unwrap_or_default()
}

fn text<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    match &get(node, key)?.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

struct Manifest<'t> {
    place: Arc<str>,
    lines: Vec<&'t str>,
}

impl Manifest<'_> {
    fn at(&self, key: &str, position: Position) -> Origin {
        Origin::of(Arc::clone(&self.place)).at(key.to_owned(), Some(position))
    }

    /// One data key, with every origin moved to where it stands in the manifest.
    fn text(&self, entry: &Entry, alone: &mut Alone) -> (Fragment, Vec<Problem>) {
        let wrong =
            |at, what: String, hint| (Fragment::default(), vec![Problem::error(self.at(&entry.key, at), what, hint)]);
        if let Some(before) = entry.repeats {
            let hint = format!("it stands in line {} already", before.line);
            return wrong(entry.at, format!("the key {:?} is repeated", &*entry.key), hint);
        }
        let text = match &entry.node.value {
            Value::Text(text) => text,
            Value::Null => return <_>::default(),
            Value::List(_) | Value::Map(_) => {
                let what = format!("found {} where a text is expected", entry.node.describe());
                return wrong(entry.node.at, what, format!("write {}: | and indent the routes below it", entry.key));
            }
        };
        let (mut fragment, mut problems) = alone.texts.remove(&*entry.key).unwrap_or_default();
        let block = self.block(entry, text);
        for origin in origins(&mut fragment, &mut problems) {
            let (key, position) = moved(origin, entry, block);
            *origin = Origin::of(Arc::clone(&self.place)).at(key, Some(position));
        }
        (fragment, problems)
    }

    /// Where a text begins, if it is a literal block whose lines are lines of the manifest.
    fn block(&self, entry: &Entry, text: &str) -> Option<Position> {
        let line_of = |number: u32| self.lines.get(usize::try_from(number).ok()?.checked_sub(1)?).copied();
        let header = line_of(entry.at.line)?;
        let mark = header.rsplit_once(": ")?.1.trim_start().strip_prefix('|')?;
        let rest = mark.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '+').trim_start();
        if !rest.is_empty() && !rest.starts_with('#') {
            return None;
        }
        let first = text.lines().position(|line| !line.trim().is_empty())?;
        let number = entry.at.line + 1 + u32::try_from(first).ok()?;
        let wanted = text.lines().nth(first)?;
        // Indented by blanks alone, so bytes are columns; what does not fit is no block that is understood here.
        let indent = line_of(number)?.strip_suffix(wanted)?;
        let column = u32::try_from(indent.len()).ok().filter(|_| indent.bytes().all(|b| b == b' '))?;
        Some(Position { line: entry.at.line, column })
    }
}

/// Every place that a text is told at.
fn origins<'f>(fragment: &'f mut Fragment, problems: &'f mut [Problem]) -> impl Iterator<Item = &'f mut Origin> {
    let routes = fragment.routes.iter_mut().map(|r| &mut Arc::make_mut(r).origin);
    let clusters = fragment.clusters.iter_mut().map(|c| &mut Arc::make_mut(c).origin);
    let tls = fragment.tls.iter_mut().map(|t| &mut t.origin);
    routes.chain(clusters).chain(tls).chain(problems.iter_mut().map(|p| &mut p.origin))
}

/// Key and position in the manifest of what stands in a text; `block`: the line before the text's first, and its indentation.
fn moved(origin: &Origin, entry: &Entry, block: Option<Position>) -> (String, Position) {
    let inside = origin.position;
    let (position, key) = match (block, inside) {
        (Some(block), Some(at)) => {
            let position = Position { line: block.line + at.line, column: block.column + at.column };
            (position, entry.key.to_string())
        }
        (None, Some(at)) => (entry.node.at, format!("{}:{}:{}", entry.key, at.line, at.column)),
        (_, None) => (entry.at, entry.key.to_string()),
    };
    let key = if origin.key.is_empty() { key } else { format!("{key}: {}", origin.key) };
    (key, position)
}

/// Whether this names a Service, as clusters of Kubernetes do: `namespace/service`, perhaps with `:port`.
pub(super) fn is_service(cluster: &str) -> bool {
    let label = |t: &str| crate::config::kubernetes::parse_namespace(t).is_ok();
    let Some((namespace, service)) = cluster.split_once('/') else { return false };
    let (service, port) = service.split_once(':').map_or((service, None), |(service, port)| (service, Some(port)));
    let is_port = |t: &str| t.parse::<u64>().map_or_else(|_| label(t), |n| (1..=65535).contains(&n));
    label(namespace) && label(service) && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn told(text: &str) -> (Vec<String>, Vec<String>) {
        let documents = yaml::parse(text).unwrap();
        assert!(is_manifest(&documents));
        let (fragment, problems) = read("cm.yaml", text, &documents, &BTreeSet::new());
        let routes = fragment.routes.iter().map(|r| r.origin.to_string()).collect();
        (routes, problems.iter().map(ToString::to_string).collect())
    }

    const HEAD: &str =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: routes\n  labels: { tidegate.io/routes: \"\" }\n";

    #[test]
    fn a_problem_in_a_block_stands_at_its_line_of_the_manifest() {
        let (routes, problems) = told(&format!(
            "{HEAD}data:\n  shop.yaml: |\n\n    # shop\n    a.test/: shop/web\n    b.test/: {{ too: x }}\n"
        ));
        assert_eq!(routes, ["cm.yaml:10:5: shop.yaml: a.test/"]);
        assert!(problems[1].starts_with("cm.yaml:11:16: shop.yaml: b.test/: error: unknown key"), "{problems:?}");
    }

    #[test]
    fn blocks_are_found_however_they_are_marked_and_indented() {
        for (mark, indent) in [("|", 3), ("|-", 4), ("|+", 8), ("|2", 4), ("|2-  # routes", 4)] {
            let text = format!("{HEAD}data:\n  \"a: b\": {mark}\n{:indent$}x\n", "");
            let (_, problems) = told(&text);
            assert!(problems[0].starts_with(&format!("cm.yaml:8:{}: a: b: error", indent + 1)), "{mark}: {problems:?}");
        }
    }

    #[test]
    fn a_text_in_quotes_has_lines_of_its_own() {
        let (_, problems) = told(&format!("{HEAD}data:\n  r: \"a.test/: x\\nb.test: y\\n\"\n"));
        assert!(problems[0].starts_with("cm.yaml:7:6: r:2:1: b.test: error"), "{problems:?}");
        let (_, problems) = told(&format!("{HEAD}data:\n  \"a: |\": \"x: |\"\n"));
        assert!(problems[0].starts_with("cm.yaml:7:11: a: |:1:1: "), "{problems:?}");
        let (_, problems) = told(&format!("{HEAD}data:\n  r: >\n    a.test/: x\n\n    b.test: y\n"));
        assert!(problems[0].contains(": r:2:1: b.test: error"), "{problems:?}");
    }

    #[test]
    fn lists_and_other_documents_are_looked_through() {
        let item = "- apiVersion: v1\n  data:\n    r: |\n      x\n  kind: ConfigMap\n  metadata: { labels: { tidegate.io/routes: a } }\n";
        let (_, problems) =
            told(&format!("kind: Deployment\napiVersion: apps/v1\n---\napiVersion: v1\nkind: List\nitems:\n{item}"));
        assert!(problems.len() == 1 && problems[0].starts_with("cm.yaml:10:7: r: error"), "{problems:?}");
    }

    #[test]
    fn a_config_map_without_the_label_is_not_read() {
        let (routes, problems) = told("apiVersion: v1\nkind: ConfigMap\ndata: { r: \"a.test/: x\" }\n");
        assert!(routes.is_empty() && problems[0].contains("tidegate.io/routes"), "{problems:?}");
    }

    #[test]
    fn what_is_no_text_is_told() {
        let (_, problems) = told(&format!("{HEAD}data:\n  r: {{ a.test/: x }}\n"));
        assert!(problems[0].starts_with("cm.yaml:7:6: r: error"), "{problems:?}");
    }

    #[test]
    fn a_repeated_key_is_told_and_the_first_is_read() {
        let (routes, problems) = told(&format!("{HEAD}data:\n  r: \"a.test/: x/y\"\n  r: \"b.test/: x/y\"\n"));
        assert_eq!(routes, ["cm.yaml:7:6: r:1:1: a.test/"]);
        assert!(problems.len() == 1 && problems[0].starts_with("cm.yaml:8:3: r: error: the key \"r\" is repeated"));
    }

    #[test]
    fn a_service_is_named_with_its_namespace() {
        for right in ["shop/web", "shop/web:80", "shop/web:http", "a-1/b-2:x"] {
            assert!(is_service(right), "{right}");
        }
        for wrong in ["web", "shop/", "/web", "shop/web:", "shop/web:0", "shop/web:a:b", "a/b/c", "Shop/web", "a.b/c"] {
            assert!(!is_service(wrong), "{wrong}");
        }
    }
}
