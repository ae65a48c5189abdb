//! Is this text nothing but plain lines of `key: value`, as long lists of routes are?
//!
//! Then it is read here, in a tenth of the time that it takes to scan for everything else that YAML can be; whoever edits one of five
//! hundred routes waits for that. What is taken here is so narrow that the scanner says the same of it, which a test holds;
//! everything else is left to the scanner.

use super::{Entry, Node, Value};
use crate::model::Position;
use hashbrown::HashMap;

/// Longer keys are no keys in YAML (1024 characters).
const LONGEST: usize = 512;

/// The map that the text is; `None`: it is, or may be, something else.
pub(super) fn map(text: &str) -> Option<Node> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut seen: HashMap<&str, Position> = HashMap::new();
    for (line, number) in text.split('\n').zip(1u32..) {
        if line.is_empty() || is_comment(line) {
            continue;
        }
        let (key, value) = line.split_once(": ")?;
        if line.len() > LONGEST || !is_plain(key, false) || !is_plain(value, true) {
            return None;
        }
        let at = |column: usize| Some(Position { line: number, column: u32::try_from(column).ok()? });
        let (key_at, value_at) = (at(1)?, at(key.len() + 3)?);
        let repeats = seen.get(key).copied();
        if repeats.is_none() {
            seen.insert(key, key_at);
        }
        let node = Node { at: value_at, value: Value::Text(value.into()) };
        entries.push(Entry { key: key.into(), at: key_at, repeats, node });
    }
    let at = entries.first()?.at;
    Some(Node { at, value: Value::Map(entries) })
}

fn is_comment(line: &str) -> bool {
    line.starts_with('#') && line.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A text that needs no quotes wherever it stands; a colon belongs to it where a port follows.
fn is_plain(text: &str, colons: bool) -> bool {
    let fits = |(at, byte): (usize, u8)| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'/' => true,
        b'.' | b'_' | b'-' | b'=' => at > 0,
        b':' => at > 0 && colons && text.as_bytes().get(at + 1).is_some_and(u8::is_ascii_alphanumeric),
        _ => false,
    };
    !text.is_empty() && text != "null" && text.bytes().enumerate().all(|(at, byte)| fits((at, byte)))
}

#[cfg(test)]
mod tests {
    use super::super::scan;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_routes_are_read_here() {
        let text = "# shops\n\na.test/: shop/web\na.test=/health: shop/api:8080\n/any: x\n10.0.0.1/: y";
        assert_eq!(map(text).map(|node| vec![node]), scan(text).ok());
        assert!(map(text).is_some());
    }

    #[test]
    fn whatever_is_more_than_plain_lines_is_left_to_the_scanner() {
        let texts = [
            "",
            "# a\n",
            "a",
            "a:",
            "a: ",
            "a: b ",
            "a: b\r\n",
            "a:\tb",
            " a: b",
            "a: b\n c",
            "a: b\n---\nc: d\n",
            "---\na: b\n",
            "a: \"b\"",
            "\"a\": b",
            "*.a: b",
            "a: *b",
            "a: &b c",
            "a: !b c",
            "a: [b]",
            "a: {}",
            "a: |",
            "- a: b",
            "? a: b",
            "a: b # c",
            "a: null",
            "null: a",
            "a: ~",
            "~: a",
            "<<: a",
            "a: b: c",
            "a: b:",
            "a: - b",
            "ä: b",
            "a: ä",
            "# \u{7}\na: b",
            "%YAML 1.2\na: b",
            "...: a",
        ];
        assert_eq!(texts.iter().find(|text| map(text).is_some()), None);
        assert!(map(&format!("{}: b", "a".repeat(LONGEST))).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_read_here_the_scanner_reads_alike(
            parts in prop::collection::vec(prop::sample::select(vec![
                "a", "b.test", "shop/web", "/", "=", ":", ": ", ": ", ": ", "\n", "\n", "\n", "8080", "-", ".", "_", "#", "# c", " ", "null", "true", "~", "*",
                "---", "...", "0x1f", "1.10", "\"", "'", "[", "]", "{", "}", ",", "&", "!", "|", ">", "%", "@", "`", "?", "\t", "\r", "ä", "<<",
            ]), 0..24),
            repeated in any::<bool>(),
        ) {
            let mut text = parts.concat();
            if repeated {
                text = format!("{text}\n{text}");
            }
            if let Some(node) = map(&text) {
                prop_assert_eq!(Ok(vec![node]), scan(&text));
            }
        }

        #[test]
        fn plain_lines_are_read_alike(
            lines in prop::collection::vec((0u8..4, "[a-c/][a-c0-9/._=-]{0,4}", "[a-c0-9/][a-c0-9/._-]{0,5}(:[0-9a-z]{1,3})?"), 1..30),
        ) {
            let line = |(kind, key, value): &(u8, String, String)| match kind {
                0 => "\n".to_owned(),
                1 => format!("# {key}: {value}\n"),
                _ => format!("{key}: {value}\n"),
            };
            let text: String = lines.iter().map(line).collect();
            let (here, there) = (map(&text), scan(&text));
            prop_assert!(here.is_some() || lines.iter().all(|line| line.0 < 2), "{}", text);
            if let Some(node) = here {
                prop_assert_eq!(Ok(vec![node]), there);
            }
        }
    }
}
