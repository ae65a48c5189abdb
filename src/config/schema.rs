//! How is the grammar told to editors, as JSON Schema?
//!
//! Draft 7, because it is what editors' YAML plug-ins understand best.

use super::decode::{Fields, Kind};
use serde_json::{Map, Value, json};

/// Definitions of the sections met so far.
#[derive(Default)]
pub struct Schema {
    definitions: Map<String, Value>,
}

impl Schema {
    /// The whole schema of one kind of file.
    pub fn of<K: Kind>(title: &str, doc: &str, kind: &K) -> Value {
        let mut schema = Self::default();
        let root = kind.schema(&mut schema);
        json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": title,
            "description": doc,
            "allOf": [root],
            "definitions": schema.definitions,
        })
    }

    /// A section, defined once and referred to.
    pub fn section<T>(&mut self, name: &str, doc: &str, fields: fn(&mut Fields<'_, '_>) -> Option<T>) -> Value {
        if !self.definitions.contains_key(name) {
            // A place holder first: a section may contain itself.
            self.definitions.insert(name.into(), Value::Null);
            let described = Fields::describe(self, fields);
            self.definitions.insert(name.into(), described.object(doc));
        }
        json!({ "$ref": format!("#/definitions/{name}") })
    }
}

/// The keys of one section.
#[derive(Default)]
pub(super) struct Described {
    properties: Map<String, Value>,
    patterns: Map<String, Value>,
    required: Vec<Value>,
}

impl Described {
    pub(super) fn property(&mut self, key: &str, doc: &str, value: Value, default: Option<Value>) {
        let mut value = with_doc(doc, value);
        if let (Some(default), Value::Object(map)) = (default, &mut value) {
            map.insert("default".into(), default);
        }
        self.properties.insert(key.into(), value);
    }

    pub(super) fn pattern(&mut self, regex: &str, doc: &str, value: Value) {
        self.patterns.insert(regex.into(), with_doc(doc, value));
    }

    pub(super) fn required(&mut self, key: &str) {
        self.required.push(key.into());
    }

    fn object(self, doc: &str) -> Value {
        let mut object = json!({
            "description": doc,
            "type": "object",
            "properties": self.properties,
            "additionalProperties": false,
        });
        if let Value::Object(map) = &mut object {
            if !self.patterns.is_empty() {
                map.insert("patternProperties".into(), Value::Object(self.patterns));
            }
            if !self.required.is_empty() {
                map.insert("required".into(), Value::Array(self.required));
            }
        }
        object
    }
}

/// In draft 7 what stands beside a `$ref` is ignored, so it is wrapped.
fn with_doc(doc: &str, value: Value) -> Value {
    match value {
        Value::Object(mut map) if !map.contains_key("$ref") => {
            map.insert("description".into(), doc.into());
            Value::Object(map)
        }
        value => json!({ "description": doc, "allOf": [value] }),
    }
}
