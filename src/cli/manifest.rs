//! Which texts of routes stand in a Kubernetes manifest, and where in it?
//!
//! `tidegate check` reads what `kubectl apply` will send: any number of documents, among them routes ConfigMaps, or the List
//! that `kubectl get -o yaml` prints. Each data key of a routes ConfigMap is a text of routes. In a literal block (`key: |`) its
//! lines are lines of the manifest, so a problem has its place there; a text in quotes has its own lines.

use crate::config::decode::NoFiles;
use crate::config::yaml::{Entry, Node, Value};
use crate::model::{Fragment, Origin, Position, Problem};
use crate::source::grammar;
use std::sync::Arc;

/// ConfigMaps with this label are read by the gate, whatever its value.
pub(super) const LABEL: &str = "tidegate.io/routes";

/// Whether these documents are objects of Kubernetes.
pub(super) fn is_manifest(documents: &[Node]) -> bool {
    documents.iter().any(|document| get(document, "apiVersion").is_some() && get(document, "kind").is_some())
}

/// Everything that the routes ConfigMaps of a manifest say, as one fragment, and what is wrong in them.
pub(super) fn read(place: &str, text: &str, documents: &[Node]) -> (Fragment, Vec<Problem>) {
    let lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(text).lines().collect();
    let manifest = Manifest { place: place.into(), lines };
    let (mut fragment, mut problems) = (Fragment::default(), Vec::new());
    let maps: Vec<&Node> = documents.iter().flat_map(objects).filter(|o| is_routes(o)).collect();
    if maps.is_empty() {
        let what = format!("no ConfigMap with the label {LABEL} in this manifest: there is nothing to check");
        let hint = format!("label the ConfigMap of your routes: metadata: {{ labels: {{ {LABEL}: \"\" }} }}");
        problems.push(Problem::warning(Origin::of(place), what, hint));
    }
    for entry in maps.into_iter().filter_map(|map| entries(get(map, "data")?)).flatten() {
        let (said, wrong) = manifest.text(entry);
        fragment.routes.extend(said.routes);
        fragment.clusters.extend(said.clusters);
        fragment.tls.extend(said.tls);
        problems.extend(wrong);
    }
    (fragment, problems)
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
    /// One data key, with every origin moved to where it stands in the manifest.
    fn text(&self, entry: &Entry) -> (Fragment, Vec<Problem>) {
        let text = match &entry.node.value {
            Value::Text(text) => text,
            Value::Null => return <_>::default(),
            Value::List(_) | Value::Map(_) => {
                let what = format!("found {} where a text is expected", entry.node.describe());
                let hint = format!("write {}: | and indent the routes below it", entry.key);
                let at = Origin::of(Arc::clone(&self.place)).at(&*entry.key, Some(entry.node.at));
                return (Fragment::default(), vec![Problem::error(at, what, hint)]);
            }
        };
        let parsed = grammar::parse(&self.place, text, &NoFiles);
        let (mut fragment, mut problems) = (parsed.fragment, parsed.problems);
        let block = self.block(entry, text);
        let origins = fragment.routes.iter_mut().map(|r| &mut Arc::make_mut(r).origin);
        let origins = origins.chain(fragment.clusters.iter_mut().map(|c| &mut Arc::make_mut(c).origin));
        let origins = origins.chain(fragment.tls.iter_mut().map(|t| &mut t.origin));
        for origin in origins.chain(problems.iter_mut().map(|p| &mut p.origin)) {
            *origin = moved(origin, entry, block);
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

/// An origin inside of a text as one in the manifest; `block`: the line before the text's first, and its indentation.
fn moved(origin: &Origin, entry: &Entry, block: Option<Position>) -> Origin {
    let inside = origin.position;
    let (position, key) = match (block, inside) {
        (Some(block), Some(at)) => {
            let position = Position { line: block.line + at.line, column: block.column + at.column };
            (Some(position), entry.key.to_string())
        }
        (None, Some(at)) => (Some(entry.node.at), format!("{}:{}:{}", entry.key, at.line, at.column)),
        (_, None) => (Some(entry.at), entry.key.to_string()),
    };
    let key = if origin.key.is_empty() { key } else { format!("{key}: {}", origin.key) };
    origin.at(key, position)
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
        let (fragment, problems) = read("cm.yaml", text, &documents);
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
    fn a_service_is_named_with_its_namespace() {
        for right in ["shop/web", "shop/web:80", "shop/web:http", "a-1/b-2:x"] {
            assert!(is_service(right), "{right}");
        }
        for wrong in ["web", "shop/", "/web", "shop/web:", "shop/web:0", "shop/web:a:b", "a/b/c", "Shop/web", "a.b/c"] {
            assert!(!is_service(wrong), "{wrong}");
        }
    }
}
