//! How are the policies written that listeners, hosts and routes share: header checks, edits, access?

use super::decode::{Fields, Kind};
use super::kind::{List, Mapped, Named, Names, Section, Shapes};
use super::values;
use crate::model::{AccessPolicy, Check, FieldCheck, FieldName, HeaderCheckPolicy, HeaderEdit, Policy};
use ipnet::IpNet;

/// Status of a request that fails a header check, unless the check says another one: it was understood and refused.
pub const HEADER_CHECK_STATUS: u16 = 403;
/// Largest limit for a body that can be written.
pub const MAX_BODY: u64 = 1 << 40;

/// The policies of one place (listener, host or route) as written there.
#[derive(Default)]
pub struct Policies {
    /// All but the body limit.
    pub list: Vec<Policy>,
    /// The body limit, apart because a route's replaces its host's.
    pub max_body: Option<u64>,
}

impl Policies {
    /// Asks for the keys that every place with policies has.
    pub fn decode(fields: &mut Fields<'_, '_>) -> Self {
        let checks = fields.or_default("headers", "What the request's headers must look like.", header_checks());
        let access = fields.optional("access", "Who may come in, by client address; others get 403.", access());
        let request = fields.optional("request_headers", "Edits of the request before it is forwarded.", header_edit());
        let response = fields.optional("response_headers", "Edits of the response before it is sent.", header_edit());
        let max_body = fields.optional(
            "max_body",
            "Largest request body, such as 1MiB; 413 beyond it. Default: no limit.",
            values::bytes(MAX_BODY),
        );
        let mut list: Vec<Policy> = access.map(Policy::Access).into_iter().collect();
        list.extend(checks.into_iter().map(Policy::HeaderCheck));
        list.extend(request.map(Policy::RequestHeaders));
        list.extend(response.map(Policy::ResponseHeaders));
        Self { list, max_body }
    }
}

/// `{ allow: [10.0.0.0/8], deny: [10.1.2.3] }`.
fn access() -> Section<AccessPolicy> {
    Section {
        name: "access",
        doc: "Client addresses that are let in or kept out. `deny` wins over `allow`; without `allow` everyone is let in.",
        fields: |f| {
            let allow =
                f.or_default("allow", "Networks let in; when there are any, all others are kept out.", networks());
            let deny = f.or_default("deny", "Networks kept out.", networks());
            if !f.has("allow") && !f.has("deny") {
                f.error("", "neither allow nor deny has a network", "add allow: [10.0.0.0/8] or leave access out");
            }
            Some(AccessPolicy { allow, deny })
        },
    }
}

/// One network or several.
pub fn networks() -> impl Kind<Out = Vec<IpNet>> {
    List(values::network())
}

/// `{ set: {...}, add: {...}, remove: [...] }`.
pub fn header_edit() -> Section<HeaderEdit> {
    Section {
        name: "header_edit",
        doc: "Edits of header fields, in this order: remove, set, add.",
        fields: |f| {
            let set = f.or_default("set", "Replace all values of a header by this one.", header_values());
            let add = f.or_default("add", "Add a value beside those there are.", header_values());
            let remove = f.or_default("remove", "Remove all values of these headers.", List(values::field_name()));
            refuse_framing(f, set.iter().chain(&add).map(|(name, _)| name).chain(&remove));
            Some(HeaderEdit { set, add, remove })
        },
    }
}

/// Records an error when one of these headers is the proxy's own to write.
pub fn refuse_framing<'n>(f: &mut Fields<'_, '_>, mut names: impl Iterator<Item = &'n FieldName>) {
    if let Some(name) = names.find(|name| is_framing(name)) {
        let hint = match name.as_str() {
            "host" => "another Host is written rewrite: { host: NAME }",
            _ => "the proxy writes the headers that frame a message itself",
        };
        f.error("", format!("{:?} cannot be edited", name.as_str()), hint);
    }
}

/// Headers that say where a message ends or belong to one connection: editing them is request smuggling.
fn is_framing(name: &FieldName) -> bool {
    matches!(
        name.as_str(),
        "content-length" | "transfer-encoding" | "connection" | "host" | "te" | "trailer" | "upgrade" | "keep-alive"
    )
}

/// `{ x-name: value }`.
pub fn header_values() -> impl Kind<Out = Vec<(FieldName, String)>> {
    pairs(values::field_value())
}

fn pairs<K: Kind>(value: K) -> impl Kind<Out = Vec<(FieldName, K::Out)>> {
    let pair = |named: Vec<Named<FieldName, K::Out>>| named.into_iter().map(|n| (n.name, n.value)).collect();
    Mapped(Names { key: values::field_name(), value, each: false }, pair)
}

/// One block of header checks, or a list of blocks (each with a status of its own).
pub fn header_checks() -> impl Kind<Out = Vec<HeaderCheckPolicy>> {
    Shapes::new().map(Mapped(header_check(), |one| vec![one])).list(List(header_check()))
}

/// The keys of which a block of checks has at least one.
const KINDS: [&str; 5] = ["require", "forbid", "pattern", "max_length", "one_of"];

fn header_check() -> Section<HeaderCheckPolicy> {
    Section {
        name: "header_checks",
        doc: "Checks of the request's headers. Patterns must match the whole value.",
        fields: |f| {
            let require = "Headers that must be there: names, or names with a pattern for the whole value.";
            let mut checks = f.or_default("require", require, required());
            let forbid = f.or_default("forbid", "Headers that must not be there.", List(values::field_name()));
            let pattern = "Headers whose values must match a pattern as a whole, where they are there.";
            let pattern = f.or_default("pattern", pattern, pairs(values::regex()));
            let longest = "Longest value of a header in bytes, where it is there.";
            let longest = f.or_default("max_length", longest, pairs(values::bytes(u64::from(u32::MAX))));
            let one_of = "The only values of a header, where it is there.";
            let one_of = f.or_default("one_of", one_of, pairs(List(values::field_value())));
            let status = "Status of a request that is refused.";
            let status = f.or("status", status, values::number("a status", 400_u16, 499), HEADER_CHECK_STATUS);
            let audit = f.or("audit", "Log and count, but let pass: to try a check out.", values::flag(), false);
            let check = |name, check| FieldCheck { name, check };
            checks.extend(forbid.into_iter().map(|name| check(name, Check::Forbidden)));
            checks.extend(pattern.into_iter().map(|(name, p)| check(name, Check::Pattern(p))));
            let length = |bytes| Check::MaxLength(usize::try_from(bytes).unwrap_or(usize::MAX));
            checks.extend(longest.into_iter().map(|(name, bytes)| check(name, length(bytes))));
            checks.extend(one_of.into_iter().map(|(name, values)| check(name, Check::OneOf(values))));
            if !KINDS.iter().any(|key| f.has(key)) {
                f.error("", "this checks nothing", format!("add one of {}", KINDS.join(", ")));
            }
            Some(HeaderCheckPolicy { checks, status, audit })
        },
    }
}

fn required() -> impl Kind<Out = Vec<FieldCheck>> {
    let names = || {
        Mapped(List(values::field_name()), |names| {
            names.into_iter().map(|name| FieldCheck { name, check: Check::Required }).collect()
        })
    };
    let patterns = Mapped(pairs(values::regex()), |pairs| {
        pairs.into_iter().map(|(name, p)| FieldCheck { name, check: Check::RequiredPattern(p) }).collect()
    });
    Shapes::new().text(names()).list(names()).map(patterns)
}
