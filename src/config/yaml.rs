//! What does a YAML text say, and at which line and column is each part of it?
//!
//! Everything that is not a list or a map is kept as the text that was written: what a `10s` or a `true` means is said by
//! the place where it stands, never guessed from its looks. So `version: 1.10` stays `1.10` and a country `no` stays `no`.

use crate::model::Position;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};
use std::collections::HashMap;
use thiserror::Error;

/// Larger texts are refused: a hundred thousand routes in the long form are about 20 MiB.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Deeper nesting is refused: the deepest form of the grammar has nine levels.
pub const MAX_DEPTH: usize = 32;
/// Parts that aliases may add to one text; a "billion laughs" ends here.
pub const MAX_ALIASED: usize = 100_000;

/// One part of a document and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// What a part of a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null` without quotes.
    Null,
    /// Any scalar, as written.
    Text(Box<str>),
    /// `[a, b]` or lines that begin with `-`.
    List(Vec<Node>),
    /// `{a: b}` or lines of `key: value`, in the order written.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key's text.
    pub key: Box<str>,
    /// Where the key begins.
    pub at: Position,
    /// Where the same key stood before in this map; the earlier one counts.
    pub repeats: Option<Position>,
    /// Its value.
    pub node: Node,
}

/// Why a text is not YAML (or not YAML that is taken here).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}:{}: {what}; {hint}", at.line, at.column)]
pub struct SyntaxError {
    /// Where reading stopped.
    pub at: Position,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub hint: String,
}

impl Node {
    /// In the words of a person who writes YAML: what is this?
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Text(text) if text.chars().count() > 40 => "a long text".into(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map of keys and values".into(),
        }
    }

    fn depth(&self) -> usize {
        match &self.value {
            Value::Null | Value::Text(_) => 1,
            Value::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Map(entries) => 1 + entries.iter().map(|e| e.node.depth()).max().unwrap_or(0),
        }
    }

    fn size(&self) -> usize {
        match &self.value {
            Value::Null | Value::Text(_) => 1,
            Value::List(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|e| 1 + e.node.size()).sum::<usize>(),
        }
    }
}

/// Reads every document of a text. A document without content is a [`Value::Null`].
pub fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        return Err(SyntaxError {
            at: Position { line: 1, column: 1 },
            what: format!("the text has {} bytes, more than {MAX_BYTES}", text.len()),
            hint: "divide it into several files".into(),
        });
    }
    let mut tree = Tree { parser: Parser::new_from_str(text), end: end(text), anchors: HashMap::new(), aliased: 0 };
    let mut documents = Vec::new();
    loop {
        let (event, _) = tree.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                tree.anchors.clear();
                let (event, span) = tree.next()?;
                documents.push(tree.node(event, span, 1)?);
            }
            _ => {}
        }
    }
}

struct Tree<'t> {
    parser: Parser<'t, StrInput<'t>>,
    end: Position,
    anchors: HashMap<usize, Node>,
    aliased: usize,
}

impl<'t> Tree<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(plain_words(&error, self.within(error.marker()))),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        let at = self.within(&span.start);
        if depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        let (anchor, tag, value) = match event {
            Event::Alias(id) => return self.alias(id, at, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                (anchor, tag, if null { Value::Null } else { Value::Text((&*text).into()) })
            }
            Event::SequenceStart(anchor, tag) => (anchor, tag, self.list(depth)?),
            Event::MappingStart(anchor, tag) => (anchor, tag, self.map(depth)?),
            _ => (0, None, Value::Null),
        };
        if let Some(tag) = tag.filter(|t| !t.is_yaml_core_schema()) {
            return Err(wrong(at, format!("the tag {tag} means nothing here"), "leave it out"));
        }
        let node = Node { at, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// What is missing at the end of a text is missed on its last line: where no line break ends that, the parser counts one.
    fn within(&self, marker: &Marker) -> Position {
        let at = position(marker);
        if at.line > self.end.line { self.end } else { at }
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::SequenceEnd | Event::StreamEnd => return Ok(Value::List(items)),
                event => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries = Vec::new();
        let mut seen: HashMap<Box<str>, Position> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                return Ok(Value::Map(entries));
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            let text = key_text(&key)?;
            let repeats = seen.get(&text).copied();
            if repeats.is_none() {
                seen.insert(text.clone(), key.at);
            }
            entries.push(Entry { key: text, at: key.at, repeats, node });
        }
    }

    fn alias(&mut self, id: usize, at: Position, depth: usize) -> Result<Node, SyntaxError> {
        let Some(node) = self.anchors.get(&id) else {
            return Err(wrong(at, "the alias stands inside of what it stands for", "write the part out once more"));
        };
        if depth + node.depth() > MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.aliased += node.size();
        if self.aliased > MAX_ALIASED {
            let what = format!("the aliases of this text stand for more than {MAX_ALIASED} parts");
            return Err(wrong(at, what, "use fewer aliases"));
        }
        Ok(Node { at, value: node.value.clone() })
    }
}

fn key_text(key: &Node) -> Result<Box<str>, SyntaxError> {
    match &key.value {
        Value::Text(text) if &**text == "<<" => {
            Err(wrong(key.at, "merge keys (<<) are not part of YAML 1.2", "write the keys out"))
        }
        Value::Text(text) => Ok(text.clone()),
        Value::Null => Ok("".into()),
        _ => Err(wrong(key.at, "a key must be a text", "write key: value")),
    }
}

fn position(marker: &Marker) -> Position {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

/// Behind the last character of a text.
fn end(text: &str) -> Position {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = text.rsplit('\n').next().unwrap_or_default();
    let breaks = memchr::memchr_iter(b'\n', text.as_bytes()).count();
    Position { line: number(breaks).saturating_add(1), column: number(line.chars().count()).saturating_add(1) }
}

fn wrong(at: Position, what: impl Into<String>, hint: &str) -> SyntaxError {
    SyntaxError { at, what: what.into(), hint: hint.into() }
}

fn too_deep(at: Position) -> SyntaxError {
    wrong(at, format!("the text is nested deeper than {MAX_DEPTH} levels"), "a wrong indentation or a stray bracket?")
}

/// The parser speaks of block ends and simple keys; a person wrote a line and forgot something.
fn plain_words(error: &ScanError, at: Position) -> SyntaxError {
    let info = error.info();
    let hint = if info.contains("unknown anchor") || info.contains("alias") {
        "a text that begins with * needs quotes, such as \"*.example.com\""
    } else if info.contains("tab") {
        "indent with blanks, not with tabs"
    } else if info.contains("quoted scalar") || info.contains("end of stream") || info.contains("unclosed") {
        "is a closing quote or bracket missing?"
    } else if info.contains("simple key") || info.contains("mapping values are not allowed") {
        "is a `:` missing, or does a text with `: ` in it need quotes?"
    } else if info.contains("':' indicator") {
        "is a closing bracket missing above, or does a text with `: ` in it need quotes?"
    } else if info.contains("',' or") || info.contains("flow") {
        "is a comma or a closing bracket missing? Inside of { } and [ ] a text with , [ ] { } needs quotes"
    } else if info.contains("block") || info.contains("indent") {
        "do the lines of one map or list begin in the same column?"
    } else {
        "a text with special characters needs quotes"
    };
    SyntaxError { at, what: format!("this is not YAML: {info}"), hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Node {
        parse(text).unwrap().remove(0)
    }

    fn entries(node: &Node) -> &[Entry] {
        let Value::Map(entries) = &node.value else { panic!("{node:?}") };
        entries
    }

    #[test]
    fn every_key_and_value_knows_its_line_and_column() {
        let node = one("a: 1\nb:\n  - x\n  - { c: d }\n");
        let at = |line, column| Position { line, column };
        let top = entries(&node);
        assert_eq!((top[0].at, top[0].node.at), (at(1, 1), at(1, 4)));
        assert_eq!(top[1].at, at(2, 1));
        let Value::List(items) = &top[1].node.value else { panic!() };
        assert_eq!((items[0].at, items[1].at), (at(3, 5), at(4, 5)));
        assert_eq!(entries(&items[1])[0].node.at, at(4, 10));
    }

    #[test]
    fn what_is_missing_at_the_end_is_missed_on_the_last_line() {
        for (text, line, column) in [("a: 1\nb", 2, 2), ("a: { b: c", 1, 10), ("a: 1\nb\n", 3, 1), ("a: [\n", 2, 1)] {
            assert_eq!(parse(text).unwrap_err().at, Position { line, column }, "{text:?}");
        }
    }

    #[test]
    fn a_text_holds_many_documents() {
        let documents = parse("a: 1\n---\nb: 2\n---\n# nothing\n---\n[c]\n").unwrap();
        assert_eq!(documents.len(), 4);
        assert_eq!(documents[2].value, Value::Null);
    }

    #[test]
    fn route_paths_need_no_quotes() {
        let node = one("a: =/health\nb: { path: =/health, to: shop/api:8080 }\nc: ~^/item/[0-9]+$\nshop/api:8080: d\n");
        let top = entries(&node);
        assert_eq!(top[0].node.value, Value::Text("=/health".into()));
        assert_eq!(entries(&top[1].node)[0].node.value, Value::Text("=/health".into()));
        assert_eq!(entries(&top[1].node)[1].node.value, Value::Text("shop/api:8080".into()));
        assert_eq!(top[2].node.value, Value::Text("~^/item/[0-9]+$".into()));
        assert_eq!(&*top[3].key, "shop/api:8080");
    }

    #[test]
    fn a_repeated_key_says_where_it_stood_before() {
        let node = one("a: 1\nb: 2\na: 3\n");
        assert_eq!(entries(&node)[2].repeats, Some(Position { line: 1, column: 1 }));
        assert_eq!(entries(&node)[1].repeats, None);
    }

    #[test]
    fn an_alias_repeats_its_part() {
        let node = one("a: &x [1, 2]\nb: *x\n");
        let top = entries(&node);
        assert_eq!(top[0].node.value, top[1].node.value);
        assert_eq!(top[1].node.at.line, 2);
    }

    #[test]
    fn a_billion_laughs_end_early() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let one = format!("*a{}", n - 1);
            text += &format!("a{n}: &a{n} [{}]\n", [one.as_str(); 9].join(","));
        }
        assert!(parse(&text).unwrap_err().what.contains("aliases"));
    }

    #[test]
    fn an_alias_inside_of_itself_is_refused() {
        assert!(parse("a: &x [1, *x]\n").is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        for open in ["[", "{a: ", "- "] {
            assert!(parse(&open.repeat(5000)).is_err(), "{open}");
        }
        assert!(parse(&"[".repeat(MAX_DEPTH + 1)).unwrap_err().what.contains("deeper"));
    }

    #[test]
    fn an_unquoted_wildcard_is_explained() {
        let error = parse("*.example.com/: a\n").unwrap_err();
        assert!(error.hint.contains("needs quotes"), "{error}");
        assert_eq!(error.at.line, 1);
    }

    #[test]
    fn a_syntax_error_says_where_and_what() {
        for text in
            ["a: [1, 2\nb: 3\n", "a: \"x\n", "a: b: c\n", "a:\n\t- x\n", "{ a: b } c\n", "a: !x b\n", "? [a]\n: b\n"]
        {
            let error = parse(text).unwrap_err();
            assert!(error.at.line >= 1 && !error.what.is_empty() && !error.hint.is_empty(), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c:\\-\\[\\]{},&*!|>'\"%@#?~= \n\t.0-9]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_unicode_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
