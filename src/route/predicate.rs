//! Do the conditions beside host and path hold: method, headers, query, source?

use crate::filter::whole;
use crate::message::{Name, RequestHead};
use crate::model::{Match, StringMatch, ValueError};
use http::Method;
use ipnet::IpNet;
use regex::bytes::Regex;
use std::cell::RefCell;
use std::net::IpAddr;

/// Compiled conditions, all of which must hold. Where a header or parameter is there more than once, one value that matches is
/// enough.
#[derive(Clone, Debug)]
pub(super) struct Conditions(Option<Box<Parts>>);

/// Boxed, because most of thousands of routes have none.
#[derive(Clone, Debug)]
struct Parts {
    methods: Box<[Method]>,
    headers: Box<[(Name, Rule)]>,
    query: Box<[(Box<str>, Rule)]>,
    sources: Box<[IpNet]>,
}

#[derive(Clone, Debug)]
enum Rule {
    Exact(Box<[u8]>),
    Regex(Regex),
    Present,
    Absent,
}

impl Rule {
    fn compile(spec: &StringMatch) -> Result<Self, ValueError> {
        Ok(match spec {
            StringMatch::Exact(text) => Self::Exact(text.as_bytes().into()),
            StringMatch::Regex(pattern) => Self::Regex(whole(pattern)?),
            StringMatch::Present => Self::Present,
            StringMatch::Absent => Self::Absent,
        })
    }

    fn holds<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Exact(text) => values.any(|v| v == &**text),
            Self::Regex(expression) => values.any(|v| expression.is_match(v)),
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
        }
    }
}

impl Conditions {
    pub(super) fn compile(spec: &Match) -> Result<Self, Vec<ValueError>> {
        let mut wrong = Vec::new();
        let mut rule = |spec: &StringMatch| match Rule::compile(spec) {
            Ok(rule) => Some(rule),
            Err(error) => {
                wrong.push(error);
                None
            }
        };
        let header = |(name, value): (&crate::model::FieldName, Option<Rule>)| Some((Name::new(name.as_str()), value?));
        let headers: Box<[_]> = spec.headers.iter().filter_map(|(name, value)| header((name, rule(value)))).collect();
        let query: Box<[_]> =
            spec.query.iter().filter_map(|(name, value)| Some((name.as_str().into(), rule(value)?))).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if spec.methods.is_empty() && headers.is_empty() && query.is_empty() && spec.sources.is_empty() {
            return Ok(Self(None));
        }
        let (methods, sources) = (spec.methods.as_slice().into(), spec.sources.as_slice().into());
        Ok(Self(Some(Box::new(Parts { methods, headers, query, sources }))))
    }

    pub(super) fn hold(&self, head: &RequestHead, client: IpAddr) -> bool {
        self.0.as_ref().is_none_or(|parts| parts.hold(head, client))
    }

    /// The first condition that does not hold, in words.
    pub(super) fn why_not(&self, spec: &Match, head: &RequestHead, client: IpAddr) -> Option<String> {
        self.0.as_ref()?.why_not(spec, head, client)
    }

    /// Whether whatever these conditions let through, `other` lets through too, both as they were said.
    pub(super) fn imply(specific: &Match, general: &Match) -> bool {
        let within = |net: &IpNet| general.sources.iter().any(|wide| wide.contains(net));
        (general.methods.is_empty()
            || (!specific.methods.is_empty() && specific.methods.iter().all(|m| general.methods.contains(m))))
            && general.headers.iter().all(|condition| specific.headers.contains(condition))
            && general.query.iter().all(|condition| specific.query.contains(condition))
            && (general.sources.is_empty() || (!specific.sources.is_empty() && specific.sources.iter().all(within)))
    }
}

impl Parts {
    fn hold(&self, head: &RequestHead, client: IpAddr) -> bool {
        (self.methods.is_empty() || self.methods.contains(&head.method))
            && self.headers.iter().all(|(name, rule)| rule.holds(head.fields.find_all(name)))
            && self.query.iter().all(|(name, rule)| holds_in_query(name, rule, head.query()))
            && self.admits_source(client)
    }

    fn admits_source(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.sources.is_empty() || self.sources.iter().any(|net| net.contains(&client))
    }

    fn why_not(&self, spec: &Match, head: &RequestHead, client: IpAddr) -> Option<String> {
        if !self.methods.is_empty() && !self.methods.contains(&head.method) {
            let wanted: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
            return Some(format!("the method is {}, not {}", head.method, wanted.join(" or ")));
        }
        for ((name, rule), (_, wanted)) in self.headers.iter().zip(&spec.headers) {
            if !rule.holds(head.fields.find_all(name)) {
                let said = head.fields.find(name).map(|v| String::from_utf8_lossy(v).into_owned());
                return Some(format!("header {} {}", name.as_str(), mismatch(wanted, said)));
            }
        }
        for ((name, rule), (_, wanted)) in self.query.iter().zip(&spec.query) {
            if !holds_in_query(name, rule, head.query()) {
                let said = pairs(head.query()).find(|(n, _)| same(n, name)).map(|(_, v)| v.to_owned());
                return Some(format!("query parameter {name} {}", mismatch(wanted, said)));
            }
        }
        (!self.admits_source(client)).then(|| format!("the client {client} is in none of the route's networks"))
    }
}

fn mismatch(wanted: &StringMatch, said: Option<String>) -> String {
    let said = said.map_or("is missing".to_owned(), |value| format!("is {value:?}"));
    match wanted {
        StringMatch::Exact(text) => format!("{said}, not {text:?}"),
        StringMatch::Regex(pattern) => format!("{said} and does not match {pattern}"),
        StringMatch::Present => "is missing".into(),
        StringMatch::Absent => format!("{said} and must not be there"),
    }
}

fn holds_in_query(name: &str, rule: &Rule, query: Option<&str>) -> bool {
    let mut values = pairs(query).filter(|(n, _)| same(n, name)).map(|(_, value)| value);
    match rule {
        Rule::Exact(text) => values.any(|v| decoded(v).eq(text.iter().copied())),
        Rule::Regex(expression) => values.any(|v| matches_decoded(expression, v)),
        Rule::Present => values.next().is_some(),
        Rule::Absent => values.next().is_none(),
    }
}

/// Names and values of a query, still escaped.
fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn same(escaped: &str, name: &str) -> bool {
    escaped == name || (is_escaped(escaped) && decoded(escaped).eq(name.bytes()))
}

fn is_escaped(text: &str) -> bool {
    memchr::memchr2(b'%', b'+', text.as_bytes()).is_some()
}

/// The bytes that a part of a query stands for: escapes resolved, `+` a blank. An escape that is none stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        let digit = |offset: usize| bytes.get(at + offset).and_then(|b| char::from(*b).to_digit(16));
        let (byte, length) = match byte {
            b'+' => (b' ', 1),
            b'%' => match (digit(1), digit(2)) {
                (Some(high), Some(low)) => (u8::try_from(high * 16 + low).unwrap_or(b'%'), 3),
                _ => (b'%', 1),
            },
            other => (other, 1),
        };
        at += length;
        Some(byte)
    })
}

fn matches_decoded(expression: &Regex, value: &str) -> bool {
    thread_local! {
        /// Kept from request to request, so that a look-up allocates nothing.
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    if !is_escaped(value) {
        return expression.is_match(value.as_bytes());
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        scratch.extend(decoded(value));
        expression.is_match(scratch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FieldName;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn holds(spec: &Match, head: &RequestHead) -> bool {
        let conditions = Conditions::compile(spec).unwrap();
        let holds = conditions.hold(head, CLIENT);
        assert_eq!(holds, conditions.why_not(spec, head, CLIENT).is_none(), "explain must say the same");
        holds
    }

    fn query(name: &str, value: StringMatch, query: &str) -> bool {
        let spec = Match { query: vec![(name.into(), value)], ..Match::default() };
        holds(&spec, &RequestHead::sample(Method::GET, "a.test", &format!("/{query}")))
    }

    #[test]
    fn a_method_is_one_of_those_named() {
        let spec = Match { methods: vec![Method::GET, Method::PUT], ..Match::default() };
        assert!(holds(&spec, &RequestHead::sample(Method::PUT, "a", "/")));
        assert!(!holds(&spec, &RequestHead::sample(Method::HEAD, "a", "/")));
    }

    #[test]
    fn one_header_value_that_matches_is_enough() {
        let with = |rule| Match { headers: vec![(FieldName::parse("x-v").unwrap(), rule)], ..Match::default() };
        let mut head = RequestHead::sample(Method::GET, "a", "/");
        assert!(holds(&with(StringMatch::Absent), &head) && !holds(&with(StringMatch::Present), &head));
        head.fields.push(b"X-V", b"1");
        head.fields.push(b"x-v", b"22");
        assert!(holds(&with(StringMatch::Exact("22".into())), &head));
        assert!(!holds(&with(StringMatch::Exact("2".into())), &head));
        assert!(holds(&with(StringMatch::Regex("2+".into())), &head));
        assert!(!holds(&with(StringMatch::Regex("3".into())), &head));
    }

    #[test]
    fn query_names_and_values_are_compared_after_decoding() {
        let exact = |text: &str| StringMatch::Exact(text.into());
        assert!(query("a b", exact("c&d"), "?x=1&a+b=c%26d"));
        assert!(query("a b", exact("c&d"), "?%61%20b=c%26d"));
        assert!(query("a", exact(""), "?a") && query("a", exact(""), "?a="));
        assert!(query("a", exact("50%"), "?a=50%"));
        assert!(!query("a", exact("b"), "?a=bb") && !query("a", exact("b"), "") && !query("a", exact("b"), "?aa=b"));
        assert!(query("a", StringMatch::Regex("x y".into()), "?a=x%20y"));
        assert!(!query("a", StringMatch::Regex("x".into()), "?a=xy"));
        assert!(query("a", StringMatch::Absent, "?b") && !query("a", StringMatch::Present, "?b"));
    }

    #[test]
    fn a_source_is_compared_by_its_ipv4_address() {
        let spec = Match { sources: vec!["192.0.2.0/24".parse().unwrap()], ..Match::default() };
        let conditions = Conditions::compile(&spec).unwrap();
        let head = RequestHead::sample(Method::GET, "a", "/");
        assert!(conditions.hold(&head, "::ffff:192.0.2.7".parse().unwrap()));
        assert!(!conditions.hold(&head, "198.51.100.1".parse().unwrap()));
    }

    #[test]
    fn implication_is_only_claimed_where_it_is_certain() {
        let methods = |list: &[Method]| Match { methods: list.to_vec(), ..Match::default() };
        assert!(Conditions::imply(&methods(&[Method::GET]), &Match::default()));
        assert!(Conditions::imply(&methods(&[Method::GET]), &methods(&[Method::GET, Method::PUT])));
        assert!(!Conditions::imply(&Match::default(), &methods(&[Method::GET])));
        let net = |n: &str| Match { sources: vec![n.parse().unwrap()], ..Match::default() };
        assert!(Conditions::imply(&net("10.1.0.0/16"), &net("10.0.0.0/8")));
        assert!(!Conditions::imply(&net("10.0.0.0/8"), &net("10.1.0.0/16")));
    }
}
