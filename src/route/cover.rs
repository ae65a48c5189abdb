//! Which path rules certainly match every path that another one matches?
//!
//! Rules have keys, and those that may cover a rule are found by theirs: a hundred thousand rules are never compared with each
//! other. Expressions are judged by their text. Where in doubt, the answer is no.

use super::path::PathRule;

impl PathRule {
    /// Rules of one key match the same paths.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Exact(path) => exact(path),
            Self::Prefix(prefix) => format!("{prefix}/"),
            Self::Regex { source, .. } => open(source).map_or_else(|| format!("~{}", bare(source)), opened),
        }
    }

    /// Whether it matches whatever begins with a text, and thus may cover rules of other keys.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Regex { source, .. } if open(source).is_some())
    }

    /// Keys of the rules that cover this one, as far as they may come first: a shorter prefix covers a longer one, but never
    /// before it. `opens`: whether there are any open rules at all.
    pub(super) fn covered_by(&self, opens: bool) -> Vec<String> {
        let mut keys = vec![self.key()];
        let begins = match self {
            Self::Exact(_) => None,
            Self::Prefix(prefix) if prefix.is_empty() => Some("/"),
            Self::Prefix(prefix) => Some(&**prefix),
            Self::Regex { source, .. } => {
                let literal = literal(source);
                keys.extend((literal == bare(source)).then(|| exact(literal)));
                Some(literal)
            }
        };
        if let Some(begins) = begins.filter(|_| opens) {
            keys.push(opened(""));
            keys.extend(begins.match_indices('/').filter_map(|(at, _)| begins.get(..=at)).map(opened));
        }
        keys
    }
}

fn exact(path: &str) -> String {
    format!("={path}")
}

fn opened(begin: &str) -> String {
    format!("~{begin}.*")
}

/// An expression without the anchors that it has in any case.
fn bare(source: &str) -> &str {
    let source = source.strip_prefix('^').unwrap_or(source);
    source.strip_suffix('$').filter(|rest| !rest.ends_with('\\')).unwrap_or(source)
}

/// What every path begins with that an expression matches, where it matches all that begin so: `/item/` of `^/item/(.*)$`.
/// Only whole segments, or nothing.
fn open(source: &str) -> Option<&str> {
    let source = bare(source);
    let begin = source.strip_suffix("(.*)").or_else(|| source.strip_suffix(".*"))?;
    (literal_length(begin) == begin.len() && (begin.is_empty() || begin.ends_with('/'))).then_some(begin)
}

/// What every path begins with that an expression matches: `/item/` of `^/item/[0-9]+$`.
fn literal(source: &str) -> &str {
    let source = bare(source);
    let length = literal_length(source);
    // What follows may make the last character optional, and an alternative anywhere could begin with something else.
    let optional = source.get(length..).is_some_and(|rest| rest.starts_with(['?', '*', '{']));
    let length = if source.contains('|') { 0 } else { length.saturating_sub(usize::from(optional)) };
    source.get(..length).unwrap_or_default()
}

/// How many characters at the beginning stand for themselves.
fn literal_length(source: &str) -> usize {
    source.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_~%".contains(c))).unwrap_or(source.len())
}

#[cfg(test)]
mod tests {
    use super::super::path::tests::rule;

    fn covers(a: &str, b: &str) -> bool {
        rule(b).covered_by(rule(a).is_open()).contains(&rule(a).key())
    }

    #[test]
    fn one_rule_covers_another_only_where_that_is_certain() {
        for (a, b, expected) in [
            ("=/a", "=/a", true),
            ("/a", "/a/", true),
            ("/", "~^/x$", false),
            ("~a", "~a", true),
            ("~^/x[0-9]$", "~/x[0-9]", true),
            (r"~/x\$", "~/x", false),
            ("~.*", "~a", true),
            ("~.*", "~a|b", true),
            ("~^/.*$", "/", true),
            ("~^/(.*)$", "/a/b", true),
            ("~^/(.*)$", "~/.*", true),
            ("~^/item/.*$", "/item/", false),
            ("~^/item/.*$", "/item/x", true),
            ("~^/item/.*$", "/items", false),
            ("~^/item/.*$", "~/item/x", true),
            ("~^/item/.*$", "~/item/?", false),
            ("~^/item/.*$", "~/item/*", false),
            ("~^/item/.*$", "~/item/{0}s", false),
            ("~^/item/.*$", "~/item/x|/y", false),
            ("~^/item.*$", "/item", false),
            ("~^/it?em/.*$", "/item/x", false),
            ("~^/a|/.*$", "/", false),
            (r"~^/\.*$", "/", false),
            ("=/x", "~/x", true),
            ("=/x", "~/x?", false),
            ("=/x", "~/.", false),
        ] {
            assert_eq!(covers(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn what_covers_a_rule_matches_all_of_its_paths() {
        let rules = [
            "/",
            "/a",
            "/a/b",
            "=/",
            "=/a",
            "=/a/",
            "~.*",
            "~/.*",
            "~^/(.*)$",
            "~/a/.*",
            "~/a/(.*)",
            "~/a/?",
            "~/a/*",
            "~/a",
            "~/a.*",
            "~/a/b?",
            "~/a/b",
            "~/a|/b",
            "~/a/|/b/.*",
            "~/[ab]",
            "~/a{0}b",
            "~^/a/{0}.*$",
            "~/a+.*",
            r"~/a\.*",
            "~.*/",
        ];
        let paths = [
            "/", "/a", "/a/", "/a/b", "/a/b/c", "/a/c", "/b", "/b/", "/b/a", "/aa", "/ab", "/a.", "/a/.", "//", "/a//",
        ];
        for (a, b) in rules.iter().flat_map(|a| rules.iter().map(move |b| (a, b))) {
            let wrong = paths.iter().find(|p| rule(b).matches(p) && !rule(a).matches(p));
            assert!(!covers(a, b) || wrong.is_none(), "{a} does not cover {b}: {wrong:?}");
        }
    }
}
