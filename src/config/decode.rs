//! How does a part of a YAML tree become a typed value, and how is every mistake named at its place?
//!
//! A section is one function over [`Fields`]: it asks for each of its keys by name, with a sentence about it and the kind of
//! its value. The same function is run once more to describe the section as JSON Schema, so that what is decoded and what
//! the schema promises cannot drift. For that, a section asks for every key before it returns.

use super::schema::{Described, Schema};
use super::yaml::{Entry, Node, Value};
use crate::model::{Origin, Position, Problem, ValueError};
use std::fmt::Display;
use std::sync::Arc;

/// Reads the files that a configuration text names (authorities, keys), relative to where the text itself is.
pub trait Files {
    /// The content, or in words why there is none.
    fn read(&self, path: &str) -> Result<Vec<u8>, String>;

    /// Whether the text lives in an object: there a cluster is a Service, whose endpoints stand elsewhere, and what would be a
    /// file is a Secret.
    fn objects(&self) -> bool {
        false
    }
}

/// No files: for texts that live in objects, where a PEM text is written in place or is in a Secret.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> Result<Vec<u8>, String> {
        Err("a text from an object cannot name files".into())
    }

    fn objects(&self) -> bool {
        true
    }
}

/// A kind of value: how it is decoded, described and asked for.
pub trait Kind {
    /// What it is decoded to.
    type Out;
    /// Decodes; `None` when an error was recorded.
    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<Self::Out>;
    /// Describes as JSON Schema.
    fn schema(&self, schema: &mut Schema) -> serde_json::Value;
    /// What a person should write, with an article: `a duration such as 10s`.
    fn expects(&self) -> String;
}

/// A kind whose values can be shown, as defaults in the schema.
pub trait Shown: Kind {
    /// The value as it would be written.
    fn show(&self, value: &Self::Out) -> serde_json::Value;
}

/// Where decoding is, and every problem met so far.
pub struct Decoder<'f> {
    place: Origin,
    path: String,
    problems: Vec<Problem>,
    errors: usize,
    files: &'f dyn Files,
}

impl<'f> Decoder<'f> {
    /// Begins to decode a text of this place.
    pub fn new(place: Arc<str>, files: &'f dyn Files) -> Self {
        Self { place: Origin::of(place), path: String::new(), problems: Vec::new(), errors: 0, files }
    }

    /// The origin of what is decoded now, when it stands at this position.
    pub fn origin(&self, at: Position) -> Origin {
        self.place.at(self.path.clone(), Some(at))
    }

    /// The files that the text may name.
    pub fn files(&self) -> &'f dyn Files {
        self.files
    }

    /// Records an error at this position, under the key that is decoded now.
    pub fn error(&mut self, at: Position, what: impl Into<String>, hint: impl Into<String>) {
        self.errors += 1;
        self.problems.push(Problem::error(self.origin(at), what, hint));
    }

    /// Records an error about what has this origin.
    pub fn error_at(&mut self, origin: &Origin, what: impl Into<String>, hint: impl Into<String>) {
        self.errors += 1;
        self.problems.push(Problem::error(origin.clone(), what, hint));
    }

    /// Records a warning at this position, under the key that is decoded now.
    pub fn warning(&mut self, at: Position, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::warning(self.origin(at), what, hint));
    }

    /// Records why a value could not be parsed.
    pub fn value_error(&mut self, at: Position, error: ValueError) {
        self.error(at, error.what, error.hint);
    }

    /// Records that something else was expected than this.
    pub fn mismatch(&mut self, node: &Node, expected: &str) {
        self.error(node.at, format!("found {} where {expected} is expected", node.describe()), "");
    }

    /// Decodes what is under a key.
    pub fn under<T>(&mut self, key: &str, decode: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        let value = decode(self);
        self.path.truncate(length);
        value
    }

    /// Decodes an item of a list.
    pub fn item<T>(&mut self, index: impl Display, decode: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let value = decode(self);
        self.path.truncate(length);
        value
    }

    /// Decodes something that counts on its own: also says whether it is without error. Its errors do not count for what it
    /// stands in.
    pub fn apart<T>(&mut self, decode: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let before = std::mem::take(&mut self.errors);
        let value = decode(self);
        let good = self.errors == 0;
        self.errors = before;
        (value, good)
    }

    /// Every problem, in the order of the text.
    pub fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|p| p.origin.position);
        self.problems
    }
}

/// The keys of one section, asked for one by one.
pub struct Fields<'a, 'f> {
    mode: Mode<'a, 'f>,
    known: Vec<&'static str>,
}

enum Mode<'a, 'f> {
    Decode { entries: &'a [Entry], at: Position, decoder: &'a mut Decoder<'f>, rest: bool },
    Describe { schema: &'a mut Schema, described: Described },
}

impl<'a, 'f> Fields<'a, 'f> {
    /// Decodes a map with the function of a section; unknown and repeated keys are errors.
    pub fn decode<T>(
        node: &'a Node,
        decoder: &'a mut Decoder<'f>,
        section: impl Fn(&mut Fields<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        let Value::Map(entries) = &node.value else {
            decoder.mismatch(node, "a map of keys and values");
            return None;
        };
        let mode = Mode::Decode { entries, at: node.at, decoder, rest: false };
        let mut fields = Fields { mode, known: Vec::new() };
        let value = section(&mut fields);
        fields.refuse_others();
        value
    }

    /// Runs the function of a section to learn its keys.
    pub(super) fn describe<T>(schema: &mut Schema, section: impl Fn(&mut Fields<'_, '_>) -> Option<T>) -> Described {
        let mode = Mode::Describe { schema, described: Described::default() };
        let mut fields = Fields { mode, known: Vec::new() };
        section(&mut fields);
        match fields.mode {
            Mode::Describe { described, .. } => described,
            Mode::Decode { .. } => Described::default(),
        }
    }

    /// A key that may be left out.
    pub fn optional<K: Kind>(&mut self, key: &'static str, doc: &str, kind: K) -> Option<K::Out> {
        self.field(key, doc, &kind, None)
    }

    /// A key that may be left out, with what holds then.
    pub fn or<K: Shown>(&mut self, key: &'static str, doc: &str, kind: K, default: K::Out) -> K::Out {
        let shown = matches!(self.mode, Mode::Describe { .. }).then(|| kind.show(&default));
        self.field(key, doc, &kind, shown).unwrap_or(default)
    }

    /// A key that may be left out, its value empty then.
    pub fn or_default<K: Kind<Out: Default>>(&mut self, key: &'static str, doc: &str, kind: K) -> K::Out {
        self.field(key, doc, &kind, None).unwrap_or_default()
    }

    /// A key that must be there.
    pub fn required<K: Kind>(&mut self, key: &'static str, doc: &str, kind: K) -> Option<K::Out> {
        if let Mode::Describe { described, .. } = &mut self.mode {
            described.required(key);
        }
        let value = self.field(key, doc, &kind, None);
        if let Mode::Decode { entries, at, decoder, .. } = &mut self.mode
            && !entries.iter().any(|e| is_near(&e.key, key))
        {
            decoder.error(*at, format!("{key:?} is missing"), format!("add {key}, {}", kind.expects()));
        }
        value
    }

    /// Every entry whose key is none of the names asked for before; asked for last. A repeated one counts on its own.
    pub fn rest<K: Kind>(&mut self, pattern: Rest<'_>, kind: K) -> Vec<(String, Origin, K::Out)> {
        match &mut self.mode {
            Mode::Describe { schema, described } => {
                let value = kind.schema(schema);
                described.pattern(pattern.regex, pattern.doc, value);
                Vec::new()
            }
            Mode::Decode { entries, decoder, rest, .. } => {
                *rest = true;
                let known = &self.known;
                let others = entries.iter().filter(|e| e.repeats.is_none() && !known.contains(&&*e.key));
                let (ours, unknown): (Vec<_>, Vec<_>) = others.partition(|e| (pattern.belongs)(&e.key));
                for entry in unknown {
                    let hint = (pattern.hint)(&entry.key).unwrap_or_else(|| suggest(&entry.key, known));
                    decoder.error(entry.at, format!("unknown key {:?}", &*entry.key), hint);
                }
                ours.into_iter().filter_map(|entry| decode_entry(entry, decoder, &kind)).collect()
            }
        }
    }

    /// Whether a cluster is a Service here; so too where the section is described, because it may be.
    pub fn services(&self) -> bool {
        match &self.mode {
            Mode::Decode { decoder, .. } => decoder.files.objects(),
            Mode::Describe { .. } => true,
        }
    }

    /// Where the section begins; the origin of what is made of it.
    pub fn origin(&self) -> Origin {
        match &self.mode {
            Mode::Decode { decoder, at, .. } => decoder.origin(*at),
            Mode::Describe { .. } => Origin::default(),
        }
    }

    /// Whether this key is there.
    pub fn has(&self, key: &str) -> bool {
        matches!(&self.mode, Mode::Decode { entries, .. } if entries.iter().any(|e| &*e.key == key))
    }

    /// Records an error about the section, at this key where it is there.
    pub fn error(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        if let Mode::Decode { entries, at, decoder, .. } = &mut self.mode {
            match entries.iter().find(|e| &*e.key == key) {
                Some(entry) => decoder.under(key, |d| d.error(entry.node.at, what, hint)),
                None => decoder.error(*at, what, hint),
            }
        }
    }

    fn field<K: Kind>(
        &mut self,
        key: &'static str,
        doc: &str,
        kind: &K,
        default: Option<serde_json::Value>,
    ) -> Option<K::Out> {
        self.known.push(key);
        match &mut self.mode {
            Mode::Describe { schema, described } => {
                let value = kind.schema(schema);
                described.property(key, doc, value, default);
                None
            }
            Mode::Decode { entries, decoder, .. } => {
                let entry = entries.iter().find(|e| &*e.key == key)?;
                decoder.under(key, |d| kind.decode(&entry.node, d))
            }
        }
    }

    fn refuse_others(self) {
        let Mode::Decode { entries, decoder, rest, .. } = self.mode else { return };
        for entry in entries {
            let known = self.known.contains(&&*entry.key);
            if let Some(before) = entry.repeats {
                let what = format!("the key {:?} is repeated", &*entry.key);
                let hint = format!("it stands in line {} already", before.line);
                if rest && !known {
                    decoder.apart(|d| d.error(entry.at, what, hint));
                } else {
                    decoder.error(entry.at, what, hint);
                }
            } else if !rest && !self.known.contains(&&*entry.key) {
                let what = format!("unknown key {:?}", &*entry.key);
                decoder.error(entry.at, what, suggest(&entry.key, &self.known));
            }
        }
    }
}

/// The entries of a section whose keys are names that the author chose.
pub struct Rest<'p> {
    /// Which keys belong to them.
    pub belongs: &'p dyn Fn(&str) -> bool,
    /// What to say about a key that does not, where its looks tell what was meant.
    pub hint: &'p dyn Fn(&str) -> Option<String>,
    /// The keys that belong to them as a regular expression for the schema.
    pub regex: &'static str,
    /// What such an entry is.
    pub doc: &'static str,
}

fn decode_entry<K: Kind>(entry: &Entry, decoder: &mut Decoder<'_>, kind: &K) -> Option<(String, Origin, K::Out)> {
    let decode = |d: &mut Decoder<'_>| Some((entry.key.to_string(), d.origin(entry.at), kind.decode(&entry.node, d)?));
    decoder.under(&entry.key, decode)
}

/// `did you mean "headers"?` when something known is close, a list of what is known otherwise.
pub fn suggest(written: &str, known: &[&str]) -> String {
    let near = known.iter().filter(|k| is_near(written, k)).min_by_key(|k| distance(written, k));
    match near {
        Some(near) => format!("did you mean {near:?}?"),
        None if known.is_empty() => "there is none".into(),
        None => format!("known here: {}", known.join(", ")),
    }
}

fn distance(written: &str, known: &str) -> usize {
    strsim::damerau_levenshtein(&written.to_lowercase(), &known.to_lowercase())
}

/// A key that is almost the one wanted is a slip of the pen: it is told as unknown, and the other not as missing too.
fn is_near(written: &str, known: &str) -> bool {
    // The distance takes time with the product of the lengths, and the lengths differ by no more than it.
    let most = match known.len() {
        // Of `h2` and `h3` neither is a slip of the other.
        length if length <= 3 && length == written.len() => 0,
        length => (length / 3).max(1),
    };
    written.len().abs_diff(known.len()) <= most && distance(written, known) <= most
}
