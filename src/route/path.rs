//! Which routes of one host does a path reach, in the order of precedence?
//!
//! Exact paths in a map, expressions in a list, prefixes in a tree of segments. A look-up walks the path once, whatever the
//! number of routes, and allocates nothing; only the expressions of the host itself are tried one by one.

use crate::filter::rewrite::canonical;
use crate::model::{PathMatch, ValueError};
use hashbrown::HashMap;
use regex::bytes::Regex;
use std::cmp::{Ordering, Reverse};

/// A compiled [`PathMatch`].
#[derive(Clone, Debug)]
pub(super) enum PathRule {
    /// The whole path.
    Exact(Box<str>),
    /// Whole segments, without the trailing slash; `/` is empty.
    Prefix(Box<str>),
    /// The whole path.
    Regex { source: Box<str>, expression: Box<Regex> },
}

impl PathRule {
    pub(super) fn compile(spec: &PathMatch) -> Result<Self, ValueError> {
        let literal = |path: &str| {
            let hint =
                "a path starts with / and holds no blank, no `?` and no escaped slash; escape other characters: %20";
            canonical(path).ok_or_else(|| ValueError::new(format!("no request has the path {path:?}"), hint))
        };
        match spec {
            PathMatch::Exact(path) => Ok(Self::Exact(literal(path)?.into())),
            PathMatch::Prefix(path) => {
                let path = literal(path)?;
                Ok(Self::Prefix(path.strip_suffix('/').unwrap_or(&path).into()))
            }
            PathMatch::Regex(source) => {
                let expression = Box::new(crate::filter::whole(source)?);
                Ok(Self::Regex { source: source.as_str().into(), expression })
            }
        }
    }

    /// What comes first is less: exact, the longest expression, the longest prefix. Nearly every host has a prefix `/`, which
    /// would hide each expression that came behind it. The text settles the rest, so that routes of the same path stand
    /// together.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        let key = |rule: &Self| match rule {
            Self::Exact(_) => (0, Reverse(0)),
            Self::Regex { source, .. } => (1, Reverse(source.len())),
            Self::Prefix(prefix) => (2, Reverse(prefix.len())),
        };
        // Two exact paths, or two prefixes of one length, never match the same request; expressions may, and go by the other
        // criteria first.
        key(self).cmp(&key(other)).then_with(|| self.literal().cmp(other.literal()))
    }

    fn literal(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Regex { .. } => "",
        }
    }

    /// Whether it matches; what [`Tree`] is tested against, and what `explain` uses.
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => &**exact == path,
            Self::Prefix(prefix) => match path.strip_prefix(&**prefix) {
                Some(rest) => rest.starts_with('/') || (rest.is_empty() && !prefix.is_empty()),
                None => false,
            },
            Self::Regex { expression, .. } => expression.is_match(path.as_bytes()),
        }
    }

    /// As it is written in routes.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Exact(path) => format!("={path}"),
            Self::Prefix(prefix) => format!("{prefix}/"),
            Self::Regex { source, .. } => format!("~{source}"),
        }
    }
}

/// The index of the paths of one host that has many. Routes are numbers in the order of precedence.
#[derive(Debug, Default)]
pub(super) struct Tree {
    exact: HashMap<Box<str>, Vec<u32>>,
    /// The first node, where there is one, is the prefix `/`.
    nodes: Vec<Node>,
    regexes: Vec<u32>,
}

/// A prefix in whole segments.
#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, u32>,
    routes: Vec<u32>,
    parent: Option<u32>,
    /// Bytes of the prefix, its trailing slash excluded.
    length: u32,
}

impl Tree {
    /// The index of these.
    pub(super) fn of<'a>(rules: impl Iterator<Item = &'a PathRule>) -> Self {
        let mut tree = Self::default();
        for (number, rule) in (0u32..).zip(rules) {
            tree.add(rule, number);
        }
        tree.nodes.shrink_to_fit();
        tree
    }

    /// Adds a route; the ones that come first go first.
    fn add(&mut self, rule: &PathRule, route: u32) {
        match rule {
            PathRule::Exact(path) => self.exact.entry(path.clone()).or_default().push(route),
            PathRule::Prefix(prefix) => self.add_prefix(prefix, route),
            PathRule::Regex { .. } => self.regexes.push(route),
        }
    }

    fn add_prefix(&mut self, prefix: &str, route: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        let mut length = 0;
        for segment in prefix.split('/').skip(1).filter(|_| prefix != "/") {
            length += 1 + segment.len();
            at = self.child(at, segment, length);
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.routes.push(route);
        }
    }

    fn child(&mut self, parent: u32, segment: &str, length: usize) -> u32 {
        let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let Some(node) = self.nodes.get_mut(parent as usize) else { return parent };
        let child = *node.children.entry(segment.into()).or_insert(next);
        if child == next {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            self.nodes.push(Node { parent: Some(parent), length, ..Node::default() });
        }
        child
    }

    /// The first route that `fits`, and how many bytes of the path its prefix matched: all of them for an exact path, none for
    /// an expression. `matches` says whether a route's expression does.
    pub(super) fn find(
        &self,
        path: &str,
        fits: impl Fn(u32) -> bool,
        matches: impl Fn(u32) -> bool,
    ) -> Option<(u32, usize)> {
        if !self.exact.is_empty()
            && let Some(route) = self.exact.get(path).and_then(|routes| routes.iter().find(|r| fits(**r)))
        {
            return Some((*route, path.len()));
        }
        // A list that is empty for nearly every host: such a host pays nothing.
        if let Some(route) = self.regexes.iter().find(|r| matches(**r) && fits(**r)) {
            return Some((*route, 0));
        }
        let mut at = self.deepest(path);
        while let Some(node) = at {
            if let Some(route) = node.routes.iter().find(|r| fits(**r)) {
                return Some((*route, node.length as usize));
            }
            at = node.parent.and_then(|parent| self.nodes.get(parent as usize));
        }
        None
    }

    /// The longest known prefix of a path, in whole segments.
    fn deepest(&self, path: &str) -> Option<&Node> {
        let mut rest = path.strip_prefix('/');
        let mut node = self.nodes.first().filter(|_| rest.is_some())?;
        while let Some(text) = rest.filter(|_| !node.children.is_empty()) {
            let (segment, next) = match memchr::memchr(b'/', text.as_bytes()) {
                Some(slash) => (text.get(..slash)?, text.get(slash + 1..)),
                None => (text, None),
            };
            let Some(child) = node.children.get(segment).and_then(|c| self.nodes.get(*c as usize)) else { break };
            node = child;
            rest = next;
        }
        Some(node)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::route) fn rule(text: &str) -> PathRule {
        let spec = match text.as_bytes()[0] {
            b'=' => PathMatch::Exact(text[1..].into()),
            b'~' => PathMatch::Regex(text[1..].into()),
            _ => PathMatch::Prefix(text.into()),
        };
        PathRule::compile(&spec).unwrap()
    }

    fn find(rules: &[&str], path: &str) -> Option<(u32, usize)> {
        let mut rules: Vec<_> =
            rules.iter().enumerate().map(|(at, text)| (u32::try_from(at).unwrap(), rule(text))).collect();
        let by_number = |n: u32| rule_at(&rules, n).matches(path);
        let mut order: Vec<usize> = (0..rules.len()).collect();
        order.sort_by(|a, b| rules[*a].1.precedence(&rules[*b].1));
        let mut paths = Tree::default();
        for at in order {
            paths.add(&rules[at].1, rules[at].0);
        }
        let found = paths.find(path, |_| true, by_number);
        rules.clear();
        found
    }

    fn rule_at(rules: &[(u32, PathRule)], number: u32) -> &PathRule {
        &rules[number as usize].1
    }

    #[test]
    fn exact_then_expressions_then_the_longest_prefix() {
        let rules = ["/", "/api/", "/api/v1", "=/api/v1", "~^/x/[0-9]+$", "~/api/v1|/api/v3/.*"];
        assert_eq!(find(&rules, "/api/v1"), Some((3, 7)));
        assert_eq!(find(&rules, "/api/v1/"), Some((2, 7)));
        assert_eq!(find(&rules, "/api/v1/a/b"), Some((2, 7)));
        assert_eq!(find(&rules, "/api/v2"), Some((1, 4)));
        assert_eq!(find(&rules, "/api"), Some((1, 4)));
        assert_eq!(find(&rules, "/apix"), Some((0, 0)));
        assert_eq!(find(&rules, "/api/v3/a"), Some((5, 0)));
        assert_eq!(find(&rules, "/x/12"), Some((4, 0)));
        assert_eq!(find(&rules, "/x/12a"), Some((0, 0)));
        assert_eq!(find(&rules[1..], "/x/12a"), None);
        assert_eq!(find(&rules, "*"), None, "OPTIONS * has no path");
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        for (path, matches) in
            [("/a", true), ("/a/", true), ("/a/b", true), ("/ab", false), ("/", false), ("/A", false)]
        {
            assert_eq!(rule("/a").matches(path), matches, "{path}");
            assert_eq!(rule("/a/").matches(path), matches, "{path}");
            assert_eq!(find(&["/a/"], path).is_some(), matches, "{path}");
        }
        assert_eq!(find(&["/a//b"], "/a//b/c"), Some((0, 5)), "an empty segment is a segment");
        assert_eq!(find(&["/a//b"], "/a/b"), None);
    }

    #[test]
    fn an_expression_matches_the_whole_path() {
        assert!(rule("~/item/[0-9]+").matches("/item/7"));
        assert!(!rule("~/item/[0-9]+").matches("/x/item/7"));
        assert!(!rule("~^/item/[0-9]+$").matches("/item/7/"));
    }

    #[test]
    fn among_expressions_the_longest_comes_first() {
        assert_eq!(find(&["~/a.*", "~/ab.*"], "/abc"), Some((1, 0)));
        assert_eq!(find(&["~/ab.*", "~/a.*"], "/abc"), Some((0, 0)));
    }

    #[test]
    fn a_path_that_no_request_can_have_is_refused() {
        for wrong in ["a", "", "/a b", "/%2f", "/a?b", "/gr\u{fc}n"] {
            assert!(PathRule::compile(&PathMatch::Exact(wrong.into())).is_err(), "{wrong:?}");
            assert!(PathRule::compile(&PathMatch::Prefix(wrong.into())).is_err(), "{wrong:?}");
        }
        assert!(PathRule::compile(&PathMatch::Regex("(".into())).is_err());
        assert!(rule("=/%7eme/a%c3").matches("/~me/a%C3"), "literals get the form of requests");
    }
}
