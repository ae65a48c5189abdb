//! How are header fields held so that reading, editing and writing them needs no allocation?
//!
//! One byte buffer and one list of places in it, both reused from request to request. Order and spelling are kept as received.
//! A list of at most a few hundred fields is searched front to back: well-known names compare as one byte.

use super::names::FieldSet;
use super::{FieldId, Name};
use std::ops::Range;

/// One field as it stands in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Well-known id.
    pub id: FieldId,
    /// Name as received.
    pub name: &'a [u8],
    /// Value as received, without surrounding blanks.
    pub value: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Line {
    id: FieldId,
    name: (u32, u32),
    value: (u32, u32),
}

/// An ordered list of header (or trailer) fields. Names were checked to be tokens and values to hold no control characters
/// before they come here, or are our own.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// Which ids were added. One that is not here is in no line; most questions are about such, and end here.
    added: FieldSet,
}

impl Fields {
    /// An empty list that takes so many fields, of so many bytes together, before it grows.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), lines: Vec::with_capacity(fields), added: FieldSet::default() }
    }

    /// Forgets every field and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
        self.added = FieldSet::default();
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes held, for tests and memory accounting.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.lines.capacity() * size_of::<Line>()
    }

    /// Takes a whole head as it was received (one copy) and forgets the old fields; the fields follow by [`Self::push_range`].
    pub fn load(&mut self, head: &[u8]) {
        self.clear();
        self.bytes.extend_from_slice(head);
    }

    /// Adds a field by places in what [`Self::load`] took. A place outside of it gives an empty name or value.
    pub fn push_range(&mut self, name: Range<usize>, value: Range<usize>) -> FieldId {
        let id = FieldId::of(self.bytes.get(name.clone()).unwrap_or_default());
        self.add(Line { id, name: place(name), value: place(value) });
        id
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_id(FieldId::of(name), name, value);
    }

    /// Adds a well-known field at the end, its name in lower case.
    pub fn push_known(&mut self, id: FieldId, value: &[u8]) {
        self.push_id(id, id.as_str().as_bytes(), value);
    }

    /// Kept as it will be written, so that [`Self::write_to`] copies it with its neighbours.
    fn push_id(&mut self, id: FieldId, name: &[u8], value: &[u8]) {
        self.bytes.reserve(name.len() + value.len() + 4);
        let name = self.keep(name);
        self.bytes.extend_from_slice(b": ");
        let value = self.keep(value);
        self.bytes.extend_from_slice(b"\r\n");
        self.add(Line { id, name, value });
    }

    fn add(&mut self, line: Line) {
        self.added.insert(line.id);
        self.lines.push(line);
    }

    /// Whether one of these ids may be in the list; where not, none is.
    pub fn may_have(&self, ids: FieldSet) -> bool {
        self.added.meets(ids)
    }

    fn keep(&mut self, text: &[u8]) -> (u32, u32) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        place(start..self.bytes.len())
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| self.field(line))
    }

    fn field(&self, line: &Line) -> Field<'_> {
        Field { id: line.id, name: self.at(line.name), value: self.at(line.value) }
    }

    fn at(&self, (start, end): (u32, u32)) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// First value of a well-known name.
    pub fn get(&self, id: FieldId) -> Option<&[u8]> {
        self.lines_of(id).iter().find(|l| l.id == id).map(|l| self.at(l.value))
    }

    /// Whether there is such a well-known name.
    pub fn has(&self, id: FieldId) -> bool {
        self.lines_of(id).iter().any(|l| l.id == id)
    }

    /// Where lines of this id may be.
    fn lines_of(&self, id: FieldId) -> &[Line] {
        if self.added.has(id) { &self.lines } else { &[] }
    }

    /// All values of a well-known name, in order.
    pub fn all(&self, id: FieldId) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.lines_of(id).iter().filter(move |l| l.id == id).map(|l| self.at(l.value))
    }

    /// First value of any name.
    pub fn find(&self, name: &Name) -> Option<&[u8]> {
        self.lines_of(name.id()).iter().find(|l| self.is(l, name)).map(|l| self.at(l.value))
    }

    /// All values of any name, in order.
    pub fn find_all<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a [u8]> {
        self.lines_of(name.id()).iter().filter(move |l| self.is(l, name)).map(|l| self.at(l.value))
    }

    fn is(&self, line: &Line, name: &Name) -> bool {
        line.id == name.id()
            && (line.id != FieldId::Other || self.at(line.name).eq_ignore_ascii_case(name.as_str().as_bytes()))
    }

    /// Removes every field of a well-known name; says whether there was one.
    pub fn remove(&mut self, id: FieldId) -> bool {
        if !self.added.has(id) {
            return false;
        }
        self.added.remove(id);
        let before = self.lines.len();
        self.lines.retain(|l| l.id != id);
        self.lines.len() != before
    }

    /// Of fields of a well-known name, keeps the first alone.
    pub fn keep_first(&mut self, id: FieldId) {
        if !self.added.has(id) {
            return;
        }
        let mut seen = false;
        self.lines.retain(|l| l.id != id || !std::mem::replace(&mut seen, true));
    }

    /// Removes every field of any name; says whether there was one.
    pub fn remove_name(&mut self, name: &Name) -> bool {
        if !self.added.has(name.id()) {
            return false;
        }
        let before = self.lines.len();
        let bytes = std::mem::take(&mut self.bytes);
        self.lines.retain(|l| {
            let text = bytes.get(l.name.0 as usize..l.name.1 as usize).unwrap_or_default();
            l.id != name.id() || (l.id == FieldId::Other && !text.eq_ignore_ascii_case(name.as_str().as_bytes()))
        });
        self.bytes = bytes;
        self.lines.len() != before
    }

    /// Keeps the fields for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let bytes = std::mem::take(&mut self.bytes);
        let at = |(start, end): (u32, u32)| bytes.get(start as usize..end as usize).unwrap_or_default();
        self.lines.retain(|l| keep(Field { id: l.id, name: at(l.name), value: at(l.value) }));
        self.bytes = bytes;
    }

    /// Replaces every field of a well-known name by one; the first keeps its place.
    pub fn set(&mut self, id: FieldId, value: &[u8]) {
        if !self.added.has(id) {
            return self.push_known(id, value);
        }
        let value = self.keep(value);
        self.set_place(id, value);
    }

    /// Joins the values of a well-known list field and this one, as one field: `a, b, value`.
    pub fn append(&mut self, id: FieldId, value: &[u8]) {
        if !self.added.has(id) {
            return self.push_known(id, value);
        }
        let start = self.bytes.len();
        for line in self.lines.iter().filter(|l| l.id == id) {
            let old = line.value.0 as usize..line.value.1 as usize;
            if old.start < old.end && old.end <= start {
                self.bytes.extend_from_within(old);
                self.bytes.extend_from_slice(b", ");
            }
        }
        self.bytes.extend_from_slice(value);
        self.set_place(id, place(start..self.bytes.len()));
    }

    fn set_place(&mut self, id: FieldId, value: (u32, u32)) {
        let mut placed = false;
        self.lines.retain_mut(|l| match (l.id == id, placed) {
            (false, _) => true,
            (true, true) => false,
            (true, false) => {
                l.value = value;
                placed = true;
                true
            }
        });
        if !placed {
            let name = self.keep(id.as_str().as_bytes());
            self.add(Line { id, name, value });
        }
    }

    /// Replaces every field of any name by one, at the end.
    pub fn set_name(&mut self, name: &Name, value: &[u8]) {
        self.remove_name(name);
        self.push_id(name.id(), name.as_str().as_bytes(), value);
    }

    /// Writes all fields as `name: value CRLF`. Lines that lie behind one another just so, as most heads are received, are one copy.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes.len() + self.lines.len() * 4);
        let mut run = (0, 0);
        for line in &self.lines {
            if self.is_written(line) {
                if line.name.0 != run.1 {
                    out.extend_from_slice(self.at(run));
                    run.0 = line.name.0;
                }
                run.1 = line.value.1 + 2;
                continue;
            }
            out.extend_from_slice(self.at(std::mem::take(&mut run)));
            for part in [self.at(line.name), b": ", self.at(line.value), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(self.at(run));
    }

    /// Whether the line stands in the bytes as it is to be written.
    fn is_written(&self, line: &Line) -> bool {
        self.at((line.name.1, line.value.0)) == b": "
            && self.at((line.value.1, line.value.1.saturating_add(2))) == b"\r\n"
    }
}

/// Heads are bounded far below 4 GiB (`Limits::head_bytes` is a u32), so places fit.
fn place(range: Range<usize>) -> (u32, u32) {
    (u32::try_from(range.start).unwrap_or(u32::MAX), u32::try_from(range.end).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn text(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        String::from_utf8(out).expect("tests use text")
    }

    #[test]
    fn order_and_spelling_are_kept() {
        let fields = list(&[("X-One", "1"), ("hOsT", "a"), ("x-one", "2")]);
        assert_eq!(text(&fields), "X-One: 1\r\nhOsT: a\r\nx-one: 2\r\n");
    }

    #[test]
    fn lines_that_were_received_apart_from_their_form_are_written_in_it() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nA:b\r\nC:\r\nD:  e\r\nF: g \r\nH: i\r\nJ: k\r\n\r\n";
        let mut fields = Fields::default();
        fields.load(head);
        for (name, value) in
            [(16, 22..23), (25, 27..28), (30, 30..30), (34, 38..39), (41, 44..45), (48, 51..52), (54, 57..58)]
        {
            let end = name + if name == 16 { 4 } else { 1 };
            fields.push_range(name..end, value);
        }
        fields.push(b"l", b"m");
        assert_eq!(text(&fields), "Host: a\r\nA: b\r\nC: \r\nD: e\r\nF: g\r\nH: i\r\nJ: k\r\nl: m\r\n");
        fields.set(FieldId::Host, b"longer");
        fields.remove_name(&Name::new("h"));
        assert_eq!(text(&fields), "Host: longer\r\nA: b\r\nC: \r\nD: e\r\nF: g\r\nJ: k\r\nl: m\r\n");
    }

    #[test]
    fn names_compare_in_any_case() {
        let fields = list(&[("X-One", "1"), ("HOST", "a"), ("x-one", "2")]);
        assert_eq!(fields.get(FieldId::Host), Some(&b"a"[..]));
        assert_eq!(fields.find_all(&Name::new("x-ONE")).count(), 2);
        assert_eq!(fields.find(&Name::new("x-on")), None);
    }

    #[test]
    fn set_replaces_all_and_keeps_the_first_place() {
        let mut fields = list(&[("Via", "1"), ("Host", "a"), ("via", "2")]);
        fields.set(FieldId::Via, b"3");
        assert_eq!(text(&fields), "Via: 3\r\nHost: a\r\n");
        fields.set(FieldId::Server, b"t");
        assert_eq!(text(&fields), "Via: 3\r\nHost: a\r\nserver: t\r\n");
    }

    #[test]
    fn append_joins_all_values_of_a_list_in_one_field() {
        let mut fields =
            list(&[("X-Forwarded-For", "1"), ("Host", "a"), ("x-forwarded-for", "2"), ("X-Forwarded-For", "")]);
        fields.append(FieldId::XForwardedFor, b"3");
        assert_eq!(text(&fields), "X-Forwarded-For: 1, 2, 3\r\nHost: a\r\n");
        fields.append(FieldId::Via, b"1.1 t");
        assert_eq!(text(&fields), "X-Forwarded-For: 1, 2, 3\r\nHost: a\r\nvia: 1.1 t\r\n");
    }

    #[test]
    fn of_repeated_fields_the_first_alone_is_kept() {
        let mut fields = list(&[("a", "1"), ("Content-Length", "5"), ("b", "2"), ("content-length", "5")]);
        fields.keep_first(FieldId::ContentLength);
        assert_eq!(text(&fields), "a: 1\r\nContent-Length: 5\r\nb: 2\r\n");
    }

    #[test]
    fn remove_takes_every_line_of_a_name_and_no_other() {
        let mut fields = list(&[("x-a", "1"), ("x-b", "2"), ("X-A", "3"), ("te", "x")]);
        assert!(fields.remove_name(&Name::new("x-a")));
        assert!(!fields.remove_name(&Name::new("x-a")));
        assert!(fields.remove(FieldId::Te));
        assert_eq!(text(&fields), "x-b: 2\r\n");
    }

    #[test]
    fn a_loaded_head_is_read_by_places() {
        let mut fields = Fields::default();
        fields.load(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(fields.push_range(16..20, 22..23), FieldId::Host);
        fields.push(b"x", b"y");
        assert_eq!(text(&fields), "Host: a\r\nx: y\r\n");
    }
}
