//! Of which kinds are values made of several: lists, maps, sections, and forms that are told apart by their shape?

use super::decode::{Decoder, Fields, Kind, Shown};
use super::schema::Schema;
use super::yaml::{Entry, Node, Value};
use crate::model::{Origin, ValueError};
use serde_json::json;
use std::borrow::Cow;

/// How a text is read as a value.
pub type Parse<T> = Box<dyn Fn(&str) -> Result<T, ValueError>>;

/// A single text with a meaning of its own.
pub struct Scalar<T> {
    /// What a person should write: `a duration such as 10s`.
    pub expects: Cow<'static, str>,
    /// How it is read.
    pub parse: Parse<T>,
    /// How it is described.
    pub schema: Box<dyn Fn() -> serde_json::Value>,
    /// How it is written.
    pub show: Box<dyn Fn(&T) -> serde_json::Value>,
}

impl<T> Kind for Scalar<T> {
    type Out = T;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<T> {
        let Value::Text(text) = &node.value else {
            decoder.mismatch(node, &self.expects);
            return None;
        };
        (self.parse)(text).map_err(|error| decoder.value_error(node.at, error)).ok()
    }

    fn schema(&self, _: &mut Schema) -> serde_json::Value {
        (self.schema)()
    }

    fn expects(&self) -> String {
        self.expects.to_string()
    }
}

impl<T> Shown for Scalar<T> {
    fn show(&self, value: &T) -> serde_json::Value {
        (self.show)(value)
    }
}

/// A section with named keys.
pub struct Section<T> {
    /// Its name in the schema.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its keys.
    pub fields: fn(&mut Fields<'_, '_>) -> Option<T>,
}

impl<T> Kind for Section<T> {
    type Out = T;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<T> {
        Fields::decode(node, decoder, self.fields)
    }

    fn schema(&self, schema: &mut Schema) -> serde_json::Value {
        schema.section(self.name, self.doc, self.fields)
    }

    fn expects(&self) -> String {
        "a map of keys and values".into()
    }
}

/// `[a, b]`, or one item without brackets.
pub struct List<K>(pub K);

impl<K: Kind> Kind for List<K> {
    type Out = Vec<K::Out>;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<Vec<K::Out>> {
        match &node.value {
            Value::List(items) => {
                let one = |(index, item)| decoder.item(index, |d| self.0.decode(item, d));
                // All first, so that every error is met.
                let all: Vec<_> = items.iter().enumerate().map(one).collect();
                all.into_iter().collect()
            }
            Value::Null => {
                decoder.mismatch(node, &self.expects());
                None
            }
            _ => Some(vec![self.0.decode(node, decoder)?]),
        }
    }

    fn schema(&self, schema: &mut Schema) -> serde_json::Value {
        let item = self.0.schema(schema);
        json!({ "anyOf": [item, { "type": "array", "items": item }] })
    }

    fn expects(&self) -> String {
        format!("{}, or a list of such", self.0.expects())
    }
}

/// Something that counts on its own: its errors do not spoil what it stands in.
pub struct Apart<K>(pub K);

/// What became of it.
pub struct Outcome<T> {
    /// What could be made of it, perhaps in spite of errors.
    pub value: Option<T>,
    /// Whether it is without error.
    pub good: bool,
    /// Where it stands.
    pub origin: Origin,
}

impl<K: Kind> Kind for Apart<K> {
    type Out = Outcome<K::Out>;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<Self::Out> {
        let (value, good) = decoder.apart(|d| self.0.decode(node, d));
        Some(Outcome { value, good, origin: decoder.origin(node.at) })
    }

    fn schema(&self, schema: &mut Schema) -> serde_json::Value {
        self.0.schema(schema)
    }

    fn expects(&self) -> String {
        self.0.expects()
    }
}

/// A map from names that the author chose; each key is parsed too.
pub struct Names<N, K> {
    /// What a key is.
    pub key: Scalar<N>,
    /// What its value is.
    pub value: K,
    /// Whether each entry counts on its own, its key included: a wrong key leaves it out.
    pub each: bool,
}

/// An entry of [`Names`].
pub struct Named<N, V> {
    /// Its key.
    pub name: N,
    /// Where it stands.
    pub origin: Origin,
    /// Its value.
    pub value: V,
}

impl<N, K: Kind> Names<N, K> {
    fn entry(&self, entry: &Entry, decoder: &mut Decoder<'_>) -> Option<Named<N, K::Out>> {
        let key = Node { at: entry.at, value: Value::Text(entry.key.clone()) };
        decoder.under(&entry.key, |d| {
            if let Some(before) = entry.repeats {
                let what = format!("{:?} is repeated", &*entry.key);
                d.error(entry.at, what, format!("it stands in line {} already", before.line));
                return None;
            }
            let (name, value) = (self.key.decode(&key, d), self.value.decode(&entry.node, d));
            Some(Named { name: name?, origin: d.origin(entry.at), value: value? })
        })
    }
}

impl<N, K: Kind> Kind for Names<N, K> {
    type Out = Vec<Named<N, K::Out>>;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<Self::Out> {
        let Value::Map(entries) = &node.value else {
            decoder.mismatch(node, &self.expects());
            return None;
        };
        if self.each {
            let one = |e| decoder.apart(|d| self.entry(e, d)).0;
            return Some(entries.iter().filter_map(one).collect());
        }
        let all: Vec<_> = entries.iter().map(|e| self.entry(e, decoder)).collect();
        all.into_iter().collect()
    }

    fn schema(&self, schema: &mut Schema) -> serde_json::Value {
        json!({ "type": "object", "additionalProperties": self.value.schema(schema) })
    }

    fn expects(&self) -> String {
        format!("a map, from {} to {}", self.key.expects(), self.value.expects())
    }
}

/// A kind made another by a function that cannot fail.
pub struct Mapped<K: Kind, T>(pub K, pub fn(K::Out) -> T);

impl<K: Kind, T> Kind for Mapped<K, T> {
    type Out = T;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<T> {
        self.0.decode(node, decoder).map(self.1)
    }

    fn schema(&self, schema: &mut Schema) -> serde_json::Value {
        self.0.schema(schema)
    }

    fn expects(&self) -> String {
        self.0.expects()
    }
}

/// One meaning with several spellings, told apart by shape: a text, a list or a map.
pub struct Shapes<'k, T> {
    text: Option<Box<dyn Kind<Out = T> + 'k>>,
    list: Option<Box<dyn Kind<Out = T> + 'k>>,
    map: Option<Box<dyn Kind<Out = T> + 'k>>,
}

impl<'k, T> Shapes<'k, T> {
    /// No spelling yet.
    pub fn new() -> Self {
        Self { text: None, list: None, map: None }
    }

    /// The spelling as a text.
    #[must_use]
    pub fn text(self, kind: impl Kind<Out = T> + 'k) -> Self {
        Self { text: Some(Box::new(kind)), ..self }
    }

    /// The spelling as a list.
    #[must_use]
    pub fn list(self, kind: impl Kind<Out = T> + 'k) -> Self {
        Self { list: Some(Box::new(kind)), ..self }
    }

    /// The spelling as a map.
    #[must_use]
    pub fn map(self, kind: impl Kind<Out = T> + 'k) -> Self {
        Self { map: Some(Box::new(kind)), ..self }
    }

    fn all(&self) -> impl Iterator<Item = &(dyn Kind<Out = T> + 'k)> {
        [&self.text, &self.list, &self.map].into_iter().filter_map(Option::as_deref)
    }
}

impl<T> Default for Shapes<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Kind for Shapes<'_, T> {
    type Out = T;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<T> {
        let kind = match &node.value {
            Value::Null => &None,
            Value::Text(_) => &self.text,
            Value::List(_) => &self.list,
            Value::Map(_) => &self.map,
        };
        match kind {
            Some(kind) => kind.decode(node, decoder),
            None => {
                decoder.mismatch(node, &self.expects());
                None
            }
        }
    }

    fn schema(&self, schema: &mut Schema) -> serde_json::Value {
        let all: Vec<_> = self.all().map(|k| k.schema(schema)).collect();
        json!({ "anyOf": all })
    }

    fn expects(&self) -> String {
        self.all().map(Kind::expects).collect::<Vec<_>>().join(", or ")
    }
}
