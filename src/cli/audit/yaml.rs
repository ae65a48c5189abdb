//! How is a report written as YAML, so that whoever reads it finds the very values of the JSON?
//!
//! Block style. Every text is quoted as JSON quotes it, which YAML 1.2 reads the same (section 1.3), so that neither `no` nor `1e3` nor `# x`
//! becomes something else, in parsers of YAML 1.1 either.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// A whole document.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => entries(&mut text, map, 0, false),
        Value::Array(list) if !list.is_empty() => items(&mut text, list, 0),
        short => {
            let _ = writeln!(text, "{}", scalar(short));
        }
    }
    text
}

/// The entries of a map, one a line; the first goes on behind the dash of a list where there is one.
fn entries(text: &mut String, map: &Map<String, Value>, depth: usize, behind_dash: bool) {
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 || !behind_dash {
            indent(text, depth);
        }
        text.push_str(&self::key(key));
        text.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                text.push('\n');
                entries(text, map, depth + 1, false);
            }
            Value::Array(list) if !list.is_empty() => {
                text.push('\n');
                items(text, list, depth + 1);
            }
            short => {
                let _ = writeln!(text, " {}", scalar(short));
            }
        }
    }
}

fn items(text: &mut String, list: &[Value], depth: usize) {
    for value in list {
        indent(text, depth);
        match value {
            Value::Object(map) if !map.is_empty() => {
                text.push_str("- ");
                entries(text, map, depth + 1, true);
            }
            Value::Array(list) if !list.is_empty() => {
                text.push_str("-\n");
                items(text, list, depth + 1);
            }
            short => {
                let _ = writeln!(text, "- {}", scalar(short));
            }
        }
    }
}

/// Two columns a level, as wide as the dash of a list.
fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// A key as it is where no parser takes it for anything but a text.
fn key(key: &str) -> String {
    const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !WORDS.contains(&key.to_ascii_lowercase().as_str());
    if plain { key.into() } else { quoted(key) }
}

/// What stands in one line: a text, a number, true, false, null, `[]` and `{}`.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// As JSON quotes, and what JSON leaves as it is but YAML does not print (section 5.1) or may break a line at.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let mut quoted = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') {
            let _ = write!(quoted, "\\u{:04x}", u32::from(c));
        } else {
            quoted.push(c);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_parser_of_yaml_reads_the_values_of_the_json() {
        let texts = [
            "",
            " ",
            "a: b",
            "# x",
            "- x",
            "no",
            "null",
            "~",
            "1e3",
            "0x1f",
            "2026-11-23",
            "*.a",
            "&a",
            "!x",
            "%x",
            "@",
            "`",
            "'",
            "\"",
            "\\",
            "a\nb",
            "a\r\n\tb",
            "\u{0}\u{7}\u{7f}\u{85}\u{9f}",
            "\u{2028}\u{feff}\u{ffff}",
            "é 漢 🚪",
            "{",
            "[",
            "---",
            "|",
            ">",
        ];
        let mut keys = Map::new();
        keys.extend(texts.iter().map(|text| ((*text).to_owned(), json!(text))));
        let deep =
            json!([[], {}, [[1, [2]], [{ "a": [] }]], { "a": { "b": { "c": [{ "d": 1, "e": { "f": null } }, []] } } }]);
        for value in [
            json!({ "texts": texts, "keys": keys, "deep": deep, "no": false, "numbers": [0, -1, 65535, u64::MAX, 1.5] }),
            deep.clone(),
            json!({}),
            json!([]),
            json!("a"),
        ] {
            let text = document(&value);
            let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert_eq!(read, value, "{text}");
        }
    }

    #[test]
    fn a_person_reads_it_too() {
        let value = json!({ "services": [{ "name": "web", "ports": [{ "node_port": 30080 }], "reach": { "ips": [] } }], "no": null });
        let text = "\"no\": null\nservices:\n  - name: \"web\"\n    ports:\n      - node_port: 30080\n    reach:\n      ips: []\n";
        assert_eq!(document(&value), text);
    }
}
