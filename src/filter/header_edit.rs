//! Which headers are removed, replaced and added?

use super::Verdict;
use crate::message::{FieldId, Fields, Name};
use crate::model::{FieldName, HeaderEdit, ValueError};

/// Compiled edits, done in this order: remove, set, add.
#[derive(Clone, Debug)]
pub struct HeaderEdits {
    remove: Box<[Name]>,
    set: Box<[(Name, Box<[u8]>)]>,
    add: Box<[(Name, Box<[u8]>)]>,
}

impl HeaderEdits {
    pub(super) fn compile(spec: &HeaderEdit) -> Result<Self, Vec<ValueError>> {
        let mut wrong = Vec::new();
        let names = spec.remove.iter().chain(spec.set.iter().chain(&spec.add).map(|(name, _)| name));
        wrong.extend(names.filter_map(refuse_framing));
        wrong.extend(spec.set.iter().chain(&spec.add).filter_map(|(name, value)| refuse_value(name, value)));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            remove: spec.remove.iter().map(|name| Name::new(name.as_str())).collect(),
            set: pairs(&spec.set),
            add: pairs(&spec.add),
        })
    }

    pub(super) fn apply(&self, fields: &mut Fields) {
        for name in &self.remove {
            fields.remove_name(name);
        }
        for (name, value) in &self.set {
            fields.set_name(name, value);
        }
        for (name, value) in &self.add {
            fields.push(name.as_str().as_bytes(), value);
        }
    }

    pub(super) fn explain(&self, filter: &'static str) -> Verdict {
        let names = |list: &[(Name, Box<[u8]>)]| list.iter().map(|(n, _)| n.as_str().to_owned()).collect::<Vec<_>>();
        let removed: Vec<String> = self.remove.iter().map(|n| n.as_str().to_owned()).collect();
        let parts = [("removes", removed), ("sets", names(&self.set)), ("adds", names(&self.add))];
        let said = parts.iter().filter(|(_, names)| !names.is_empty());
        let text: Vec<String> = said.map(|(verb, names)| format!("{verb} {}", names.join(", "))).collect();
        Verdict::pass(filter, text.join("; "))
    }
}

fn pairs(list: &[(FieldName, String)]) -> Box<[(Name, Box<[u8]>)]> {
    list.iter().map(|(name, value)| (Name::new(name.as_str()), value.as_bytes().into())).collect()
}

/// Fields that say where a message ends or belong to one connection are the proxy's alone: an edit of one is a request
/// smuggling hole waiting to be found.
fn refuse_framing(name: &FieldName) -> Option<ValueError> {
    let hint = match FieldId::of(name.as_str().as_bytes()) {
        FieldId::Host => "use a host rewrite",
        FieldId::ClientCert | FieldId::ClientCertChain => "it carries the identity that the handshake verified",
        FieldId::Connection
        | FieldId::ContentLength
        | FieldId::Expect
        | FieldId::Http2Settings
        | FieldId::KeepAlive
        | FieldId::ProxyConnection
        | FieldId::Te
        | FieldId::Trailer
        | FieldId::TransferEncoding
        | FieldId::Upgrade => "it belongs to the connection, and the proxy writes it",
        _ => return None,
    };
    Some(ValueError::new(format!("header {name} cannot be edited"), hint))
}

fn refuse_value(name: &FieldName, value: &str) -> Option<ValueError> {
    let control = |b: u8| (b < 0x20 && b != b'\t') || b == 0x7f;
    if !value.bytes().any(control) && value.trim_matches([' ', '\t']).len() == value.len() {
        return None;
    }
    let hint = "a header value is one line without control characters and without blanks around it";
    Some(ValueError::new(format!("{value:?} cannot be the value of header {name}"), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FieldName {
        FieldName::parse(text).unwrap()
    }

    #[test]
    fn edits_remove_then_set_then_add() {
        let spec = HeaderEdit {
            set: vec![(name("x-a"), "2".into())],
            add: vec![(name("x-b"), "3".into())],
            remove: vec![name("x-b"), name("x-c")],
        };
        let mut fields = Fields::default();
        for (n, v) in [("X-A", "1"), ("x-b", "1"), ("x-a", "1"), ("X-C", "1"), ("x-d", "1")] {
            fields.push(n.as_bytes(), v.as_bytes());
        }
        HeaderEdits::compile(&spec).unwrap().apply(&mut fields);
        let mut out = Vec::new();
        fields.write_to(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "x-d: 1\r\nx-a: 2\r\nx-b: 3\r\n");
    }

    #[test]
    fn framing_and_identity_headers_cannot_be_edited() {
        let refused = ["content-length", "transfer-encoding", "connection", "host", "te", "upgrade", "client-cert"];
        for refused in refused {
            let set = HeaderEdit { set: vec![(name(refused), "x".into())], ..HeaderEdit::default() };
            let remove = HeaderEdit { remove: vec![name(refused)], ..HeaderEdit::default() };
            assert!(HeaderEdits::compile(&set).is_err() && HeaderEdits::compile(&remove).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_value_that_would_break_the_line_is_refused() {
        for value in ["a\r\nb: c", "a\0", " a", "a\t", "\u{7f}"] {
            let spec = HeaderEdit { add: vec![(name("x"), value.into())], ..HeaderEdit::default() };
            assert!(HeaderEdits::compile(&spec).is_err(), "{value:?}");
        }
        let spec = HeaderEdit { add: vec![(name("x"), "gr\u{fc}n a\tb".into())], ..HeaderEdit::default() };
        assert!(HeaderEdits::compile(&spec).is_ok());
    }
}
